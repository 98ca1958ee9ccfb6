//! `--chaos`: what it plays, and what may be judged by it.

use super::*;

#[test]
fn a_seed_plays_the_same_rounds_again_and_lameduck_stands_the_chaos() {
    let play = || {
        let words = ["--rounds", "6", "--chaos", "--seed", "9", "--load-for", "300ms", "--propagate", "300ms..1s"];
        rehearse(&[&words[..], &["--against", "lameduck --delay 1s", "--pinned", "0"]].concat())
    };
    let chaos = |rehearsed: &Rehearsed| -> Vec<(Option<u64>, String)> {
        let rounds = rehearsed.report.pointer("/contenders/0/rounds").and_then(Value::as_array).expect("rounds");
        rounds.iter().map(|round| (round["seed"].as_u64(), round["chaos"].to_string())).collect()
    };
    let (first, second) = (play(), play());
    assert_eq!(chaos(&first), chaos(&second));
    assert_eq!(chaos(&first).len(), 6, "{first:#?}");
    for rehearsed in [first, second] {
        assert_eq!((&rehearsed.report["verdict"]["lost"], rehearsed.code), (&Value::from(0), 0), "{rehearsed:#?}");
    }
}

/// One round of such chaos.
fn play(seed: &str, more: &[&str]) -> Rehearsed {
    rehearse(&[&["--against", "none", "--chaos", "--seed", seed, "--load-for", "300ms", "--propagate", "300ms"], more].concat())
}

/// A replay is the round itself, whether it can be judged or not.
#[test]
fn nothing_judged_is_neither_passed_nor_failed() {
    let place = Place::new();
    let html = place.path("report.html");
    for (seed, what, why) in [
        ("2", "the app crashes", "none: 1 round took the app itself away: shown, not judged\n"),
        ("6", "KILL after", "none: 1 round took the app itself away: shown, not judged\n"),
        ("9", "after the start", "none: 1 round ended before a client had come: shown, not judged\n"),
    ] {
        let rehearsed = play(seed, &["--max-lost", "1000", "--html", &html]);
        let chaos = &rehearsed.report["contenders"][0]["rounds"][0]["chaos"];
        assert!(chaos.as_str().is_some_and(|chaos| chaos.contains(what)), "another seed is needed: {rehearsed:#?}");
        let verdict = &rehearsed.report["verdict"];
        assert_eq!((rehearsed.code, &verdict["passed"], &verdict["judged"]), (2, &Value::Bool(false), &Value::from(0)));
        assert!(rehearsed.table.contains(why), "{}", rehearsed.table);
        assert!(rehearsed.table.contains("\nnothing judged of none: in each round no client came"), "{}", rehearsed.table);
        let page = fs::read_to_string(&html).expect("a page");
        assert!(
            page.contains("<p class=\"verdict nothing-judged\">nothing judged of none: ")
                && page.contains(": nothing judged</title>")
        );
    }
}

/// Seed 6's first two draws take the app away: by themselves they would say nothing.
#[test]
fn a_round_is_drawn_again_until_one_can_be_judged() {
    let rehearsed = play("6", &["--rounds", "2", "--max-lost", "1000"]);
    let rounds = rehearsed.report.pointer("/contenders/0/rounds").and_then(Value::as_array).expect("rounds");
    let excused: Vec<_> = rounds.iter().map(|round| round["excused"].as_bool()).collect();
    assert_eq!((rounds.len(), rehearsed.code), (2, 0), "{rehearsed:#?}");
    assert!(excused.contains(&Some(false)), "{rehearsed:#?}");
    assert_eq!(rehearsed.report["verdict"]["judged"], 1, "{rehearsed:#?}");
}
