//! Is the verdict true? Real servers of Debian, clients with every habit that is hard to see from outside, on loopback and 20 ms
//! away. What the kernel's tables are judged to mean, ten times a second, is held against what the clients know and what the
//! servers' own logs say.
//!
//! `cargo test --test verdict -- --nocapture` prints what was measured.

#[path = "../support/network.rs"]
mod network;
#[path = "../support/mod.rs"]
mod support;

mod client;
mod observer;
mod patterns;
mod protocols;
mod record;
mod rows;
mod servers;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lameduck::core::traffic::verdict::{Class, Verdict};

use client::{Client, Story, rest};
use network::Network;
use observer::{IDLE_AFTER, Look, Seen};
use patterns::{GONE, HTTP1, Pattern};
use protocols::PROTOCOLS;
use servers::{Kind, Served};

/// A look so near to an edge of a request is a race between clocks: not judged.
const EDGE: Duration = Duration::from_millis(60);
/// A verdict of busy is false when nothing was in flight for `idle-after` and this.
const LATE_BUSY: Duration = Duration::from_secs(1);
/// As in the rule: a client is gone when it acknowledged nothing for so long.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// What the server's log says of a request and what its client says may differ by so much.
const TOLERANCE: Duration = Duration::from_millis(1500);

#[test]
fn nginx_with_files_and_a_slow_backend() {
    compare(Kind::Nginx, &[HTTP1, GONE]);
}

#[test]
fn apache_prefork_with_mod_php() {
    compare(Kind::Apache, &[HTTP1]);
}

#[test]
fn gunicorn_sync() {
    compare(Kind::GunicornSync, &[HTTP1]);
}

#[test]
fn gunicorn_gthread() {
    compare(Kind::GunicornGthread, &[HTTP1]);
}

#[test]
fn puma() {
    compare(Kind::Puma, &[HTTP1]);
}

#[test]
fn node() {
    compare(Kind::Node, &[HTTP1, GONE]);
}

#[test]
fn tls_http2_and_websockets() {
    compare(Kind::Node, &[PROTOCOLS]);
}

#[test]
#[ignore = "writes tests/verdict/recorded.txt anew"]
fn record() {
    let possible: Vec<&str> = HTTP1.iter().filter(|pattern| pattern.impossible.is_none()).map(|pattern| pattern.name).collect();
    let gone: Vec<&str> = GONE.iter().map(|pattern| pattern.name).collect();
    let quiet: Vec<&str> = PROTOCOLS.iter().filter(|pattern| pattern.impossible.is_none()).map(|pattern| pattern.name).collect();
    // What a round trip changes, and what a server does that closes after each answer.
    let far = |name: &&str| ["kept alive", "Expect", "gaps", "slow", "rest"].iter().any(|word| name.contains(word));
    let far: Vec<&str> = possible.iter().copied().filter(far).collect();
    let closing = ["slow answer on a fresh connection", "slow reader of 4 MB", "HTTP/1.0, closed by the server"];
    let play = |kind: Kind, network: fn() -> Network, patterns: &'static [&'static [Pattern]]| {
        Run::play(kind, network(), suited(kind, patterns))
    };
    let text = record::text(&[
        (play(Kind::Nginx, Network::loopback, &[HTTP1, GONE]), &[possible.as_slice(), &gone].concat()),
        (play(Kind::Node, Network::far, &[HTTP1]), &far),
        (play(Kind::GunicornSync, Network::loopback, &[HTTP1]), &closing),
        (play(Kind::Node, Network::loopback, &[PROTOCOLS]), &quiet),
    ]);
    std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verdict/recorded.txt"), text).expect("recorded.txt");
}

/// Those that make sense on this server.
fn suited(kind: Kind, patterns: &'static [&'static [Pattern]]) -> impl Iterator<Item = &'static Pattern> {
    let all = patterns.iter().copied().flatten();
    all.filter(move |pattern| !pattern.not_on.contains(&kind) && (kind.keeps_alive() || !pattern.kept))
}

/// Plays all patterns on both networks at once, prints the table, and asserts that no request in flight was taken for idle.
fn compare(kind: Kind, patterns: &'static [&'static [Pattern]]) {
    let both = [Network::loopback as fn() -> Network, Network::far]
        .map(|network| thread::spawn(move || Run::play(kind, network(), suited(kind, patterns))));
    let runs = both.map(JoinHandle::join).map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
    let table = runs.iter().map(Run::table).collect::<String>();
    println!("\n{HEADING}{table}");
    for run in &runs {
        run.check();
    }
    // The harness can see errors: the obvious rule makes many, on the same rows.
    let naive: usize = runs.iter().flat_map(|run| run.counts.values()).map(|count| count.naive).sum();
    assert!(naive > 0, "not even the obvious rule was wrong: this test sees nothing\n{table}");
}

/// One server on one network.
struct Run {
    kind: Kind,
    network: &'static str,
    patterns: Vec<&'static Pattern>,
    looks: Vec<Look>,
    stories: Vec<Story>,
    served: Served,
    counts: BTreeMap<&'static str, Count>,
}

/// Looks at connections of one pattern.
#[derive(Clone, Debug, Default)]
struct Count {
    busy: usize,
    idle: usize,
    /// In flight by the truth, and the verdict would have let it be cut.
    false_idle: usize,
    /// In flight by the truth, and held only because it rested a short while.
    cooling: usize,
    false_busy: usize,
    /// Of these: held for twice a gap seen before, as it may go on.
    streaming: usize,
    /// By judges that began in the middle; of how many verdicts.
    late: (usize, usize),
    late_busy: usize,
    /// What the obvious rule would have cut.
    naive: usize,
}

const HEADING: &str = "\
| server | network | pattern | looks: busy | idle | false idle | by late judges | false busy | by late judges | busy held as cooling | false idle by the obvious rule |
|---|---|---|---|---|---|---|---|---|---|---|
";

impl Run {
    fn play(kind: Kind, network: Network, patterns: impl Iterator<Item = &'static Pattern>) -> Run {
        let network = Arc::new(network);
        let mut server = network.at_server(move || kind.start()).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let stop = Arc::new(AtomicBool::new(false));
        let watching = observer::watch(&network, stop.clone());
        let patterns: Vec<&'static Pattern> = patterns.collect();
        let mut clients = Vec::new();
        for pattern in &patterns {
            for copy in 0..pattern.copies {
                let (pattern, inner) = (*pattern, network.clone());
                clients.push(network.at_client(move || {
                    // The baseline first, and not all clients in step.
                    rest(200 + 137 * copy);
                    let mut client = Client::new(inner, pattern.name, kind.keeps_alive());
                    (pattern.play)(&mut client);
                    client.close();
                    client.stories
                }));
            }
        }
        let ends: Vec<_> = clients.into_iter().map(JoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        let looks = watching.join().expect("the observer");
        let stories: Vec<Story> =
            ends.into_iter().flat_map(|end| end.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect();
        let ids: Vec<usize> = stories.iter().flat_map(|story| &story.requests).map(|request| request.id).collect();
        let served = server.served(&ids);
        let mut run = Run { kind, network: network.name, patterns, looks, stories, served, counts: BTreeMap::new() };
        run.compare_clocks();
        for story in &run.stories {
            let count = run.count(story);
            run.counts.entry(story.pattern).or_default().add(&count);
        }
        run
    }

    /// The clients cannot lie: what they say of each request is what the server's log says.
    fn compare_clocks(&self) {
        for story in &self.stories {
            for request in &story.requests {
                let (begin, end) = self.served[&request.id];
                let end = end.expect("an end in the log");
                let what = format!("{} {}, {request:?}; the log: {begin:?} to {end:?}", self.name(), story.pattern);
                assert!(begin + EDGE >= request.begin, "begun before it was sent: {what}");
                assert!(end.saturating_sub(begin) + TOLERANCE >= request.thinks, "too short: {what}");
                match request.end {
                    Some(seen) => {
                        assert!(seen + EDGE >= request.begin + request.thinks, "answered before it was ready: {what}");
                        assert!(begin <= seen + EDGE && end <= seen + TOLERANCE, "ended later than its client saw: {what}");
                    }
                    None => assert!(story.vanished, "never answered: {what}"),
                }
            }
        }
    }

    fn name(&self) -> String {
        format!("{}, {}", self.kind.name(), self.network)
    }

    /// When something was in flight, by the client or by the log.
    fn truth(&self, story: &Story) -> Truth {
        let mut truth = Truth::default();
        for request in &story.requests {
            let (begin, end) = self.served[&request.id];
            let served = end.expect("an end in the log");
            truth.busy.push((request.begin.min(begin), request.end.unwrap_or(served).max(served)));
            if request.end.is_none() {
                // Its answer waits for a client that is gone: for as long as nobody can know that, either verdict will do.
                truth.open.push((served, served + STUCK_AFTER + IDLE_AFTER));
            }
        }
        // The server may take a moment to see that.
        truth.open.extend(story.closed.map(|closed| (closed, closed + LATE_BUSY)));
        truth
    }

    /// What the truth is at each look at this connection, and what was seen.
    fn judged<'a>(&'a self, story: &'a Story) -> impl Iterator<Item = (&'a Look, Option<bool>, Option<&'a Seen>)> {
        let truth = self.truth(story);
        self.looks.iter().map(move |look| {
            let seen = look.seen.iter().find(|seen| seen.peer_port == story.port);
            (look, truth.at(look), seen)
        })
    }

    fn count(&self, story: &Story) -> Count {
        let mut count = Count::default();
        let truth = self.truth(story);
        for (look, busy, seen) in self.judged(story) {
            match (busy, seen) {
                (None, _) | (Some(false), None) => {}
                (Some(true), seen) => {
                    count.busy += 1;
                    count.false_idle += usize::from(seen.is_none_or(|seen| gives_up(seen.verdict)));
                    count.cooling += usize::from(seen.is_some_and(|seen| seen.verdict == Verdict::Cooling));
                    let late = seen.iter().flat_map(|seen| &seen.late);
                    count.late.0 += late.clone().filter(|verdict| gives_up(**verdict)).count();
                    count.late.1 += late.count();
                    let stamps = seen.and_then(|seen| seen.row.info().copied());
                    count.naive += usize::from(stamps.is_none_or(|info| info.last_data_sent <= info.last_data_recv));
                }
                (Some(false), Some(seen)) => {
                    count.idle += 1;
                    let long = !truth.within(look.before.saturating_sub(IDLE_AFTER + LATE_BUSY), look.after);
                    if seen.verdict.class() == Class::Busy && long {
                        count.false_busy += 1;
                        count.streaming += usize::from(seen.verdict == Verdict::Streaming);
                    }
                    // Who begins to look in the middle must see ten silent seconds itself before it calls a client gone.
                    let waits = |verdict: Verdict| story.vanished && verdict == Verdict::Sending;
                    let held = |verdict: &&Verdict| {
                        verdict.class() == Class::Busy && **verdict != Verdict::Streaming && !waits(**verdict)
                    };
                    count.late_busy += if long { seen.late.iter().filter(held).count() } else { 0 };
                }
            }
        }
        count
    }

    fn table(&self) -> String {
        let mut table = String::new();
        for pattern in &self.patterns {
            let Count { busy, idle, false_idle, cooling, false_busy, late, late_busy, naive, .. } = &self.counts[pattern.name];
            let note = match (pattern.impossible, pattern.impossible_late) {
                (Some(why), _) => format!(" (impossible: {why})"),
                (None, Some(why)) => format!(" (impossible late: {why})"),
                (None, None) => String::new(),
            };
            let (server, network, name) = (self.kind.name(), self.network, pattern.name);
            let late = format!("{} of {}", late.0, late.1);
            writeln!(
                table,
                "| {server} | {network} | {name}{note} | {busy} | {idle} | {false_idle} | {late} | {false_busy} | {late_busy} | {cooling} | {naive} |"
            )
            .unwrap();
        }
        table
    }

    fn check(&self) {
        for pattern in self.patterns.iter().filter(|pattern| pattern.impossible.is_none()) {
            let count = &self.counts[pattern.name];
            let stories = || self.stories.iter().filter(|story| story.pattern == pattern.name);
            let rows = || stories().map(|story| self.rows(story)).collect::<Vec<_>>().join("\n");
            let name = format!("{}: {}", self.name(), pattern.name);
            let thinks = stories().flat_map(|story| &story.requests).map(|request| request.thinks).max().unwrap_or_default();
            assert!(count.busy > 0 || thinks < Duration::from_millis(500), "{name}: no look while it was in flight");
            assert_eq!(count.false_idle, 0, "{name}: taken for idle\n{}", rows());
            assert_eq!(count.false_busy, count.streaming, "{name}: taken for busy\n{}", rows());
            assert_eq!(count.late_busy, 0, "{name}: taken for busy by who began to look in the middle\n{}", rows());
            if pattern.impossible_late.is_none() {
                assert_eq!(count.late.0, 0, "{name}: taken for idle by who began to look in the middle\n{}", rows());
            }
        }
    }

    /// All that was seen of a connection.
    fn rows(&self, story: &Story) -> String {
        let start = story.requests.first().map_or(Duration::ZERO, |request| request.begin);
        let mut text = format!("{} truth verdict\n", rows::COLUMNS);
        for (look, busy, seen) in self.judged(story) {
            let truth = match busy {
                Some(true) => "busy",
                Some(false) => "idle",
                None => "edge",
            };
            match seen {
                Some(seen) if look.before >= start => {
                    let line = rows::line(start, look.before, &seen.row, seen.ping_pong);
                    writeln!(text, "{line} {truth} {:?} late {:?}", seen.verdict, seen.late).unwrap();
                }
                None if busy == Some(true) => {
                    writeln!(text, "{:>7} (no row) {truth}", (look.before - start).as_millis()).unwrap();
                }
                _ => {}
            }
        }
        text
    }
}

impl Count {
    fn add(&mut self, other: &Count) {
        self.busy += other.busy;
        self.idle += other.idle;
        self.false_idle += other.false_idle;
        self.cooling += other.cooling;
        self.false_busy += other.false_busy;
        self.streaming += other.streaming;
        self.late.0 += other.late.0;
        self.late.1 += other.late.1;
        self.late_busy += other.late_busy;
        self.naive += other.naive;
    }
}

/// With such a verdict nobody waits for it.
fn gives_up(verdict: Verdict) -> bool {
    matches!(verdict.class(), Class::Idle | Class::Gone)
}

type Span = (Duration, Duration);

#[derive(Default)]
struct Truth {
    busy: Vec<Span>,
    /// Neither.
    open: Vec<Span>,
}

impl Truth {
    /// None: not to be judged.
    fn at(&self, look: &Look) -> Option<bool> {
        let (from, to) = (look.before.saturating_sub(EDGE), look.after + EDGE);
        let overlaps = |(begin, end): &Span| *begin <= to && *end >= from;
        if self.busy.iter().any(|(begin, end)| *begin <= from && *end >= to) {
            return Some(true);
        }
        if self.busy.iter().chain(&self.open).any(overlaps) { None } else { Some(false) }
    }

    /// Whether anything was in flight between the two.
    fn within(&self, from: Duration, to: Duration) -> bool {
        self.busy.iter().chain(&self.open).any(|(begin, end)| *begin <= to && *end >= from)
    }
}

#[test]
fn looks_near_an_edge_are_not_judged() {
    let ms = Duration::from_millis;
    let truth = Truth { busy: vec![(ms(1000), ms(2000))], open: vec![(ms(5000), ms(6000))] };
    let at = |before, after| truth.at(&Look { before: ms(before), after: ms(after), seen: Vec::new() });
    assert_eq!(
        [at(900, 930), at(900, 950), at(1070, 1075), at(1950, 1955), at(2070, 2075)],
        [Some(false), None, Some(true), None, Some(false)]
    );
    assert_eq!([at(1500, 3000), at(4000, 7000), at(5500, 5501)], [None; 3]);
    assert!(truth.within(ms(1900), ms(3900)) && !truth.within(ms(2001), ms(4001)));
}
