//! From verdicts to a sample: how much is in flight, whether new connections still come, and how each one has ended.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::keepalive::{Chosen, Closing, History};
use super::row::{Row, State};
use super::verdict::{self, Class, Connection, Fate, Rules, Verdict, millis};
use super::{KeptAlive, PortSample, Sample, Tally};
use crate::core::time::Uptime;

/// How many ends are remembered until the look is over.
const MOST_ENDED: usize = 65_536;

/// What is counted for one port.
#[derive(Clone, Copy, Debug, Default)]
struct Port {
    seen: PortSample,
    /// The length of the accept queue, by its listeners.
    backlog: usize,
    /// The number of connections that were not accepted yet, by their own rows.
    unaccepted: usize,
    /// How many of the backlog do not count: TCP probes, ignored peers and the like.
    excused: usize,
    /// A connection to it was cut.
    cut: bool,
}

/// A tie that only the kernel's ping-pong bit can break.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tie {
    /// The two ends, as `Row::ends` returns them.
    pub ends: u64,
    pub cookie: u64,
}

/// All connections, by their successive rows.
#[derive(Debug)]
pub struct Tracker {
    rules: Rules,
    connections: HashMap<u64, Connection>,
    /// The history of connections on which something has moved since the baseline.
    histories: HashMap<u64, History>,
    /// For connections that wait for an ACK: since when they wait for the same byte.
    unacked: HashMap<u64, (u32, u32)>,
    begun: bool,
    /// The app has its stop signal: a connection that ends without an answer from now on was cut.
    stopping: bool,
    /// When the last confirmed arrival came. Open connections that have sent nothing are added while they are open.
    last_arrival: Option<Uptime>,
    tally: Tally,
    /// Kept-alive connections are being closed.
    closing: Option<Closing>,
    /// Connections of any protocol count as kept-alive ones.
    closes_any: bool,
    /// Counts of the present look.
    flushing: usize,
    given_up: usize,
    kept: KeptAlive,
    chosen: Vec<Chosen>,
    /// The connections that the last complete look has chosen to be closed.
    to_close: Vec<Chosen>,
    /// A list, because there are few ports: it is searched faster than a hash table.
    ports: Vec<Port>,
    ties: Vec<Tie>,
    /// Connections that have ended since the last look was over. The kernel writes a piece of its table before it is read, so a look that
    /// pauses may still show them.
    ended: HashSet<u64>,
    last_chance: bool,
    /// Whether one of the ties of the look before was at its last chance.
    was_last_chance: bool,
}

impl Tracker {
    pub fn new(rules: Rules) -> Tracker {
        Tracker {
            rules,
            connections: HashMap::new(),
            histories: HashMap::new(),
            unacked: HashMap::new(),
            begun: false,
            stopping: false,
            last_arrival: None,
            tally: Tally::default(),
            closing: None,
            closes_any: false,
            flushing: 0,
            given_up: 0,
            kept: KeptAlive::default(),
            chosen: Vec::new(),
            to_close: Vec::new(),
            ports: Vec::new(),
            ties: Vec::new(),
            ended: HashSet::new(),
            last_chance: false,
            was_last_chance: false,
        }
    }

    /// The app has been sent its stop signal. Connections that have left before ended well.
    pub fn stopping(&mut self) {
        self.stopping = true;
        for known in self.connections.values_mut().filter(|known| known.left) {
            self.tally.finished += u64::from(known.worked);
            // It is kept so that its end is recognised, and it is counted already.
            known.worked = false;
            known.verdict = Verdict::Gone;
        }
    }

    /// Every process of the app has ended: nothing more will be written.
    pub fn app_ended(&mut self) {
        self.connections.values_mut().for_each(Connection::app_ended);
    }

    /// Forgets the rows so far: the present look begins again.
    pub fn begin_look_again(&mut self) {
        self.forget_counts();
        self.ties();
    }

    fn forget_counts(&mut self) {
        (self.flushing, self.given_up, self.kept) = (0, 0, KeptAlive::default());
        self.chosen.clear();
        for port in &mut self.ports {
            let seen = PortSample { port: port.seen.port, accepted: port.seen.accepted, ..PortSample::default() };
            *port = Port { seen, cut: port.cut, ..Port::default() };
        }
    }

    /// Another source names the connections from now on: the next look is a new baseline.
    pub fn begin_again(&mut self) {
        self.begin_look_again();
        self.connections.clear();
        self.histories.clear();
        self.unacked.clear();
        self.begun = false;
    }

    /// Takes one row of a look, of the app's ports only. The first look sets the baseline.
    pub fn row(&mut self, now: Uptime, row: &Row) {
        if row.state == State::Listen {
            self.port(row.port).backlog += row.rqueue as usize;
            return;
        }
        if self.ended.contains(&row.cookie) {
            return;
        }
        let ignored = self.is_ignored(row);
        if row.inode == 0 && row.state != State::Closing && (ignored || row.is_probe()) {
            self.port(row.port).excused += 1;
        }
        if ignored {
            return;
        }
        if row.state == State::Gone {
            // It waits for the client's FIN when the watching begins: its end is not the end of a new one.
            if !self.begun
                && let Some(info) = row.info()
            {
                self.connections.entry(row.cookie).or_insert_with(|| Connection::new(now, row.port, true)).close(info);
            }
            return;
        }
        let known = self.judge(now, row);
        self.flushing += usize::from(known.verdict == Verdict::Flushing);
        self.given_up += usize::from(known.is_given_up());
        self.count_kept(now, row, &known);
        let port = self.port(row.port);
        match known.verdict.class() {
            Class::Busy => port.seen.busy += 1,
            Class::Cooling => port.seen.cooling += 1,
            Class::Idle => port.seen.idle += 1,
            Class::Queued => port.unaccepted += 1,
            Class::Gone => {}
        }
    }

    fn port(&mut self, number: u16) -> &mut Port {
        let known = self.ports.iter().position(|port| port.seen.port == number);
        let index = known.unwrap_or_else(|| {
            self.ports.push(Port { seen: PortSample { port: number, ..PortSample::default() }, ..Port::default() });
            self.ports.len() - 1
        });
        &mut self.ports[index]
    }

    /// Ends the look and returns its sample. Every row has been shown.
    pub fn end(&mut self, now: Uptime) -> Sample {
        let (flushing, given_up, kept) = (self.flushing, self.given_up, self.kept);
        let closed_at = self.closing.as_ref().and_then(Closing::closed_at);
        let kept = KeptAlive { closed_at, ..kept };
        let mut sample = Sample { watched: true, flushing, given_up, kept, ..Sample::default() };
        for port in &mut self.ports {
            // Both say the same. A listener's own count is missing where only connections are shown, and the other way round.
            port.seen.queued = port.backlog.saturating_sub(port.excused).max(port.unaccepted);
            sample.busy += port.seen.busy;
            sample.cooling += port.seen.cooling;
            sample.idle += port.seen.idle;
            sample.queued += port.seen.queued;
            sample.ports.push(port.seen);
        }
        sample.ports.sort_unstable_by_key(|port| port.port);
        let mut silent = None;
        for known in self.connections.values_mut() {
            // It is kept, so that its end is not taken for the end of a new one.
            known.left = !std::mem::take(&mut known.seen);
            if !(known.old || known.counted || known.left) {
                silent = silent.max(Some(known.first_seen(now)));
            }
        }
        self.ended.clear();
        self.begun = true;
        sample.last_arrival = self.last_arrival.max(silent);
        sample.accepted = self.tally.accepted;
        self.to_close = std::mem::take(&mut self.chosen);
        self.forget_counts();
        if let Some(closing) = &mut self.closing {
            closing.look(now);
        }
        sample
    }

    fn count_kept(&mut self, now: Uptime, row: &Row, known: &Connection) {
        let Some(history) = self.histories.get(&row.cookie) else { return };
        if !history.is_kept(self.closes_any) || row.state != State::Established {
            return;
        }
        self.kept.open += 1;
        let is_recent = row.info().is_some_and(|info| Duration::from_millis(info.rest().into()) < self.rules.idle_after);
        match known.verdict.class() {
            Class::Busy if is_recent => self.kept.busy += 1,
            Class::Cooling => self.kept.cooling += 1,
            Class::Busy | Class::Idle | Class::Queued | Class::Gone => {}
        }
        if let Some(closing) = &mut self.closing {
            self.chosen.extend(closing.choose(now, row, known.verdict, known.unresolved, history));
        }
    }

    /// From the next look on, connections are chosen to be closed. `finishes`: the app finishes a request in flight even after it has read
    /// end-of-file.
    pub fn begin_closing(&mut self, now: Uptime, finishes: bool) {
        self.closing.get_or_insert_with(|| Closing::begin(now, finishes, self.closes_any, self.rules.idle_after));
    }

    /// Connections of any protocol count as kept-alive ones, not only those with messages as long as HTTP's.
    pub fn close_any(&mut self) {
        self.closes_any = true;
    }

    pub fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// Returns the connections of the last look that are to be closed now, and does not choose them again.
    pub fn take_chosen(&mut self) -> Vec<Chosen> {
        for chosen in &self.to_close {
            if let Some(history) = self.histories.get_mut(&chosen.cookie) {
                history.take(true);
            }
        }
        std::mem::take(&mut self.to_close)
    }

    /// lameduck has closed this connection.
    pub fn closed(&mut self, now: Uptime, chosen: &Chosen) {
        if let Some(closing) = &mut self.closing {
            closing.closed(now, chosen.peer);
        }
    }

    /// This connection cannot be closed.
    pub fn refused(&mut self, chosen: &Chosen) {
        if let Some(history) = self.histories.get_mut(&chosen.cookie) {
            history.refuse();
        }
    }

    /// This connection was not closed, and may be chosen again.
    pub fn spare(&mut self, chosen: &Chosen) {
        if let Some(history) = self.histories.get_mut(&chosen.cookie) {
            history.take(false);
        }
    }

    /// Whether one of the ties has been held long enough, so that the bit must decide now.
    pub fn is_last_chance(&self) -> bool {
        self.last_chance
    }

    /// The same, for the ties that `ties` returned last.
    pub fn was_last_chance(&self) -> bool {
        self.was_last_chance
    }

    /// The ties of the last look that are still to be broken.
    pub fn ties(&mut self) -> Vec<Tie> {
        self.was_last_chance = std::mem::take(&mut self.last_chance);
        std::mem::take(&mut self.ties)
    }

    /// Takes the kernel's ping-pong bit of a connection with a tie. None: it could not be read.
    pub fn ping_pong(&mut self, cookie: u64, bit: Option<bool>) {
        if let Some(known) = self.connections.get_mut(&cookie) {
            known.ping_pong(bit);
        }
    }

    /// A connection has ended that is not counted here. The present look may be taken in slices: its other rows may be older than this end, and
    /// still show it.
    pub fn forget(&mut self, cookie: u64) {
        if self.ended.len() < MOST_ENDED {
            self.ended.insert(cookie);
        }
    }

    /// A connection has ended: takes its final counters.
    pub fn ended(&mut self, now: Uptime, row: &Row) {
        if self.is_ignored(row) {
            return;
        }
        self.forget(row.cookie);
        let info = row.info().copied().unwrap_or_default();
        // The FIN counts as a received byte: a connection with no more than that was a probe.
        let asked = info.bytes_received > 1;
        self.unacked.remove(&row.cookie);
        let by_us = self.histories.remove(&row.cookie).is_some_and(|history| history.is_taken());
        match self.connections.remove(&row.cookie) {
            Some(mut known) => {
                if asked && !(known.counted || known.old) {
                    self.arrive(row, known.first_seen(now));
                    known.worked = true;
                }
                self.close(row.port, by_us, known.close(&info));
            }
            None if asked => {
                self.arrive(row, now);
                let mut unseen = Connection::new(now, row.port, false);
                unseen.worked = true;
                self.close(row.port, false, unseen.close(&info));
            }
            None => {}
        }
    }

    /// Up to `most` new connections came and ended without being seen.
    pub fn missed(&mut self, now: Uptime, most: u64) {
        if most > 0 {
            self.tally.uncertain += most;
            self.last_arrival = self.last_arrival.max(Some(now));
        }
    }

    pub fn accepted(&self) -> u64 {
        self.tally.accepted
    }

    /// The verdict of the last look. None: there is no such connection.
    pub fn verdict(&self, cookie: u64) -> Option<Verdict> {
        self.connections.get(&cookie).map(|known| known.verdict)
    }

    /// How all connections have ended; those that are still in flight count as cut.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        for known in self.connections.values() {
            match known.fate(self.stopping) {
                Fate::Cut => tally.cut += 1,
                Fate::Finished => tally.finished += 1,
                Fate::Nothing => {}
            }
        }
        tally
    }

    /// The ports on which connections were cut.
    pub fn cut_on(&self) -> Vec<u16> {
        let open = self.connections.values().filter(|known| known.fate(self.stopping) == Fate::Cut).map(|known| known.port);
        let mut ports: Vec<u16> = self.ports.iter().filter(|port| port.cut).map(|port| port.seen.port).chain(open).collect();
        ports.sort_unstable();
        ports.dedup();
        ports
    }

    fn is_ignored(&self, row: &Row) -> bool {
        self.rules.ignored.iter().any(|network| network.contains(row.peer))
    }

    fn arrive(&mut self, row: &Row, at: Uptime) {
        self.tally.accepted += 1;
        self.port(row.port).seen.accepted += 1;
        if let Some(closing) = &mut self.closing {
            closing.arrived(row.peer);
        }
        self.last_arrival = self.last_arrival.max(Some(at));
    }

    /// Counts the end of a connection. `by_us`: lameduck has closed it.
    fn close(&mut self, port: u16, by_us: bool, fate: Fate) {
        match fate {
            Fate::Cut if self.stopping || by_us => {
                self.tally.cut += 1;
                self.port(port).cut = true;
            }
            // Before the stop signal, an end without an answer was caused by the client or by the app itself.
            Fate::Cut | Fate::Finished => self.tally.finished += 1,
            Fate::Nothing => {}
        }
    }

    fn judge(&mut self, now: Uptime, row: &Row) -> Connection {
        let baseline = !self.begun;
        let stuck = self.is_stuck(now, row);
        let known = self.connections.entry(row.cookie).or_insert_with(|| Connection::new(now, row.port, baseline));
        let arrived = row.has_sent() && !(known.counted || known.old);
        let first = known.first_seen(now);
        let before = known.last_look();
        let verdict = known.judge(now, row, stuck, &self.rules);
        known.seen = true;
        // An incomplete look may have missed it.
        known.left = false;
        if arrived {
            (known.counted, known.worked) = (true, true);
        }
        known.worked |= row.has_sent() && matches!(verdict.class(), Class::Busy | Class::Cooling | Class::Queued);
        let known = *known;
        self.remember(now, row, before, &known);
        if known.unresolved {
            self.last_chance |= row.info().is_some_and(verdict::is_tie_held);
            self.ties.push(Tie { ends: row.ends(), cookie: row.cookie });
        }
        if arrived {
            self.arrive(row, first);
        }
        known
    }

    /// Keeps the history of a connection on which something moves.
    fn remember(&mut self, now: Uptime, row: &Row, before: Option<(u32, u32, bool)>, known: &Connection) {
        let (Some(before), Some(info)) = (before, row.info()) else { return };
        let moved = (info.bytes_received as u32, info.bytes_sent as u32) != (before.0, before.1);
        let history = match self.histories.entry(row.cookie) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) if moved => entry.insert(History::begin(before)),
            Entry::Vacant(_) => return,
        };
        history.look(now, row, known.verdict, known.unresolved);
    }

    /// Bytes were sent, and no ACK came for ten seconds: the other end is gone. A client that only reads slowly acknowledges window probes.
    /// One lost packet after a long silence proves nothing: six retransmissions take longer than that.
    fn is_stuck(&mut self, now: Uptime, row: &Row) -> bool {
        const SIX: u8 = 6;
        let Some(info) = row.info() else { return row.wqueue > 0 && row.retransmits >= SIX };
        let floor = if row.state == State::Closing { 1 } else { 0 };
        if row.wqueue <= floor {
            self.unacked.remove(&row.cookie);
            return false;
        }
        let acked = info.bytes_acked as u32;
        let since = match self.unacked.get(&row.cookie) {
            Some((since, before)) if *before == acked => *since,
            _ => {
                self.unacked.insert(row.cookie, (millis(now), acked));
                millis(now)
            }
        };
        let age = Duration::from_millis(millis(now).wrapping_sub(since).into());
        let silent = Duration::from_millis(info.last_ack_recv.into()) >= verdict::STUCK_AFTER;
        silent && (row.retransmits >= SIX || age >= verdict::STUCK_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Info, Seen};
    use super::*;
    use crate::core::traffic::network::Network;

    fn rules() -> Rules {
        Rules { idle_after: Duration::from_secs(1), max_silence: None, ignored: vec![] }
    }

    fn at(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    fn row(info: Info) -> Row {
        Row {
            cookie: 1,
            state: State::Established,
            local: "10.0.0.2".parse().unwrap(),
            port: 80,
            peer: "10.0.0.1".parse().unwrap(),
            peer_port: 4711,
            rqueue: 0,
            wqueue: 0,
            inode: 7,
            cgroup: None,
            retransmits: 0,
            full: false,
            seen: Seen::Info(info),
        }
    }

    /// last_data_sent, last_data_recv, last_ack_recv, bytes_sent, bytes_received
    fn info(sent: u32, recv: u32, ack: u32, bytes_sent: u64, bytes_received: u64) -> Info {
        Info {
            last_data_sent: sent,
            last_data_recv: recv,
            last_ack_recv: ack,
            bytes_sent,
            bytes_received,
            bytes_acked: bytes_sent,
            ..Info::default()
        }
    }

    fn verdict(tracker: &mut Tracker, now: u64, row: &Row) -> Verdict {
        look(tracker, now, std::slice::from_ref(row));
        tracker.verdict(row.cookie).unwrap()
    }

    fn look(tracker: &mut Tracker, now: u64, rows: &[Row]) -> Sample {
        rows.iter().for_each(|row| tracker.row(at(now), row));
        tracker.end(at(now))
    }

    fn once(row: &Row) -> Verdict {
        verdict(&mut Tracker::new(rules()), 0, row)
    }

    #[test]
    fn one_look_is_enough_for_these() {
        let plain = row(info(50, 50, 50, 0, 100));
        assert_eq!(once(&plain), Verdict::Asked, "first request in the tick of the handshake");
        assert_eq!(once(&row(info(50, 50, 50, 0, 0))), Verdict::NeverAsked);
        assert_eq!(once(&row(info(900, 500, 500, 10, 100))), Verdict::Asked);
        assert_eq!(once(&row(info(500, 900, 500, 10, 100))), Verdict::Cooling);
        assert_eq!(once(&row(info(1500, 1600, 1500, 10, 100))), Verdict::Answered);
        assert_eq!(once(&Row { inode: 0, ..plain.clone() }), Verdict::Queued);
        assert_eq!(once(&Row { rqueue: 5, ..row(info(5000, 9000, 0, 10, 100)) }), Verdict::Unread);
        assert_eq!(once(&Row { wqueue: 5, ..row(info(500, 900, 20, 10, 100)) }), Verdict::Sending);
        assert_eq!(once(&Row { state: State::Closing, wqueue: 5, ..plain.clone() }), Verdict::Flushing);
        assert_eq!(once(&Row { state: State::Closing, wqueue: 1, ..plain.clone() }), Verdict::Gone);
        let half = Row { state: State::CloseWait, rqueue: 1, ..row(info(500, 900, 20, 10, 100)) };
        assert_eq!(once(&half), Verdict::HalfClosed);
        let old = Row { state: State::CloseWait, rqueue: 1, ..row(info(10_500, 10_500, 20, 10, 100)) };
        assert_eq!(once(&old), Verdict::Abandoned);
    }

    #[test]
    fn an_end_is_not_undone_by_a_piece_that_was_written_before() {
        let mut tracker = Tracker::new(rules());
        let answered = row(info(10, 20, 10, 100, 50));
        look(&mut tracker, 0, std::slice::from_ref(&answered));
        tracker.ended(at(100), &answered);
        let sample = look(&mut tracker, 1000, std::slice::from_ref(&answered));
        assert_eq!((sample.accepted, sample.in_flight(), sample.idle), (0, 0, 0));
        assert_eq!((tracker.tally().finished, tracker.tally().accepted), (1, 0));
        // Where cookies are not the kernel's, another connection of the same two ends may follow.
        assert_eq!(look(&mut tracker, 2000, std::slice::from_ref(&answered)).accepted, 1);
    }

    #[test]
    fn ties() {
        let tie = |age| row(info(age, age, age, 10, 100));
        assert_eq!(once(&tie(500)), Verdict::Cooling, "unresolved");
        let mut tracker = Tracker::new(rules());
        assert_eq!(
            verdict(&mut tracker, 0, &tie(9000)),
            Verdict::Cooling,
            "older than the first look: the kernel is asked first"
        );
        assert!(tracker.is_last_chance());
        tracker.ping_pong(1, None);
        assert_eq!(verdict(&mut tracker, 100, &tie(9100)), Verdict::Answered, "it does not say: held long enough");
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &tie(9000));
        tracker.ping_pong(1, Some(false));
        assert_eq!(verdict(&mut tracker, 100, &tie(9100)), Verdict::TieAsked, "asked nine seconds ago");
        assert_eq!(once(&row(info(500, 500, 490, 10, 100))), Verdict::Cooling, "acknowledged later: answered, cooling");
        assert_eq!(once(&row(info(1500, 1500, 1490, 10, 100))), Verdict::Answered);
        let far = row(Info { min_rtt: Some(25_000), ..info(1500, 1500, 1500, 10, 100) });
        assert_eq!(once(&far), Verdict::Answered);
        // The bit is remembered for as long as no byte moves.
        let mut tracker = Tracker::new(rules());
        assert_eq!(verdict(&mut tracker, 0, &tie(100)), Verdict::Cooling);
        tracker.ping_pong(1, Some(true));
        assert_eq!(verdict(&mut tracker, 100, &tie(200)), Verdict::Cooling);
        tracker.ping_pong(1, Some(false));
        assert_eq!(verdict(&mut tracker, 4000, &tie(4100)), Verdict::TieAsked);
        assert_eq!(verdict(&mut tracker, 5000, &row(info(10, 900, 5, 20, 100))), Verdict::Cooling, "and answered in the end");
        // A bare ACK inside the tie: an input without an answer.
        let acks = |age, bare_acks| row(Info { bare_acks, ..info(age, age, age, 10, 100) });
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &acks(20, 3));
        assert_eq!(verdict(&mut tracker, 100, &acks(120, 4)), Verdict::TieAsked);
        // A bare ACK much later answers a TCP keep-alive.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &acks(20, 3));
        tracker.ping_pong(1, Some(true));
        assert_eq!(verdict(&mut tracker, 2000, &acks(2020, 3)), Verdict::Answered);
        assert_eq!(verdict(&mut tracker, 15_000, &acks(15_020, 4)), Verdict::Answered);
        // What was found out about one tie says nothing about the next, even if that was not seen as one at first.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &Row { ..row(info(100, 100, 90, 10, 100)) });
        verdict(&mut tracker, 100, &Row { rqueue: 50, ..row(info(5, 5, 5, 20, 150)) });
        assert_eq!(verdict(&mut tracker, 200, &row(info(105, 105, 105, 20, 150))), Verdict::Cooling);
        assert_eq!(tracker.ties().len(), 1);
        // None since before the tie: all input was acknowledged by output.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &row(Info { bare_acks: 3, ..info(900, 800, 800, 5, 50) }));
        assert_eq!(verdict(&mut tracker, 200, &acks(100, 3)), Verdict::Cooling);
        assert_eq!(verdict(&mut tracker, 1200, &acks(1100, 3)), Verdict::Answered);
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[far, Row { cookie: 2, ..tie(5) }]);
        assert_eq!(tracker.ties().iter().map(|tie| tie.cookie).collect::<Vec<_>>(), [2], "only the unresolved one");
    }

    #[test]
    fn an_interim_answer_is_no_answer() {
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[]);
        assert_eq!(verdict(&mut tracker, 100, &row(info(20, 30, 10, 25, 200))), Verdict::Continue);
        assert_eq!(verdict(&mut tracker, 3000, &row(info(2920, 2930, 2910, 25, 200))), Verdict::Continue);
        assert_eq!(verdict(&mut tracker, 6000, &row(info(2000, 3000, 1990, 200, 900))), Verdict::Answered);
        // It was already waiting for the body when watching began: node on loopback.
        assert_eq!(once(&row(info(1496, 1504, 1496, 25, 96))), Verdict::Continue);
        // After an answer that was a tie, itself a tie: nginx on loopback.
        let mut after_tie = Tracker::new(rules());
        assert_eq!(verdict(&mut after_tie, 599, &row(info(600, 600, 600, 241, 51))), Verdict::Cooling);
        let interim = |age| row(info(age, age, age, 266, 147));
        assert_eq!(verdict(&mut after_tie, 699, &interim(96)), Verdict::Continue);
        assert_eq!(verdict(&mut after_tie, 1700, &interim(1096)), Verdict::Continue);
        assert_eq!(verdict(&mut after_tie, 2601, &row(info(100, 500, 100, 419, 151))), Verdict::Cooling);
        // A WebSocket's answer of 25 bytes to a frame of 29.
        let mut chat = Tracker::new(rules());
        verdict(&mut chat, 5000, &row(info(900, 1000, 890, 300, 400)));
        assert_eq!(verdict(&mut chat, 7000, &row(info(1500, 1510, 1490, 325, 429))), Verdict::Answered);
        // Later on a kept-alive connection.
        assert_eq!(verdict(&mut tracker, 7000, &row(info(10, 20, 5, 225, 1100))), Verdict::Continue);
    }

    #[test]
    fn a_stream_is_held_for_twice_its_gap() {
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 10_000, &row(info(500, 600, 490, 100, 50)));
        verdict(&mut tracker, 10_600, &row(info(100, 1200, 90, 200, 50)));
        // The gap was 1 s.
        assert_eq!(verdict(&mut tracker, 12_400, &row(info(1900, 3000, 1890, 200, 50))), Verdict::Streaming);
        assert_eq!(verdict(&mut tracker, 12_600, &row(info(2100, 3200, 2090, 200, 50))), Verdict::Answered);
    }

    #[test]
    fn max_silence_gives_up_on_the_unanswered() {
        let mut tracker = Tracker::new(Rules { max_silence: Some(Duration::from_secs(5)), ..rules() });
        assert_eq!(verdict(&mut tracker, 0, &row(info(9000, 4900, 4900, 10, 100))), Verdict::Asked);
        assert_eq!(verdict(&mut tracker, 200, &row(info(9200, 5100, 5100, 10, 100))), Verdict::Silent);
    }

    #[test]
    fn a_server_that_pushes_was_cut_even_if_it_pushed_once_more_at_the_end() {
        let mut tracker = Tracker::new(Rules { max_silence: Some(Duration::from_secs(5)), ..rules() });
        verdict(&mut tracker, 10_000, &row(info(500, 600, 490, 100, 50)));
        verdict(&mut tracker, 11_000, &row(info(100, 1600, 90, 200, 50)));
        assert_eq!(verdict(&mut tracker, 15_000, &row(info(100, 5600, 90, 600, 50))), Verdict::Silent);
        tracker.stopping();
        tracker.ended(at(15_100), &Row { state: State::Closing, ..row(info(50, 5700, 40, 700, 51)) });
        assert_eq!(tracker.tally(), Tally { cut: 1, ..Tally::default() });
    }

    #[test]
    fn a_vanished_client_is_stuck_after_ten_seconds_a_slow_one_never() {
        let sending = |ack, acked| Row { wqueue: 500, ..row(Info { bytes_acked: acked, ..info(100, 60_000, ack, 900, 100) }) };
        let mut tracker = Tracker::new(rules());
        // Pushed after a minute's rest: the last ACK is old, the data is not.
        assert_eq!(verdict(&mut tracker, 0, &sending(60_000, 400)), Verdict::Sending);
        assert_eq!(verdict(&mut tracker, 9_900, &sending(69_900, 400)), Verdict::Sending);
        assert_eq!(verdict(&mut tracker, 10_000, &sending(70_000, 400)), Verdict::Stuck);
        assert_eq!(tracker.tally().cut, 1);
        let mut tracker = Tracker::new(rules());
        for second in 0..30 {
            // Window probes are acknowledged, no byte gets through.
            assert_eq!(verdict(&mut tracker, second * 1000, &sending(900, 400)), Verdict::Sending);
        }
        let lost = Row { retransmits: 6, ..sending(11_000, 400) };
        assert_eq!(once(&lost), Verdict::Stuck, "was lost long before the stop signal");
        let unlucky = Row { retransmits: 1, ..sending(11_000, 400) };
        assert_eq!(once(&unlucky), Verdict::Sending, "one packet was lost after a long silence");
    }

    #[test]
    fn arrivals() {
        let mut tracker = Tracker::new(rules());
        let old = row(info(5000, 6000, 5000, 10, 100));
        assert_eq!(look(&mut tracker, 0, std::slice::from_ref(&old)).last_arrival, None, "the baseline is not new");
        // A silent one counts while it lives...
        let silent = Row { cookie: 2, ..row(info(1, 1, 1, 0, 0)) };
        assert_eq!(look(&mut tracker, 100, &[old.clone(), silent.clone()]).last_arrival, Some(at(100)));
        // ...and not any more once it ended having sent nothing but its FIN.
        tracker.ended(at(150), &Row { seen: Seen::Info(info(1, 1, 1, 0, 1)), ..silent.clone() });
        let sample = look(&mut tracker, 200, std::slice::from_ref(&old));
        assert_eq!((sample.last_arrival, sample.accepted), (None, 0));
        // Lived between two looks.
        tracker.ended(at(250), &Row { cookie: 3, seen: Seen::Info(info(1, 1, 1, 90, 60)), ..silent.clone() });
        let sample = look(&mut tracker, 300, std::slice::from_ref(&old));
        assert_eq!((sample.last_arrival, sample.accepted), (Some(at(250)), 1));
        tracker.missed(at(350), 40);
        assert_eq!(look(&mut tracker, 400, &[old]).last_arrival, Some(at(350)));
        assert_eq!(tracker.tally(), Tally { accepted: 1, uncertain: 40, finished: 1, cut: 0 });
    }

    #[test]
    fn what_left_without_a_word_was_delivered_and_is_not_new_when_its_end_comes() {
        let mut tracker = Tracker::new(rules());
        let asked = row(info(10, 5, 5, 0, 100));
        look(&mut tracker, 0, std::slice::from_ref(&asked));
        tracker.stopping();
        let flushing = Row { state: State::Closing, wqueue: 500, inode: 0, ..row(info(5, 100, 5, 600, 100)) };
        assert_eq!(look(&mut tracker, 100, std::slice::from_ref(&flushing)).flushing, 1);
        // FIN_WAIT2: no row of interest any more.
        assert_eq!(look(&mut tracker, 200, &[]).in_flight(), 0);
        assert_eq!(tracker.tally(), Tally { accepted: 0, uncertain: 0, finished: 1, cut: 0 });
        tracker.ended(at(5000), &Row { seen: Seen::Info(info(5000, 5000, 5000, 600, 101)), ..asked });
        assert_eq!(tracker.tally(), Tally { accepted: 0, uncertain: 0, finished: 1, cut: 0 });
        assert_eq!(look(&mut tracker, 5100, &[]).last_arrival, None);
    }

    #[test]
    fn a_row_that_is_older_than_its_end_is_no_arrival() {
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[]);
        tracker.forget(1);
        let sample = look(&mut tracker, 50, &[row(info(10, 5, 5, 0, 100))]);
        assert_eq!((sample.in_flight(), sample.accepted, sample.last_arrival), (0, 0, None));
        let sample = look(&mut tracker, 100, &[row(info(10, 5, 5, 0, 100))]);
        assert_eq!((sample.in_flight(), sample.accepted), (1, 1), "it is remembered for one look");
    }

    #[test]
    fn what_ends_unanswered_after_the_app_was_told_was_cut() {
        let mut tracker = Tracker::new(rules());
        let busy = row(info(10, 5, 5, 0, 100));
        look(&mut tracker, 0, &[busy.clone(), Row { cookie: 2, ..busy.clone() }, Row { cookie: 3, ..busy.clone() }]);
        tracker.stopping();
        tracker.ended(at(50), &busy);
        tracker.ended(at(50), &Row { cookie: 2, seen: Seen::Info(info(1, 5, 1, 500, 101)), ..busy.clone() });
        tracker.ended(at(50), &Row { cookie: 3, seen: Seen::Info(Info { bytes_acked: 200, ..info(1, 5, 1, 500, 101) }), ..busy });
        assert_eq!(tracker.tally(), Tally { accepted: 0, uncertain: 0, finished: 1, cut: 2 });
    }

    #[test]
    fn where_it_was_cut() {
        let busy = row(info(10, 5, 5, 0, 100));
        let on = |cookie: u64, port: u16| Row { cookie, port, ..busy.clone() };
        let answered = Row { seen: Seen::Info(info(1, 5, 1, 500, 100)), ..on(3, 83) };
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[on(1, 81), on(2, 82), on(3, 83), on(4, 84), on(5, 85)]);
        look(&mut tracker, 50, &[on(1, 81), on(2, 82), answered.clone(), on(4, 84), on(5, 85)]);
        tracker.stopping();
        // One whose end is heard of, one whose end is not, three that are answered in time.
        tracker.ended(at(60), &on(1, 81));
        look(&mut tracker, 100, &[answered, Row { seen: Seen::Info(info(1, 55, 1, 500, 100)), ..on(4, 84) }, on(5, 85)]);
        tracker.ended(at(110), &Row { seen: Seen::Info(Info { bytes_acked: 500, ..info(1, 55, 1, 500, 101) }), ..on(5, 85) });
        assert_eq!((tracker.cut_on(), tracker.tally().cut), (vec![81, 82], 2));
        // The same as soon as the app is gone, and nobody looks any more.
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[on(1, 82), on(2, 81)]);
        tracker.stopping();
        assert_eq!(tracker.cut_on(), [81, 82]);
    }

    #[test]
    fn the_queue_and_ignored_peers() {
        let listener = Row {
            state: State::Listen,
            rqueue: 3,
            inode: 9,
            cookie: 9,
            seen: Seen::Queues { ping_pong: None },
            ..row(Info::default())
        };
        let waiting = |cookie| Row { cookie, inode: 0, ..row(info(1, 1, 1, 0, 10)) };
        let mut tracker = Tracker::new(rules());
        let sample = look(&mut tracker, 0, &[listener, waiting(1), waiting(2), waiting(3)]);
        assert_eq!((sample.queued, sample.in_flight()), (3, 3));
        let mut tracker = Tracker::new(Rules { ignored: vec![Network::parse("10.0.0.0/8").unwrap()], ..rules() });
        let sample = look(&mut tracker, 0, &[row(info(1, 1, 1, 0, 10))]);
        assert_eq!((sample.in_flight(), sample.idle), (0, 0));
    }

    #[test]
    fn what_lingered_when_watching_began_is_not_new_when_it_ends() {
        let mut tracker = Tracker::new(rules());
        let lingering = Row { state: State::Gone, ..row(info(500, 600, 400, 300, 100)) };
        assert_eq!(look(&mut tracker, 0, std::slice::from_ref(&lingering)).in_flight(), 0);
        tracker.ended(at(50), &Row { seen: Seen::Info(info(500, 600, 400, 300, 101)), ..lingering });
        assert_eq!(tracker.tally(), Tally::default());
        assert_eq!(look(&mut tracker, 100, &[]).last_arrival, None);
    }

    #[test]
    fn a_probe_is_no_arrival_even_when_seen_with_its_fin() {
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[]);
        let probe = Row { state: State::CloseWait, inode: 0, rqueue: 1, ..row(info(5, 5, 5, 0, 1)) };
        let listener = Row { state: State::Listen, rqueue: 1, cookie: 9, ..row(Info::default()) };
        let sample = look(&mut tracker, 100, &[listener, probe.clone()]);
        assert_eq!((sample.queued, sample.in_flight(), sample.accepted), (0, 0, 0));
        tracker.ended(at(150), &Row { inode: 7, ..probe });
        assert_eq!(tracker.tally(), Tally::default());
    }

    #[test]
    fn a_request_on_a_kept_alive_connection_may_be_cut_too() {
        // The answer to the first one was sent and acknowledged; the second never got any.
        let again = row(info(900, 500, 500, 100, 200));
        let end = |bytes_sent| Row { seen: Seen::Info(info(1, 1, 1, bytes_sent, 201)), ..again.clone() };
        for (end, finished, cut) in [(end(100), 0, 1), (end(300), 1, 0)] {
            let mut tracker = Tracker::new(rules());
            assert_eq!(verdict(&mut tracker, 0, &again), Verdict::Asked);
            tracker.stopping();
            tracker.ended(at(50), &end);
            assert_eq!(tracker.tally(), Tally { finished, cut, ..Tally::default() });
        }
        // Closed unanswered, and not yet gone.
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, std::slice::from_ref(&again));
        tracker.stopping();
        look(&mut tracker, 100, &[Row { state: State::Closing, wqueue: 1, inode: 0, ..again.clone() }]);
        assert_eq!(tracker.tally().cut, 1);
        // An idle one that its client closed was not.
        let mut tracker = Tracker::new(rules());
        let idle = row(info(500, 900, 400, 100, 200));
        look(&mut tracker, 0, std::slice::from_ref(&idle));
        tracker.stopping();
        tracker.ended(at(50), &Row { seen: Seen::Info(info(500, 1, 400, 100, 201)), ..idle });
        assert_eq!(tracker.tally(), Tally { finished: 1, ..Tally::default() });
    }

    #[test]
    fn a_client_that_asks_again_in_the_tick_of_its_answer_is_followed() {
        let tie = |age, turns: u64| row(info(age, age, age, turns * 100, turns * 50 + 50));
        let ended = |turns: u64| row(info(30, 30, 30, turns * 100, turns * 50 + 50));
        let mut tracker = Tracker::new(rules());
        // Asked for the first time: that shows. From then on each answer and the next request are a tie.
        assert_eq!(verdict(&mut tracker, 0, &row(info(10, 5, 5, 0, 50))), Verdict::Asked);
        assert_eq!(verdict(&mut tracker, 60, &tie(10, 1)), Verdict::Cooling);
        assert_eq!(verdict(&mut tracker, 120, &tie(20, 2)), Verdict::Cooling);
        tracker.stopping();
        tracker.ended(at(150), &ended(2));
        assert_eq!(tracker.tally(), Tally { cut: 1, ..Tally::default() });
        // Answered in the end.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &row(info(10, 5, 5, 0, 50)));
        verdict(&mut tracker, 60, &tie(10, 1));
        tracker.stopping();
        tracker.ended(at(150), &row(info(1, 30, 1, 200, 101)));
        assert_eq!(tracker.tally(), Tally { finished: 1, ..Tally::default() });
        // Fast answers, each in the tick of its request, and then rest.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &row(info(100, 200, 90, 100, 50)));
        assert_eq!(verdict(&mut tracker, 60, &row(info(10, 10, 10, 200, 100))), Verdict::Cooling);
        tracker.stopping();
        tracker.ended(at(90), &row(info(40, 40, 40, 200, 101)));
        assert_eq!(tracker.tally(), Tally { finished: 1, ..Tally::default() });
    }

    #[test]
    fn what_left_before_the_app_was_told_is_finished() {
        let mut tracker = Tracker::new(rules());
        look(&mut tracker, 0, &[row(info(10, 5, 5, 0, 100))]);
        look(&mut tracker, 100, &[]);
        tracker.stopping();
        assert_eq!(tracker.tally(), Tally { finished: 1, ..Tally::default() });
        tracker.ended(at(200), &row(info(10, 5, 5, 0, 101)));
        assert_eq!(tracker.tally(), Tally { finished: 1, ..Tally::default() });
    }

    #[test]
    fn what_is_there_again_has_not_left_when_the_app_is_told() {
        let mut tracker = Tracker::new(rules());
        let asked = row(info(10, 5, 5, 0, 100));
        look(&mut tracker, 0, std::slice::from_ref(&asked));
        // A torn look misses it; the next one is taken in slices, and the app gets its stop signal between two of them.
        look(&mut tracker, 100, &[]);
        tracker.row(at(200), &asked);
        tracker.stopping();
        tracker.end(at(200));
        assert_eq!(tracker.verdict(1), Some(Verdict::Asked));
        tracker.ended(at(300), &asked);
        assert_eq!(tracker.tally(), Tally { cut: 1, ..Tally::default() });
    }

    #[test]
    fn without_stamps_time_decides() {
        let blind = |ping_pong| Row { seen: Seen::Queues { ping_pong }, ..row(Info::default()) };
        let mut tracker = Tracker::new(rules());
        assert_eq!(verdict(&mut tracker, 0, &blind(Some(true))), Verdict::Cooling);
        assert_eq!(verdict(&mut tracker, 5000, &blind(Some(true))), Verdict::Answered);
        assert_eq!(verdict(&mut tracker, 5100, &blind(Some(false))), Verdict::TieAsked);
        assert_eq!(verdict(&mut tracker, 10_000, &blind(Some(false))), Verdict::Answered);
        assert_eq!(verdict(&mut tracker, 10_100, &Row { rqueue: 4, ..blind(Some(true)) }), Verdict::Unread);
    }
}
