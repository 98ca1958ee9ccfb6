//! Rows recorded from real servers (tests/verdict), played in simulated time: the verdicts that the truth allows, without a kernel.

use std::time::Duration;

use lameduck::core::time::Uptime;
use lameduck::core::traffic::row::Row;
use lameduck::core::traffic::tracker::Tracker;
use lameduck::core::traffic::verdict::{Class, Rules, Verdict};

#[path = "verdict/rows.rs"]
mod rows;

struct Connection<'a> {
    name: &'a str,
    rows: Vec<rows::Recorded<'a>>,
}

impl Connection<'_> {
    /// Told right only by who has watched it from its start.
    fn needs_its_start(&self) -> bool {
        self.name.ends_with("(watched from its start)")
    }

    fn is_in_flight(expected: &str) -> bool {
        expected.starts_with("busy") && !expected.contains("idle") || expected == "queued"
    }
}

fn recorded() -> Vec<Connection<'static>> {
    let mut connections = Vec::new();
    for section in include_str!("verdict/recorded.txt").split("\n# ").skip(1) {
        let mut lines = section.lines();
        let name = lines.next().expect("a name");
        assert_eq!(lines.next(), Some(format!("{} expected", rows::COLUMNS).as_str()), "{name}");
        let lines = lines.filter(|line| !line.is_empty());
        let rows = lines.map(|line| rows::parse(line).unwrap_or_else(|| panic!("{name}: not a row: {line:?}"))).collect();
        connections.push(Connection { name, rows });
    }
    connections
}

fn tracker() -> Tracker {
    Tracker::new(Rules { idle_after: Duration::from_secs(1), max_silence: None, ignored: Vec::new() })
}

fn look(tracker: &mut Tracker, entry: &rows::Recorded) -> Verdict {
    tracker.row(entry.at, &entry.row);
    tracker.end(entry.at);
    if !tracker.ties().is_empty() {
        tracker.ping_pong(entry.row.cookie, entry.ping_pong);
    }
    tracker.verdict(entry.row.cookie).expect("a verdict")
}

#[test]
fn watched_from_the_start() {
    for connection in recorded() {
        let mut tracker = tracker();
        tracker.end(Uptime::default());
        for entry in &connection.rows {
            let rows::Recorded { at, expected, .. } = entry;
            let verdict = look(&mut tracker, entry);
            let allowed = *expected == "-" || expected.split('/').any(|class| class == rows::class(verdict));
            assert!(allowed, "{}, at {} ms: {verdict:?}, not {expected}", connection.name, at.0.as_millis());
        }
    }
}

/// As after a stop signal: the first look comes at any moment. What is in flight is held from then on.
#[test]
fn watched_from_the_middle() {
    for connection in recorded().iter().filter(|connection| !connection.needs_its_start()) {
        for first in 0..connection.rows.len() {
            let mut tracker = tracker();
            for entry in &connection.rows[first..] {
                let rows::Recorded { at, expected, .. } = entry;
                let verdict = look(&mut tracker, entry);
                let held = !matches!(verdict.class(), Class::Idle | Class::Gone);
                let (name, begun) = (connection.name, connection.rows[first].at.0.as_millis());
                let what = format!("{name}, at {} ms, watched since {begun} ms: {verdict:?}, not {expected}", at.0.as_millis());
                assert!(held || !Connection::is_in_flight(expected), "{what}");
            }
        }
    }
}

/// What is easy to judge proves nothing.
#[test]
fn these_rows_are_hard() {
    let connections = recorded();
    let all = || connections.iter().flat_map(|connection| &connection.rows);
    let in_flight = || all().filter(|entry| Connection::is_in_flight(entry.expected));
    let answered = |row: &Row| row.info().is_some_and(|info| info.last_data_sent <= info.last_data_recv);
    let naive = in_flight().filter(|entry| answered(&entry.row)).count();
    assert!(naive * 3 > in_flight().count(), "the obvious rule is wrong on {naive} of {}", in_flight().count());
    let idle = all().filter(|entry| entry.expected == "idle").count();
    let enough = connections.len() >= 25 && in_flight().count() >= 100 && idle >= 60;
    assert!(enough, "{} connections, {} times in flight, {idle} times idle", connections.len(), in_flight().count());
}
