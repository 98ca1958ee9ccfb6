//! The loop: select names what happened, the pod decides, the loop performs. From the spawn on nothing here may fail: what is lost
//! becomes a warning, and plain timing remains.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tracing::{debug, warn};

use crate::clock::Clock;
use crate::core::output::snapshot::{self, Snapshot, Stop};
use crate::core::shutdown::pod::{Action, Event, Pod};
use crate::core::shutdown::report::Began;
use crate::core::shutdown::service::ServiceId;
use crate::core::shutdown::{Ended, Phase, StopReason};
use crate::core::signals::{Signal, rewritten};
use crate::core::time::Uptime;
use crate::core::traffic::{Sample, Tally};
use crate::endpoints::{self, Endpoints, Message, Now};
use crate::output::events::{self, Events, Figures, NOT_PERMITTED};
use crate::output::oom_kills::OomKills;
use crate::plan::Plan;
use crate::services::{Meaning, Role, Services};
use crate::sys::child;
use crate::sys::signals::{Batch, Signals};
use crate::traffic::{self, Family, OwnConnections, Traffic, Watch};

/// While others are waited for that no signal announces.
const TICK: Duration = Duration::from_millis(50);

/// Served between two full batches of signals.
const MOST_MESSAGES: usize = 16;

/// What woke the loop.
enum Woken {
    ConnectionsEnded,
    Deadline,
    Look,
    Message(Message),
    Signals(Batch),
}

struct Loop<'a> {
    plan: &'a Plan,
    clock: Clock,
    pod: Pod,
    services: Services<'a>,
    events: Events<'a>,
    traffic: Option<Traffic>,
    /// When to look at the traffic, or at the processes, again.
    look_at: Option<Uptime>,
    began: Option<Began>,
    watched: bool,
    /// When every process of the app was gone: connections with bytes of an answer still to be delivered.
    undelivered: usize,
    /// `--on-stop` commands that run.
    on_stop_left: usize,
    code: Option<u8>,
    outside: Outside<'a>,
    oom_kills: OomKills,
    signals: BTreeMap<Signal, u64>,
}

/// Who asks from outside, and what is needed to answer.
pub struct Outside<'a> {
    pub endpoints: Option<Endpoints>,
    pub own: OwnConnections,
    /// Starts a command that is no service.
    pub spawn: &'a dyn Fn(Helper<'_>) -> std::io::Result<i32>,
}

/// What has happened while the services were started.
#[derive(Clone, Copy, Debug)]
pub enum Already {
    Ended(ServiceId, Ended),
    Signal(Signal),
}

/// A command that is no service.
pub enum Helper<'a> {
    /// An `--on-stop` command, by its place.
    OnStop(usize),
    /// The command that says whether the app is ready.
    Probe(&'a [String]),
}

/// Supervises the services that run to their end, and returns the exit code. `already`: what has happened while they started.
pub async fn run(
    plan: &Plan,
    services: Services<'_>,
    already: Vec<Already>,
    signals: &Signals,
    clock: Clock,
    events: Events<'_>,
    outside: Outside<'_>,
) -> u8 {
    let expendable: Vec<bool> = plan.services.iter().skip(1).map(|service| service.expendable).collect();
    let mut pod = Pod::new(plan.timing.clone(), plan.success.clone(), &expendable, !plan.on_stop.is_empty());
    (0..plan.services.len())
        .map(ServiceId)
        .filter(|service| services.was_started(*service))
        .for_each(|service| pod.started(service));
    let mut this = Loop {
        plan,
        clock,
        pod,
        services,
        events,
        traffic: None,
        look_at: None,
        began: None,
        watched: false,
        undelivered: 0,
        on_stop_left: 0,
        code: None,
        outside,
        oom_kills: OomKills::begin(),
        signals: BTreeMap::new(),
    };
    if let Some(endpoints) = &mut this.outside.endpoints {
        endpoints.started();
    }
    for service in (0..plan.services.len()).map(ServiceId).filter(|service| plan.services[service.0].expendable) {
        // It was said when it ended.
        if let Some(ended) = this.services.ended(service) {
            this.feed(Event::Ended { service, ended, alone: false });
        }
    }
    for already in already {
        match already {
            Already::Signal(signal) => this.signal(signal),
            Already::Ended(service, ended) => this.hear_of(Event::Ended { service, ended, alone: false }),
        }
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
            () = clock.until(this.pod.deadline()) => Woken::Deadline,
            () = clock.until(this.look_at) => Woken::Look,
            () = traffic::ended(this.traffic.as_ref()) => Woken::ConnectionsEnded,
            message = endpoints::next(this.outside.endpoints.as_mut()) => Woken::Message(message),
        };
        let storm = matches!(&woken, Woken::Signals(batch) if batch.is_full());
        this.wake(woken);
        if storm {
            // Signals come first, but one after the other they must not keep everybody else waiting.
            tokio::task::yield_now().await;
            for _ in 0..MOST_MESSAGES {
                tokio::select! {
                    biased;
                    message = endpoints::next(this.outside.endpoints.as_mut()) => this.wake(Woken::Message(message)),
                    () = std::future::ready(()) => break,
                }
            }
        }
    }
}

impl Loop<'_> {
    /// While the app serves nothing else can happen: then one system call waits, and the event loop's own cost is saved.
    fn waits_for_signals_only(&self) -> bool {
        let asleep = self.pod.deadline().is_none() && self.look_at.is_none() && self.traffic.is_none();
        asleep && self.outside.endpoints.is_none()
    }

    fn wake(&mut self, woken: Woken) {
        match woken {
            Woken::Deadline => self.feed(Event::Wake),
            Woken::ConnectionsEnded => {
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
        if self.pod.deadline().is_some_and(|deadline| now >= deadline) {
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
        let ended = self.pod.began_by().map(|service| self.events.name(service).to_owned());
        let now = Now { time, phase: self.pod.phase(), processes: self.services.pids(), ended, watched: self.traffic.is_some() };
        if let Some(probe) = endpoints.on(now, message, || self.snapshot()) {
            let pid = (self.outside.spawn)(Helper::Probe(&probe.words));
            if let Ok(pid) = pid {
                self.services.helper_started(Role::Probe, pid);
            }
            endpoints.probing(self.clock.now(), pid);
        }
        self.outside.endpoints = Some(endpoints).filter(Endpoints::is_needed);
    }

    fn snapshot(&mut self) -> Snapshot {
        let oom_kills = self.oom_kills.look();
        let now = self.clock.now();
        let last = self.traffic.as_ref().and_then(Traffic::last);
        let stop = self.pod.stopped_at().map(|at| Stop {
            signal: match self.began {
                Some(Began::Signal(signal)) => Some(signal),
                Some(Began::End { .. }) | None => None,
            },
            ended: self.pod.began_by().map(|service| self.events.name(service).to_owned()),
            ago: now.since(at),
            reason: self.pod.reason().map(StopReason::text),
            tally: self.traffic.as_ref().filter(|_| self.watched).and_then(Traffic::tally),
            closed: self.traffic.as_ref().map_or(0, Traffic::closed),
            last_accept: self.last_accept(),
        });
        let unstarted = events::unstarted(self.plan, now);
        let pids = self.services.pids();
        let services =
            unstarted.services.into_iter().zip(pids).map(|(service, pid)| snapshot::Service { pid, ..service }).collect();
        Snapshot {
            services,
            phase: self.pod.phase(),
            since: self.pod.entered().last().map_or(now.0, |(_, at)| now.since(*at)),
            pid: self.services.main(),
            stop,
            traffic: snapshot::Traffic {
                source: self.traffic.as_ref().map_or("none", Traffic::source),
                listening: last.and_then(|sample| sample.listening),
                ports: last.map(|sample| sample.ports.clone()).unwrap_or_default(),
                in_flight: last.map_or(0, Sample::at_work),
            },
            oom_kills,
            reaped: self.services.reaped,
            signals: self.signals.iter().map(|(signal, count)| (*signal, *count)).collect(),
            ..unstarted
        }
    }

    /// So long after the stop signal the last new connection came.
    fn last_accept(&self) -> Option<Duration> {
        let sample = self.traffic.as_ref().filter(|_| self.watched).and_then(Traffic::last)?;
        Some(sample.last_arrival?.since(self.pod.stopped_at()?))
    }

    fn signal(&mut self, signal: Signal) {
        if signal != Signal::CHLD {
            *self.signals.entry(signal).or_default() += 1;
        }
        match self.services.meaning(signal) {
            Meaning::Reap => self.reap(),
            Meaning::Stop => {
                if self.pod.phase() == Phase::Serving {
                    self.began = Some(Began::Signal(signal));
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
        if let Err(error) = self.services.forward(signal) {
            self.events.cannot_signal(ServiceId::MAIN, signal, &error);
        }
    }

    fn reap(&mut self) {
        let now = self.clock.now();
        let mut killed = false;
        let mut known = Vec::new();
        let none_left = self.services.reap(|pid, ended, role| {
            killed |= ended == Ended::Signal(Signal::KILL);
            debug!(event = "reaped", pid, ended = %ended);
            known.extend(role.map(|role| (pid, role, ended)));
        });
        if killed && !self.pod.killed() {
            self.oom_kills.look();
        }
        let last = known.iter().rposition(|(_, role, _)| matches!(role, Role::Service(_)));
        for (place, (pid, role, ended)) in known.into_iter().enumerate() {
            match role {
                Role::Service(service) => {
                    self.hear_of(Event::Ended { service, ended, alone: none_left && Some(place) == last });
                }
                Role::OnStop(place) => {
                    if let Some(event) = self.on_stop_ended(place, Ok(ended)) {
                        self.feed(event);
                    }
                }
                Role::Before => {}
                Role::Probe => {
                    if let Some(endpoints) = &mut self.outside.endpoints {
                        endpoints.probe_ended(now, pid, ended);
                    }
                }
            }
        }
        if none_left && last.is_none() {
            self.feed(Event::Gone);
        } else if self.pod.awaits_leftovers() {
            self.feed(Event::Reaped);
        }
    }

    /// As `feed`; what has ended is said first.
    fn hear_of(&mut self, event: Event) {
        if let Event::Ended { service, ended, .. } = event {
            let planned = self.plan.services.get(service.0);
            let by_itself =
                !self.pod.services().get(service.0).is_some_and(|service| service.was_stopped()) && !self.pod.killed();
            if self.pod.phase() == Phase::Serving
                && let Some(planned) = planned.filter(|planned| service != ServiceId::MAIN && !planned.expendable)
            {
                self.began = Some(Began::End { service: planned.name.clone(), ended });
            }
            if service != ServiceId::MAIN {
                events::companion_ended(self.plan, service, ended, by_itself);
            }
        }
        self.feed(event);
    }

    fn run_on_stop(&mut self) -> Option<Event> {
        self.on_stop_left = self.plan.on_stop.len();
        let mut ended = None;
        for place in 0..self.plan.on_stop.len() {
            match (self.outside.spawn)(Helper::OnStop(place)) {
                Ok(pid) => self.services.helper_started(Role::OnStop(place), pid),
                Err(error) => ended = self.on_stop_ended(place, Err(error)),
            }
        }
        ended
    }

    /// An `--on-stop` command has ended, or could not be started. Its failure holds up nothing.
    fn on_stop_ended(&mut self, place: usize, ended: std::io::Result<Ended>) -> Option<Event> {
        let command = self.plan.on_stop.get(place).map(|command| events::text(command)).unwrap_or_default();
        match ended {
            Ok(Ended::Code(0)) => debug!(event = "on-stop", command, message = "ended"),
            Ok(ended) => warn!(event = "warning", message = %format_args!("the --on-stop command {command:?} {ended}")),
            Err(error) => {
                warn!(event = "warning", message = %format_args!("cannot start the --on-stop command {command:?}: {error}"))
            }
        }
        self.on_stop_left = self.on_stop_left.saturating_sub(1);
        (self.on_stop_left == 0).then_some(Event::OnStopEnded)
    }

    /// One event, and all that follows from it.
    fn feed(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.clock.now();
            let actions = self.pod.on(now, event);
            self.events.phase(now, &self.pod, self.began.as_ref(), self.traffic.as_ref().and_then(Traffic::last));
            for action in actions {
                events.extend(self.perform(now, action));
            }
        }
    }

    fn perform(&mut self, now: Uptime, action: Action) -> Option<Event> {
        match action {
            Action::CheckLeftovers { service, first } => Some(Event::Leftovers(service, self.services.leftovers(service, first))),
            Action::CloseKept => {
                if let Some(traffic) = &mut self.traffic {
                    traffic.close_kept(now);
                }
                None
            }
            Action::Exit(code) => {
                self.exit(now, code);
                None
            }
            Action::ForwardInterrupt => {
                if let Some(signal) = rewritten(&self.plan.rule.rewrites, Signal::INT) {
                    self.forward(signal);
                }
                None
            }
            Action::KillAll => {
                self.services.kill_all();
                self.look_at = Some(now + TICK);
                None
            }
            Action::RunOnStop => self.run_on_stop(),
            Action::SendSecond(service, signal) => self.send_stop(service, Some(signal)),
            Action::SendStop(service) => self.send_stop(service, None),
            Action::StopSurvivors => {
                self.services.stop_survivors();
                (std::process::id() == 1 && child::all_refuse_signals()).then_some(Event::Refused)
            }
            Action::WatchFlush => self.watch_flush(now),
            Action::WatchTraffic => Some(self.watch_traffic()),
        }
    }

    /// Sends a service its stop signal, or its second one.
    fn send_stop(&mut self, service: ServiceId, second: Option<Signal>) -> Option<Event> {
        let target = self.services.target(service)?;
        let signals = self.services.stop_signals(service, target);
        let signal = second.or(signals.first().copied())?;
        let result = self.services.stop(service, target, signal);
        if let Some(traffic) = &mut self.traffic {
            traffic.stopping();
        }
        self.events.stopping(self.clock.now(), &self.pod, service, target, signal, second.is_some());
        if let Err(error) = result {
            self.events.cannot_signal(service, signal, &error);
            // What we leave behind ends with us.
            if error.raw_os_error() == Some(NOT_PERMITTED) && std::process::id() == 1 {
                return Some(Event::Refused);
            }
        }
        let next = if second.is_some() { None } else { signals.get(1).copied() };
        Some(Event::StopSent { service, signal, second: next })
    }

    fn watch_traffic(&mut self) -> Event {
        self.events.stop_requested(self.began.as_ref());
        if let Some(endpoints) = &mut self.outside.endpoints {
            endpoints.stopped();
        }
        let own = std::mem::take(&mut self.outside.own);
        let (server, own_stop) = self.services.kept_alive();
        let mut traffic = Traffic::begin(self.clock.now(), Watch::of(self.plan, Family::Descendants, server, own_stop), own);
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
        match self.pod.phase() {
            // What refuses our signals is left when nothing is in flight; else nobody asks.
            Phase::Sweeping if !self.pod.refused() => {}
            Phase::LameDuck | Phase::Draining | Phase::Stopping | Phase::Sweeping => {
                if self.pod.phase() == Phase::Stopping {
                    for service in self.services.stop_shells() {
                        self.feed(Event::StopSent { service, signal: Signal::TERM, second: None });
                    }
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
                self.services.kill_all();
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

    fn say_warnings(&mut self) {
        if let Some(traffic) = &mut self.traffic {
            traffic.say_warnings();
        }
    }

    fn exit(&mut self, now: Uptime, code: u8) {
        if let Some(traffic) = &mut self.traffic {
            traffic.read_last_ends(now);
        }
        let tally = match &self.traffic {
            Some(traffic) if self.watched => traffic.tally(),
            // It ended by itself, unwatched: only what the kernel could not deliver is known.
            None if self.undelivered > 0 => Some(Tally { cut: self.undelivered as u64, ..Tally::default() }),
            _ => None,
        };
        // An app that ended by itself was reaped, and looked at if it was killed.
        if self.pod.stopped_at().is_some() {
            self.oom_kills.look();
        }
        let figures = Figures {
            tally,
            cut_on: self.traffic.as_ref().filter(|_| self.watched).map(Traffic::cut_on).unwrap_or_default(),
            closed: self.traffic.as_ref().map_or(0, Traffic::closed),
            last_accept: self.last_accept(),
            oom_kills: self.oom_kills.said(),
        };
        self.events.exit(now, &self.pod, self.began.take(), code, figures);
        self.code = Some(code);
    }
}
