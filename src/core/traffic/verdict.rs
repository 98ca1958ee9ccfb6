//! The verdict on one connection: a pure function of its successive rows.
//!
//! The obvious rule (answered if sent later than received) is wrong half of the time: the kernel's stamps are ticks of 1 to 10 ms, and two
//! events often have the same one (a tie). docs/traffic.md has the rule, the experiments behind it, and what cannot be seen from outside.

use std::time::Duration;

use super::row::{Info, Row, Seen, State};
use crate::core::time::Uptime;
use crate::core::traffic::network::Network;

/// How long a tie is held if nothing breaks it.
const TIE_HOLD: Duration = Duration::from_millis(2000);
/// By then, in ms, a delayed ACK has been sent: an input without one was answered.
const DELAYED_ACK_LATEST: u32 = 250;
/// Before this, in ms, no delayed ACK has been sent yet.
const DELAYED_ACK_EARLIEST: u32 = 36;
/// If sent bytes are not acknowledged for this long, the other end is gone.
pub const STUCK_AFTER: Duration = Duration::from_secs(10);
/// How long a half-closed connection without an answer is waited for: after that its client has most likely gone.
const HALF_CLOSED_REST: Duration = Duration::from_secs(10);
/// If it sends again this many ms after it looked answered, it is a stream, and not the rest of an answer.
const STREAM_GAP: u32 = 100;
/// The length of `HTTP/1.1 100 Continue` with its two line ends.
const CONTINUE_BYTES: u8 = 25;
/// The shortest request that asks for a `100 Continue`, in bytes: an answer of a WebSocket may have 25 bytes too.
const EXPECT_BYTES: u8 = 48;
/// Without the kernel's stamps: how long a connection is held after its last change that was seen.
const BLIND_HOLD: Duration = Duration::from_secs(5);
/// The same, if its input looks unanswered.
const BLIND_ASKED: Duration = Duration::from_secs(10);

/// What a connection is doing, and the reason for this verdict.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// A request has no answer yet.
    Asked,
    /// A unix socket that is connected: it counts as work, since no more can be seen.
    Connected,
    /// Only `100 Continue` was sent so far.
    Continue,
    /// The app has closed it, and the kernel still delivers its last bytes.
    Flushing,
    /// The client has finished sending, and may be waiting.
    HalfClosed,
    Sending,
    /// It is between two parts of an answer: it has sent again without a request before.
    Streaming,
    TieAsked,
    Unread,

    /// Answered less than `idle-after` ago, or a tie that may yet turn out to be a request.
    Cooling,

    /// The client finished sending long ago, and nothing has moved since.
    Abandoned,
    Answered,
    NeverAsked,
    /// Unanswered, or sent to a silent client, for `--max-silence`.
    Silent,
    /// The other end does not acknowledge what was sent.
    Stuck,

    /// The kernel has accepted it, the app has not.
    Queued,
    Gone,
}

/// How the work of a connection ends, if the connection ends now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    Cut,
    Finished,
    /// It had no work.
    Nothing,
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

/// The options that decide on connections.
#[derive(Clone, Debug)]
pub struct Rules {
    pub idle_after: Duration,
    /// `--max-silence`. None: as long as there is time.
    pub max_silence: Option<Duration>,
    pub ignored: Vec<Network>,
}

/// What is remembered of a connection from look to look. Counters are modulo 2^32, times are milliseconds of uptime modulo 2^32 (49 days):
/// only their differences are used.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    pub port: u16,
    pub verdict: Verdict,
    /// It was there when the watching began.
    pub old: bool,
    /// It is counted as an arrival: it came after the stop signal and has sent something.
    pub counted: bool,
    /// It has had work since the stop signal.
    pub worked: bool,
    /// The present look has shown it.
    pub seen: bool,
    /// It has no row any more, and the kernel has not announced its end: it was closed by the app and delivered, or waits for the client's
    /// FIN.
    pub left: bool,
    /// Its tie is not broken yet.
    pub unresolved: bool,
    /// The app ended in the middle of writing an answer to it.
    pub broken_off: bool,
    /// When it was first seen, while it has sent nothing. After that: when its last answer was sent; without stamps: when it last changed.
    since: u32,
    /// The counters as of the last look; without stamps the queues.
    sent: u32,
    received: u32,
    /// There was an earlier look.
    looked: bool,
    /// It has been answered; `since` says when.
    answered: bool,
    /// Since its request only `100 Continue` was sent.
    interim: bool,
    /// Whether a request is pending, followed from look to look while the stamps tie: a client that asks again in the tick of its answer
    /// goes from one request to the next. None: not known yet.
    pending: Option<bool>,
    /// What was sent last and what was received last have the same stamp.
    tied: bool,
    /// Bytes received and sent since it last looked answered; 255 stands for 255 and more.
    asked: u8,
    after: u8,
    /// The longest silence inside an answer, in tenths of a second; 25.5 s stands for that and more.
    gap: u8,
    /// Segments sent without data: as of the last look, and before the present tie.
    acks: u32,
    acks_before: Option<u32>,
    tie: Tie,
    writing: Writing,
}

/// What is known of the present tie.
#[derive(Clone, Copy, Debug, Default)]
struct Tie {
    /// The request is known to have come last.
    asked: bool,
    /// The answer is known to have come last.
    answered: bool,
    /// The kernel's ping-pong bit was asked for and did not break it.
    checked: bool,
    /// Segments sent without data, as counted early in the tie.
    acks_early: Option<u32>,
}

/// How far the app has come with writing. If a send buffer is full, and is full again after more was written without a request, a process
/// waits for room: its answer is not complete.
#[derive(Clone, Copy, Debug, Default)]
struct Writing {
    /// Bytes written and received when the buffer was last full.
    full_at: Option<(u32, u32)>,
    /// The buffer is full now, and it was full before.
    waits: bool,
    /// Bytes written as of the last look.
    written: u32,
}

pub fn millis(at: Uptime) -> u32 {
    at.0.as_millis() as u32
}

fn rest(info: &Info) -> Duration {
    Duration::from_millis(info.rest().into())
}

/// Whether no byte has moved for longer than a tie is held.
pub fn is_tie_held(info: &Info) -> bool {
    rest(info) >= TIE_HOLD
}

impl Connection {
    /// A connection that is seen for the first time. `old`: it was there when the watching began.
    pub fn new(now: Uptime, port: u16, old: bool) -> Connection {
        Connection {
            port,
            verdict: Verdict::Gone,
            old,
            counted: false,
            worked: false,
            seen: false,
            left: false,
            unresolved: false,
            broken_off: false,
            since: millis(now),
            sent: 0,
            received: 0,
            looked: false,
            answered: false,
            interim: false,
            pending: None,
            tied: false,
            asked: 0,
            after: 0,
            gap: 0,
            acks: 0,
            acks_before: None,
            tie: Tie::default(),
            writing: Writing::default(),
        }
    }

    /// When it was first seen, as long as it has sent nothing.
    pub fn first_seen(&self, now: Uptime) -> Uptime {
        Uptime(now.since(Uptime(self.age(now))))
    }

    /// Bytes received and sent as of the last look, modulo 2^32, and whether a request was waiting for its answer. None: there was no look.
    pub fn last_look(&self) -> Option<(u32, u32, bool)> {
        self.looked.then_some((self.received, self.sent, self.pending == Some(true)))
    }

    fn age(&self, now: Uptime) -> Duration {
        Duration::from_millis(millis(now).wrapping_sub(self.since).into())
    }

    /// Whether it has a request, and its answer has not begun, as far as can be seen.
    pub fn is_unanswered(&self) -> bool {
        match self.pending {
            Some(pending) if self.tied => pending,
            None if self.unresolved => false,
            Some(_) | None => self.asked > 0 && (self.after == 0 || self.interim),
        }
    }

    /// How its work ends if it ends now. `stopping`: the app has been sent its stop signal.
    pub fn fate(&self, stopping: bool) -> Fate {
        match (self.verdict.class(), self.verdict) {
            _ if self.broken_off => Fate::Cut,
            // What was being sent when it left was delivered; of a unix socket no more can be known.
            (_, Verdict::Flushing | Verdict::Sending | Verdict::Connected) if self.left => Fate::Finished,
            (Class::Busy | Class::Queued, _) if self.left && !stopping => Fate::Finished,
            (Class::Busy | Class::Queued, _) | (_, Verdict::Stuck) => Fate::Cut,
            (_, Verdict::Silent) if !self.left => Fate::Cut,
            (Class::Cooling | Class::Idle | Class::Gone, _) if !self.worked => Fate::Nothing,
            (Class::Cooling | Class::Idle | Class::Gone, _) if stopping && self.is_unanswered() => Fate::Cut,
            (Class::Cooling | Class::Idle | Class::Gone, _) => Fate::Finished,
        }
    }

    /// Whether it is not waited for any more although its work is not done. If the app ended now, it would count as cut.
    pub fn is_given_up(&self) -> bool {
        self.verdict.class() == Class::Idle && self.fate(true) == Fate::Cut
    }

    /// Takes the kernel's final counters of it, and returns how its work has ended.
    pub fn close(&mut self, info: &Info) -> Fate {
        let (sent, received, given_up) = (self.sent, self.received, self.is_given_up());
        self.take(info, State::Closing);
        // The FIN counts as a byte.
        let asked_again = matches!(self.received.wrapping_sub(received), 2..=0x7fff_ffff);
        let delivered = info.bytes_sent > 0 && info.bytes_acked >= info.bytes_sent;
        match () {
            _ if !self.worked && !asked_again => Fate::Nothing,
            _ if self.broken_off || !delivered || self.is_unanswered() => Fate::Cut,
            // A connection that sends without requests goes on sending: it has not finished.
            _ if given_up && (self.sent == sent || self.gap > 0) => Fate::Cut,
            _ => Fate::Finished,
        }
    }

    /// Every process of the app has ended: an answer that waited for room in the send buffer can't become complete.
    pub fn app_ended(&mut self) {
        self.broken_off |= self.writing.waits;
    }

    /// Takes the kernel's ping-pong bit, which is asked for where a tie is unresolved. If it is set or unknown, it proves nothing.
    pub fn ping_pong(&mut self, bit: Option<bool>) {
        match bit {
            Some(false) => (self.tie.asked, self.pending) = (true, Some(true)),
            Some(true) | None => self.tie.checked = true,
        }
    }

    /// Takes one more row and returns the verdict. `stuck`: the other end does not acknowledge what was sent.
    pub fn judge(&mut self, now: Uptime, row: &Row, stuck: bool, rules: &Rules) -> Verdict {
        match row.info() {
            Some(info) => self.take(info, row.state),
            None => self.take_queues(now, row),
        }
        self.take_buffer(row);
        self.looked = true;
        self.unresolved = false;
        self.verdict = self.decide(now, row, stuck, rules);
        match self.verdict {
            Verdict::Asked | Verdict::TieAsked | Verdict::Unread => self.pending = Some(true),
            Verdict::Answered | Verdict::Streaming => self.pending = Some(false),
            Verdict::Cooling if !self.unresolved => self.pending = Some(false),
            _ => {}
        }
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
            self.interim = false;
        }
        let came = received.wrapping_sub(self.received);
        // A FIN counts as a byte.
        if state == State::Established || came != 1 {
            self.asked = self.asked.saturating_add(came.min(255) as u8);
        }
        match (more != 0, came > u32::from(state != State::Established)) {
            (true, false) => self.pending = Some(false),
            (false, true) => self.pending = Some(true),
            // An answer and the next request, or a request and its answer: as it was before.
            (true, true) | (false, false) => {}
        }
        if more != 0 || received != self.received {
            // What was known of a tie belonged to an earlier one.
            self.tie = Tie::default();
            self.acks_before = if self.looked { Some(self.acks) } else { None };
        }
        (self.sent, self.received, self.acks, self.tied) = (sent, received, info.bare_acks, info.is_tie());
    }

    fn take_queues(&mut self, now: Uptime, row: &Row) {
        if (self.sent, self.received) != (row.wqueue, row.rqueue) {
            (self.sent, self.received, self.since) = (row.wqueue, row.rqueue, millis(now));
        }
    }

    fn take_buffer(&mut self, row: &Row) {
        let Some(info) = row.info() else { return };
        let written = (info.bytes_acked as u32).wrapping_add(row.wqueue);
        if row.state == State::Closing {
            // More was written, and there is room: the process that waited for room may be done. The FIN counts as a byte.
            self.broken_off &= row.full || written.wrapping_sub(1) == self.writing.written;
            return;
        }
        self.writing.written = written;
        let again = self.writing.full_at.is_some_and(|(before, received)| written != before && received == self.received);
        self.writing.waits = row.full && (again || self.writing.waits);
        if row.full {
            self.writing.full_at = Some((written, self.received));
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
        let rest = info.map_or(self.age(now), rest);
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
        // `100 Continue` is no answer until more is sent.
        if self.after == CONTINUE_BYTES && self.asked >= EXPECT_BYTES {
            self.interim = true;
        }
        if self.interim {
            return asked(Verdict::Continue);
        }
        if info.is_tie() {
            match self.break_tie(info) {
                Some(true) => return asked(Verdict::TieAsked),
                Some(false) => {}
                None => {
                    self.unresolved = true;
                    // It is perhaps answered. A `100 Continue` that comes next counts from here, the gap of a stream does not.
                    self.after = 0;
                    self.answered = false;
                    return Verdict::Cooling;
                }
            }
        } else {
            self.no_tie();
        }
        self.answered_now(now, info);
        if self.gap > 0 && info.last_data_sent < u32::from(self.gap) * 200 {
            // It sends without requests. One that does so without end is given up when its client is silent for long.
            let client_silent = Duration::from_millis(info.last_data_recv.into());
            let given_up = rules.max_silence.is_some_and(|most| client_silent >= most);
            return if given_up { Verdict::Silent } else { Verdict::Streaming };
        }
        if rest(info) < rules.idle_after { Verdict::Cooling } else { Verdict::Answered }
    }

    fn no_tie(&mut self) {
        self.acks_before = Some(self.acks);
        self.tie = Tie::default();
    }

    /// It looks answered. If it looked so before and has sent again without a request since, it streams: notes the gap.
    fn answered_now(&mut self, now: Uptime, info: &Info) {
        let sent_at = millis(now).wrapping_sub(info.last_data_sent);
        if self.answered && self.after > 0 && self.asked == 0 {
            let gap = sent_at.wrapping_sub(self.since);
            if (STREAM_GAP..0x8000_0000).contains(&gap) {
                self.gap = self.gap.max(((gap + 50) / 100).min(255) as u8);
            }
        }
        self.since = sent_at;
        (self.after, self.asked) = (0, 0);
        self.answered = true;
    }

    /// Sent and received in one tick of the kernel's clock: which came last? Some(true): the request. Some(false): the answer. None: not
    /// known yet.
    fn break_tie(&mut self, info: &Info) -> Option<bool> {
        if self.tie.asked {
            return Some(true);
        }
        if self.tie.answered || info.breaks_tie() {
            self.tie.answered = true;
            return Some(false);
        }
        let held = is_tie_held(info);
        // A bare ACK inside the tie acknowledged an input that had no answer. Much later it answers a TCP keep-alive.
        if !held && self.tie.acks_early.is_some_and(|early| early != self.acks) {
            self.tie.asked = true;
            return Some(true);
        }
        // By now every input without an answer would have been acknowledged; or the tie was held long enough, and the kernel was asked.
        let none = info.rest() >= DELAYED_ACK_LATEST && self.acks_before == Some(self.acks);
        if none || held && self.tie.checked {
            self.tie.answered = true;
            return Some(false);
        }
        if info.rest() < DELAYED_ACK_EARLIEST {
            self.tie.acks_early = Some(self.acks);
        }
        None
    }

    /// The verdict without stamps: by queues, the ping-pong bit, and time.
    fn by_queues(&self, now: Uptime, ping_pong: Option<bool>) -> Verdict {
        let unchanged = self.age(now);
        if ping_pong == Some(false) && unchanged < BLIND_ASKED {
            return Verdict::TieAsked;
        }
        // What was there before the stop signal and is at rest may have been at rest for long.
        if unchanged < BLIND_HOLD { Verdict::Cooling } else { Verdict::Answered }
    }
}
