//! Writes `recorded.txt`: rows as they came, thinned out, each with the verdict that the truth allows.

use std::fmt::Write;

use lameduck::core::traffic::verdict::{Class, Verdict};

use crate::client::Story;
use crate::observer::Seen;
use crate::{Run, rows};

const HEAD: &str = "\
Rows of the kernel's tables as they came, ten looks a second, thinned out: `cargo test --test verdict -- --ignored` writes them anew.
The last column is the verdict that the truth allows; - is too near to an edge of a request to tell. tests/recorded.rs plays them.
";

/// Of these patterns the connection that was seen most.
pub fn text(runs: &[(Run, &[&str])]) -> String {
    let mut text = HEAD.to_owned();
    for (run, patterns) in runs {
        for name in *patterns {
            let pattern =
                run.patterns.iter().find(|pattern| pattern.name == *name).unwrap_or_else(|| panic!("no pattern {name:?}"));
            let stories = run.stories.iter().filter(|story| story.pattern == *name);
            let story = stories.max_by_key(|story| run.judged(story).filter(|(_, _, seen)| seen.is_some()).count());
            let late = if pattern.impossible_late.is_some() { " (watched from its start)" } else { "" };
            write!(text, "\n# {}: {name}{late}\n{} expected\n", run.name(), rows::COLUMNS).unwrap();
            text += &lines(run, story.expect("a connection"));
        }
    }
    text
}

fn lines(run: &Run, story: &Story) -> String {
    let mut looks = Vec::new();
    for (look, busy, seen) in run.judged(story) {
        let Some(seen) = seen else { continue };
        let (mut seen, verdict) = (seen.clone(), seen.verdict);
        // Of no account but in a tie.
        if seen.row.info().is_none_or(|info| info.last_data_sent != info.last_data_recv || info.bytes_sent == 0) {
            seen.ping_pong = None;
        }
        looks.push((look.before, seen, expected(busy, verdict)));
    }
    // A second after the baseline.
    let start = looks.first().expect("a row").0 - std::time::Duration::from_secs(1);
    let mut text = String::new();
    let mut alike = 0;
    for (index, (at, seen, expected)) in looks.iter().enumerate() {
        let differs =
            |other: usize| looks.get(other).is_none_or(|(_, there, allowed)| shape(there) != shape(seen) || allowed != expected);
        let moves = |other: usize| looks.get(other).is_none_or(|(_, there, _)| counters(there) != counters(seen));
        let sent = |there: usize| looks.get(there).and_then(|(_, seen, _)| Some(seen.row.info()?.bytes_sent));
        let answers = seen.row.wqueue == 0 && sent(index) != sent(index.wrapping_sub(1));
        let turn = answers || differs(index.wrapping_sub(1)) || differs(index + 1);
        alike = if turn { 0 } else { alike + 1 };
        // Both sides of each change; of what changes at every look the beginning.
        if turn || alike % 12 == 0 || (alike < 4 && (moves(index.wrapping_sub(1)) || moves(index + 1))) {
            writeln!(text, "{} {expected}", rows::line(start, *at, &seen.row, seen.ping_pong)).unwrap();
        }
    }
    text
}

fn expected(busy: Option<bool>, verdict: Verdict) -> &'static str {
    match (busy, verdict.class()) {
        (None, _) => "-",
        (Some(true), Class::Busy) => "busy",
        (Some(true), Class::Cooling) => "busy/cooling",
        (Some(true), Class::Queued) => "queued",
        (Some(false), Class::Idle) => "idle",
        (Some(false), Class::Gone) => "gone",
        (Some(false), Class::Queued) => "queued/idle",
        (Some(false), Class::Cooling) => "cooling/idle",
        (Some(false), Class::Busy) => "busy/cooling/idle",
        (Some(true), Class::Idle | Class::Gone) => panic!("wrong, not to be recorded"),
    }
}

fn shape(seen: &Seen) -> (&'static str, bool, bool, bool, bool) {
    let row = &seen.row;
    (rows::class(seen.verdict), row.rqueue > 0, row.wqueue > 0, row.inode > 0, seen.ping_pong == Some(false))
}

fn counters(seen: &Seen) -> Option<(u64, u64, u32)> {
    seen.row.info().map(|info| (info.bytes_sent, info.bytes_received, info.bare_acks))
}
