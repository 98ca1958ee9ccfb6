//! Clients that keep their connection and never learn: what becomes of them, and what of it is this pod's.

use super::losses::known;
use super::*;

/// How many kept connections there are, from each moment on, in ms from the deletion.
fn kept(rehearsed: &Rehearsed, contender: usize) -> Vec<(i64, u64)> {
    let kept = rehearsed.report.pointer(&format!("/contenders/{contender}/rounds/0/kept")).and_then(Value::as_array);
    let kept = kept.unwrap_or_else(|| panic!("no kept connections in {rehearsed:#?}"));
    kept.iter().map(|kept| (kept["at_ms"].as_i64().expect("a time"), kept["connections"].as_u64().expect("a number"))).collect()
}

/// A GET is sent again, here or, once the endpoint has been removed, to another pod; a POST is lost. What another pod answers is none of
/// this one's: the server's own count says so.
#[test]
fn a_reset_connection_loses_posts_and_gets_go_elsewhere() {
    let words = ["--pinned", "20", "--rate", "1", "--connections", "0", "--upload-url", "/"];
    let (rehearsed, ledger) = known(&words, &["reused", "pinned"]);
    let gets = ledger.faults - ledger.faulty_posts;
    assert!(gets > 5 && ledger.faulty_posts > 5, "too few for a finding: {ledger:?}");
    assert_eq!(rehearsed.figure(0, "/tally/answered"), ledger.answered - 1, "{rehearsed:#?}");
    assert_eq!((rehearsed.lost(0), rehearsed.code), ([0, ledger.faulty_posts, 0, 0, 0], 1), "{rehearsed:#?}");
    let (retried, elsewhere) = (rehearsed.figure(0, "/tally/retried"), rehearsed.figure(0, "/tally/elsewhere"));
    assert_eq!(retried, gets, "{rehearsed:#?}");
    // Before the removal they came back, after it they did not.
    assert!(0 < elsewhere && elsewhere < retried, "{rehearsed:#?}");
    assert_eq!(rehearsed.cells("answered elsewhere"), [elsewhere.to_string()], "{}", rehearsed.table);
    // Never more than there are clients, and in the end all have gone.
    let kept = kept(&rehearsed, 0);
    assert!(kept.iter().all(|kept| kept.1 <= 20) && kept.last().is_some_and(|kept| kept.1 == 0), "{kept:?}");
}

/// Closed between two requests, a connection costs nothing: its client comes back for as long as the endpoint is there, then never.
#[test]
fn a_connection_that_is_closed_at_rest_loses_nothing() {
    let words = ["--pinned", "20", "--rate", "1", "--connections", "0", "--upload-url", "/"];
    let (rehearsed, ledger) = known(&words, &["closing", "pinned"]);
    assert_eq!((ledger.faults, rehearsed.lost(0), rehearsed.code), (0, [0; 5], 0), "{rehearsed:#?}");
    assert_eq!(rehearsed.figure(0, "/tally/answered"), ledger.answered - 1, "{rehearsed:#?}");
    assert_eq!((rehearsed.figure(0, "/tally/retried"), rehearsed.figure(0, "/tally/elsewhere")), (0, 0), "{rehearsed:#?}");
    let kept = kept(&rehearsed, 0);
    let opened = |from: i64, to: i64| kept.windows(2).any(|two| two[1].1 > two[0].1 && (from..to).contains(&two[1].0));
    assert!(opened(0, 1500), "nobody came back: {kept:?}");
    // A request under way at the last removal may take its time on a busy machine.
    assert!(!opened(1500, i64::MAX), "somebody came back: {kept:?}");
    assert_eq!(kept.last().map(|kept| kept.1), Some(0), "{kept:?}");
    let line = rehearsed.table.lines().find(|line| line.starts_with("  kept  ")).unwrap_or_default();
    assert!(line.ends_with(" 0"), "{}", rehearsed.table);
}

/// Such clients hold a stop that waits for them to the end of the time for waiting, and the end then finds requests in flight, as it would have
/// before. lameduck closes their connections.
#[test]
fn pinned_clients_hold_a_lameduck_that_waits_for_them() {
    let words = ["--pinned", "40", "--grace-period", "10s", "--load-for", "500ms", "--propagate", "300ms..600ms"];
    let contenders = "lameduck --delay 1s,sleep:3,lameduck --delay 1s --keep-alive wait";
    let rehearsed = rehearse(&[&words[..], &["--against", contenders]].concat());
    // The grace period without its margin and the stop timeout.
    let stopped = [0, 1, 2].map(|column| rehearsed.figure(column, "/stop/stop_signal_ms"));
    assert!(stopped[0] < 5000 && stopped[1] < 5000 && stopped[2] >= 5600, "{rehearsed:#?}");
    // A request may be on its way when its connection ends.
    assert!(rehearsed.lost_in_all(0) <= 2, "{rehearsed:#?}");
    for column in [1, 2] {
        let [refused, reset, cut, failed, timed_out] = rehearsed.lost(column);
        assert!(reset > 0, "{rehearsed:#?}");
        assert_eq!([refused, cut, failed, timed_out], [0; 4], "{rehearsed:#?}");
        let kept = kept(&rehearsed, column);
        let at = |moment: i64| kept.iter().rfind(|kept| kept.0 <= moment).map(|kept| kept.1);
        assert_eq!(at(stopped[column] as i64 - 100), Some(40), "{kept:?}");
        // On a busy machine one may not have seen the end when the round is over.
        assert!(kept.last().is_some_and(|kept| kept.1 <= 2), "{kept:?}");
    }
    assert_eq!(rehearsed.code, 1, "{rehearsed:#?}");
}
