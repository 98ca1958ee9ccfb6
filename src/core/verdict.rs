//! The verdict on one connection: a pure function of its successive rows.
//!
//! The obvious rule (answered if sent later than received) is wrong half of the time: the kernel's stamps are ticks of 1 to 10 ms
//! and tie. docs/traffic.md tells the rule, the experiments behind it and what nobody can see from outside.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::time::Duration;

use super::network::Network;
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
pub const STUCK_AFTER: Duration = Duration::from_secs(10);
/// A half-closed connection without an answer: the client has most likely gone.
const HALF_CLOSED_REST: Duration = Duration::from_secs(10);
/// Sent again this long after it looked answered: a stream, not the rest of an answer.
const STREAM_GAP: u32 = 100;
/// `HTTP/1.1 100 Continue` with its two line ends...
const CONTINUE_BYTES: u8 = 25;
/// ...and no request that asks for it is shorter than this: a WebSocket's answer may have 25 bytes too.
const EXPECT_BYTES: u8 = 48;
/// Without the kernel's stamps: held this long after anything was seen to change...
const BLIND_HOLD: Duration = Duration::from_secs(5);
/// ...and this long if its input looks unanswered.
const BLIND_ASKED: Duration = Duration::from_secs(10);

/// The states of a socket that matter here.
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
    pub peer_port: u16,
    pub rqueue: u32,
    pub wqueue: u32,
    /// 0: the app has not accepted it yet.
    pub inode: u32,
    pub cgroup: Option<u64>,
    pub retransmits: u8,
    pub seen: Seen,
}

/// How much of a connection its source shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    Info(Info),
    /// Queues only, and the kernel's ping-pong mode where it is to be trusted: off means that the last event was an input.
    Queues {
        ping_pong: Option<bool>,
    },
    /// A unix socket: queues, and not even which way they moved.
    Unix,
}

impl Row {
    /// The client has left without a word: its FIN is all that ever came. A TCP probe, most likely.
    pub fn is_probe(&self) -> bool {
        self.state == State::CloseWait && self.info().is_some_and(|info| info.bytes_received <= 1)
    }

    /// Whether anything but a FIN was received, for all that can be known.
    pub fn has_sent(&self) -> bool {
        let fin = if self.state == State::Established { 0 } else { 1 };
        self.info().is_none_or(|info| info.bytes_received > fin)
    }

    /// Which connection it is, where there are no cookies: the two ends in one number.
    pub fn ends(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.port, self.peer, self.peer_port).hash(&mut hasher);
        hasher.finish()
    }

    pub fn ping_pong(&self) -> Option<bool> {
        match self.seen {
            Seen::Queues { ping_pong } => ping_pong,
            Seen::Info(_) | Seen::Unix => None,
        }
    }

    /// This kernel's bit means something else.
    pub fn distrust_ping_pong(&mut self) {
        if let Seen::Queues { ping_pong } = &mut self.seen {
            *ping_pong = None;
        }
    }

    pub fn info(&self) -> Option<&Info> {
        match &self.seen {
            Seen::Info(info) => Some(info),
            Seen::Queues { .. } | Seen::Unix => None,
        }
    }
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

    fn is_tie(&self) -> bool {
        self.last_data_recv == self.last_data_sent
    }

    /// Longer than a tie is held.
    pub fn is_tie_held(&self) -> bool {
        Duration::from_millis(self.rest().into()) >= TIE_HOLD
    }

    /// The breakers of a tie that need one look only. True: the last event was the answer.
    fn breaks_tie(&self) -> bool {
        let acknowledged = self.last_ack_recv < self.last_data_sent;
        let far = self.min_rtt.is_some_and(|micros| micros > TWO_TICKS * 1000);
        acknowledged || far
    }
}

/// What a connection is doing, and why we think so.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A request has no answer yet.
    Asked,
    /// A unix socket that is connected: work, for all that can be known.
    Connected,
    /// Only `100 Continue` so far.
    Continue,
    /// Closed by the app, still being delivered by the kernel.
    Flushing,
    /// The client has finished sending, and may be waiting.
    HalfClosed,
    Sending,
    /// Sent again unasked before: between two parts of an answer.
    Streaming,
    TieAsked,
    Unread,

    /// Answered less than `idle-after` ago, or a tie that may yet turn out to be a request.
    Cooling,

    /// The client has finished sending long ago, and nothing happens.
    Abandoned,
    Answered,
    NeverAsked,
    /// Unanswered for `--max-silence`.
    Silent,
    /// Nobody acknowledges what was sent.
    Stuck,

    /// Accepted by the kernel, not by the app.
    Queued,
    Gone,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    Busy,
    Cooling,
    Idle,
    Queued,
    Gone,
}

impl Verdict {
    pub fn class(self) -> Class {
        use Verdict::*;
        match self {
            Asked | Connected | Continue | Flushing | HalfClosed | Sending | Streaming | TieAsked | Unread => Class::Busy,
            Cooling => Class::Cooling,
            Abandoned | Answered | NeverAsked | Silent | Stuck => Class::Idle,
            Queued => Class::Queued,
            Gone => Class::Gone,
        }
    }
}

/// What the user said about connections.
#[derive(Clone, Debug)]
pub struct Rules {
    pub idle_after: Duration,
    /// `--max-silence`; None is as long as there is time.
    pub max_silence: Option<Duration>,
    pub ignored: Vec<Network>,
}

/// What must be remembered of a connection from look to look: 24 bytes, since there may be very many. Counters are modulo 2^32,
/// times are milliseconds of uptime modulo 2^32 (49 days): only their differences are used.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// While it has sent nothing: when it was first seen. Then when its last answer was sent; without stamps: when it last changed.
    since: u32,
    /// The counters at the last look; without stamps the queues.
    sent: u32,
    received: u32,
    /// Segments sent without data: at the last look, before the present tie, and early in it.
    acks: u16,
    acks_before: u16,
    acks_early: u16,
    flags: u16,
    /// The longest silence inside an answer, in tenths of a second, 25.5 s or more.
    gap: u8,
    /// Bytes received and sent since it last looked answered, 255 or more.
    asked: u8,
    after: u8,
    pub verdict: Verdict,
}

/// It was there when watching began.
pub const OLD: u16 = 1 << 0;
/// It came after the stop signal and has sent something.
pub const COUNTED: u16 = 1 << 1;
/// It has carried work since the stop signal.
pub const WORKED: u16 = 1 << 2;
/// Seen in the present look.
pub const SEEN: u16 = 1 << 3;
/// No row any more, and no word of its end: closed by the app and delivered, or lingering for the client's FIN.
pub const LEFT: u16 = 1 << 4;
/// Its tie is not broken yet.
pub const UNRESOLVED: u16 = 1 << 5;
/// There was a look before.
const LOOKED: u16 = 1 << 6;
/// It has been answered: `since` is when.
const ANSWERED: u16 = 1 << 7;
/// All that was sent since it was asked is `100 Continue`.
const INTERIM: u16 = 1 << 8;
const TIE_ASKED: u16 = 1 << 9;
const TIE_ANSWERED: u16 = 1 << 10;
/// The kernel's ping-pong bit did not break it.
const TIE_CHECKED: u16 = 1 << 11;
const HAS_BEFORE: u16 = 1 << 12;
const HAS_EARLY: u16 = 1 << 13;
/// All that is known of one tie.
const TIE: u16 = TIE_ASKED | TIE_ANSWERED | TIE_CHECKED | HAS_EARLY;

pub fn millis(at: Uptime) -> u32 {
    at.0.as_millis() as u32
}

impl Connection {
    /// `old`: it was there when watching began.
    pub fn new(now: Uptime, old: bool) -> Connection {
        Connection {
            since: millis(now),
            sent: 0,
            received: 0,
            acks: 0,
            acks_before: 0,
            acks_early: 0,
            flags: if old { OLD } else { 0 },
            gap: 0,
            asked: 0,
            after: 0,
            verdict: Verdict::Gone,
        }
    }

    pub fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    pub fn set(&mut self, flag: u16, on: bool) {
        if on { self.flags |= flag } else { self.flags &= !flag }
    }

    /// When it was first seen, as long as it has sent nothing.
    pub fn first_seen(&self, now: Uptime) -> Uptime {
        Uptime(now.since(Uptime(self.age(now))))
    }

    fn age(&self, now: Uptime) -> Duration {
        Duration::from_millis(millis(now).wrapping_sub(self.since).into())
    }

    /// It was asked and has not begun to answer, as far as could be seen.
    pub fn is_unanswered(&self) -> bool {
        self.asked > 0 && !self.is(UNRESOLVED) && (self.after == 0 || self.is(INTERIM))
    }

    /// The kernel's last word on it. True: it was asked since the last look.
    pub fn close(&mut self, info: &Info) -> bool {
        let before = self.received;
        self.take(info, State::Closing);
        matches!(self.received.wrapping_sub(before), 2..=0x7fff_ffff)
    }

    /// The kernel's ping-pong bit, asked for where a tie is unresolved. Set, or unknown, it proves nothing.
    pub fn ping_pong(&mut self, bit: Option<bool>) {
        self.set(if bit == Some(false) { TIE_ASKED } else { TIE_CHECKED }, true);
    }

    /// `stuck`: nobody acknowledges what was sent.
    pub fn judge(&mut self, now: Uptime, row: &Row, stuck: bool, rules: &Rules) -> Verdict {
        match row.info() {
            Some(info) => self.take(info, row.state),
            None => self.take_queues(now, row),
        }
        self.set(LOOKED, true);
        self.set(UNRESOLVED, false);
        self.verdict = self.decide(now, row, stuck, rules);
        if matches!(self.verdict, Verdict::Asked | Verdict::TieAsked | Verdict::Unread) {
            // What was sent before was the answer to something else.
            self.after = 0;
        }
        self.verdict
    }

    fn take(&mut self, info: &Info, state: State) {
        let (sent, received) = (info.bytes_sent as u32, info.bytes_received as u32);
        let more = sent.wrapping_sub(self.sent);
        self.after = self.after.saturating_add(more.min(255) as u8);
        if more != 0 {
            self.set(INTERIM, false);
        }
        let came = received.wrapping_sub(self.received);
        // A FIN counts as a byte.
        if state == State::Established || came != 1 {
            self.asked = self.asked.saturating_add(came.min(255) as u8);
        }
        if more != 0 || received != self.received {
            // Whatever was known of a tie was of another one.
            self.set(TIE, false);
            self.set(HAS_BEFORE, self.is(LOOKED));
            self.acks_before = self.acks;
        }
        (self.sent, self.received, self.acks) = (sent, received, info.bare_acks as u16);
    }

    fn take_queues(&mut self, now: Uptime, row: &Row) {
        if (self.sent, self.received) != (row.wqueue, row.rqueue) {
            (self.sent, self.received, self.since) = (row.wqueue, row.rqueue, millis(now));
        }
    }

    fn decide(&mut self, now: Uptime, row: &Row, stuck: bool, rules: &Rules) -> Verdict {
        let info = row.info();
        if row.state == State::Closing {
            return match (row.wqueue > 1, stuck) {
                (true, false) => Verdict::Flushing,
                (true, true) => Verdict::Stuck,
                (false, _) => Verdict::Gone,
            };
        }
        if row.is_probe() {
            return Verdict::NeverAsked;
        }
        if row.inode == 0 {
            return Verdict::Queued;
        }
        let rest = info.map_or(self.age(now), |info| Duration::from_millis(info.rest().into()));
        if row.state == State::CloseWait && rest >= rules.max_silence.unwrap_or(HALF_CLOSED_REST) {
            return Verdict::Abandoned;
        }
        if row.wqueue > 0 {
            return if stuck { Verdict::Stuck } else { Verdict::Sending };
        }
        if row.state == State::CloseWait {
            return Verdict::HalfClosed;
        }
        let silent = rules.max_silence.is_some_and(|most| rest >= most);
        if row.rqueue > 0 {
            return if silent { Verdict::Silent } else { Verdict::Unread };
        }
        match row.seen {
            Seen::Info(info) => self.by_stamps(now, &info, silent, rules),
            Seen::Queues { ping_pong } => self.by_queues(now, ping_pong),
            Seen::Unix if silent => Verdict::Silent,
            Seen::Unix => Verdict::Connected,
        }
    }

    fn by_stamps(&mut self, now: Uptime, info: &Info, silent: bool, rules: &Rules) -> Verdict {
        if info.bytes_received == 0 {
            return Verdict::NeverAsked;
        }
        let asked = |verdict| if silent { Verdict::Silent } else { verdict };
        if info.bytes_sent == 0 || info.last_data_recv < info.last_data_sent {
            self.no_tie();
            return asked(Verdict::Asked);
        }
        // An interim answer is no answer, until more is sent.
        if self.after == CONTINUE_BYTES && self.asked >= EXPECT_BYTES {
            self.set(INTERIM, true);
        }
        if self.is(INTERIM) {
            return asked(Verdict::Continue);
        }
        if info.is_tie() {
            match self.break_tie(info) {
                Some(true) => return asked(Verdict::TieAsked),
                Some(false) => {}
                None => {
                    self.set(UNRESOLVED, true);
                    // Perhaps answered: an interim answer to what comes next counts from here, a stream's gap does not.
                    self.after = 0;
                    self.set(ANSWERED, false);
                    return Verdict::Cooling;
                }
            }
        } else {
            self.no_tie();
        }
        self.answered_now(now, info);
        let since_sent = info.last_data_sent;
        if since_sent < u32::from(self.gap) * 200 {
            return Verdict::Streaming;
        }
        if Duration::from_millis(info.rest().into()) < rules.idle_after { Verdict::Cooling } else { Verdict::Answered }
    }

    fn no_tie(&mut self) {
        self.acks_before = self.acks;
        self.set(HAS_BEFORE, true);
        self.set(TIE, false);
    }

    /// It looks answered. If it looked so before and has sent again unasked since, it streams: remember the gap.
    fn answered_now(&mut self, now: Uptime, info: &Info) {
        let sent_at = millis(now).wrapping_sub(info.last_data_sent);
        if self.is(ANSWERED) && self.after > 0 && self.asked == 0 {
            let gap = sent_at.wrapping_sub(self.since);
            if (STREAM_GAP..0x8000_0000).contains(&gap) {
                self.gap = self.gap.max(((gap + 50) / 100).min(255) as u8);
            }
        }
        self.since = sent_at;
        (self.after, self.asked) = (0, 0);
        self.set(ANSWERED, true);
    }

    /// Sent and received in one tick of the kernel's clock: which came last? Some(true): the request.
    fn break_tie(&mut self, info: &Info) -> Option<bool> {
        if self.is(TIE_ASKED) {
            return Some(true);
        }
        if self.is(TIE_ANSWERED) || info.breaks_tie() {
            self.set(TIE_ANSWERED, true);
            return Some(false);
        }
        let age = info.rest();
        let held = info.is_tie_held();
        // A bare ACK inside the tie acknowledged an input that no answer did. Much later it answers a TCP keep-alive.
        if !held && self.is(HAS_EARLY) && self.acks != self.acks_early {
            self.set(TIE_ASKED, true);
            return Some(true);
        }
        // By now every input without an answer would have been acknowledged; or it was held long enough, and the kernel was asked.
        let none = age >= DELAYED_ACK_LATEST && self.is(HAS_BEFORE) && self.acks == self.acks_before;
        if none || held && self.is(TIE_CHECKED) {
            self.set(TIE_ANSWERED, true);
            return Some(false);
        }
        if age < DELAYED_ACK_EARLIEST {
            self.acks_early = self.acks;
            self.set(HAS_EARLY, true);
        }
        None
    }

    /// Without stamps: queues, the ping-pong bit, and time.
    fn by_queues(&self, now: Uptime, ping_pong: Option<bool>) -> Verdict {
        let unchanged = self.age(now);
        if ping_pong == Some(false) && unchanged < BLIND_ASKED {
            return Verdict::TieAsked;
        }
        // What was there before the stop signal and is at rest may have been so for long.
        if unchanged < BLIND_HOLD { Verdict::Cooling } else { Verdict::Answered }
    }
}
