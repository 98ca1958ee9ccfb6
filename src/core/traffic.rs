//! From socket rows to a verdict: which connections carry work, and whether new ones still come.
//!
//! The obvious rule (answered if sent later than received) is wrong half of the time: the kernel's stamps are ticks of 1 to 10 ms
//! and tie. docs/traffic.md tells the rule, the experiments behind it and what nobody can see from outside.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::time::Uptime;

/// A tie that nothing breaks is held this long.
const TIE_HOLD: Duration = Duration::from_millis(2000);
/// A delayed ACK has been sent by then: an input without one was answered.
const DELAYED_ACK_LATEST: u32 = 250;
/// Before this no delayed ACK has been sent yet.
const DELAYED_ACK_EARLIEST: u32 = 36;
/// Two ticks of the slowest kernel (HZ=100): at a longer round trip no request can follow an answer within one tick.
const TWO_TICKS: u32 = 20;
/// What is sent but not acknowledged this long has nobody at the other end.
const STUCK_AFTER: Duration = Duration::from_secs(10);
/// A half-closed connection without an answer: the client has most likely gone.
const HALF_CLOSED_REST: Duration = Duration::from_secs(10);
/// Sent again this long after it looked answered: a stream, not the rest of an answer.
const STREAM_GAP: Duration = Duration::from_millis(100);
/// `HTTP/1.1 100 Continue` with its two line ends.
const CONTINUE_BYTES: u64 = 25;
/// Without the kernel's stamps: held this long after anything was seen to change...
const BLIND_HOLD: Duration = Duration::from_secs(5);
/// ...and this long if its input looks unanswered.
const BLIND_ASKED: Duration = Duration::from_secs(10);

/// The TCP states that matter here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Established,
    /// The client has finished sending.
    CloseWait,
    /// FIN_WAIT1, CLOSING, LAST_ACK: the server has closed, the kernel may still be sending.
    Closing,
    Listen,
    /// Nobody's work any more: FIN_WAIT2, TIME_WAIT, CLOSE, and handshakes.
    Gone,
}

/// One connection or listener as the kernel shows it at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// The same number at every look, and for no other connection.
    pub cookie: u64,
    pub state: State,
    pub port: u16,
    pub peer: IpAddr,
    pub rqueue: u32,
    pub wqueue: u32,
    /// 0: the app has not accepted it yet.
    pub inode: u32,
    pub cgroup: Option<u64>,
    pub retransmits: u8,
    /// None: the source knows queues only.
    pub info: Option<Info>,
    /// The kernel's ping-pong mode; off means that its last event was an input. None: not asked, or not to be trusted.
    pub ping_pong: Option<bool>,
}

/// What tcp_info tells. Ages in milliseconds, all from one reading of the kernel's clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    pub last_data_sent: u32,
    pub last_data_recv: u32,
    pub last_ack_recv: u32,
    pub bytes_sent: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Segments sent without data.
    pub bare_acks: u32,
    /// Microseconds; None where the kernel has seen none.
    pub min_rtt: Option<u32>,
}

impl Info {
    /// How long no byte moved either way.
    fn rest(&self) -> u32 {
        self.last_data_sent.min(self.last_data_recv)
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    Busy(Why),
    /// Answered less than `idle-after` ago, or a tie that may yet turn out to be a request.
    Cooling,
    Idle(Why),
    /// Accepted by the kernel, not by the app.
    Queued,
    Gone,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Why {
    Answered,
    Asked,
    Continue,
    Flushing,
    HalfClosed,
    NeverAsked,
    Sending,
    Silent,
    Streaming,
    Stuck,
    TieAsked,
    Unread,
}

/// One look at all connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Whether the app listens on anything; None where that cannot be known.
    pub listening: Option<bool>,
    /// Whether there are TCP ports to watch at all.
    pub watched: bool,
    /// New connections since the stop signal, those included that came and went between two looks.
    pub accepted: u64,
    pub last_arrival: Option<Uptime>,
    pub busy: usize,
    pub cooling: usize,
    pub idle: usize,
    /// Waiting to be accepted.
    pub queued: usize,
    /// Of the busy ones: closed by the app, still being delivered by the kernel.
    pub flushing: usize,
}

impl Sample {
    pub fn in_flight(&self) -> usize {
        self.busy + self.cooling + self.queued
    }
}

/// What became of the connections since the stop signal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub accepted: u64,
    /// Connections that carried work and ended it.
    pub finished: u64,
    /// Connections whose work did not end: no answer, or not all of it delivered.
    pub cut: u64,
}

/// What the user said about connections.
#[derive(Clone, Debug)]
pub struct Rules {
    pub idle_after: Duration,
    /// `--max-silence`; None is as long as there is time.
    pub max_silence: Option<Duration>,
    pub ignored: Vec<Network>,
}

/// An address with a prefix length, as in `--ignore-peer`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: u128,
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Network, &'static str> {
        const WHAT: &str = "not an address or CIDR (try 10.0.0.7 or 10.0.0.0/8)";
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) if !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit()) => {
                (address, Some(prefix))
            }
            Some(_) => return Err(WHAT),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| WHAT)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Ok(width), str::parse::<u8>).map_err(|_| WHAT)?;
        if prefix > width {
            return Err("a prefix longer than the address");
        }
        Ok(Network { address: bits(address), prefix: 128 - width + prefix })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        self.prefix == 0 || (bits(address) ^ self.address) >> (128 - u32::from(self.prefix)) == 0
    }
}

/// IPv4 as its v4-mapped IPv6 address, which is also how a dual-stack listener sees it.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// Connections by their successive rows.
#[derive(Debug)]
pub struct Tracker {
    rules: Rules,
    connections: HashMap<u64, Connection>,
    begun: bool,
    /// The app has been told: what ends without an answer now was cut.
    told: bool,
    /// Confirmed arrivals: live ones that have sent nothing are added while they live.
    last_arrival: Option<Uptime>,
    tally: Tally,
}

#[derive(Clone, Debug)]
struct Connection {
    first: Uptime,
    last_look: Uptime,
    verdict: Verdict,
    /// It came after the stop signal and has sent something.
    counted: bool,
    /// It was there when watching began.
    old: bool,
    /// It has carried work since the stop signal.
    worked: bool,
    /// No row any more, and no word of its end: closed by the app and delivered, or lingering for the client's FIN.
    left: bool,
    info: Option<Info>,
    queues: (u32, u32),
    changed: Uptime,
    /// Since when sent bytes wait for an ACK without progress.
    unacked: Option<(Uptime, u64)>,
    /// The counters (sent, received) when it last looked answered.
    answered: Option<(u64, u64)>,
    /// When that answer was sent: its stamp, on our clock.
    answered_at: Option<Duration>,
    /// An interim answer has been seen at this count of sent bytes.
    interim: Option<u64>,
    /// The longest silence inside an answer.
    gap: Option<Duration>,
    tie: Tie,
}

/// What is known about the present tie.
#[derive(Clone, Copy, Debug, Default)]
struct Tie {
    asked: Option<bool>,
    /// Bare ACKs before the tie, and early in it.
    before: Option<u32>,
    early: Option<u32>,
}

impl Tracker {
    pub fn new(rules: Rules) -> Tracker {
        let tally = Tally::default();
        Tracker { rules, connections: HashMap::new(), begun: false, told: false, last_arrival: None, tally }
    }

    /// The app has been sent its stop signal.
    pub fn told(&mut self) {
        self.told = true;
    }

    /// Whether a tie is left that only the ping-pong bit can break.
    pub fn wants_ping_pong(&self, rows: &[Row]) -> bool {
        rows.iter().any(|row| {
            let Some(info) = row.info else { return false };
            row.state == State::Established
                && row.inode != 0
                && info.last_data_recv == info.last_data_sent
                && Duration::from_millis(info.rest().into()) < TIE_HOLD
                && info.bytes_sent > 0
                && breaks_tie(&info).is_none()
                && self
                    .connections
                    .get(&row.cookie)
                    .is_none_or(|known| known.tie.asked.is_none() || !same(known.info.as_ref(), &info))
        })
    }

    /// Takes one look: rows of the app's ports only, and how many wait in the accept queues. The first look sets the baseline.
    pub fn look(&mut self, now: Uptime, rows: &[Row]) -> Sample {
        let mut sample = Sample { watched: true, ..Sample::default() };
        let mut backlog = 0;
        let mut unaccepted = 0;
        for row in rows {
            match row.state {
                State::Listen => {
                    backlog += row.rqueue as usize;
                    continue;
                }
                State::Gone => continue,
                State::Established | State::CloseWait | State::Closing => {}
            }
            if self.rules.ignored.iter().any(|network| network.contains(row.peer)) {
                continue;
            }
            let verdict = self.judge(now, row);
            match verdict {
                Verdict::Busy(why) => {
                    sample.busy += 1;
                    sample.flushing += usize::from(why == Why::Flushing);
                }
                Verdict::Cooling => sample.cooling += 1,
                Verdict::Idle(_) => sample.idle += 1,
                Verdict::Queued => unaccepted += 1,
                Verdict::Gone => {}
            }
        }
        // Both say the same; a listener's own count is missing where only connections are shown, and the other way round.
        sample.queued = backlog.max(unaccepted);
        for known in self.connections.values_mut() {
            // It stays known, so that its end is not taken for that of a new one.
            known.left = known.last_look != now;
        }
        self.begun = true;
        let silent = self.connections.values().filter(|known| !(known.old || known.counted || known.left));
        let silent = silent.map(|known| known.first).max();
        sample.last_arrival = self.last_arrival.max(silent);
        sample.accepted = self.tally.accepted;
        sample
    }

    /// A connection has ended: the kernel's last word on it.
    pub fn ended(&mut self, now: Uptime, row: &Row) {
        if self.rules.ignored.iter().any(|network| network.contains(row.peer)) {
            return;
        }
        let info = row.info.unwrap_or_default();
        // The FIN counts as a received byte: a connection with no more than that was a probe.
        let asked = info.bytes_received > 1;
        let delivered = info.bytes_sent > 0 && info.bytes_acked >= info.bytes_sent;
        match self.connections.remove(&row.cookie) {
            Some(known) => {
                if asked && !known.counted && !known.old {
                    self.arrive(known.first);
                }
                if known.worked || known.info.is_some_and(|before| info.bytes_received > before.bytes_received + 1) {
                    self.close(delivered);
                }
            }
            None if asked => {
                self.arrive(now);
                self.close(delivered);
            }
            None => {}
        }
    }

    /// Ends of connections were lost on the way; `came`: at least one new connection is known to have come meanwhile.
    pub fn overflowed(&mut self, now: Uptime, came: u64) {
        if came > 0 {
            self.tally.accepted += came;
            self.last_arrival = self.last_arrival.max(Some(now));
        }
    }

    pub fn accepted(&self) -> u64 {
        self.tally.accepted
    }

    /// What the latest look at this connection made of it. None: not one that is followed.
    pub fn verdict(&self, cookie: u64) -> Option<Verdict> {
        self.connections.get(&cookie).map(|known| known.verdict)
    }

    /// What became of all, taking what is still in flight as cut.
    pub fn tally(&self) -> Tally {
        let mut tally = self.tally;
        for known in self.connections.values() {
            match known.verdict {
                // What was being sent and has left was delivered.
                Verdict::Busy(Why::Flushing | Why::Sending) if known.left => tally.finished += 1,
                Verdict::Busy(_) | Verdict::Queued if known.left && !self.told => tally.finished += 1,
                Verdict::Busy(_) | Verdict::Queued | Verdict::Idle(Why::Stuck) => tally.cut += 1,
                Verdict::Cooling | Verdict::Idle(_) | Verdict::Gone => tally.finished += u64::from(known.worked),
            }
        }
        tally
    }

    fn arrive(&mut self, at: Uptime) {
        self.tally.accepted += 1;
        self.last_arrival = self.last_arrival.max(Some(at));
    }

    fn close(&mut self, delivered: bool) {
        // Before the app is told, an end without an answer is the client's or the app's own doing.
        if delivered || !self.told { self.tally.finished += 1 } else { self.tally.cut += 1 }
    }

    fn judge(&mut self, now: Uptime, row: &Row) -> Verdict {
        let baseline = !self.begun;
        let queues = (row.rqueue, row.wqueue);
        let known = self.connections.entry(row.cookie).or_insert_with(|| Connection::new(now, baseline, queues));
        let verdict = known.verdict(now, row, &self.rules);
        known.last_look = now;
        known.verdict = verdict;
        if row.info.is_some() {
            known.info = row.info;
        }
        if known.queues != queues {
            known.queues = queues;
            known.changed = now;
        }
        if matches!(verdict, Verdict::Busy(_) | Verdict::Cooling | Verdict::Queued) {
            known.worked = true;
        }
        let has_sent = row.info.is_none_or(|info| info.bytes_received > 0);
        if has_sent && !known.counted && !known.old {
            known.counted = true;
            known.worked = true;
            let first = known.first;
            self.arrive(first);
        }
        verdict
    }
}

impl Connection {
    fn new(now: Uptime, old: bool, queues: (u32, u32)) -> Connection {
        Connection {
            first: now,
            last_look: now,
            verdict: Verdict::Gone,
            counted: false,
            old,
            worked: false,
            left: false,
            info: None,
            queues,
            changed: now,
            unacked: None,
            // Nothing, as far as is known: if an old one has sent just the 25 bytes, they are its first.
            answered: Some((0, 0)),
            answered_at: None,
            interim: None,
            gap: None,
            tie: Tie::default(),
        }
    }

    fn verdict(&mut self, now: Uptime, row: &Row, rules: &Rules) -> Verdict {
        let info = row.info.as_ref();
        let stuck = self.is_stuck(now, row);
        if row.state == State::Closing {
            return match (row.wqueue > 1, stuck) {
                (true, false) => Verdict::Busy(Why::Flushing),
                (true, true) => Verdict::Idle(Why::Stuck),
                (false, _) => Verdict::Gone,
            };
        }
        if row.inode == 0 {
            return Verdict::Queued;
        }
        let rest = info.map_or(now.since(self.changed), |info| Duration::from_millis(info.rest().into()));
        if row.state == State::CloseWait && rest >= rules.max_silence.unwrap_or(HALF_CLOSED_REST) {
            return Verdict::Idle(Why::HalfClosed);
        }
        if row.wqueue > 0 {
            return if stuck { Verdict::Idle(Why::Stuck) } else { Verdict::Busy(Why::Sending) };
        }
        if row.state == State::CloseWait {
            return Verdict::Busy(Why::HalfClosed);
        }
        let silent = rules.max_silence.is_some_and(|most| rest >= most);
        if row.rqueue > 0 {
            return if silent { Verdict::Idle(Why::Silent) } else { Verdict::Busy(Why::Unread) };
        }
        match info {
            Some(info) => self.by_stamps(now, info, row.ping_pong, silent, rules),
            None => self.by_queues(now, row),
        }
    }

    fn by_stamps(&mut self, now: Uptime, info: &Info, ping_pong: Option<bool>, silent: bool, rules: &Rules) -> Verdict {
        if info.bytes_received == 0 {
            return Verdict::Idle(Why::NeverAsked);
        }
        let asked = |why| if silent { Verdict::Idle(Why::Silent) } else { Verdict::Busy(why) };
        if info.bytes_sent == 0 || info.last_data_recv < info.last_data_sent {
            self.tie = Tie { before: Some(info.bare_acks), ..Tie::default() };
            return asked(Why::Asked);
        }
        // An interim answer is no answer, until more is sent.
        if let Some((sent, received)) = self.answered
            && info.bytes_sent == sent + CONTINUE_BYTES
            && info.bytes_received > received
        {
            self.interim = Some(info.bytes_sent);
        }
        if self.interim == Some(info.bytes_sent) {
            return asked(Why::Continue);
        }
        if info.last_data_recv == info.last_data_sent {
            match self.break_tie(info, ping_pong) {
                Some(true) => return asked(Why::TieAsked),
                None if Duration::from_millis(info.rest().into()) < TIE_HOLD => {
                    // Perhaps answered: an interim answer to what comes next counts from here, a stream's gap does not.
                    self.answered = Some((info.bytes_sent, info.bytes_received));
                    self.answered_at = None;
                    return Verdict::Cooling;
                }
                None | Some(false) => {}
            }
        } else {
            self.tie = Tie { before: Some(info.bare_acks), ..Tie::default() };
        }
        self.answered_now(now, info);
        let since_sent = Duration::from_millis(info.last_data_sent.into());
        if self.gap.is_some_and(|gap| since_sent < gap * 2) {
            return Verdict::Busy(Why::Streaming);
        }
        if Duration::from_millis(info.rest().into()) < rules.idle_after { Verdict::Cooling } else { Verdict::Idle(Why::Answered) }
    }

    /// It looks answered. If it looked so before and has sent again unasked since, it streams: remember the gap.
    fn answered_now(&mut self, now: Uptime, info: &Info) {
        let sent_at = now.0.saturating_sub(Duration::from_millis(info.last_data_sent.into()));
        if let (Some((sent, received)), Some(before)) = (self.answered, self.answered_at)
            && info.bytes_sent > sent
            && info.bytes_received == received
        {
            let gap = sent_at.saturating_sub(before);
            if gap >= STREAM_GAP {
                self.gap = self.gap.max(Some(gap));
            }
        }
        self.answered = Some((info.bytes_sent, info.bytes_received));
        self.answered_at = Some(sent_at);
    }

    /// Sent and received in one tick of the kernel's clock: which came last? Some(true): the request.
    fn break_tie(&mut self, info: &Info, ping_pong: Option<bool>) -> Option<bool> {
        if !same(self.info.as_ref(), info) {
            self.tie = Tie { before: self.info.map(|before| before.bare_acks).or(self.tie.before), ..Tie::default() };
        }
        if self.tie.asked.is_some() {
            return self.tie.asked;
        }
        let mut asked = breaks_tie(info).map(|()| false);
        if asked.is_none() && ping_pong == Some(false) {
            asked = Some(true);
        }
        let age = info.rest();
        // A bare ACK inside the tie acknowledged an input that no answer did.
        if asked.is_none() && self.tie.early.is_some_and(|early| info.bare_acks != early) {
            asked = Some(true);
        }
        if asked.is_none() && age >= DELAYED_ACK_LATEST && self.tie.before == Some(info.bare_acks) {
            asked = Some(false);
        }
        if age < DELAYED_ACK_EARLIEST {
            self.tie.early = Some(info.bare_acks);
        }
        self.tie.asked = asked;
        asked
    }

    /// Without stamps: queues, the ping-pong bit, and time.
    fn by_queues(&self, now: Uptime, row: &Row) -> Verdict {
        let unchanged = now.since(self.changed);
        if row.ping_pong == Some(false) && unchanged < BLIND_ASKED {
            return Verdict::Busy(Why::TieAsked);
        }
        // What was there before the stop signal and is at rest may have been so for long.
        if unchanged < BLIND_HOLD { Verdict::Cooling } else { Verdict::Idle(Why::Answered) }
    }

    /// Sent, and for ten seconds no ACK: nobody is there. A client that merely reads slowly acknowledges window probes.
    fn is_stuck(&mut self, now: Uptime, row: &Row) -> bool {
        let Some(info) = row.info else { return false };
        let floor = if row.state == State::Closing { 1 } else { 0 };
        if row.wqueue <= floor {
            self.unacked = None;
            return false;
        }
        let since = match self.unacked {
            Some((since, acked)) if acked == info.bytes_acked => since,
            _ => now,
        };
        self.unacked = Some((since, info.bytes_acked));
        let silent = Duration::from_millis(info.last_ack_recv.into()) >= STUCK_AFTER;
        silent && (row.retransmits > 0 || now.since(since) >= STUCK_AFTER)
    }
}

/// The breakers that need one look only. Some: the last event was the answer.
fn breaks_tie(info: &Info) -> Option<()> {
    let acknowledged = info.last_ack_recv < info.last_data_sent;
    let far = info.min_rtt.is_some_and(|micros| micros > TWO_TICKS * 1000);
    (acknowledged || far).then_some(())
}

/// No byte moved between the two.
fn same(before: Option<&Info>, now: &Info) -> bool {
    before.is_some_and(|before| before.bytes_sent == now.bytes_sent && before.bytes_received == now.bytes_received)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            port: 80,
            peer: "10.0.0.1".parse().unwrap(),
            rqueue: 0,
            wqueue: 0,
            inode: 7,
            cgroup: None,
            retransmits: 0,
            info: Some(info),
            ping_pong: None,
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
        tracker.look(at(now), std::slice::from_ref(row));
        tracker.connections[&row.cookie].verdict
    }

    fn once(row: &Row) -> Verdict {
        verdict(&mut Tracker::new(rules()), 0, row)
    }

    #[test]
    fn one_look_is_enough_for_these() {
        let plain = row(info(50, 50, 50, 0, 100));
        assert_eq!(once(&plain), Verdict::Busy(Why::Asked), "first request in the tick of the handshake");
        assert_eq!(once(&row(info(50, 50, 50, 0, 0))), Verdict::Idle(Why::NeverAsked));
        assert_eq!(once(&row(info(900, 500, 500, 10, 100))), Verdict::Busy(Why::Asked));
        assert_eq!(once(&row(info(500, 900, 500, 10, 100))), Verdict::Cooling);
        assert_eq!(once(&row(info(1500, 1600, 1500, 10, 100))), Verdict::Idle(Why::Answered));
        assert_eq!(once(&Row { inode: 0, ..plain.clone() }), Verdict::Queued);
        assert_eq!(once(&Row { rqueue: 5, ..row(info(5000, 9000, 0, 10, 100)) }), Verdict::Busy(Why::Unread));
        assert_eq!(once(&Row { wqueue: 5, ..row(info(500, 900, 20, 10, 100)) }), Verdict::Busy(Why::Sending));
        assert_eq!(once(&Row { state: State::Closing, wqueue: 5, ..plain.clone() }), Verdict::Busy(Why::Flushing));
        assert_eq!(once(&Row { state: State::Closing, wqueue: 1, ..plain.clone() }), Verdict::Gone);
        let half = Row { state: State::CloseWait, rqueue: 1, ..row(info(500, 900, 20, 10, 100)) };
        assert_eq!(once(&half), Verdict::Busy(Why::HalfClosed));
        let old = Row { state: State::CloseWait, rqueue: 1, ..row(info(10_500, 10_500, 20, 10, 100)) };
        assert_eq!(once(&old), Verdict::Idle(Why::HalfClosed));
    }

    #[test]
    fn ties() {
        let tie = |age| row(info(age, age, age, 10, 100));
        assert_eq!(once(&tie(500)), Verdict::Cooling, "unresolved");
        assert_eq!(once(&tie(2000)), Verdict::Idle(Why::Answered), "held long enough");
        assert_eq!(once(&row(info(500, 500, 490, 10, 100))), Verdict::Cooling, "acknowledged later: answered, cooling");
        assert_eq!(once(&row(info(1500, 1500, 1490, 10, 100))), Verdict::Idle(Why::Answered));
        let far = row(Info { min_rtt: Some(25_000), ..info(1500, 1500, 1500, 10, 100) });
        assert_eq!(once(&far), Verdict::Idle(Why::Answered));
        assert_eq!(once(&Row { ping_pong: Some(false), ..tie(5) }), Verdict::Busy(Why::TieAsked));
        assert_eq!(once(&Row { ping_pong: Some(true), ..tie(5) }), Verdict::Cooling);
        // The bit is remembered for as long as no byte moves.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &Row { ping_pong: Some(false), ..tie(100) });
        assert_eq!(verdict(&mut tracker, 4000, &tie(4100)), Verdict::Busy(Why::TieAsked));
        assert_eq!(verdict(&mut tracker, 5000, &row(info(10, 900, 5, 20, 100))), Verdict::Cooling, "and answered in the end");
        // A bare ACK inside the tie: an input without an answer.
        let acks = |age, bare_acks| row(Info { bare_acks, ..info(age, age, age, 10, 100) });
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &acks(20, 3));
        assert_eq!(verdict(&mut tracker, 100, &acks(120, 4)), Verdict::Busy(Why::TieAsked));
        // None since before the tie: all input was acknowledged by output.
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 0, &row(Info { bare_acks: 3, ..info(900, 800, 800, 5, 50) }));
        assert_eq!(verdict(&mut tracker, 200, &acks(100, 3)), Verdict::Cooling);
        assert_eq!(verdict(&mut tracker, 1200, &acks(1100, 3)), Verdict::Idle(Why::Answered));
        assert!(!Tracker::new(rules()).wants_ping_pong(&[far]));
        assert!(Tracker::new(rules()).wants_ping_pong(&[tie(5)]));
    }

    #[test]
    fn an_interim_answer_is_no_answer() {
        let mut tracker = Tracker::new(rules());
        tracker.look(at(0), &[]);
        assert_eq!(verdict(&mut tracker, 100, &row(info(20, 30, 10, 25, 200))), Verdict::Busy(Why::Continue));
        assert_eq!(verdict(&mut tracker, 3000, &row(info(2920, 2930, 2910, 25, 200))), Verdict::Busy(Why::Continue));
        assert_eq!(verdict(&mut tracker, 6000, &row(info(2000, 3000, 1990, 200, 900))), Verdict::Idle(Why::Answered));
        // Later on a kept-alive connection.
        assert_eq!(verdict(&mut tracker, 7000, &row(info(10, 20, 5, 225, 1100))), Verdict::Busy(Why::Continue));
        // It was already waiting for the body when watching began: node on loopback.
        assert_eq!(once(&row(info(1496, 1504, 1496, 25, 96))), Verdict::Busy(Why::Continue));
        // After an answer that was a tie, itself a tie: nginx on loopback.
        let mut tracker = Tracker::new(rules());
        let answered = Row { ping_pong: Some(true), ..row(info(600, 600, 600, 241, 51)) };
        assert_eq!(verdict(&mut tracker, 599, &answered), Verdict::Cooling);
        let interim = |age| Row { ping_pong: Some(true), ..row(info(age, age, age, 266, 147)) };
        assert_eq!(verdict(&mut tracker, 699, &interim(96)), Verdict::Busy(Why::Continue));
        assert_eq!(verdict(&mut tracker, 1700, &interim(1096)), Verdict::Busy(Why::Continue));
        assert_eq!(verdict(&mut tracker, 2601, &row(info(100, 500, 100, 419, 151))), Verdict::Cooling);
    }

    #[test]
    fn a_stream_is_held_for_twice_its_gap() {
        let mut tracker = Tracker::new(rules());
        verdict(&mut tracker, 10_000, &row(info(500, 600, 490, 100, 50)));
        verdict(&mut tracker, 10_600, &row(info(100, 1200, 90, 200, 50)));
        // The gap was 1 s.
        assert_eq!(verdict(&mut tracker, 12_400, &row(info(1900, 3000, 1890, 200, 50))), Verdict::Busy(Why::Streaming));
        assert_eq!(verdict(&mut tracker, 12_600, &row(info(2100, 3200, 2090, 200, 50))), Verdict::Idle(Why::Answered));
    }

    #[test]
    fn max_silence_gives_up_on_the_unanswered() {
        let mut tracker = Tracker::new(Rules { max_silence: Some(Duration::from_secs(5)), ..rules() });
        assert_eq!(verdict(&mut tracker, 0, &row(info(9000, 4900, 4900, 10, 100))), Verdict::Busy(Why::Asked));
        assert_eq!(verdict(&mut tracker, 200, &row(info(9200, 5100, 5100, 10, 100))), Verdict::Idle(Why::Silent));
    }

    #[test]
    fn a_vanished_client_is_stuck_after_ten_seconds_a_slow_one_never() {
        let sending = |ack, acked| Row { wqueue: 500, ..row(Info { bytes_acked: acked, ..info(100, 60_000, ack, 900, 100) }) };
        let mut tracker = Tracker::new(rules());
        // Pushed after a minute's rest: the last ACK is old, the data is not.
        assert_eq!(verdict(&mut tracker, 0, &sending(60_000, 400)), Verdict::Busy(Why::Sending));
        assert_eq!(verdict(&mut tracker, 9_900, &sending(69_900, 400)), Verdict::Busy(Why::Sending));
        assert_eq!(verdict(&mut tracker, 10_000, &sending(70_000, 400)), Verdict::Idle(Why::Stuck));
        assert_eq!(tracker.tally().cut, 1);
        let mut tracker = Tracker::new(rules());
        for second in 0..30 {
            // Window probes are acknowledged, no byte gets through.
            assert_eq!(verdict(&mut tracker, second * 1000, &sending(900, 400)), Verdict::Busy(Why::Sending));
        }
        let lost = Row { retransmits: 4, ..sending(11_000, 400) };
        assert_eq!(once(&lost), Verdict::Idle(Why::Stuck), "was lost long before the stop signal");
    }

    #[test]
    fn arrivals() {
        let mut tracker = Tracker::new(rules());
        let old = row(info(5000, 6000, 5000, 10, 100));
        assert_eq!(tracker.look(at(0), std::slice::from_ref(&old)).last_arrival, None, "the baseline is not new");
        // A silent one counts while it lives...
        let silent = Row { cookie: 2, ..row(info(1, 1, 1, 0, 0)) };
        assert_eq!(tracker.look(at(100), &[old.clone(), silent.clone()]).last_arrival, Some(at(100)));
        // ...and not any more once it ended having sent nothing but its FIN.
        tracker.ended(at(150), &Row { info: Some(info(1, 1, 1, 0, 1)), ..silent.clone() });
        let sample = tracker.look(at(200), std::slice::from_ref(&old));
        assert_eq!((sample.last_arrival, sample.accepted), (None, 0));
        // Lived between two looks.
        tracker.ended(at(250), &Row { cookie: 3, info: Some(info(1, 1, 1, 90, 60)), ..silent.clone() });
        let sample = tracker.look(at(300), std::slice::from_ref(&old));
        assert_eq!((sample.last_arrival, sample.accepted), (Some(at(250)), 1));
        tracker.overflowed(at(350), 40);
        assert_eq!(tracker.look(at(400), &[old]).last_arrival, Some(at(350)));
        assert_eq!(tracker.tally(), Tally { accepted: 41, finished: 1, cut: 0 });
    }

    #[test]
    fn what_left_without_a_word_was_delivered_and_is_not_new_when_its_end_comes() {
        let mut tracker = Tracker::new(rules());
        let asked = row(info(10, 5, 5, 0, 100));
        tracker.look(at(0), std::slice::from_ref(&asked));
        tracker.told();
        let flushing = Row { state: State::Closing, wqueue: 500, inode: 0, ..row(info(5, 100, 5, 600, 100)) };
        assert_eq!(tracker.look(at(100), std::slice::from_ref(&flushing)).flushing, 1);
        // FIN_WAIT2: no row of interest any more.
        assert_eq!(tracker.look(at(200), &[]).in_flight(), 0);
        assert_eq!(tracker.tally(), Tally { accepted: 0, finished: 1, cut: 0 });
        tracker.ended(at(5000), &Row { info: Some(info(5000, 5000, 5000, 600, 101)), ..asked });
        assert_eq!(tracker.tally(), Tally { accepted: 0, finished: 1, cut: 0 });
        assert_eq!(tracker.look(at(5100), &[]).last_arrival, None);
    }

    #[test]
    fn what_ends_unanswered_after_the_app_was_told_was_cut() {
        let mut tracker = Tracker::new(rules());
        let busy = row(info(10, 5, 5, 0, 100));
        tracker.look(at(0), &[busy.clone(), Row { cookie: 2, ..busy.clone() }, Row { cookie: 3, ..busy.clone() }]);
        tracker.told();
        tracker.ended(at(50), &busy);
        tracker.ended(at(50), &Row { cookie: 2, info: Some(info(1, 5, 1, 500, 101)), ..busy.clone() });
        tracker.ended(at(50), &Row { cookie: 3, info: Some(Info { bytes_acked: 200, ..info(1, 5, 1, 500, 101) }), ..busy });
        assert_eq!(tracker.tally(), Tally { accepted: 0, finished: 1, cut: 2 });
    }

    #[test]
    fn the_queue_and_ignored_peers() {
        let listener = Row { state: State::Listen, rqueue: 3, inode: 9, cookie: 9, info: None, ..row(Info::default()) };
        let waiting = |cookie| Row { cookie, inode: 0, ..row(info(1, 1, 1, 0, 10)) };
        let mut tracker = Tracker::new(rules());
        let sample = tracker.look(at(0), &[listener, waiting(1), waiting(2), waiting(3)]);
        assert_eq!((sample.queued, sample.in_flight()), (3, 3));
        let mut tracker = Tracker::new(Rules { ignored: vec![Network::parse("10.0.0.0/8").unwrap()], ..rules() });
        let sample = tracker.look(at(0), &[row(info(1, 1, 1, 0, 10))]);
        assert_eq!((sample.in_flight(), sample.idle), (0, 0));
    }

    #[test]
    fn without_stamps_time_decides() {
        let blind = |ping_pong| Row { info: None, ping_pong, ..row(Info::default()) };
        let mut tracker = Tracker::new(rules());
        assert_eq!(verdict(&mut tracker, 0, &blind(Some(true))), Verdict::Cooling);
        assert_eq!(verdict(&mut tracker, 5000, &blind(Some(true))), Verdict::Idle(Why::Answered));
        assert_eq!(verdict(&mut tracker, 5100, &blind(Some(false))), Verdict::Busy(Why::TieAsked));
        assert_eq!(verdict(&mut tracker, 10_000, &blind(Some(false))), Verdict::Idle(Why::Answered));
        assert_eq!(verdict(&mut tracker, 10_100, &Row { rqueue: 4, ..blind(Some(true)) }), Verdict::Busy(Why::Unread));
    }

    #[test]
    fn networks() {
        let ten = Network::parse("10.0.0.0/8").unwrap();
        assert!(ten.contains("10.9.8.7".parse().unwrap()) && ten.contains("::ffff:10.1.1.1".parse().unwrap()));
        assert!(!ten.contains("11.0.0.1".parse().unwrap()));
        assert!(Network::parse("::/0").unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(Network::parse("fe80::1").unwrap().contains("fe80::1".parse().unwrap()));
        for text in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "x", "::1/129", "10.0.0.1/8/8"] {
            assert!(Network::parse(text).is_err(), "{text:?}");
        }
    }
}
