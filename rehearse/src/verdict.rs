//! What was seen → what is said: the figures of a round. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::load::Record;
use crate::load::client::Outcome;
use crate::load::pinned::Turn;
use crate::load::schedule::Kind;
use crate::report::{BIN_MS, Bin, Client, Event, Kept, Lost, Millis, Phase, PhaseName, Round, Stop, Tally, What};

/// A client whose requests were sent so late, but for one in a hundred, did not keep up.
const LATE_MS: f64 = 50.0;

/// A server that ends in order has closed its listener so long after the stop signal.
const ACCEPTS_ON_MS: Millis = 1000;

/// A round as it was seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub seed: u64,
    pub chaos: Option<String>,
    pub excused: bool,
    /// When the load began, from the deletion on.
    pub load_began_ms: f64,
    pub records: Vec<Record>,
    pub kept: Vec<Turn>,
    pub events: Vec<Event>,
    pub lameduck: bool,
    /// What happened at the moment zero, if it was not a deletion.
    pub zero: Option<String>,
    pub notes: Vec<String>,
}

pub fn judge(seen: Seen) -> Round {
    let Seen { seed, chaos, excused, load_began_ms, records, kept, mut events, lameduck, zero, mut notes } = seen;
    let at = |moment: Duration| (load_began_ms + moment.as_secs_f64() * 1e3).round() as Millis;
    let sent: Vec<&Record> = records.iter().filter(|record| record.outcome != Outcome::Unsent).collect();

    let mut tally = Tally::default();
    let mut lost_before_stop = 0;
    for record in &sent {
        count(record.outcome, &mut tally.answered, &mut tally.lost);
        tally.retried += u64::from(record.retried);
        tally.elsewhere += u64::from(record.outcome == Outcome::Elsewhere);
        lost_before_stop += u64::from(is_lost(record.outcome) && at(record.ended) < 0);
    }
    if let Some(last) = sent.iter().map(|record| at(record.ended)).max() {
        events.push(Event { at_ms: last, what: What::LastEnded, detail: String::new() });
    }
    events.sort_by_key(|event| event.at_ms);

    let client = client(&records);
    if !client.kept_up {
        notes.push(format!(
            "the client did not keep up: one request in a hundred was sent {:.0} ms late or later, {} not at all; latencies and \
             time-outs may be its own, not the server's",
            client.late_p99_ms, client.unsent
        ));
    }
    let unmarked = sent.iter().filter(|record| record.unmarked).count();
    if unmarked > 0 {
        notes.push(format!(
            "{unmarked} answers had neither a length nor chunks: their end was the connection's, and whether that was all of them \
             nobody can tell"
        ));
    }
    if lost_before_stop > 0 {
        let zero = zero.as_deref().unwrap_or("the pod was deleted");
        notes.push(format!("{lost_before_stop} were lost before {zero}: this is no matter of stopping"));
    }
    if events.iter().any(|event| event.what == What::Exited && event.at_ms < 0) {
        notes.push("PID 1 ended before it got a stop signal".to_owned());
    }
    let mut stop = stop(&events, lameduck);
    if let Some(why) = ignored(&events, &stop, |stopped| !excused && accepts_on(&sent, at, stopped)) {
        let killed = if stop.killed { "was killed" } else { "lameduck killed it" };
        notes.push(format!("the app ignored the stop signal, and {killed}: {why}"));
        stop = Stop { ignored: true, early_ms: None, ..stop };
    } else if stop.killed && !excused {
        notes.push("the grace period ran out: KILL".to_owned());
    }
    Round {
        seed,
        chaos,
        excused,
        tally,
        lost_before_stop,
        phases: phases(&events, lameduck, stop.ignored),
        stop,
        client,
        kept: counts(kept, at),
        bins: bins(&sent, at),
        pods: Vec::new(),
        losses: Vec::new(),
        events,
        notes,
    }
}

/// Adds one request to its count.
pub fn count(outcome: Outcome, answered: &mut u64, lost: &mut Lost) {
    *match outcome {
        Outcome::Answered => answered,
        Outcome::Refused => &mut lost.refused,
        Outcome::Reset => &mut lost.reset,
        Outcome::Cut => &mut lost.cut,
        Outcome::Failed => &mut lost.failed,
        Outcome::TimedOut => &mut lost.timed_out,
        // Another pod's answer is not this one's.
        Outcome::Elsewhere | Outcome::Unsent => return,
    } += 1;
}

pub fn is_lost(outcome: Outcome) -> bool {
    !matches!(outcome, Outcome::Answered | Outcome::Elsewhere | Outcome::Unsent)
}

/// How many kept connections there were from each moment on.
fn counts(mut turns: Vec<Turn>, at: impl Fn(Duration) -> Millis) -> Vec<Kept> {
    turns.sort_by_key(|turn| turn.at);
    let mut all: Vec<Kept> = Vec::new();
    let mut connections = 0u64;
    for turn in turns {
        connections = if turn.opened { connections + 1 } else { connections.saturating_sub(1) };
        let kept = Kept { at_ms: at(turn.at), connections };
        match all.last_mut() {
            Some(last) if last.at_ms == kept.at_ms => *last = kept,
            _ => all.push(kept),
        }
    }
    all
}

fn client(records: &[Record]) -> Client {
    let mut late: Vec<f64> = records.iter().map(|record| millis(record.sent.saturating_sub(record.scheduled))).collect();
    late.sort_by(f64::total_cmp);
    let unsent = records.iter().filter(|record| record.outcome == Outcome::Unsent).count() as u64;
    let late_p99_ms = percentile(&late, 99).unwrap_or(0.0);
    Client {
        sent: records.len() as u64 - unsent,
        unsent,
        late_p99_ms,
        late_max_ms: late.last().copied().unwrap_or(0.0),
        kept_up: unsent == 0 && late_p99_ms <= LATE_MS,
    }
}

/// The first of `what`.
fn first(events: &[Event], what: What) -> Option<Millis> {
    events.iter().find(|event| event.what == what).map(|event| event.at_ms)
}

fn stop(events: &[Event], lameduck: bool) -> Stop {
    let first = |what| first(events, what);
    let exited = events.iter().find(|event| event.what == What::Exited);
    let stop_signal_ms = if lameduck { first(What::AppStopSignal) } else { first(What::StopSignal) };
    // The later of the two: nobody sends any more, nothing is in flight.
    let quiet_ms = first(What::LastLearnt).max(first(What::LastEnded));
    let between = |from: Option<Millis>, to: Option<Millis>| u64::try_from(to? - from?).ok();
    Stop {
        took_ms: exited.map(|event| event.at_ms).filter(|at| *at >= 0),
        code: exited.and_then(|event| event.detail.parse().ok()),
        killed: first(What::Killed).is_some(),
        ignored: false,
        stop_signal_ms,
        quiet_ms,
        wasted_ms: between(quiet_ms, stop_signal_ms),
        early_ms: between(stop_signal_ms, quiet_ms).filter(|early| *early > 0),
    }
}

/// Why an app that had to be killed took no notice of its stop signal, if that is so.
fn ignored(events: &[Event], stop: &Stop, accepts_on: impl Fn(Millis) -> bool) -> Option<String> {
    if !stop.killed && first(events, What::AppKilled).is_none() {
        return None;
    }
    let dropped = events.iter().find(|event| event.what == What::Ignored).map(|event| event.detail.clone());
    dropped.or_else(|| accepts_on(stop.stop_signal_ms?).then(|| "it went on accepting connections".to_owned()))
}

/// Whether new connections were answered a second after the stop signal and later, and none was refused.
fn accepts_on(sent: &[&Record], at: impl Fn(Duration) -> Millis, stopped: Millis) -> bool {
    let later = || {
        sent.iter().filter(|record| !matches!(record.kind, Some(Kind::Pool) | None) && at(record.sent) >= stopped + ACCEPTS_ON_MS)
    };
    later().any(|record| record.outcome == Outcome::Answered) && later().all(|record| record.outcome != Outcome::Refused)
}

/// The server's life from the load's beginning on, without a gap.
fn phases(events: &[Event], lameduck: bool, ignored: bool) -> Vec<Phase> {
    let mut turns = Vec::new();
    for event in events {
        let name = match event.what {
            What::LoadBegan => PhaseName::Serving,
            What::PreStop => PhaseName::PreStop,
            What::StopSignal if lameduck => PhaseName::LameDuck,
            // It serves on.
            What::StopSignal | What::AppStopSignal if ignored => continue,
            What::StopSignal | What::AppStopSignal | What::Killed | What::AppKilled => PhaseName::Stopping,
            What::Exited => PhaseName::Gone,
            _ => continue,
        };
        turns.push((name, event.at_ms));
    }
    let end = events.iter().map(|event| event.at_ms).max().unwrap_or(0);
    let ends = turns.iter().skip(1).map(|(_, at)| *at).chain([end]);
    let mut phases: Vec<Phase> = Vec::new();
    for (&(name, from_ms), to_ms) in turns.iter().zip(ends) {
        match phases.last_mut() {
            Some(last) if last.name == name => last.to_ms = to_ms,
            _ if to_ms > from_ms => phases.push(Phase { name, from_ms, to_ms }),
            _ => {}
        }
    }
    phases
}

fn bins(sent: &[&Record], at: impl Fn(Duration) -> Millis) -> Vec<Bin> {
    let mut bins: BTreeMap<Millis, (Bin, Vec<f64>)> = BTreeMap::new();
    for record in sent.iter().filter(|record| record.outcome != Outcome::Elsewhere) {
        let at_ms = at(record.ended).div_euclid(BIN_MS) * BIN_MS;
        let (bin, took) = bins.entry(at_ms).or_insert_with(|| (Bin { at_ms, ..Bin::default() }, Vec::new()));
        count(record.outcome, &mut bin.answered, &mut bin.lost);
        if record.outcome == Outcome::Answered && matches!(record.kind, Some(Kind::Fresh | Kind::Pool)) {
            took.push(millis(record.ended - record.scheduled));
        }
    }
    let figures = |(mut bin, mut took): (Bin, Vec<f64>)| {
        took.sort_by(f64::total_cmp);
        bin.p50_ms = percentile(&took, 50);
        bin.p99_ms = percentile(&took, 99);
        bin.max_ms = took.last().copied();
        bin
    };
    bins.into_values().map(figures).collect()
}

/// By nearest rank, of what is sorted.
fn percentile(sorted: &[f64], percent: usize) -> Option<f64> {
    sorted.get((sorted.len() * percent).div_ceil(100).max(1) - 1).copied()
}

/// To the microsecond.
fn millis(length: Duration) -> f64 {
    length.as_micros() as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(scheduled: u64, ended: u64, outcome: Outcome) -> Record {
        Record {
            kind: Some(Kind::Fresh),
            scheduled: Duration::from_millis(scheduled),
            sent: Duration::from_millis(scheduled + 1),
            ended: Duration::from_millis(ended),
            outcome,
            retried: false,
            unmarked: false,
        }
    }

    fn events(list: &[(Millis, What)]) -> Vec<Event> {
        list.iter().map(|&(at_ms, what)| Event { at_ms, what, detail: "7".to_owned() }).collect()
    }

    /// The load began two seconds before the deletion.
    fn seen(records: Vec<Record>, list: &[(Millis, What)], lameduck: bool) -> Round {
        let mut events = events(list);
        events.push(Event { at_ms: -2000, what: What::LoadBegan, detail: String::new() });
        judge(Seen { load_began_ms: -2000.0, records, events, lameduck, ..Seen::default() })
    }

    #[test]
    fn each_kind_is_counted_where_it_belongs() {
        use Outcome::*;
        let outcomes = [Answered, Answered, Refused, Reset, Reset, Cut, Failed, TimedOut, Unsent];
        let mut records: Vec<Record> = outcomes.iter().map(|&outcome| record(100, 200, outcome)).collect();
        records[1].retried = true;
        records.push(record(2500, 2600, Cut));
        let round = seen(records, &[], false);
        assert_eq!(round.tally.answered, 2);
        assert_eq!(round.tally.lost, Lost { refused: 1, reset: 2, cut: 2, failed: 1, timed_out: 1 });
        assert_eq!((round.tally.retried, round.lost_before_stop), (1, 6));
        assert_eq!((round.client.sent, round.client.unsent, round.client.kept_up), (9, 1, false));
        assert_eq!(
            round.bins.iter().map(|bin| (bin.at_ms, bin.answered, bin.lost.total())).collect::<Vec<_>>(),
            [(-1800, 2, 6), (600, 0, 1)]
        );
    }

    #[test]
    fn what_another_pod_answered_is_no_success_of_this_one() {
        let mut records = vec![record(2100, 2200, Outcome::Elsewhere), record(2300, 2400, Outcome::Reset)];
        records[0].retried = true;
        let round = seen(records, &[], false);
        assert_eq!((round.tally.answered, round.tally.retried, round.tally.elsewhere), (0, 1, 1));
        assert_eq!((round.tally.lost.total(), round.client.sent), (1, 2));
        assert_eq!(round.bins.iter().map(|bin| (bin.at_ms, bin.answered, bin.lost.total())).collect::<Vec<_>>(), [(400, 0, 1)]);
        // It was this pod's until it broke.
        let last = seen(vec![record(2100, 2200, Outcome::Elsewhere)], &[], false).stop.quiet_ms;
        assert_eq!(last, Some(200));
    }

    #[test]
    fn kept_connections_are_counted_from_each_moment_on() {
        let turn = |at, opened| Turn { at: Duration::from_millis(at), opened };
        let turns =
            vec![turn(3000, false), turn(100, true), turn(200, true), turn(200, true), turn(2500, false), turn(3000, false)];
        let kept = judge(Seen { load_began_ms: -2000.0, kept: turns, ..Seen::default() }).kept;
        let counts: Vec<_> = kept.iter().map(|kept| (kept.at_ms, kept.connections)).collect();
        assert_eq!(counts, [(-1900, 1), (-1800, 3), (500, 2), (1000, 0)]);
    }

    #[test]
    fn waste_runs_from_the_last_use_to_the_stop_signal() {
        let wasted = |stopped, learnt, ended: u64| {
            let list = [(0, What::Deleted), (0, What::StopSignal), (stopped, What::AppStopSignal), (learnt, What::LastLearnt)];
            let stop = seen(vec![record(100, 2000 + ended, Outcome::Answered)], &list, true).stop;
            (stop.wasted_ms, stop.early_ms)
        };
        assert_eq!(wasted(5000, 3000, 2000), (Some(2000), None));
        assert_eq!(wasted(5000, 3000, 4500), (Some(500), None));
        assert_eq!(wasted(3000, 3000, 100), (Some(0), None));
        assert_eq!(wasted(1000, 3000, 100), (None, Some(2000)));
        // Whoever is no lameduck passes the stop signal on at once.
        let list = [(0, What::Deleted), (4000, What::StopSignal), (3000, What::LastLearnt)];
        assert_eq!(seen(vec![], &list, false).stop.wasted_ms, Some(1000));
    }

    #[test]
    fn an_app_that_takes_no_notice_was_not_told_too_early() {
        let list = [(0, What::Deleted), (0, What::StopSignal), (5000, What::LastLearnt), (30_000, What::Killed)];
        let all = [&list[..], &[(30_010, What::Exited)]].concat();
        let asked = |sent: u64, outcome| record(2000 + sent, 2000 + sent + 10, outcome);
        let judged = |records: Vec<Record>, list: &[(Millis, What)], lameduck| {
            let round = seen(records, list, lameduck);
            let word = round.notes.last().and_then(|note| note.split(": ").nth(1).map(str::to_owned)).unwrap_or_default();
            (round.stop.ignored, round.stop.early_ms, word)
        };
        // The kernel says so, whatever clients saw.
        let deaf = [&[(0, What::Ignored)], &all[..]].concat();
        assert_eq!(judged(vec![asked(100, Outcome::Refused)], &deaf, false), (true, None, "7".to_owned()));
        // Clients say so.
        let served = vec![asked(100, Outcome::Answered), asked(3000, Outcome::Answered), asked(4000, Outcome::Cut)];
        let accepting = "it went on accepting connections".to_owned();
        assert_eq!(judged(served.clone(), &all, false), (true, None, accepting.clone()));
        // It closed its listener, at once or later, and could not end.
        let refused = vec![asked(100, Outcome::Answered), asked(3000, Outcome::Refused)];
        assert_eq!(judged(refused, &all, false), (false, Some(5000), "KILL".to_owned()));
        let later = vec![asked(3000, Outcome::Answered), asked(4000, Outcome::Refused)];
        assert!(!judged(later, &all, false).0);
        assert!(!judged(vec![asked(100, Outcome::Answered)], &all, false).0);
        // Whoever was not killed has not ignored it.
        let ended = [&[(0, What::Ignored)], &list[..3], &[(4500, What::Exited)]].concat();
        assert_eq!(judged(served.clone(), &ended, false), (false, Some(5000), String::new()));
        // lameduck kills as well.
        let list = [(0, What::StopSignal), (0, What::Ignored), (5000, What::LastLearnt), (9000, What::AppStopSignal)];
        let list = [&list[..], &[(18_000, What::AppKilled), (18_010, What::Exited)]].concat();
        let round = seen(vec![], &list, true);
        assert_eq!((round.stop.ignored, round.stop.killed, round.stop.wasted_ms), (true, false, Some(4000)));
        assert_eq!(round.notes, ["the app ignored the stop signal, and lameduck killed it: 7"]);
        // It serves until then.
        let names: Vec<_> = seen(vec![], &deaf, false).phases.iter().map(|phase| (phase.name, phase.to_ms)).collect();
        assert_eq!(names, [(PhaseName::Serving, 30_000), (PhaseName::Stopping, 30_010)]);
    }

    #[test]
    fn phases_follow_each_other_without_a_gap() {
        let names = |list: &[(Millis, What)], lameduck| {
            let phases = seen(vec![], list, lameduck).phases;
            assert!(phases.windows(2).all(|two| two[0].to_ms == two[1].from_ms), "{phases:?}");
            phases.iter().map(|phase| (phase.name, phase.to_ms)).collect::<Vec<_>>()
        };
        use PhaseName::*;
        let list = [(0, What::StopSignal), (10, What::Exited), (3000, What::LastLearnt)];
        assert_eq!(names(&list, false), [(Serving, 0), (Stopping, 10), (Gone, 3000)]);
        let list = [(0, What::PreStop), (2000, What::StopSignal), (2010, What::Exited), (3000, What::LastLearnt)];
        assert_eq!(names(&list, false), [(Serving, 0), (PreStop, 2000), (Stopping, 2010), (Gone, 3000)]);
        let list = [(0, What::StopSignal), (900, What::LastLearnt), (4000, What::AppStopSignal), (4100, What::Exited)];
        assert_eq!(names(&list, true), [(Serving, 0), (LameDuck, 4000), (Stopping, 4100)]);
        let list = [(0, What::StopSignal), (4000, What::Killed), (4100, What::Exited)];
        assert_eq!(names(&list, false), [(Serving, 0), (Stopping, 4100)]);
    }

    #[test]
    fn a_late_client_says_so_and_an_early_one_is_silent() {
        let mut records: Vec<Record> = (0..1000).map(|n| record(n, n + 5, Outcome::Answered)).collect();
        assert!(seen(records.clone(), &[], false).notes.is_empty());
        for late in records.iter_mut().take(9) {
            late.sent += Duration::from_secs(1);
        }
        assert!(seen(records.clone(), &[], false).client.kept_up);
        for late in records.iter_mut().take(11) {
            late.sent += Duration::from_secs(1);
        }
        let round = seen(records, &[], false);
        assert!(!round.client.kept_up && round.notes[0].starts_with("the client did not keep up"), "{:?}", round.notes);
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 99), Some(99.0));
        assert_eq!(percentile(&[7.0], 50), Some(7.0));
        assert_eq!(percentile(&[], 99), None);
    }
}
