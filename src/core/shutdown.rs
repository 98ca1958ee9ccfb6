//! The shutdown machine: what happens between the stop signal and the exit. A pure function of (state, event, time); the picture
//! is in docs/shutdown.md, and a test holds its edges against this match.

use std::fmt;
use std::time::Duration;

use super::signals::{Signal, SignalSet};
use super::time::Uptime;
use super::traffic::Sample;
use super::traffic::keepalive::Way;

/// `--drain`: what to wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drain {
    /// Until every connection is closed.
    Connections,
    /// For the delay alone.
    Off,
    /// Until no request is in flight.
    Requests,
}

/// The one budget and how it is cut.
#[derive(Clone, Debug)]
pub struct Timing {
    pub grace: Duration,
    pub delay: Duration,
    /// Somebody asked for this delay: it is kept even for an app that listens on nothing.
    pub delay_given: bool,
    pub quiet: Duration,
    pub stop_timeout: Duration,
    pub idle_after: Duration,
    pub drain: Drain,
}

impl Timing {
    /// Kept free before the kubelet's SIGKILL: a tenth of the grace period, between 0.5 s and 2 s.
    pub fn margin(grace: Duration) -> Duration {
        (grace / 10).clamp(Duration::from_millis(500), Duration::from_secs(2))
    }

    /// From the stop signal to our own SIGKILL.
    pub fn until_kill(&self) -> Duration {
        self.grace.saturating_sub(Timing::margin(self.grace))
    }

    /// From the stop signal to the app's, at the latest.
    pub fn until_told(&self) -> Duration {
        self.until_kill().saturating_sub(self.stop_timeout)
    }
}

/// How the main process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    Code(u8),
    Signal(Signal),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "exited with {code}"),
            Ended::Signal(signal) => write!(f, "died of {signal}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    Serving,
    /// The app serves on while endpoints propagate.
    LameDuck,
    /// Nothing new comes; what is in flight is waited for.
    Draining,
    /// The app has its stop signal.
    Stopping,
    /// The main process is gone; what it left behind has TERM.
    Sweeping,
    /// Every process is gone; the kernel still delivers answers.
    Flushing,
    /// SIGKILL to all that is left.
    Killing,
    Done,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Serving,
        Phase::LameDuck,
        Phase::Draining,
        Phase::Stopping,
        Phase::Sweeping,
        Phase::Flushing,
        Phase::Killing,
        Phase::Done,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::LameDuck => "lame-duck",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Sweeping => "sweeping",
            Phase::Flushing => "flushing",
            Phase::Killing => "killing",
            Phase::Done => "done",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The kernel holds no more bytes of the app's answers, or nobody can know.
    Flushed,
    /// No process is left to reap.
    Gone,
    /// What is to be done about kept-alive connections, from now on.
    KeepAlive(Way),
    /// An INT that is not in `--stop-on`.
    Interrupt,
    /// `alone`: it left no process behind.
    MainEnded {
        ended: Ended,
        alone: bool,
    },
    /// The kernel does not permit us to send the app a signal; our own end is its end.
    Refused,
    /// One of `--stop-on`.
    Stop,
    /// The app has been sent `signal`; `more`: its server has a second stop signal.
    Told {
        signal: Signal,
        more: bool,
    },
    /// None: there is no source of traffic, or it is lost.
    Traffic(Option<Sample>),
    Wake,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Close those kept-alive connections that the last look has chosen.
    CloseKept,
    Exit(u8),
    ForwardInterrupt,
    KillAll,
    /// Send the app its stop signal, or its second one.
    Tell {
        second: bool,
    },
    /// TERM to all that the main process left behind.
    TermSurvivors,
    /// Say `Flushed` when the answers that are already written have left.
    WatchFlush,
    WatchTraffic,
}

/// Why the app was told when it was told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Because {
    Drained,
    /// Nothing but kept-alive connections is left, and the fewest of them are busy.
    Fewest,
    /// All but connections that are not waited for any more, though their work is not done.
    GaveUp,
    Hurried,
    ListensOnNothing,
    OutOfTime,
    /// Nothing but kept-alive connections is left, and the server's own stop serves those.
    OwnStop,
    /// There was nothing to watch: the delay is over.
    Timed,
}

#[derive(Clone, Debug)]
pub struct Machine {
    timing: Timing,
    success: Vec<u8>,
    phase: Phase,
    entered: Vec<(Phase, Uptime)>,
    stop: Option<Uptime>,
    /// The latest look saw nothing of the traffic.
    blind: bool,
    interrupts: u8,
    told: SignalSet,
    told_at: Option<Uptime>,
    because: Option<Because>,
    second: Second,
    ended: Option<Ended>,
    killed: bool,
    refused: bool,
    keep_alive: Way,
    /// When draining began.
    draining_at: Option<Uptime>,
    /// When kept-alive connections were to be closed first.
    closing_at: Option<Uptime>,
    /// In the first half of the draining: the fewest kept-alive connections that were busy in one look.
    fewest: Option<usize>,
    /// When the current phase ends at the latest, once the app is gone or was killed.
    limit: Option<Uptime>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    None,
    /// Due at the latest at `by`, and sooner when nothing has been in flight since `rest`.
    Pending {
        by: Uptime,
        rest: Uptime,
    },
    Sent,
}

/// An app that ended by itself: how long the kernel may take to deliver its last answers.
const OWN_FLUSH: Duration = Duration::from_secs(2);

/// While kept-alive connections at rest are closed, so long at most, nothing in flight is not yet the end of the wait.
const MOST_CLOSING: Duration = Duration::from_secs(2);

impl Machine {
    pub fn new(timing: Timing, success: Vec<u8>) -> Machine {
        Machine {
            timing,
            success,
            phase: Phase::Serving,
            entered: vec![(Phase::Serving, Uptime::default())],
            stop: None,
            blind: false,
            interrupts: 0,
            told: SignalSet::default(),
            told_at: None,
            because: None,
            second: Second::None,
            ended: None,
            killed: false,
            refused: false,
            keep_alive: Way::default(),
            draining_at: None,
            closing_at: None,
            fewest: None,
            limit: None,
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The phases so far and when each began.
    pub fn entered(&self) -> &[(Phase, Uptime)] {
        &self.entered
    }

    /// T0: when the stop signal came.
    pub fn stopped_at(&self) -> Option<Uptime> {
        self.stop
    }

    pub fn because(&self) -> Option<Because> {
        self.because
    }

    pub fn ended(&self) -> Option<Ended> {
        self.ended
    }

    pub fn killed(&self) -> bool {
        self.killed
    }

    /// The app could be sent no signal.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// When to wake the machine at the latest. Waking it earlier changes nothing.
    pub fn deadline(&self) -> Option<Uptime> {
        match self.phase {
            Phase::Serving | Phase::Done => None,
            Phase::LameDuck | Phase::Draining => Some(self.wait_ends()),
            Phase::Stopping => Some(match self.second {
                Second::Pending { by, .. } => by.min(self.kill_at()),
                Second::None | Second::Sent => self.kill_at(),
            }),
            Phase::Sweeping | Phase::Flushing | Phase::Killing => self.limit,
        }
    }

    #[must_use = "actions must be performed"]
    pub fn on(&mut self, now: Uptime, event: Event) -> Vec<Action> {
        match (self.phase, event) {
            (Phase::Done, Event::KeepAlive(_)) => vec![],
            (_, Event::KeepAlive(way)) => {
                self.keep_alive = way;
                vec![]
            }
            (Phase::Serving, Event::Stop) => {
                self.stop = Some(now);
                self.enter(Phase::LameDuck, now);
                vec![Action::WatchTraffic]
            }
            (Phase::Serving, Event::Interrupt) => vec![Action::ForwardInterrupt],
            (
                Phase::Serving,
                Event::Flushed | Event::Gone | Event::Refused | Event::Told { .. } | Event::Traffic(_) | Event::Wake,
            ) => vec![],

            // A restarted kubelet may repeat the stop signal: once is enough.
            (Phase::LameDuck | Phase::Draining, Event::Stop) => vec![],
            (Phase::LameDuck | Phase::Draining, Event::Interrupt) => {
                self.interrupts = self.interrupts.saturating_add(1);
                self.tell(now, Because::Hurried)
            }
            (Phase::LameDuck | Phase::Draining, Event::Traffic(Some(sample))) => {
                self.blind = false;
                self.weigh(now, &sample)
            }
            (Phase::LameDuck | Phase::Draining, Event::Traffic(None)) => {
                self.blind = true;
                self.waited(now)
            }
            (Phase::LameDuck | Phase::Draining, Event::Wake) => self.waited(now),
            (Phase::LameDuck | Phase::Draining, Event::Flushed | Event::Gone | Event::Refused | Event::Told { .. }) => vec![],

            (Phase::Stopping, Event::Told { signal, more }) => {
                self.told.insert(signal);
                if let (Second::None, true, Some(at)) = (self.second, more, self.told_at) {
                    self.second = Second::Pending { by: at + self.kill_at().since(at) / 2, rest: now };
                }
                vec![]
            }
            (Phase::Stopping, Event::Refused) => {
                self.refused = true;
                vec![]
            }
            // It will not end by itself, and nobody waits for it.
            (Phase::Stopping, Event::Traffic(Some(sample))) if self.refused && sample.in_flight() == 0 && !sample.partial => {
                self.flush(now)
            }
            (Phase::Stopping, Event::Traffic(Some(sample))) => {
                if let Second::Pending { by, rest } = &mut self.second {
                    if sample.in_flight() > 0 || sample.partial {
                        *rest = now;
                    }
                    if now >= *by || now.since(*rest) >= self.timing.idle_after {
                        return self.tell_second();
                    }
                }
                vec![]
            }
            (Phase::Stopping, Event::Wake) => {
                if now >= self.kill_at() {
                    return self.kill(now);
                }
                match self.second {
                    Second::Pending { by, .. } if now >= by => self.tell_second(),
                    Second::Pending { .. } | Second::None | Second::Sent => vec![],
                }
            }
            (Phase::Stopping, Event::Interrupt) => self.interrupted(now),
            (Phase::Stopping, Event::Stop | Event::Traffic(None) | Event::Flushed | Event::Gone) => vec![],

            (Phase::Serving | Phase::LameDuck | Phase::Draining | Phase::Stopping, Event::MainEnded { ended, alone }) => {
                self.ended = Some(ended);
                if alone { self.flush(now) } else { self.sweep(now) }
            }

            (Phase::Sweeping, Event::Gone) => self.flush(now),
            (Phase::Sweeping, Event::Refused) => {
                self.refused = true;
                vec![]
            }
            (Phase::Sweeping, Event::Traffic(Some(sample))) if self.refused && sample.in_flight() == 0 && !sample.partial => {
                self.flush(now)
            }
            (Phase::Sweeping, Event::Wake) if self.is_over(now) => self.kill(now),
            (Phase::Sweeping, Event::Interrupt) => self.interrupted(now),
            (Phase::Sweeping, Event::Told { signal, .. }) => {
                self.told.insert(signal);
                vec![]
            }
            (Phase::Sweeping, Event::Wake | Event::Stop | Event::Traffic(_) | Event::Flushed | Event::MainEnded { .. }) => vec![],

            (Phase::Flushing, Event::Flushed) => self.exit(now),
            (Phase::Flushing, Event::Wake) if self.is_over(now) => self.exit(now),
            (Phase::Flushing, Event::Interrupt) => {
                self.interrupts = self.interrupts.saturating_add(1);
                if self.interrupts >= 2 { self.exit(now) } else { vec![] }
            }
            (
                Phase::Flushing,
                Event::Wake
                | Event::Stop
                | Event::Refused
                | Event::Traffic(_)
                | Event::Told { .. }
                | Event::Gone
                | Event::MainEnded { .. },
            ) => {
                vec![]
            }

            (Phase::Killing, Event::MainEnded { ended, alone }) => {
                self.ended = self.ended.or(Some(ended));
                if alone { self.flush(now) } else { vec![] }
            }
            (Phase::Killing, Event::Gone) => self.flush(now),
            (Phase::Killing, Event::Wake) if self.is_over(now) => self.exit(now),
            (Phase::Killing, Event::Told { signal, .. }) => {
                self.told.insert(signal);
                vec![]
            }
            (
                Phase::Killing,
                Event::Wake | Event::Stop | Event::Interrupt | Event::Refused | Event::Traffic(_) | Event::Flushed,
            ) => vec![],

            (
                Phase::Done,
                Event::Flushed
                | Event::Gone
                | Event::Interrupt
                | Event::MainEnded { .. }
                | Event::Refused
                | Event::Stop
                | Event::Told { .. }
                | Event::Traffic(_)
                | Event::Wake,
            ) => vec![],
        }
    }

    /// A look at the traffic: may the app be told?
    fn weigh(&mut self, now: Uptime, sample: &Sample) -> Vec<Action> {
        let Some(stop) = self.stop else { return vec![] };
        if sample.listening == Some(false) && !self.timing.delay_given {
            return self.tell(now, Because::ListensOnNothing);
        }
        let delayed = now.since(stop) >= self.timing.delay;
        let quiet_since = sample.last_arrival.map_or(stop, |arrival| arrival.max(stop));
        // Where there is no connection to see (UDP), the delay alone is kept.
        let quiet = !sample.watched || now.since(quiet_since) >= self.timing.quiet;
        let left = match self.timing.drain {
            Drain::Connections => sample.in_flight() + sample.idle,
            Drain::Requests => sample.in_flight(),
            Drain::Off => return self.waited(now),
        };
        if !(delayed && quiet) {
            return self.waited(now);
        }
        if self.phase == Phase::LameDuck {
            self.draining_at = Some(now);
            self.enter(Phase::Draining, now);
        }
        if left == 0 && !sample.partial && !self.closes_more(now, sample) {
            let because = match (sample.watched, sample.given_up) {
                (false, _) => Because::Timed,
                (true, 0) => Because::Drained,
                (true, _) => Because::GaveUp,
            };
            return self.tell(now, because);
        }
        if let Some(because) = self.may_use_own_stop(now, sample) {
            return self.tell(now, because);
        }
        let actions = self.waited(now);
        if actions.is_empty() && self.keep_alive == Way::Close && sample.kept.open > 0 {
            self.closing_at.get_or_insert(now);
            return vec![Action::CloseKept];
        }
        actions
    }

    /// Nothing is in flight, but kept-alive connections are at rest that will be closed in a moment; or clients of those that were closed may
    /// come back, within the quiet period.
    fn closes_more(&self, now: Uptime, sample: &Sample) -> bool {
        let in_time = self.closing_at.is_none_or(|at| now.since(at) < MOST_CLOSING);
        let may_come_back = sample.kept.closed_at.is_some_and(|at| now.since(at) < self.timing.quiet);
        self.keep_alive == Way::Close && (sample.kept.open > 0 && in_time || may_come_back)
    }

    /// May the app get its stop signal while kept-alive connections are in use?
    fn may_use_own_stop(&mut self, now: Uptime, sample: &Sample) -> Option<Because> {
        if self.timing.drain != Drain::Requests || sample.partial || sample.in_flight_besides_kept() > 0 {
            return None;
        }
        match self.keep_alive {
            Way::Wait => None,
            Way::OwnStop => Some(Because::OwnStop),
            Way::Close | Way::Fewest => self.are_fewest(now, sample.kept.busy).then_some(Because::Fewest),
        }
    }

    /// In the second half of the draining: whether no more kept-alive connections are busy than in the best moment of the first.
    fn are_fewest(&mut self, now: Uptime, busy: usize) -> bool {
        let Some(began) = self.draining_at else { return false };
        let half = self.wait_ends().since(began) / 2;
        if now.since(began) < half {
            self.fewest = Some(self.fewest.map_or(busy, |fewest| fewest.min(busy)));
            return false;
        }
        self.fewest.is_some_and(|fewest| busy <= fewest)
    }

    /// Is the time for waiting up?
    fn waited(&mut self, now: Uptime) -> Vec<Action> {
        if now < self.wait_ends() {
            return vec![];
        }
        let timed = self.by_time_alone() && self.stop.is_some_and(|stop| now.since(stop) < self.timing.until_told());
        self.tell(now, if timed { Because::Timed } else { Because::OutOfTime })
    }

    fn by_time_alone(&self) -> bool {
        self.blind || self.timing.drain == Drain::Off
    }

    fn wait_ends(&self) -> Uptime {
        let Some(stop) = self.stop else { return Uptime::default() };
        let told = stop + self.timing.until_told();
        if self.by_time_alone() { told.min(stop + self.timing.delay) } else { told }
    }

    fn kill_at(&self) -> Uptime {
        self.stop.unwrap_or_default() + self.timing.until_kill()
    }

    fn is_over(&self, now: Uptime) -> bool {
        self.limit.is_none_or(|limit| now >= limit)
    }

    fn tell(&mut self, now: Uptime, because: Because) -> Vec<Action> {
        self.because = Some(because);
        self.told_at = Some(now);
        self.enter(Phase::Stopping, now);
        vec![Action::Tell { second: false }]
    }

    fn tell_second(&mut self) -> Vec<Action> {
        self.second = Second::Sent;
        vec![Action::Tell { second: true }]
    }

    /// The first ends the wait, the second the patience.
    fn interrupted(&mut self, now: Uptime) -> Vec<Action> {
        self.interrupts = self.interrupts.saturating_add(1);
        if self.interrupts >= 2 { self.kill(now) } else { vec![] }
    }

    /// The main process is gone, others are left.
    fn sweep(&mut self, now: Uptime) -> Vec<Action> {
        let by_budget = if self.stop.is_some() { self.kill_at() } else { now + self.timing.until_kill() };
        self.limit = Some(by_budget.min(now + self.timing.stop_timeout));
        self.enter(Phase::Sweeping, now);
        vec![Action::TermSurvivors]
    }

    fn kill(&mut self, now: Uptime) -> Vec<Action> {
        self.killed = true;
        self.limit = Some(now + Timing::margin(self.timing.grace) / 2);
        self.enter(Phase::Killing, now);
        vec![Action::KillAll]
    }

    /// Every process is gone.
    fn flush(&mut self, now: Uptime) -> Vec<Action> {
        self.limit = Some(match (self.phase, self.stop) {
            (Phase::Killing, _) => self.limit.unwrap_or(now),
            (_, Some(_)) => self.kill_at(),
            (_, None) => now + OWN_FLUSH,
        });
        self.enter(Phase::Flushing, now);
        vec![Action::WatchFlush]
    }

    fn exit(&mut self, now: Uptime) -> Vec<Action> {
        self.enter(Phase::Done, now);
        vec![Action::Exit(self.code())]
    }

    fn enter(&mut self, phase: Phase, now: Uptime) {
        self.phase = phase;
        self.entered.push((phase, now));
    }

    /// The app's own code; 128+n for a death by signal n, but 0 if n is a stop signal we sent (also as a plain code, the JVM's
    /// and shells' habit); 137 if we had to kill it.
    fn code(&self) -> u8 {
        let code = match self.ended {
            None => 137,
            Some(Ended::Signal(signal)) if self.told.contains(signal) => 0,
            Some(Ended::Signal(signal)) => 128 + signal.number() as u8,
            Some(Ended::Code(code)) if self.told.iter().any(|signal| 128 + signal.number() == i32::from(code)) => 0,
            Some(Ended::Code(code)) => code,
        };
        if self.success.contains(&code) { 0 } else { code }
    }
}

#[cfg(test)]
mod tests {
    use super::super::traffic::KeptAlive;
    use super::*;

    fn timing() -> Timing {
        Timing {
            grace: Duration::from_secs(30),
            delay: Duration::from_secs(5),
            delay_given: false,
            quiet: Duration::from_secs(1),
            stop_timeout: Duration::from_secs(10),
            idle_after: Duration::from_secs(1),
            drain: Drain::Requests,
        }
    }

    fn at(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    fn calm() -> Sample {
        Sample { watched: true, listening: Some(true), ..Sample::default() }
    }

    #[test]
    fn a_quiet_server_is_told_after_the_delay() {
        let mut machine = Machine::new(timing(), vec![]);
        assert_eq!(machine.on(at(1000), Event::Stop), [Action::WatchTraffic]);
        assert_eq!(machine.on(at(5900), Event::Traffic(Some(calm()))), []);
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(calm()))), [Action::Tell { second: false }]);
        assert_eq!(machine.because(), Some(Because::Drained));
        assert_eq!(machine.on(at(6000), Event::Told { signal: Signal::TERM, more: false }), []);
        assert_eq!(machine.deadline(), Some(at(29_000)), "an app told early has the rest of the budget");
        let ended = Ended::Signal(Signal::TERM);
        assert_eq!(machine.on(at(6100), Event::MainEnded { ended, alone: true }), [Action::WatchFlush]);
        assert_eq!(machine.on(at(6100), Event::Flushed), [Action::Exit(0)]);
    }

    #[test]
    fn arrivals_and_work_hold_it_until_time_is_up() {
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        let arrived = Sample { last_arrival: Some(at(5500)), ..calm() };
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(arrived.clone()))), []);
        assert_eq!(machine.phase(), Phase::LameDuck);
        let busy = Sample { busy: 1, ..arrived };
        assert_eq!(machine.on(at(6500), Event::Traffic(Some(busy.clone()))), []);
        assert_eq!(machine.phase(), Phase::Draining);
        assert_eq!(machine.deadline(), Some(at(18_000)));
        assert_eq!(machine.on(at(18_000), Event::Traffic(Some(busy))), [Action::Tell { second: false }]);
        assert_eq!(machine.because(), Some(Because::OutOfTime));
    }

    #[test]
    fn what_was_given_up_was_not_drained() {
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        let given_up = Sample { idle: 3, given_up: 1, ..calm() };
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(given_up))), [Action::Tell { second: false }]);
        assert_eq!(machine.because(), Some(Because::GaveUp));
    }

    #[test]
    fn who_listens_on_nothing_is_told_at_once_unless_a_delay_was_given() {
        let deaf = Sample { listening: Some(false), ..Sample::default() };
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        assert_eq!(machine.on(at(1), Event::Traffic(Some(deaf.clone()))), [Action::Tell { second: false }]);
        let mut machine = Machine::new(Timing { delay_given: true, ..timing() }, vec![]);
        let _ = machine.on(at(0), Event::Stop);
        assert_eq!(machine.on(at(1), Event::Traffic(Some(deaf.clone()))), []);
        assert_eq!(machine.on(at(5000), Event::Traffic(Some(deaf))), [Action::Tell { second: false }]);
    }

    #[test]
    fn the_second_stop_signal_waits_for_rest_or_half_of_the_time() {
        let told = |at_ms: u64| {
            let mut machine = Machine::new(timing(), vec![]);
            let _ = machine.on(at(0), Event::Stop);
            let _ = machine.on(at(at_ms), Event::Traffic(Some(calm())));
            assert_eq!(machine.on(at(at_ms), Event::Told { signal: Signal::WINCH, more: true }), []);
            machine
        };
        let mut machine = told(6000);
        assert_eq!(machine.on(at(6900), Event::Traffic(Some(calm()))), []);
        assert_eq!(machine.on(at(7000), Event::Traffic(Some(calm()))), [Action::Tell { second: true }]);
        let _ = machine.on(at(7000), Event::Told { signal: Signal::TERM, more: false });
        assert_eq!(machine.on(at(9000), Event::Traffic(Some(calm()))), [], "once");
        let mut machine = told(6000);
        let busy = Sample { busy: 1, ..calm() };
        assert_eq!(machine.on(at(10_000), Event::Traffic(Some(busy))), []);
        assert_eq!(machine.deadline(), Some(at(17_000)));
        assert_eq!(machine.on(at(17_000), Event::Wake), [Action::Tell { second: true }]);
    }

    /// With `count` kept-alive connections, of which so many are busy.
    fn kept(open: usize, busy: usize) -> Sample {
        let kept = KeptAlive { open, busy, cooling: open - busy, closed_at: None };
        Sample { busy, cooling: open - busy, kept, ..calm() }
    }

    fn draining(way: Way) -> Machine {
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        let _ = machine.on(at(0), Event::KeepAlive(way));
        machine
    }

    #[test]
    fn kept_alive_connections_are_closed_when_nothing_new_comes() {
        let mut machine = draining(Way::Close);
        assert_eq!(machine.on(at(4900), Event::Traffic(Some(kept(3, 1)))), [], "the delay");
        let arrived = Sample { last_arrival: Some(at(4900)), ..kept(3, 1) };
        assert_eq!(machine.on(at(5100), Event::Traffic(Some(arrived.clone()))), [], "the quiet period");
        assert_eq!(machine.on(at(5900), Event::Traffic(Some(arrived))), [Action::CloseKept]);
        let new = Sample { last_arrival: Some(at(5950)), ..kept(3, 1) };
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(new.clone()))), [], "a new connection pauses it");
        assert_eq!(machine.on(at(6950), Event::Traffic(Some(new))), [Action::CloseKept]);
        // One that is at rest is closed before the app gets its stop signal.
        let at_rest = Sample { idle: 1, kept: KeptAlive { open: 1, ..KeptAlive::default() }, ..calm() };
        assert_eq!(machine.on(at(6960), Event::Traffic(Some(at_rest.clone()))), [Action::CloseKept]);
        let closed = Sample { kept: KeptAlive { closed_at: Some(at(6970)), ..KeptAlive::default() }, ..calm() };
        assert_eq!(machine.on(at(7900), Event::Traffic(Some(closed.clone()))), [], "its client may come back");
        assert_eq!(machine.on(at(7970), Event::Traffic(Some(closed))), [Action::Tell { second: false }]);
        assert_eq!(machine.because(), Some(Because::Drained));
        // One that cannot be closed and is at rest holds nothing for ever.
        let mut machine = draining(Way::Close);
        assert_eq!(machine.on(at(5000), Event::Traffic(Some(at_rest.clone()))), [Action::CloseKept]);
        assert_eq!(machine.on(at(7000), Event::Traffic(Some(at_rest))), [Action::Tell { second: false }]);
    }

    #[test]
    fn a_server_whose_own_stop_serves_them_gets_it_at_once() {
        let mut machine = draining(Way::OwnStop);
        let long = Sample { busy: 2, ..kept(3, 1) };
        assert_eq!(machine.on(at(5000), Event::Traffic(Some(long))), [], "another request is in flight");
        assert_eq!(machine.on(at(5100), Event::Traffic(Some(kept(3, 1)))), [Action::Tell { second: false }]);
        assert_eq!(machine.because(), Some(Because::OwnStop));
    }

    #[test]
    fn where_nothing_else_is_permitted_the_moment_with_the_fewest_is_taken() {
        for way in [Way::Fewest, Way::Close] {
            let mut machine = draining(way);
            // From 5 s to 18 s; half of it is over at 11.5 s.
            for (time, busy) in [(5000, 9), (8000, 3), (11_000, 5)] {
                let _ = machine.on(at(time), Event::Traffic(Some(kept(20, busy))));
            }
            assert!(!machine.on(at(12_000), Event::Traffic(Some(kept(20, 4)))).contains(&Action::Tell { second: false }));
            let besides = Sample { busy: 3, ..kept(20, 2) };
            assert!(!machine.on(at(12_100), Event::Traffic(Some(besides))).contains(&Action::Tell { second: false }));
            assert_eq!(machine.on(at(12_200), Event::Traffic(Some(kept(20, 3)))), [Action::Tell { second: false }]);
            assert_eq!(machine.because(), Some(Because::Fewest));
        }
        let mut machine = draining(Way::Wait);
        assert_eq!(machine.on(at(5000), Event::Traffic(Some(kept(20, 3)))), []);
        assert_eq!(machine.on(at(17_900), Event::Traffic(Some(kept(20, 0)))), [], "waited for");
    }

    #[test]
    fn an_app_that_may_not_be_signalled_is_left_when_nothing_is_in_flight() {
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(calm()))), [Action::Tell { second: false }]);
        assert_eq!(machine.on(at(6000), Event::Refused), []);
        let busy = Sample { busy: 1, ..calm() };
        assert_eq!(machine.on(at(6100), Event::Traffic(Some(busy))), []);
        assert_eq!(machine.on(at(6200), Event::Traffic(None)), [], "what nobody sees may be in flight");
        assert_eq!(machine.on(at(6300), Event::Traffic(Some(calm()))), [Action::WatchFlush]);
        assert_eq!(machine.on(at(6300), Event::Flushed), [Action::Exit(137)]);
        // What the main process left behind, too.
        let mut machine = Machine::new(timing(), vec![]);
        let _ = machine.on(at(0), Event::Stop);
        let ended = Ended::Code(3);
        assert_eq!(machine.on(at(6000), Event::MainEnded { ended, alone: false }), [Action::TermSurvivors]);
        assert_eq!(machine.on(at(6000), Event::Traffic(Some(calm()))), []);
        assert_eq!(machine.on(at(6000), Event::Refused), []);
        assert_eq!(machine.on(at(6100), Event::Traffic(Some(calm()))), [Action::WatchFlush]);
        assert_eq!(machine.on(at(6100), Event::Flushed), [Action::Exit(3)]);
    }

    #[test]
    fn exit_codes() {
        let run = |told: &[Signal], ended: Ended, success: Vec<u8>| {
            let mut machine = Machine::new(timing(), success);
            let _ = machine.on(at(0), Event::Stop);
            let _ = machine.on(at(1), Event::Interrupt);
            for signal in told {
                let _ = machine.on(at(1), Event::Told { signal: *signal, more: false });
            }
            let _ = machine.on(at(2), Event::MainEnded { ended, alone: true });
            machine.on(at(2), Event::Flushed)
        };
        assert_eq!(run(&[Signal::TERM], Ended::Code(0), vec![]), [Action::Exit(0)]);
        assert_eq!(run(&[Signal::TERM], Ended::Code(3), vec![]), [Action::Exit(3)]);
        assert_eq!(run(&[Signal::TERM], Ended::Code(143), vec![]), [Action::Exit(0)]);
        assert_eq!(run(&[Signal::QUIT], Ended::Code(143), vec![]), [Action::Exit(143)]);
        assert_eq!(run(&[Signal::WINCH, Signal::TERM], Ended::Signal(Signal::TERM), vec![]), [Action::Exit(0)]);
        assert_eq!(run(&[Signal::TERM], Ended::Signal(Signal::from_number(64).unwrap()), vec![]), [Action::Exit(192)]);
        assert_eq!(run(&[Signal::TERM], Ended::Code(7), vec![7]), [Action::Exit(0)]);
    }
}
