//! The loop: select names what happened, the machine decides, the loop performs. The one reader of the clock. From the spawn on
//! nothing here may fail: what is lost becomes a warning, and plain timing remains.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use crate::app::{App, Meaning};
use crate::core::shutdown::{Action, Because, Ended, Event, Machine, Phase};
use crate::core::signals::Signal;
use crate::core::snapshot::{self, Snapshot, Stop};
use crate::core::status::Story;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::{Sample, Tally};
use crate::endpoints::{Endpoints, Message, Now, Probe};
use crate::log;
use crate::oom_kills::OomKills;
use crate::plan::Plan;
use crate::sys::child;
use crate::sys::signals::{Batch, Signals};
use crate::termination::TerminationMessage;
use crate::traffic::{self, Family, OwnConnections, Traffic, Watch};

/// While others are waited for that no signal announces.
const TICK: Duration = Duration::from_millis(50);

/// Served between two full batches of signals.
const MOST_MESSAGES: usize = 16;

/// The clock, begun when lameduck was.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one clock")]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(self) -> Uptime {
        Uptime(self.0.elapsed())
    }

    pub async fn until(self, when: Option<Uptime>) {
        match when.and_then(|when| self.0.checked_add(when.0)) {
            Some(when) => tokio::time::sleep_until(when.into()).await,
            None => std::future::pending().await,
        }
    }
}

/// What woke the loop.
enum Woken {
    Deadline,
    Ends,
    Look,
    Message(Message),
    Signals(Batch),
}

struct Loop<'a> {
    plan: &'a Plan,
    clock: Clock,
    machine: Machine,
    app: App<'a>,
    traffic: Option<Traffic>,
    /// When to look at the traffic, or at the processes, again.
    look_at: Option<Uptime>,
    began: Option<Signal>,
    second_signal: Option<Signal>,
    shown: Phase,
    watched: bool,
    /// When every process of the app was gone: connections with bytes of an answer still to be delivered.
    undelivered: usize,
    code: Option<u8>,
    outside: Outside<'a>,
    oom_kills: OomKills,
    reaped: u64,
    signals: BTreeMap<Signal, u64>,
}

/// Who asks from outside, and what is needed to answer.
pub struct Outside<'a> {
    pub endpoints: Option<Endpoints>,
    pub own: OwnConnections,
    pub termination: &'a mut TerminationMessage,
    /// Starts the command that says whether the app is ready.
    pub probe: &'a dyn Fn(&Probe) -> std::io::Result<i32>,
}

/// Supervises the main process to its end and returns the exit code.
pub async fn run(plan: &Plan, main: i32, signals: &Signals, clock: Clock, outside: Outside<'_>) -> u8 {
    let mut this = Loop {
        plan,
        clock,
        machine: Machine::new(plan.timing.clone(), plan.success.clone()),
        app: App::new(plan, main),
        traffic: None,
        look_at: None,
        began: None,
        second_signal: None,
        shown: Phase::Serving,
        watched: false,
        undelivered: 0,
        code: None,
        outside,
        oom_kills: OomKills::begin(),
        reaped: 0,
        signals: BTreeMap::new(),
    };
    if let Some(endpoints) = &mut this.outside.endpoints {
        endpoints.started();
    }
    // Who died while others were waited for was announced then.
    this.reap();
    loop {
        if let Some(code) = this.code {
            return code;
        }
        if this.waits_for_signals_only()
            && let Some(signals) = signals.wait()
        {
            this.wake(Woken::Signals(signals));
            continue;
        }
        let woken = tokio::select! {
            biased;
            signals = signals.next() => Woken::Signals(signals),
            () = clock.until(this.machine.deadline()) => Woken::Deadline,
            () = clock.until(this.look_at) => Woken::Look,
            () = ended(this.traffic.as_ref()) => Woken::Ends,
            message = message(this.outside.endpoints.as_mut()) => Woken::Message(message),
        };
        let storm = matches!(&woken, Woken::Signals(batch) if batch.is_full());
        this.wake(woken);
        if storm {
            // Signals come first, but one after the other they must not keep everybody else waiting.
            tokio::task::yield_now().await;
            for _ in 0..MOST_MESSAGES {
                tokio::select! {
                    biased;
                    message = message(this.outside.endpoints.as_mut()) => this.wake(Woken::Message(message)),
                    () = std::future::ready(()) => break,
                }
            }
        }
    }
}

pub async fn ended(traffic: Option<&Traffic>) {
    match traffic {
        Some(traffic) => traffic.ended().await,
        None => std::future::pending().await,
    }
}

pub async fn message(endpoints: Option<&mut Endpoints>) -> Message {
    match endpoints {
        Some(endpoints) => endpoints.next().await,
        None => std::future::pending().await,
    }
}

impl Loop<'_> {
    /// While the app serves nothing else can happen: then one system call waits, and the event loop's own cost is saved.
    fn waits_for_signals_only(&self) -> bool {
        let asleep = self.machine.deadline().is_none() && self.look_at.is_none() && self.traffic.is_none();
        asleep && self.outside.endpoints.is_none()
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Deadline => self.feed(Event::Wake),
            Woken::Ends => {
                let now = self.clock.now();
                if let Some(traffic) = &mut self.traffic {
                    traffic.read_ends(now);
                }
            }
            Woken::Look => self.look(),
            Woken::Message(message) => self.hear(message),
            Woken::Signals(signals) => {
                signals.iter().for_each(|signal| self.signal(signal));
                self.keep_time();
            }
        }
    }

    /// Signals come first, but an app that sends one after the other must not hold up what is due.
    fn keep_time(&mut self) {
        let now = self.clock.now();
        if self.machine.deadline().is_some_and(|deadline| now >= deadline) {
            self.feed(Event::Wake);
        }
        if self.look_at.is_some_and(|look_at| now >= look_at) {
            self.look();
        }
    }

    fn hear(&mut self, message: Message) {
        let time = self.clock.now();
        // Each question to the app is one of these.
        self.outside.own.forget(time);
        let Some(mut endpoints) = self.outside.endpoints.take() else { return };
        let now = Now { time, phase: self.machine.phase(), main: self.app.main(), watched: self.traffic.is_some() };
        if let Some(probe) = endpoints.on(now, message, || self.snapshot()) {
            endpoints.probing(self.clock.now(), (self.outside.probe)(&probe));
        }
        self.outside.endpoints = Some(endpoints).filter(Endpoints::is_needed);
    }

    fn snapshot(&mut self) -> Snapshot {
        let oom_kills = self.oom_kills.look();
        let now = self.clock.now();
        let last = self.traffic.as_ref().and_then(Traffic::last);
        let stop = self.machine.stopped_at().map(|at| Stop {
            signal: self.began,
            ago: now.since(at),
            because: self.machine.because().map(Because::text),
            tally: self.traffic.as_ref().filter(|_| self.watched).and_then(Traffic::tally),
            closed: self.traffic.as_ref().map_or(0, Traffic::closed),
            last_accept: self.last_accept(),
        });
        Snapshot {
            phase: self.machine.phase(),
            since: self.machine.entered().last().map_or(now.0, |(_, at)| now.since(*at)),
            pid: self.app.main(),
            stop,
            traffic: snapshot::Traffic {
                source: self.traffic.as_ref().map_or("none", Traffic::source),
                listening: last.and_then(|sample| sample.listening),
                ports: last.map(|sample| sample.ports.clone()).unwrap_or_default(),
                in_flight: last.map_or(0, Sample::at_work),
            },
            oom_kills,
            reaped: self.reaped,
            signals: self.signals.iter().map(|(signal, count)| (*signal, *count)).collect(),
            ..unstarted(self.plan, now)
        }
    }

    /// So long after the stop signal the last new connection came.
    fn last_accept(&self) -> Option<Duration> {
        let sample = self.traffic.as_ref().filter(|_| self.watched).and_then(Traffic::last)?;
        Some(sample.last_arrival?.since(self.machine.stopped_at()?))
    }

    fn signal(&mut self, signal: Signal) {
        if signal != Signal::CHLD {
            *self.signals.entry(signal).or_default() += 1;
        }
        match self.app.meaning(signal) {
            Meaning::Reap => self.reap(),
            Meaning::Stop => {
                if self.machine.phase() == Phase::Serving {
                    self.began = Some(signal);
                } else {
                    debug!(event = "signal", signal = %signal, message = "the shutdown has begun already");
                }
                self.feed(Event::Stop);
            }
            Meaning::Interrupt => self.feed(Event::Interrupt),
            Meaning::Forward(signal) => self.forward(signal),
            Meaning::Nothing => debug!(event = "signal", signal = %signal, message = "not forwarded"),
        }
    }

    fn forward(&self, signal: Signal) {
        if let Err(error) = self.app.forward(signal) {
            self.cannot_signal(signal, &error);
        }
    }

    fn cannot_signal(&self, signal: Signal, error: &std::io::Error) {
        let hint = match error.raw_os_error() {
            // It has just ended: its CHLD is on the way.
            Some(NO_SUCH_PROCESS) => return,
            Some(NOT_PERMITTED) => "; the app runs as another user and CAP_KILL is missing: add the capability KILL",
            _ => "",
        };
        warn!(event = "warning", message = %format_args!("cannot send {signal} to the app: {error}{hint}"));
    }

    fn reap(&mut self) {
        let now = self.clock.now();
        let (count, endpoints) = (&mut self.reaped, &mut self.outside.endpoints);
        let mut killed = false;
        let reaped = self.app.reap(|pid, ended| {
            *count += 1;
            killed |= ended == Ended::Signal(Signal::KILL);
            debug!(event = "reaped", pid, ended = %ended);
            if let Some(endpoints) = endpoints {
                endpoints.reaped(now, pid, ended);
            }
        });
        if killed && !self.machine.killed() {
            self.oom_kills.look();
        }
        if let Some(ended) = reaped.main {
            self.feed(Event::MainEnded { ended, alone: reaped.none_left });
        } else if reaped.none_left {
            self.feed(Event::Gone);
        }
    }

    /// One event, and all that follows from it.
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.clock.now();
            let actions = self.machine.on(now, event);
            self.show(now);
            for action in actions {
                events.extend(self.perform(now, action));
            }
        }
    }

    fn perform(&mut self, now: Uptime, action: Action) -> Option<Event> {
        match action {
            Action::CloseKept => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.close_kept(now);
                }
                None
            }
            Action::Exit(code) => {
                self.tell_the_story(now, code);
                self.code = Some(code);
                None
            }
            Action::ForwardInterrupt => {
                if let Some(signal) = crate::core::signals::rewritten(&self.plan.rewrites, Signal::INT) {
                    self.forward(signal);
                }
                None
            }
            Action::KillAll => {
                let _ = self.app.send_survivors(Signal::KILL);
                self.look_at = Some(now + TICK);
                None
            }
            Action::Tell { second } => self.tell(second),
            Action::TermSurvivors => {
                let _ = self.app.send_survivors(Signal::TERM);
                (std::process::id() == 1 && child::all_refuse_signals()).then_some(Event::Refused)
            }
            Action::WatchFlush => self.watch_flush(now),
            Action::WatchTraffic => Some(self.watch_traffic()),
        }
    }

    fn tell(&mut self, second: bool) -> Option<Event> {
        let target = self.app.target()?;
        let signals = self.app.stop_signals(target);
        let (signal, more) = match (second, self.second_signal.take()) {
            (true, None) => return None,
            (true, Some(signal)) => (signal, false),
            (false, _) => {
                self.second_signal = signals.get(1).copied();
                (*signals.first()?, self.second_signal.is_some())
            }
        };
        let result = self.app.tell(target, signal);
        if let Some(traffic) = &mut self.traffic {
            traffic.stopping();
        }
        let after = self.machine.stopped_at().map_or(String::new(), |stop| Show(self.clock.now().since(stop)).to_string());
        info!(
            event = "stopping",
            signal = %signal,
            pid = target.pid,
            server = target.server.map_or("", |server| server.name),
            because = if second { "nothing is in flight, or half of the time is gone" } else { self.machine.because().map_or("", |because| because.text()) },
            after,
        );
        if let Err(error) = result {
            self.cannot_signal(signal, &error);
            // What we leave behind ends with us.
            if error.raw_os_error() == Some(NOT_PERMITTED) && std::process::id() == 1 {
                return Some(Event::Refused);
            }
        }
        Some(Event::Told { signal, more })
    }

    fn watch_traffic(&mut self) -> Event {
        let plan = self.plan;
        let timing = &plan.timing;
        info!(
            event = "stop-requested",
            signal = %self.began.map_or(String::new(), |signal| signal.to_string()),
            serve_on_for = %Show(timing.delay),
            told_by = %Show(timing.until_told()),
            killed_by = %Show(timing.until_kill()),
            grace_period = %Show(timing.grace),
        );
        if let Some(endpoints) = &mut self.outside.endpoints {
            endpoints.stopped();
        }
        let own = std::mem::take(&mut self.outside.own);
        let (server, own_stop) = self.app.kept_alive();
        let mut traffic = Traffic::begin(self.clock.now(), Watch::of(plan, Family::Descendants, server, own_stop), own);
        let sample = traffic.look(self.clock.now());
        traffic.announce(sample.as_ref());
        self.look_at = Some(self.clock.now() + traffic.interval());
        self.watched = sample.as_ref().is_some_and(|sample| sample.watched);
        self.traffic = Some(traffic);
        self.say_warnings();
        Event::Traffic(sample)
    }

    fn look(&mut self) {
        let now = self.clock.now();
        self.look_at = None;
        match self.machine.phase() {
            // What refuses our signals is left when nothing is in flight; else nobody asks.
            Phase::Sweeping if !self.machine.refused() => {}
            Phase::LameDuck | Phase::Draining | Phase::Stopping | Phase::Sweeping => {
                if self.machine.phase() == Phase::Stopping && self.app.tell_shell() {
                    self.feed(Event::Told { signal: Signal::TERM, more: false });
                }
                let Some(traffic) = &mut self.traffic else { return };
                let sample = traffic.look(now);
                self.look_at = Some(self.clock.now() + traffic.interval());
                let way = traffic.keep_alive();
                self.say_warnings();
                if let Some(way) = way {
                    self.feed(Event::KeepAlive(way));
                }
                self.feed(Event::Traffic(sample));
            }
            Phase::Flushing => {
                if let Some(flushed) = self.flushed(now) {
                    self.feed(flushed);
                }
            }
            Phase::Killing => {
                // What was born while the others died.
                let _ = self.app.send_survivors(Signal::KILL);
                self.look_at = Some(now + TICK);
            }
            Phase::Serving | Phase::Done => {}
        }
    }

    /// When PID 1 goes, the network goes: first the kernel delivers what the app has written.
    fn watch_flush(&mut self, now: Uptime) -> Option<Event> {
        self.look_at = None;
        if let Some(traffic) = &mut self.traffic {
            traffic.app_ended();
        }
        self.flushed(now)
    }

    /// Looks whether all is delivered; what nobody can see is not waited for.
    fn flushed(&mut self, now: Uptime) -> Option<Event> {
        self.undelivered = match &mut self.traffic {
            _ if !traffic::may_answers_be_left() => 0,
            Some(traffic) => traffic.look(now).map_or(0, |sample| sample.flushing + usize::from(sample.partial)),
            None => traffic::answers_left().unwrap_or(0),
        };
        if self.undelivered == 0 {
            return Some(Event::Flushed);
        }
        self.look_at = Some(now + TICK);
        None
    }

    /// A phase that began is said once.
    fn show(&mut self, now: Uptime) {
        let phase = self.machine.phase();
        if phase == self.shown {
            return;
        }
        self.shown = phase;
        let since_stop = self.machine.stopped_at().map(|stop| now.since(stop));
        if let (Some(after), Some(signal)) = (since_stop, self.began)
            && phase != Phase::Done
        {
            // The last word, if we are killed before the end.
            let (name, grace) = (phase.name(), Show(self.plan.timing.grace));
            self.outside.termination.write_meanwhile(&format!(
                "lameduck: killed from outside, {name} since {} after {signal}; its grace period is {grace} (--grace-period)",
                Show(after)
            ));
        }
        let after = since_stop.map_or(String::new(), |after| Show(after).to_string());
        match phase {
            Phase::Draining => {
                let sample = self.traffic.as_ref().and_then(Traffic::last).cloned().unwrap_or_default();
                info!(event = "draining", after, accepted = sample.accepted, in_flight = sample.in_flight(), idle = sample.idle);
            }
            Phase::Killing => warn!(event = "killing", after),
            Phase::Sweeping => {
                info!(event = "sweeping", message = "the main process has ended; TERM to what it left behind", after)
            }
            // These are said where more is known of them, or are the story's.
            Phase::Serving | Phase::LameDuck | Phase::Stopping | Phase::Flushing | Phase::Done => {}
        }
    }

    fn say_warnings(&mut self) {
        if let Some(traffic) = &mut self.traffic {
            traffic.say_warnings();
        }
    }

    fn tell_the_story(&mut self, now: Uptime, code: u8) {
        if let Some(traffic) = &mut self.traffic {
            traffic.read_last_ends(now);
        }
        let tally = match &self.traffic {
            Some(traffic) if self.watched => traffic.tally(),
            // It ended by itself, unwatched: only what the kernel could not deliver is known.
            None if self.undelivered > 0 => Some(Tally { cut: self.undelivered as u64, ..Tally::default() }),
            _ => None,
        };
        let cut_on = self.traffic.as_ref().filter(|_| self.watched).map(Traffic::cut_on).unwrap_or_default();
        let mut story = Story::new(&self.machine, self.began, tally, code, now);
        story.cut_on = cut_on.iter().map(|port| snapshot::name(*port)).collect();
        story.last_accept = self.last_accept();
        story.closed = self.traffic.as_ref().map_or(0, Traffic::closed);
        // An app that ended by itself was reaped, and looked at if it was killed.
        if self.machine.stopped_at().is_some() {
            self.oom_kills.look();
        }
        story.oom_kills = self.oom_kills.said();
        let took = |phase| story.took(phase).map_or(String::new(), |took| Show(took).to_string());
        info!(
            event = "exit",
            code,
            app = story.app(),
            serving = took(Phase::Serving),
            lame_duck = took(Phase::LameDuck),
            draining = took(Phase::Draining),
            stopping = took(Phase::Stopping),
            sweeping = took(Phase::Sweeping),
            flushing = took(Phase::Flushing),
            killing = took(Phase::Killing),
            oom_kills = Some(story.oom_kills).filter(|count| *count > 0),
            accepted = tally.map(|tally| tally.accepted),
            or_more = tally.map(|tally| tally.uncertain).filter(|uncertain| *uncertain > 0),
            finished = tally.map(|tally| tally.finished),
            cut = tally.map(|tally| tally.cut),
            cut_on = story.cut_on.join(","),
            closed = tally.map(|_| story.closed),
            last_accept = story.last_accept.map_or(String::new(), |after| Show(after).to_string()),
        );
        self.outside.termination.write(&story.to_string());
    }
}

/// ESRCH and EPERM, which every Linux numbers so.
const NO_SUCH_PROCESS: i32 = 3;
const NOT_PERMITTED: i32 = 1;

/// What is known before the app runs.
pub fn unstarted(plan: &Plan, now: Uptime) -> Snapshot {
    let command: Vec<String> = plan.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        uptime: now.0,
        phase: Phase::Serving,
        since: now.0,
        pid: None,
        target: None,
        command: log::masked(&command.join(" ")),
        server: None,
        timing: plan.timing.clone(),
        stop: None,
        traffic: snapshot::Traffic { source: "none", ..snapshot::Traffic::default() },
        workers: plan.size.workers,
        cpu: plan.size.cpu.as_ref().map(|cpu| cpu.millicores),
        app: None,
        oom_kills: None,
        reaped: 0,
        signals: Vec::new(),
        dropped: log::dropped(),
    }
}

/// Before the loop: who runs, with what.
pub fn announce(plan: &Plan, pid: i32) {
    let command: Vec<String> = plan.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let set: Vec<String> = plan.size.child_env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    info!(
        event = "start",
        pid,
        command = command.join(" "),
        server = plan.server.map_or("", |server| server.name),
        grace_period = %Show(plan.timing.grace),
        grace_period_from = %plan.grace_from,
        cpu = plan.size.cpu.as_ref().map_or(String::new(), |cpu| cpu.millicores.to_string()),
        cpu_from = plan.size.cpu.as_ref().map_or("", |cpu| cpu.from.as_str()),
        memory = plan.size.memory,
        set = set.join(" "),
        user = plan.before.user.as_deref(),
    );
    for warning in &plan.warnings {
        warn!(event = "warning", message = warning);
    }
}
