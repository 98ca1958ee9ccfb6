//! Kept-alive connections: which connections are kept alive, when one may be closed from outside without losing a request, and how many may
//! be closed at once. Pure functions of successive rows; docs/keepalive.md has the experiments behind the numbers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::row::{Info, Row};
use super::verdict::{Verdict, millis};
use crate::core::servers::{self, OwnStop};
use crate::core::time::Uptime;

/// A connection is kept alive if it has shown at least this many turns of request and answer since the stop signal.
const TURNS: u8 = 2;
/// With this many turns the habits of its client are known.
const KNOWN_TURNS: u8 = 3;
/// The shortest request or answer of HTTP/1, in bytes: `GET / HTTP/1.1`, `Host:` and their line ends; `HTTP/1.1 204 No Content`. Chats,
/// pings and statements of databases are often shorter.
const SHORTEST: u32 = 26;
/// A request or an answer with a pause of at least this many ms inside comes in parts. Two ticks of the slowest kernel.
const PART: u32 = 20;
/// What happens no more than once in this many turns is chance and no habit: a process that waits for a CPU pauses inside an answer.
const ONE_IN: u32 = 10;
/// A client is hasty if it asks again within this many ms after its answer.
const HASTY: u32 = 10;
/// How long after an answer, in ms, is "right after it": the FIN follows the answer before the client can have asked again.
const RIGHT_AFTER: u32 = 6;
/// How long the connection of a hasty client must have been at rest, in ms, and at least for two round trips.
const REST: u32 = 20;
/// A request that came at least this many ms ago is whole: its segments follow each other at once.
const WHOLE: u32 = 5;
/// The kernel delays the ACK of a request without an answer by this many ms, or by the smoothed round trip if that is longer; and by two
/// ticks.
const DELAYED_ACK: u32 = 40;
const TWO_TICKS: u32 = 20;
/// How long after the first closing a connection may also be closed at rest, if it was never seen right after an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How many connections are closed in one second at most, so that their clients do not all connect elsewhere in the same moment.
const MOST_A_SECOND: f64 = 6000.0;
/// How many are closed at the same time at most.
const MOST_AT_ONCE: f64 = 256.0;

/// What is done about kept-alive connections once the delay is over and nothing new comes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Way {
    /// Each one is closed when it is between two requests.
    Close,
    /// The app gets its stop signal while they are in use, when the fewest requests are in flight.
    Fewest,
    /// The app gets its stop signal while they are in use: its own stop finishes them.
    OwnStop,
    /// They are waited for.
    #[default]
    Wait,
}

/// `--keep-alive`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeepAlive {
    /// Chooses the way that loses least for the server that runs.
    #[default]
    Auto,
    Close,
    Wait,
}

impl Way {
    /// Chooses the way for a server. `own_stop`: lameduck sends the server its own graceful signal. `permitted`: its connections can be
    /// closed from outside.
    pub fn choose(wanted: KeepAlive, server: servers::KeptAlive, own_stop: bool, permitted: bool) -> Way {
        let own_stop = if own_stop { server.own_stop } else { OwnStop::Poor };
        match (wanted, own_stop) {
            (KeepAlive::Wait, _) => Way::Wait,
            (KeepAlive::Auto, _) if server.is_session => Way::Wait,
            (KeepAlive::Auto, OwnStop::Lossless) => Way::OwnStop,
            _ if permitted => Way::Close,
            (_, OwnStop::Lossless | OwnStop::Good) => Way::OwnStop,
            (_, OwnStop::Poor) => Way::Fewest,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Way::Close => "close",
            Way::Fewest => "fewest",
            Way::OwnStop => "own-stop",
            Way::Wait => "wait",
        }
    }
}

/// What a connection has shown since the stop signal. Times are milliseconds of uptime modulo 2^32.
#[derive(Clone, Copy, Debug, Default)]
pub struct History {
    /// It is known when the last request and the last answer came, and how many segments there were.
    timed: bool,
    /// At the last look a request was waiting for its answer.
    asking: bool,
    /// And this is certain.
    sure: bool,
    /// Turns of request and answer; how many of these had a hasty client or more than one segment; and how many pauses there were inside
    /// answers. All are halved together before they overflow.
    turns: u8,
    hasty: u8,
    pauses: u8,
    /// It streams, has requests in parts, or has overlapping requests: it is never closed.
    unfit: bool,
    /// Its requests or answers are too short for HTTP/1.
    short: bool,
    /// It was chosen to be closed.
    taken: bool,
    /// Closing it was tried and refused.
    refused: bool,
    /// The shortest time from the client's getting an answer to its next request, in ms. Hasty ones are left out.
    think: Option<u16>,
    /// Bytes of the present answer, and of the shortest and the longest answer before it.
    answer: u32,
    shortest: u32,
    longest: u32,
    /// The counters and times as of the last look.
    received: u32,
    sent: u32,
    segments: u32,
    asked_at: u32,
    answered_at: u32,
    /// Segments sent without data: as of the last look, and as of the one before something moved.
    acks: Option<u32>,
    acks_before: Option<u32>,
}

/// How long a client has paused before it asked again.
#[derive(Clone, Copy)]
enum Pause {
    /// In ms, from when the last answer was sent to when the request came.
    Of(u32),
    /// Unknown: several segments came at once, perhaps more than one request.
    None,
    Unknown,
}

impl History {
    /// The history of a connection that begins to move: bytes received and sent at the look before, modulo 2^32, and whether a request was
    /// waiting then.
    pub fn begin((received, sent, asking): (u32, u32, bool)) -> History {
        History { received, sent, asking, ..History::default() }
    }

    /// Notes one more look. `unresolved`: the verdict is not certain.
    pub fn look(&mut self, now: Uptime, row: &Row, verdict: Verdict, unresolved: bool) {
        let Some(info) = row.info() else {
            self.unfit = true;
            return;
        };
        let asked = (info.bytes_received as u32).wrapping_sub(self.received);
        let answered = (info.bytes_sent as u32).wrapping_sub(self.sent);
        let segments = info.segments_in.wrapping_sub(self.segments);
        let asked_at = millis(now).wrapping_sub(info.last_data_recv);
        let answered_at = millis(now).wrapping_sub(info.last_data_sent);
        let (asks, sure) = match verdict {
            Verdict::Asked | Verdict::TieAsked | Verdict::Unread | Verdict::Continue | Verdict::Silent => (true, true),
            // The stamps do not decide; the counters may.
            Verdict::Cooling if unresolved => match (asked > 0, answered > 0) {
                (true, false) => (true, true),
                (false, true) => (false, true),
                // An input without an answer would have been acknowledged by now, with a segment of its own.
                (false, false) if self.acks_before == Some(info.bare_acks) && has_rested(info) => (false, true),
                (false, false) => (self.asking, self.sure),
                // One segment, and an answer: the answer to it.
                (true, true) => (self.asking, self.timed && self.sure && !self.asking && segments == 1),
            },
            _ => (false, true),
        };
        let pause = |since: u32| match (self.timed, segments) {
            (false, _) => Pause::Unknown,
            (true, 1) => Pause::Of(passed(since, asked_at)),
            (true, _) => Pause::None,
        };
        let (before, between) = (pause(self.answered_at), pause(answered_at));
        match (asked > 0, answered > 0, self.asking, asks) {
            (false, false, ..) => {}
            (true, false, true, _) => self.unfit |= self.timed && passed(self.asked_at, asked_at) >= PART,
            (true, false, false, _) => self.ask(asked, before, info),
            (false, true, true, _) => self.answer(answered),
            (false, true, false, _) => {
                let has_paused = self.timed && passed(self.answered_at, answered_at) >= PART;
                self.pauses = self.pauses.saturating_add(has_paused.into());
                self.answer = self.answer.saturating_add(answered);
            }
            (true, true, true, true) => {
                self.answer(answered);
                self.ask(asked, between, info);
            }
            (true, true, false, false) => {
                self.ask(asked, before, info);
                self.answer(answered);
            }
            // More than one turn between two looks.
            (true, true, ..) => {
                self.ask(asked, Pause::None, info);
                self.answer(answered);
            }
        }
        self.unfit |= matches!(verdict, Verdict::Streaming);
        (self.timed, self.asking, self.sure) = (true, asks, sure);
        if asked > 0 || answered > 0 {
            self.acks_before = self.acks;
        }
        self.acks = Some(info.bare_acks);
        (self.received, self.sent, self.segments) = (info.bytes_received as u32, info.bytes_sent as u32, info.segments_in);
        (self.asked_at, self.answered_at) = (asked_at, answered_at);
    }

    fn ask(&mut self, bytes: u32, pause: Pause, info: &Info) {
        self.short |= bytes < SHORTEST;
        if self.answer > 0 {
            self.shortest = if self.shortest == 0 { self.answer } else { self.shortest.min(self.answer) };
            self.longest = self.longest.max(self.answer);
        }
        match pause {
            Pause::Unknown => {}
            Pause::Of(pause) if pause >= HASTY + round_trip(info) => {
                let think = (pause - round_trip(info)).min(u16::MAX.into()) as u16;
                self.think = Some(self.think.map_or(think, |least| least.min(think)));
            }
            Pause::Of(_) | Pause::None => self.hasty = self.hasty.saturating_add(1),
        }
    }

    fn answer(&mut self, bytes: u32) {
        self.short |= bytes < SHORTEST;
        self.answer = bytes;
        self.turns += 1;
        if self.turns == 200 {
            (self.turns, self.hasty, self.pauses) = (self.turns / 2, self.hasty / 2, self.pauses / 2);
        }
    }

    /// Whether it is a kept-alive connection. `any`: whatever protocol it speaks.
    pub fn is_kept(&self, any: bool) -> bool {
        self.turns >= TURNS && !self.unfit && self.is_rare(self.pauses) && !self.taken && (any || !self.short)
    }

    pub fn is_taken(&self) -> bool {
        self.taken
    }

    pub fn take(&mut self, taken: bool) {
        self.taken = taken;
    }

    /// It was chosen, and could not be closed: it is not chosen again.
    pub fn refuse(&mut self) {
        (self.taken, self.refused) = (false, true);
    }

    /// Whether its last request was certainly answered.
    fn is_answered(&self) -> bool {
        self.sure && !self.asking
    }

    /// Whether the present answer is at least as long as each one before it.
    fn is_answer_whole(&self) -> bool {
        !self.asking && self.longest > 0 && self.answer >= self.longest
    }

    /// Whether the present answer is as long as those before it. One that is not may be the first part of a stream.
    fn is_usual(&self) -> bool {
        (self.shortest..=self.longest).contains(&self.answer)
    }

    /// Whether its client asks at times that can be foreseen, and hardly ever right after an answer.
    fn is_regular(&self) -> bool {
        self.turns >= KNOWN_TURNS && self.is_rare(self.hasty)
    }

    /// Whether this happened in so few of the turns that it says nothing about client and server.
    fn is_rare(&self, times: u8) -> bool {
        u32::from(times) * ONE_IN <= u32::from(self.turns)
    }
}

/// Time from one stamp to another, in ms. Stamps are ticks, and may be in the wrong order by one tick: then 0.
fn passed(from: u32, to: u32) -> u32 {
    (to.wrapping_sub(from) as i32).max(0) as u32
}

/// Whether it has been at rest long enough for a delayed ACK.
fn has_rested(info: &Info) -> bool {
    info.rtt > 0 && info.rest() >= DELAYED_ACK.max(info.rtt.div_ceil(1000)) + TWO_TICKS
}

/// The shortest round trip that was measured, in ms; 0: none was.
fn round_trip(info: &Info) -> u32 {
    info.min_rtt.map_or(0, |micros| micros.div_ceil(1000))
}

/// When the closing began, how many connections may be closed now, and what came of it.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The app finishes a request in flight even after it has read end-of-file.
    finishes: bool,
    /// Connections of any protocol are closed.
    any: bool,
    /// `--idle-after`: the longest pause inside an answer.
    idle_after: Duration,
    began: Uptime,
    /// How many connections may be closed now, and when that was counted.
    credit: f64,
    counted: Uptime,
    /// How many connections were closed, by the client's address.
    peers: HashMap<IpAddr, u64>,
    closed: u64,
    closed_at: Option<Uptime>,
    /// How many new connections came from those clients since.
    returned: u64,
}

/// A connection that is to be closed, as it stood when it was chosen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Chosen {
    pub cookie: u64,
    pub inode: u32,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// It may be closed whatever it is doing at that moment.
    pub any_moment: bool,
    pub peer: IpAddr,
}

impl Closing {
    pub fn begin(now: Uptime, finishes: bool, any: bool, idle_after: Duration) -> Closing {
        Closing {
            finishes,
            any,
            idle_after,
            began: now,
            credit: MOST_AT_ONCE / 4.0,
            counted: now,
            peers: HashMap::new(),
            closed: 0,
            closed_at: None,
            returned: 0,
        }
    }

    /// When the last connection was closed. None: none was.
    pub fn closed_at(&self) -> Option<Uptime> {
        self.closed_at
    }

    pub fn since(&self) -> Uptime {
        self.began
    }

    /// A look begins: counts how many connections may be closed now.
    pub fn look(&mut self, now: Uptime) {
        let more = now.since(self.counted).as_secs_f64() * MOST_A_SECOND;
        (self.credit, self.counted) = ((self.credit + more).min(MOST_AT_ONCE), now);
    }

    /// Returns the connection if it is to be closed now. `unresolved`: the verdict is not certain.
    pub fn choose(&mut self, now: Uptime, row: &Row, verdict: Verdict, unresolved: bool, history: &History) -> Option<Chosen> {
        let info = row.info()?;
        if self.credit < 1.0 || history.refused || !history.is_kept(self.any) {
            return None;
        }
        let any_moment = self.finishes && is_whole(info, verdict);
        if !any_moment && !self.is_between(now, row, info, verdict, unresolved, history) {
            return None;
        }
        self.credit -= 1.0;
        let Info { bytes_received, bytes_sent, .. } = *info;
        Some(Chosen { cookie: row.cookie, inode: row.inode, bytes_received, bytes_sent, any_moment, peer: row.peer })
    }

    /// Whether it is between an answer and the next request, at a moment when that request is hardly on its way.
    fn is_between(&self, now: Uptime, row: &Row, info: &Info, verdict: Verdict, unresolved: bool, history: &History) -> bool {
        let acknowledged = match verdict {
            Verdict::Answered => true,
            Verdict::Cooling if !unresolved || history.is_answered() => true,
            // The answer is on its way, and is as long as the last one: it is complete.
            Verdict::Sending if history.is_answer_whole() && !row.full && info.last_data_sent < info.last_data_recv => false,
            _ => return false,
        };
        if !history.is_usual() && Duration::from_millis(info.rest().into()) < self.idle_after {
            return false;
        }
        let since = info.last_data_sent;
        let think = u32::from(history.think.unwrap_or_default());
        let soon = RIGHT_AFTER.max((think / 2).saturating_sub(RIGHT_AFTER));
        if history.is_regular() && since <= soon {
            return true;
        }
        let patient = history.is_regular() && now.since(self.began) < PATIENCE;
        !patient && acknowledged && info.rest() >= REST.max(2 * round_trip(info))
    }

    /// Counts a connection that was closed.
    pub fn closed(&mut self, now: Uptime, peer: IpAddr) {
        self.closed += 1;
        self.closed_at = Some(now);
        *self.peers.entry(peer).or_default() += 1;
    }

    /// Counts a new connection.
    pub fn arrived(&mut self, peer: IpAddr) {
        self.returned += u64::from(self.peers.contains_key(&peer));
    }

    /// Whether the clients of closed connections come back to this app, so that closing achieves nothing.
    pub fn is_in_vain(&self) -> bool {
        self.returned > 0 && self.returned * 2 >= self.closed
    }
}

/// Whether a request has come, and all of it by now; or the connection stands still.
fn is_whole(info: &Info, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Asked | Verdict::TieAsked => info.last_data_recv >= WHOLE,
        Verdict::Answered | Verdict::Cooling | Verdict::Sending => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Seen, State};
    use super::super::tracker::Tracker;
    use super::super::verdict::Rules;
    use super::*;

    const ANSWER: u64 = 150;
    const REQUEST: u64 = 80;

    fn at(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    /// One connection of a server that answers a request 10 ms after it came, looked at each 25 ms.
    struct Scene {
        tracker: Tracker,
        now: u64,
        asked_at: u64,
        answered_at: u64,
        info: Info,
        state: State,
        rqueue: u32,
        wqueue: u32,
    }

    impl Scene {
        fn new() -> Scene {
            let rules = Rules { idle_after: Duration::from_secs(1), max_silence: None, ignored: vec![] };
            let info = Info { min_rtt: Some(1000), bytes_sent: 3000, bytes_acked: 3000, bytes_received: 2000, ..Info::default() };
            let state = State::Established;
            Scene {
                tracker: Tracker::new(rules),
                now: 10_000,
                asked_at: 9000,
                answered_at: 9010,
                info,
                state,
                rqueue: 0,
                wqueue: 0,
            }
        }

        fn ask(&mut self, bytes: u64) {
            self.info.bytes_received += bytes;
            self.info.segments_in += 1;
            self.asked_at = self.now;
        }

        fn answer(&mut self, bytes: u64) {
            self.info.bytes_sent += bytes;
            self.info.bytes_acked += bytes;
            self.answered_at = self.now;
        }

        fn look(&mut self) -> Vec<Chosen> {
            self.look_only();
            self.tracker.take_chosen()
        }

        /// A look after which nothing is closed.
        fn look_only(&mut self) {
            let age = |at: u64| (self.now - at) as u32;
            let info = Info {
                last_data_sent: age(self.answered_at),
                last_data_recv: age(self.asked_at),
                last_ack_recv: age(self.answered_at.max(self.asked_at)),
                ..self.info
            };
            let row = Row {
                cookie: 1,
                state: self.state,
                local: "10.0.0.2".parse().unwrap(),
                port: 80,
                peer: "10.0.0.1".parse().unwrap(),
                peer_port: 4711,
                rqueue: self.rqueue,
                wqueue: self.wqueue,
                inode: 7,
                cgroup: None,
                retransmits: 0,
                full: false,
                seen: Seen::Info(info),
            };
            self.tracker.row(at(self.now), &row);
            self.tracker.end(at(self.now));
        }

        fn wait(&mut self, millis: u64) {
            self.now += millis;
        }

        /// A turn of 200 ms, looked at as often as the loop does.
        fn turn(&mut self) {
            self.ask(REQUEST);
            self.wait(10);
            self.answer(ANSWER);
            for _ in 0..7 {
                self.wait(25);
                assert_eq!(self.look(), [], "nothing is closed yet");
            }
            self.wait(15);
        }

        fn after_turns(count: usize) -> Scene {
            let mut scene = Scene::new();
            scene.look();
            (0..count).for_each(|_| scene.turn());
            scene
        }

        fn closing(mut self, finishes: bool) -> Scene {
            self.tracker.begin_closing(at(self.now), finishes);
            self
        }
    }

    #[test]
    fn closed_right_after_an_answer_and_only_once() {
        let mut scene = Scene::after_turns(5).closing(false);
        scene.ask(REQUEST);
        assert_eq!(scene.look(), [], "a request is in flight");
        scene.wait(8);
        assert_eq!(scene.look(), []);
        scene.wait(2);
        scene.answer(ANSWER);
        scene.wait(2);
        let chosen = scene.look();
        assert_eq!(chosen.len(), 1);
        assert_eq!((chosen[0].inode, chosen[0].bytes_received, chosen[0].any_moment), (7, scene.info.bytes_received, false));
        for _ in 0..20 {
            scene.wait(25);
            assert_eq!(scene.look(), [], "never twice");
        }
        scene.tracker.spare(&chosen[0]);
        scene.wait(500);
        assert_eq!(scene.look().len(), 1, "it had moved on, and is at rest");
    }

    /// The loop takes no connection to close while new ones come.
    #[test]
    fn what_an_earlier_look_chose_is_forgotten() {
        let mut scene = Scene::after_turns(5).closing(false);
        scene.wait(600);
        scene.look_only();
        scene.wait(25);
        assert_eq!(scene.look().len(), 1, "once, not once for each look");
        let mut scene = Scene::after_turns(5).closing(false);
        scene.wait(600);
        scene.look_only();
        scene.ask(REQUEST);
        assert_eq!(scene.look(), [], "it is between two requests no more");
    }

    #[test]
    fn not_in_the_last_moment_before_the_next_request() {
        let mut scene = Scene::after_turns(5).closing(false);
        // 190 ms after the last answer: the next request may be on its way.
        scene.wait(5);
        assert_eq!(scene.look(), []);
    }

    /// What must never be closed, each with its guard.
    #[test]
    fn those_that_are_left_alone() {
        // Longer than a regular client is waited for.
        let rest = |mut scene: Scene| {
            scene.wait(600);
            scene.look().len()
        };
        assert_eq!(rest(Scene::after_turns(5).closing(false)), 1, "the rule: at rest, after some turns");
        assert_eq!(rest(Scene::after_turns(2).closing(false)), 1, "two turns");
        assert_eq!(rest(Scene::after_turns(1).closing(false)), 0, "one turn");
        assert_eq!(rest(Scene::after_turns(0).closing(false)), 0, "none since the stop signal");

        let mut scene = Scene::new();
        (scene.info.bytes_received, scene.info.bytes_sent, scene.info.bytes_acked) = (0, 0, 0);
        scene.look();
        assert_eq!(rest(scene.closing(false)), 0, "it has never asked");

        let mut scene = Scene::after_turns(5).closing(false);
        scene.rqueue = 10;
        assert_eq!(rest(scene), 0, "half-read");
        let mut scene = Scene::after_turns(5).closing(false);
        scene.state = State::CloseWait;
        assert_eq!(rest(scene), 0, "half-closed");
        let mut scene = Scene::after_turns(5).closing(false);
        scene.ask(REQUEST);
        assert_eq!(rest(scene), 0, "a request is in flight");

        let mut scene = Scene::after_turns(5);
        scene.ask(REQUEST);
        scene.wait(10);
        scene.look();
        scene.wait(40);
        scene.ask(REQUEST);
        scene.look();
        scene.wait(10);
        scene.answer(ANSWER);
        assert_eq!(rest(scene.closing(false)), 0, "a request in parts, or two that overlap");
        let mut scene = Scene::after_turns(5);
        scene.ask(REQUEST);
        scene.wait(10);
        scene.answer(ANSWER);
        scene.look();
        scene.wait(50);
        scene.answer(ANSWER);
        assert_eq!(rest(scene.closing(false)), 0, "an answer in parts");

        let in_parts = |often: usize| {
            let mut scene = Scene::new();
            scene.look();
            for turn in 0..30 {
                if turn % often == 0 {
                    scene.ask(REQUEST);
                    scene.wait(10);
                    scene.answer(ANSWER - 50);
                    scene.look();
                    scene.wait(50);
                    scene.answer(50);
                    scene.look();
                    scene.wait(140);
                } else {
                    scene.turn();
                }
            }
            scene.closing(false)
        };
        assert_eq!(rest(in_parts(9)), 0, "an answer in parts now and then");
        assert_eq!(rest(in_parts(10)), 1, "one in ten: the server had to wait for a CPU");
        let mut scene = in_parts(10);
        scene.ask(REQUEST);
        scene.wait(10);
        scene.answer(ANSWER - 50);
        assert_eq!(scene.look(), [], "it waits again");
        assert_eq!(rest(scene), 0, "the rest of the answer is awaited");

        let mut scene = Scene::new();
        scene.look();
        for _ in 0..5 {
            scene.ask(9);
            scene.wait(10);
            scene.answer(5);
            scene.look();
            scene.wait(300);
        }
        assert_eq!(rest(scene.closing(false)), 0, "too short for HTTP");
    }

    /// It may be the first part of a stream, which nobody can know before the second.
    #[test]
    fn an_answer_unlike_those_before_it_is_waited_for() {
        let mut scene = Scene::after_turns(5);
        scene.ask(REQUEST);
        scene.wait(10);
        scene.answer(ANSWER + 20);
        scene.look();
        let mut scene = scene.closing(false);
        for _ in 0..3 {
            scene.wait(300);
            assert_eq!(scene.look(), []);
        }
        scene.wait(300);
        assert_eq!(scene.look().len(), 1, "as long as --idle-after");
    }

    #[test]
    fn a_hasty_client_is_left_until_it_rests() {
        let mut scene = Scene::new();
        scene.look();
        // It asks 5 ms after each answer.
        for _ in 0..10 {
            scene.ask(REQUEST);
            scene.wait(10);
            scene.look();
            scene.answer(ANSWER);
            scene.wait(5);
            scene.look();
        }
        let mut scene = scene.closing(false);
        assert_eq!(scene.look(), [], "right after the answer");
        scene.wait(10);
        assert_eq!(scene.look(), []);
        scene.wait(10);
        assert_eq!(scene.look().len(), 1, "after 20 ms of rest");
    }

    #[test]
    fn a_server_that_finishes_needs_no_idle_moment() {
        let mut scene = Scene::after_turns(3).closing(true);
        scene.ask(REQUEST);
        assert_eq!(scene.look(), [], "the rest of the request may be on its way");
        scene.wait(6);
        assert!(scene.look()[0].any_moment);
    }

    #[test]
    fn no_more_than_so_many_at_once() {
        let mut closing = Closing::begin(at(0), false, true, Duration::from_secs(1));
        assert!((20.0..=64.0).contains(&closing.credit), "20 at once");
        closing.look(at(10_000));
        assert_eq!(closing.credit, MOST_AT_ONCE, "and no more than this, however long ago");
        closing.credit = 0.0;
        closing.look(at(10_010));
        assert!((59.0..61.0).contains(&closing.credit), "6,000 a second");
    }

    #[test]
    fn clients_that_come_back() {
        let [one, other]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let mut closing = Closing::begin(at(0), false, false, Duration::from_secs(1));
        (0..4).for_each(|_| closing.closed(at(1), one));
        (0..9).for_each(|_| closing.arrived(other));
        closing.arrived(one);
        assert!(!closing.is_in_vain(), "one of four");
        closing.arrived(one);
        assert!(closing.is_in_vain());
    }

    #[test]
    fn the_way_for_each_server() {
        let server = |name: &str| servers::KNOWN.iter().find(|server| server.name == name).unwrap().kept_alive;
        let way = |name, own_stop, permitted| Way::choose(KeepAlive::Auto, server(name), own_stop, permitted);
        assert_eq!((way("httpd", true, true), way("httpd", true, false)), (Way::OwnStop, Way::OwnStop));
        assert_eq!((way("httpd", false, true), way("httpd", false, false)), (Way::Close, Way::Fewest), "another signal");
        assert_eq!((way("nginx", true, true), way("nginx", true, false)), (Way::Close, Way::OwnStop));
        assert_eq!((way("gunicorn", true, true), way("gunicorn", true, false)), (Way::Close, Way::Fewest));
        assert_eq!((way("postgres", true, true), way("postgres", true, false)), (Way::Wait, Way::Wait));
        assert_eq!(Way::choose(KeepAlive::Close, server("postgres"), true, true), Way::Close);
        assert_eq!(Way::choose(KeepAlive::Close, server("httpd"), true, true), Way::Close);
        assert_eq!(Way::choose(KeepAlive::Wait, server("nginx"), true, true), Way::Wait);
    }
}
