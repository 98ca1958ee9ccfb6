//! All services together: one budget, the order of stopping, SIGKILL, the last answers, the exit code. A pure function of (state, event,
//! time); the picture is in docs/shutdown.md, and a test compares its edges with this match.

use std::time::Duration;

use super::service::{Service, ServiceId};
use super::{Drain, Ended, Phase, StopReason, Timing};
use crate::core::signals::Signal;
use crate::core::time::Uptime;
use crate::core::traffic::Sample;
use crate::core::traffic::keepalive::Way;

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A service has ended. `alone`: no process is left at all.
    Ended {
        service: ServiceId,
        ended: Ended,
        alone: bool,
    },
    /// The kernel holds no more bytes of the app's answers, or nobody can know.
    Flushed,
    /// No process is left to reap.
    Gone,
    /// An INT that is not in `--stop-on`.
    Interrupt,
    /// What is to be done about kept-alive connections, from now on.
    KeepAlive(Way),
    /// Whether processes are left of a service whose own one has ended.
    Leftovers(ServiceId, bool),
    /// Every `--on-stop` command has ended.
    OnStopEnded,
    /// Processes were reaped.
    Reaped,
    /// The kernel does not permit us to send the app a signal; our own end is its end.
    Refused,
    /// One of `--stop-on`.
    Stop,
    /// A service was sent `signal` to stop it. `second`: what its server is to be sent later.
    StopSent {
        service: ServiceId,
        signal: Signal,
        second: Option<Signal>,
    },
    /// A look at the traffic. None: there is no source of traffic, or it is lost.
    Traffic(Option<Sample>),
    Wake,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Say by `Leftovers` whether processes of a service are left. `first`: send them its stop signal.
    CheckLeftovers {
        service: ServiceId,
        first: bool,
    },
    /// Close those kept-alive connections that the last look has chosen.
    CloseKept,
    Exit(u8),
    ForwardInterrupt,
    KillAll,
    RunOnStop,
    /// Send a service its second stop signal.
    SendSecond(ServiceId, Signal),
    /// Send a service its stop signal.
    SendStop(ServiceId),
    /// Send a stop signal to all that the services left behind.
    StopSurvivors,
    /// Say `Flushed` when the answers that are already written have left.
    WatchFlush,
    WatchTraffic,
}

#[derive(Clone, Debug)]
pub struct Pod {
    timing: Timing,
    success: Vec<u8>,
    /// The main command first.
    services: Vec<Service>,
    phase: Phase,
    entered: Vec<(Phase, Uptime)>,
    stop: Option<Uptime>,
    /// The companion whose end began the shutdown.
    began_by: Option<ServiceId>,
    /// Ctrl-C before the main command was started.
    cancelled: bool,
    /// There are `--on-stop` commands.
    has_on_stop: bool,
    /// They run.
    on_stop_runs: bool,
    /// The latest look saw nothing of the traffic.
    blind: bool,
    interrupts: u8,
    reason: Option<StopReason>,
    step: Option<Step>,
    killed: bool,
    refused: bool,
    keep_alive: Way,
    /// When draining began.
    draining_at: Option<Uptime>,
    /// When kept-alive connections were to be closed first.
    closing_at: Option<Uptime>,
    /// In the first half of the draining: the fewest kept-alive connections that were busy in one look.
    fewest: Option<usize>,
    /// When the current phase ends at the latest, once no service runs or SIGKILL was sent. While services are stopped one after the
    /// other after the main command has ended by itself: when SIGKILL is sent.
    limit: Option<Uptime>,
}

/// The service that is being stopped.
#[derive(Clone, Copy, Debug)]
struct Step {
    service: ServiceId,
    /// When the next one is stopped at the latest: each has an equal share of what is left of the budget.
    until: Uptime,
    /// Its own process has ended, others of it are waited for.
    leftovers: bool,
}

/// An app that ended by itself: how long the kernel may take to deliver its last answers.
const OWN_FLUSH: Duration = Duration::from_secs(2);

/// While kept-alive connections at rest are closed, so long at most, nothing in flight is not yet the end of the wait.
const MOST_CLOSING: Duration = Duration::from_secs(2);

/// 128 + SIGINT: nothing was done, and somebody wanted it so.
const INTERRUPTED: u8 = 130;

impl Pod {
    /// `companions`: for each, whether it is expendable. No service is started yet.
    pub fn new(timing: Timing, success: Vec<u8>, companions: &[bool], has_on_stop: bool) -> Pod {
        Pod {
            timing,
            success,
            services: [false].iter().chain(companions).map(|expendable| Service::new(*expendable)).collect(),
            phase: Phase::Serving,
            entered: vec![(Phase::Serving, Uptime::default())],
            stop: None,
            began_by: None,
            cancelled: false,
            has_on_stop,
            on_stop_runs: false,
            blind: false,
            interrupts: 0,
            reason: None,
            step: None,
            killed: false,
            refused: false,
            keep_alive: Way::default(),
            draining_at: None,
            closing_at: None,
            fewest: None,
            limit: None,
        }
    }

    /// A pod of the main command alone, which runs.
    pub fn of_one(timing: Timing, success: Vec<u8>) -> Pod {
        let mut pod = Pod::new(timing, success, &[], false);
        pod.started(ServiceId::MAIN);
        pod
    }

    pub fn started(&mut self, service: ServiceId) {
        if let Some(service) = self.services.get_mut(service.0) {
            service.start();
        }
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The phases so far and when each began.
    pub fn entered(&self) -> &[(Phase, Uptime)] {
        &self.entered
    }

    /// T0: when the stop signal came, or a companion ended.
    pub fn stopped_at(&self) -> Option<Uptime> {
        self.stop
    }

    /// The companion whose end began the shutdown.
    pub fn began_by(&self) -> Option<ServiceId> {
        self.began_by
    }

    /// Why the main command was sent its stop signal.
    pub fn reason(&self) -> Option<StopReason> {
        self.reason
    }

    /// The main command's end.
    pub fn ended(&self) -> Option<Ended> {
        self.services.first().and_then(Service::ended)
    }

    /// Where it is known, how each service ended.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    pub fn killed(&self) -> bool {
        self.killed
    }

    /// The app could be sent no signal.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// Whether processes of a service whose own one has ended are waited for: then the end of any is news.
    pub fn awaits_leftovers(&self) -> bool {
        self.phase == Phase::Stopping && self.step.is_some_and(|step| step.leftovers)
    }

    /// When to wake the pod at the latest. Waking it earlier changes nothing.
    pub fn deadline(&self) -> Option<Uptime> {
        match self.phase {
            Phase::Serving | Phase::Done => None,
            Phase::LameDuck | Phase::Draining => Some(self.wait_ends()),
            Phase::Stopping => {
                let step = self.step.map(|step| step.until);
                let second = self.services.iter().filter_map(Service::deadline).min();
                [Some(self.kill_at()), step, second].into_iter().flatten().min()
            }
            Phase::Sweeping | Phase::Flushing | Phase::Killing => self.limit,
        }
    }

    #[must_use = "actions must be performed"]
    pub fn on(&mut self, now: Uptime, event: Event) -> Vec<Action> {
        match (self.phase, event) {
            (Phase::Done, Event::KeepAlive(_) | Event::OnStopEnded) => vec![],
            (_, Event::KeepAlive(way)) => {
                self.keep_alive = way;
                vec![]
            }
            (phase, Event::OnStopEnded) => {
                self.on_stop_runs = false;
                if matches!(phase, Phase::LameDuck | Phase::Draining) { self.waited(now) } else { vec![] }
            }
            (Phase::Serving, Event::Stop) => {
                self.stop = Some(now);
                self.begin(now)
            }
            (Phase::Serving, Event::Interrupt) if self.is_main_started() => vec![Action::ForwardInterrupt],
            (Phase::Serving, Event::Interrupt) => {
                self.cancelled = true;
                self.stop = Some(now);
                self.begin(now)
            }
            (
                Phase::Serving,
                Event::Flushed
                | Event::Gone
                | Event::Leftovers(..)
                | Event::Reaped
                | Event::Refused
                | Event::StopSent { .. }
                | Event::Traffic(_)
                | Event::Wake,
            ) => vec![],

            // A restarted kubelet may repeat the stop signal: once is enough.
            (Phase::LameDuck | Phase::Draining, Event::Stop) => vec![],
            (Phase::LameDuck | Phase::Draining, Event::Interrupt) => {
                self.interrupts = self.interrupts.saturating_add(1);
                self.stop_services(now, StopReason::Hurried)
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
            (
                Phase::LameDuck | Phase::Draining,
                Event::Flushed | Event::Gone | Event::Leftovers(..) | Event::Reaped | Event::Refused | Event::StopSent { .. },
            ) => vec![],

            (Phase::Stopping, Event::StopSent { service, signal, second }) => {
                self.was_sent(now, service, signal, second);
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
                let is_busy = sample.in_flight() > 0 || sample.partial;
                let idle_after = self.timing.idle_after;
                self.seconds(|service| service.second_due(now, is_busy, idle_after))
            }
            (Phase::Stopping, Event::Wake) => {
                if now >= self.kill_at() {
                    return self.kill(now);
                }
                let mut actions = self.seconds(|service| service.second_overdue(now));
                if self.step.is_some_and(|step| now >= step.until) {
                    actions.extend(self.next_step(now));
                }
                actions
            }
            (Phase::Stopping, Event::Interrupt) => self.interrupted(now),
            (Phase::Stopping, Event::Leftovers(service, are_left)) => match &mut self.step {
                Some(step) if step.service == service && step.leftovers && !are_left => self.next_step(now),
                Some(_) | None => vec![],
            },
            (Phase::Stopping, Event::Reaped) => match self.step {
                Some(Step { service, leftovers: true, .. }) => vec![Action::CheckLeftovers { service, first: false }],
                Some(_) | None => vec![],
            },
            (Phase::Stopping, Event::Gone) if !self.services.iter().any(Service::is_running) => self.flush(now),
            (Phase::Stopping, Event::Stop | Event::Traffic(None) | Event::Flushed | Event::Gone) => vec![],

            (Phase::Serving | Phase::LameDuck | Phase::Draining | Phase::Stopping, Event::Ended { service, ended, alone }) => {
                self.service_ended(now, service, ended, alone)
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
            (
                Phase::Sweeping,
                Event::Wake
                | Event::Stop
                | Event::StopSent { .. }
                | Event::Traffic(_)
                | Event::Flushed
                | Event::Leftovers(..)
                | Event::Reaped
                | Event::Ended { .. },
            ) => vec![],

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
                | Event::StopSent { .. }
                | Event::Gone
                | Event::Leftovers(..)
                | Event::Reaped
                | Event::Ended { .. },
            ) => vec![],

            (Phase::Killing, Event::Ended { service, ended, alone }) => {
                self.end(service, ended);
                if alone { self.flush(now) } else { vec![] }
            }
            (Phase::Killing, Event::Gone) => self.flush(now),
            (Phase::Killing, Event::Wake) if self.is_over(now) => self.exit(now),
            (
                Phase::Killing,
                Event::Wake
                | Event::Stop
                | Event::StopSent { .. }
                | Event::Interrupt
                | Event::Refused
                | Event::Traffic(_)
                | Event::Flushed
                | Event::Leftovers(..)
                | Event::Reaped,
            ) => vec![],

            (
                Phase::Done,
                Event::Flushed
                | Event::Gone
                | Event::Interrupt
                | Event::Ended { .. }
                | Event::Leftovers(..)
                | Event::Reaped
                | Event::Refused
                | Event::Stop
                | Event::StopSent { .. }
                | Event::Traffic(_)
                | Event::Wake,
            ) => vec![],
        }
    }

    /// The shutdown begins. What is not started yet has nobody to drain.
    fn begin(&mut self, now: Uptime) -> Vec<Action> {
        if !self.is_main_started() {
            return self.stop_in_order(now);
        }
        self.enter(Phase::LameDuck, now);
        self.on_stop_runs = self.has_on_stop;
        let on_stop = self.has_on_stop.then_some(Action::RunOnStop);
        on_stop.into_iter().chain([Action::WatchTraffic]).collect()
    }

    fn service_ended(&mut self, now: Uptime, service: ServiceId, ended: Ended, alone: bool) -> Vec<Action> {
        if !self.end(service, ended) {
            return vec![];
        }
        let is_expendable = self.services.get(service.0).is_some_and(|service| service.expendable);
        let starts_yet = self.phase == Phase::Serving && !self.is_main_started();
        if starts_yet && is_expendable {
            return vec![];
        }
        if !self.services.iter().any(Service::is_running) {
            if starts_yet {
                self.began_by = Some(service);
            }
            return if alone { self.flush(now) } else { self.leave_nobody(now) };
        }
        match self.phase {
            Phase::Stopping if self.step.is_some_and(|step| step.service == service) => self.step_ended(now),
            Phase::Stopping => vec![],
            _ if service == ServiceId::MAIN => {
                self.limit = Some(self.limit_from(now));
                self.stop_in_order(now)
            }
            Phase::Serving if !is_expendable => {
                self.began_by = Some(service);
                self.stop = Some(now);
                self.begin(now)
            }
            _ => vec![],
        }
    }

    /// Notes how a service ended. False: there is no such service, or it had ended already.
    fn end(&mut self, service: ServiceId, ended: Ended) -> bool {
        let Some(service) = self.services.get_mut(service.0).filter(|service| service.ended().is_none()) else { return false };
        service.end(ended);
        true
    }

    fn is_main_started(&self) -> bool {
        self.services.first().is_some_and(Service::was_started)
    }

    /// No service runs any more, but other processes do.
    fn leave_nobody(&mut self, now: Uptime) -> Vec<Action> {
        // Workers of the last one may still be waited for.
        match self.step {
            Some(Step { leftovers: true, .. }) => vec![],
            _ => self.sweep(now),
        }
    }

    /// The main command first, then its companions, the one that was started last first.
    fn stop_in_order(&mut self, now: Uptime) -> Vec<Action> {
        self.enter(Phase::Stopping, now);
        self.step = None;
        self.next_step(now)
    }

    /// The services that are still to be stopped, in order.
    fn to_stop(&self) -> impl Iterator<Item = ServiceId> {
        let last = self.services.len();
        let order = (0..last).map(move |place| ServiceId(if place == 0 { 0 } else { last - place }));
        let done = self.step.map(|step| step.service);
        let rest = order.skip_while(move |service| done.is_some_and(|done| *service != done));
        rest.skip(usize::from(done.is_some())).filter(|service| self.services[service.0].was_started())
    }

    fn next_step(&mut self, now: Uptime) -> Vec<Action> {
        let left = self.to_stop().filter(|service| self.services[service.0].is_running()).count();
        let Some(service) = self.to_stop().next() else {
            // Those that took longer than their share may still run: then SIGKILL ends them.
            self.step = None;
            return if self.services.iter().any(Service::is_running) { vec![] } else { self.sweep(now) };
        };
        let runs = self.services[service.0].is_running();
        let share = self.kill_at().since(now) / u32::try_from(left + usize::from(!runs)).unwrap_or(u32::MAX).max(1);
        self.step = Some(Step { service, until: now + share, leftovers: !runs });
        if !runs {
            return vec![Action::CheckLeftovers { service, first: true }];
        }
        self.services[service.0].stop(now);
        vec![Action::SendStop(service)]
    }

    /// The service that was being stopped has ended: its workers may be left.
    fn step_ended(&mut self, now: Uptime) -> Vec<Action> {
        let Some(step) = &mut self.step else { return vec![] };
        if now >= step.until {
            return self.next_step(now);
        }
        step.leftovers = true;
        vec![Action::CheckLeftovers { service: step.service, first: true }]
    }

    fn was_sent(&mut self, now: Uptime, service: ServiceId, signal: Signal, second: Option<Signal>) {
        let until = self.step.filter(|step| step.service == service).map_or(self.kill_at(), |step| step.until);
        if let Some(service) = self.services.get_mut(service.0) {
            service.was_sent(now, signal, second, until);
        }
    }

    fn seconds(&mut self, due: impl Fn(&mut Service) -> Option<Signal>) -> Vec<Action> {
        let all = self.services.iter_mut().enumerate();
        all.filter_map(|(place, service)| Some(Action::SendSecond(ServiceId(place), due(service)?))).collect()
    }

    /// A look at the traffic: may the main command be sent its stop signal?
    fn weigh(&mut self, now: Uptime, sample: &Sample) -> Vec<Action> {
        let Some(stop) = self.stop else { return vec![] };
        if sample.listening == Some(false) && !self.timing.delay_given {
            return self.done_waiting(now, StopReason::ListensOnNothing);
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
            let reason = match (sample.watched, sample.given_up) {
                (false, _) => StopReason::DelayOver,
                (true, 0) => StopReason::Drained,
                (true, _) => StopReason::GaveUp,
            };
            return self.done_waiting(now, reason);
        }
        if let Some(reason) = self.may_use_own_stop(now, sample) {
            return self.done_waiting(now, reason);
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
    fn may_use_own_stop(&mut self, now: Uptime, sample: &Sample) -> Option<StopReason> {
        if self.timing.drain != Drain::Requests || sample.partial || sample.in_flight_besides_kept() > 0 {
            return None;
        }
        match self.keep_alive {
            Way::Wait => None,
            Way::OwnStop => Some(StopReason::OwnStop),
            Way::Close | Way::Fewest => self.are_fewest(now, sample.kept.busy).then_some(StopReason::FewestBusy),
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

    /// The traffic allows the stop; the `--on-stop` commands may not yet.
    fn done_waiting(&mut self, now: Uptime, reason: StopReason) -> Vec<Action> {
        if self.on_stop_runs { self.waited(now) } else { self.stop_services(now, reason) }
    }

    /// Is the time for waiting up?
    fn waited(&mut self, now: Uptime) -> Vec<Action> {
        if now < self.wait_ends() {
            return vec![];
        }
        let timed = self.by_time_alone() && self.stop.is_some_and(|stop| now.since(stop) < self.timing.until_sent());
        self.stop_services(now, if timed { StopReason::DelayOver } else { StopReason::OutOfTime })
    }

    fn by_time_alone(&self) -> bool {
        self.blind || self.timing.drain == Drain::Off
    }

    fn wait_ends(&self) -> Uptime {
        let Some(stop) = self.stop else { return Uptime::default() };
        let latest = stop + self.timing.until_sent();
        if self.by_time_alone() && !self.on_stop_runs { latest.min(stop + self.timing.delay) } else { latest }
    }

    fn kill_at(&self) -> Uptime {
        let by_budget = self.stop.map(|stop| stop + self.timing.until_kill());
        by_budget.into_iter().chain(self.limit).min().unwrap_or_default()
    }

    fn is_over(&self, now: Uptime) -> bool {
        self.limit.is_none_or(|limit| now >= limit)
    }

    fn stop_services(&mut self, now: Uptime, reason: StopReason) -> Vec<Action> {
        self.reason = Some(reason);
        self.stop_in_order(now)
    }

    /// Counts INTs: the first sends the stop signal now, the second SIGKILL.
    fn interrupted(&mut self, now: Uptime) -> Vec<Action> {
        self.interrupts = self.interrupts.saturating_add(1);
        if self.interrupts >= 2 { self.kill(now) } else { vec![] }
    }

    /// No service runs, other processes do.
    fn sweep(&mut self, now: Uptime) -> Vec<Action> {
        self.step = None;
        self.limit = Some(self.limit_from(now));
        self.enter(Phase::Sweeping, now);
        vec![Action::StopSurvivors]
    }

    /// How long what is left may take once the main command has ended: the rest of the budget, at most the stop timeout.
    fn limit_from(&self, now: Uptime) -> Uptime {
        let by_budget = self.stop.map_or(now, |stop| stop) + self.timing.until_kill();
        let before = self.limit.unwrap_or(by_budget);
        by_budget.min(before).min(now + self.timing.stop_timeout)
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
            (_, Some(stop)) => stop + self.timing.until_kill(),
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

    /// The main command's code; that of the companion whose end began the shutdown, 1 if that was 0; 0 if the main command was never
    /// started, since a stop signal came first.
    fn code(&self) -> u8 {
        let code = match self.began_by.and_then(|service| self.services.get(service.0)) {
            Some(companion) => companion.code().max(1),
            None if self.cancelled => INTERRUPTED,
            None if !self.is_main_started() => 0,
            None => self.services.first().map_or(0, Service::code),
        };
        if self.success.contains(&code) { 0 } else { code }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::traffic::KeptAlive;

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

    fn sent(signal: Signal, second: Option<Signal>) -> Event {
        Event::StopSent { service: ServiceId::MAIN, signal, second }
    }

    fn main_ended(ended: Ended, alone: bool) -> Event {
        Event::Ended { service: ServiceId::MAIN, ended, alone }
    }

    fn at(millis: u64) -> Uptime {
        Uptime(Duration::from_millis(millis))
    }

    fn calm() -> Sample {
        Sample { watched: true, listening: Some(true), ..Sample::default() }
    }

    #[test]
    fn a_quiet_server_is_stopped_after_the_delay() {
        let mut pod = Pod::of_one(timing(), vec![]);
        assert_eq!(pod.on(at(1000), Event::Stop), [Action::WatchTraffic]);
        assert_eq!(pod.on(at(5900), Event::Traffic(Some(calm()))), []);
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(calm()))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.reason(), Some(StopReason::Drained));
        assert_eq!(pod.on(at(6000), sent(Signal::TERM, None)), []);
        assert_eq!(pod.deadline(), Some(at(29_000)), "an app that is stopped early has the rest of the budget");
        let ended = Ended::Signal(Signal::TERM);
        assert_eq!(pod.on(at(6100), main_ended(ended, true)), [Action::WatchFlush]);
        assert_eq!(pod.on(at(6100), Event::Flushed), [Action::Exit(0)]);
    }

    #[test]
    fn arrivals_and_work_hold_it_until_time_is_up() {
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        let arrived = Sample { last_arrival: Some(at(5500)), ..calm() };
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(arrived.clone()))), []);
        assert_eq!(pod.phase(), Phase::LameDuck);
        let busy = Sample { busy: 1, ..arrived };
        assert_eq!(pod.on(at(6500), Event::Traffic(Some(busy.clone()))), []);
        assert_eq!(pod.phase(), Phase::Draining);
        assert_eq!(pod.deadline(), Some(at(18_000)));
        assert_eq!(pod.on(at(18_000), Event::Traffic(Some(busy))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.reason(), Some(StopReason::OutOfTime));
    }

    #[test]
    fn what_was_given_up_was_not_drained() {
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        let given_up = Sample { idle: 3, given_up: 1, ..calm() };
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(given_up))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.reason(), Some(StopReason::GaveUp));
    }

    #[test]
    fn what_listens_on_nothing_is_stopped_at_once_unless_a_delay_was_given() {
        let deaf = Sample { listening: Some(false), ..Sample::default() };
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        assert_eq!(pod.on(at(1), Event::Traffic(Some(deaf.clone()))), [Action::SendStop(ServiceId::MAIN)]);
        let mut pod = Pod::of_one(Timing { delay_given: true, ..timing() }, vec![]);
        let _ = pod.on(at(0), Event::Stop);
        assert_eq!(pod.on(at(1), Event::Traffic(Some(deaf.clone()))), []);
        assert_eq!(pod.on(at(5000), Event::Traffic(Some(deaf))), [Action::SendStop(ServiceId::MAIN)]);
    }

    #[test]
    fn the_second_stop_signal_waits_for_rest_or_half_of_the_time() {
        let stopped = |at_ms: u64| {
            let mut pod = Pod::of_one(timing(), vec![]);
            let _ = pod.on(at(0), Event::Stop);
            let _ = pod.on(at(at_ms), Event::Traffic(Some(calm())));
            assert_eq!(pod.on(at(at_ms), sent(Signal::WINCH, Some(Signal::TERM))), []);
            pod
        };
        let mut pod = stopped(6000);
        assert_eq!(pod.on(at(6900), Event::Traffic(Some(calm()))), []);
        assert_eq!(pod.on(at(7000), Event::Traffic(Some(calm()))), [Action::SendSecond(ServiceId::MAIN, Signal::TERM)]);
        let _ = pod.on(at(7000), sent(Signal::TERM, None));
        assert_eq!(pod.on(at(9000), Event::Traffic(Some(calm()))), [], "once");
        let mut pod = stopped(6000);
        let busy = Sample { busy: 1, ..calm() };
        assert_eq!(pod.on(at(10_000), Event::Traffic(Some(busy))), []);
        assert_eq!(pod.deadline(), Some(at(17_000)));
        assert_eq!(pod.on(at(17_000), Event::Wake), [Action::SendSecond(ServiceId::MAIN, Signal::TERM)]);
    }

    /// With `count` kept-alive connections, of which so many are busy.
    fn kept(open: usize, busy: usize) -> Sample {
        let kept = KeptAlive { open, busy, cooling: open - busy, closed_at: None };
        Sample { busy, cooling: open - busy, kept, ..calm() }
    }

    fn draining(way: Way) -> Pod {
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        let _ = pod.on(at(0), Event::KeepAlive(way));
        pod
    }

    #[test]
    fn kept_alive_connections_are_closed_when_nothing_new_comes() {
        let mut pod = draining(Way::Close);
        assert_eq!(pod.on(at(4900), Event::Traffic(Some(kept(3, 1)))), [], "the delay");
        let arrived = Sample { last_arrival: Some(at(4900)), ..kept(3, 1) };
        assert_eq!(pod.on(at(5100), Event::Traffic(Some(arrived.clone()))), [], "the quiet period");
        assert_eq!(pod.on(at(5900), Event::Traffic(Some(arrived))), [Action::CloseKept]);
        let new = Sample { last_arrival: Some(at(5950)), ..kept(3, 1) };
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(new.clone()))), [], "a new connection pauses it");
        assert_eq!(pod.on(at(6950), Event::Traffic(Some(new))), [Action::CloseKept]);
        // One that is at rest is closed before the app gets its stop signal.
        let at_rest = Sample { idle: 1, kept: KeptAlive { open: 1, ..KeptAlive::default() }, ..calm() };
        assert_eq!(pod.on(at(6960), Event::Traffic(Some(at_rest.clone()))), [Action::CloseKept]);
        let closed = Sample { kept: KeptAlive { closed_at: Some(at(6970)), ..KeptAlive::default() }, ..calm() };
        assert_eq!(pod.on(at(7900), Event::Traffic(Some(closed.clone()))), [], "its client may come back");
        assert_eq!(pod.on(at(7970), Event::Traffic(Some(closed))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.reason(), Some(StopReason::Drained));
        // One that cannot be closed and is at rest holds nothing for ever.
        let mut pod = draining(Way::Close);
        assert_eq!(pod.on(at(5000), Event::Traffic(Some(at_rest.clone()))), [Action::CloseKept]);
        assert_eq!(pod.on(at(7000), Event::Traffic(Some(at_rest))), [Action::SendStop(ServiceId::MAIN)]);
    }

    #[test]
    fn a_server_whose_own_stop_serves_them_gets_it_at_once() {
        let mut pod = draining(Way::OwnStop);
        let long = Sample { busy: 2, ..kept(3, 1) };
        assert_eq!(pod.on(at(5000), Event::Traffic(Some(long))), [], "another request is in flight");
        assert_eq!(pod.on(at(5100), Event::Traffic(Some(kept(3, 1)))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.reason(), Some(StopReason::OwnStop));
    }

    #[test]
    fn where_nothing_else_is_permitted_the_moment_with_the_fewest_is_taken() {
        for way in [Way::Fewest, Way::Close] {
            let mut pod = draining(way);
            // From 5 s to 18 s; half of it is over at 11.5 s.
            for (time, busy) in [(5000, 9), (8000, 3), (11_000, 5)] {
                let _ = pod.on(at(time), Event::Traffic(Some(kept(20, busy))));
            }
            assert!(!pod.on(at(12_000), Event::Traffic(Some(kept(20, 4)))).contains(&Action::SendStop(ServiceId::MAIN)));
            let besides = Sample { busy: 3, ..kept(20, 2) };
            assert!(!pod.on(at(12_100), Event::Traffic(Some(besides))).contains(&Action::SendStop(ServiceId::MAIN)));
            assert_eq!(pod.on(at(12_200), Event::Traffic(Some(kept(20, 3)))), [Action::SendStop(ServiceId::MAIN)]);
            assert_eq!(pod.reason(), Some(StopReason::FewestBusy));
        }
        let mut pod = draining(Way::Wait);
        assert_eq!(pod.on(at(5000), Event::Traffic(Some(kept(20, 3)))), []);
        assert_eq!(pod.on(at(17_900), Event::Traffic(Some(kept(20, 0)))), [], "waited for");
    }

    #[test]
    fn an_app_that_may_not_be_signalled_is_left_when_nothing_is_in_flight() {
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(calm()))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.on(at(6000), Event::Refused), []);
        let busy = Sample { busy: 1, ..calm() };
        assert_eq!(pod.on(at(6100), Event::Traffic(Some(busy))), []);
        assert_eq!(pod.on(at(6200), Event::Traffic(None)), [], "what nobody sees may be in flight");
        assert_eq!(pod.on(at(6300), Event::Traffic(Some(calm()))), [Action::WatchFlush]);
        assert_eq!(pod.on(at(6300), Event::Flushed), [Action::Exit(137)]);
        // What the main process left behind, too.
        let mut pod = Pod::of_one(timing(), vec![]);
        let _ = pod.on(at(0), Event::Stop);
        let ended = Ended::Code(3);
        assert_eq!(pod.on(at(6000), main_ended(ended, false)), [Action::StopSurvivors]);
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(calm()))), []);
        assert_eq!(pod.on(at(6000), Event::Refused), []);
        assert_eq!(pod.on(at(6100), Event::Traffic(Some(calm()))), [Action::WatchFlush]);
        assert_eq!(pod.on(at(6100), Event::Flushed), [Action::Exit(3)]);
    }

    const FIRST: ServiceId = ServiceId(1);
    const SECOND: ServiceId = ServiceId(2);

    /// The main command and two companions, all running; the second one is expendable.
    fn three() -> Pod {
        let mut pod = Pod::new(timing(), vec![], &[false, true], false);
        [ServiceId::MAIN, FIRST, SECOND].into_iter().for_each(|service| pod.started(service));
        pod
    }

    fn ended(service: ServiceId, code: u8, alone: bool) -> Event {
        Event::Ended { service, ended: Ended::Code(code), alone }
    }

    fn stopped(service: ServiceId) -> Event {
        Event::StopSent { service, signal: Signal::TERM, second: None }
    }

    /// nginx in front of php-fpm and a log shipper: each goes on while somebody in front of it may need it.
    #[test]
    fn the_main_command_is_stopped_first_and_the_companions_in_reverse() {
        let mut pod = three();
        assert_eq!(pod.on(at(0), Event::Stop), [Action::WatchTraffic]);
        assert_eq!(pod.on(at(6000), Event::Traffic(Some(calm()))), [Action::SendStop(ServiceId::MAIN)]);
        assert_eq!(pod.on(at(6000), stopped(ServiceId::MAIN)), []);
        for (before, next) in [(ServiceId::MAIN, SECOND), (SECOND, FIRST)] {
            let leftovers = Action::CheckLeftovers { service: before, first: true };
            assert_eq!(pod.on(at(6100), ended(before, 0, false)), [leftovers]);
            assert_eq!(pod.on(at(6100), Event::Leftovers(before, false)), [Action::SendStop(next)]);
            assert_eq!(pod.on(at(6100), stopped(next)), []);
        }
        assert_eq!(pod.on(at(6200), ended(FIRST, 9, true)), [Action::WatchFlush]);
        assert_eq!(pod.on(at(6200), Event::Flushed), [Action::Exit(0)], "the main command's exit code, whatever the others say");
    }

    #[test]
    fn a_companion_that_ends_by_itself_ends_the_pod_with_its_code() {
        for (code, exit) in [(3, 3), (0, 1)] {
            let mut pod = three();
            assert_eq!(pod.on(at(0), ended(FIRST, code, false)), [Action::WatchTraffic], "the shutdown begins as by TERM");
            assert_eq!((pod.phase(), pod.began_by()), (Phase::LameDuck, Some(FIRST)));
            assert_eq!(pod.on(at(6000), Event::Traffic(Some(calm()))), [Action::SendStop(ServiceId::MAIN)]);
            let _ = pod.on(at(6000), stopped(ServiceId::MAIN));
            let _ = pod.on(at(6100), ended(SECOND, 0, false));
            assert_eq!(pod.on(at(6100), ended(ServiceId::MAIN, 0, true)), [Action::WatchFlush]);
            assert_eq!(pod.on(at(6100), Event::Flushed), [Action::Exit(exit)]);
        }
    }

    #[test]
    fn an_expendable_companion_ends_nothing() {
        let mut pod = three();
        assert_eq!(pod.on(at(0), ended(SECOND, 3, false)), []);
        assert_eq!((pod.phase(), pod.deadline()), (Phase::Serving, None));
    }

    /// Each has an equal share of the time until SIGKILL, which comes when it would come for one service.
    #[test]
    fn services_that_do_not_end_cannot_delay_the_kill() {
        let mut pod = three();
        let _ = pod.on(at(0), Event::Stop);
        let busy = Sample { busy: 1, ..calm() };
        assert_eq!(pod.on(at(18_000), Event::Traffic(Some(busy))), [Action::SendStop(ServiceId::MAIN)]);
        let mut sent = vec![];
        while pod.phase() == Phase::Stopping {
            let deadline = pod.deadline().expect("a phase that ends");
            sent.extend(pod.on(deadline, Event::Wake).into_iter().map(|action| (deadline, action)));
        }
        let third = 10_000.0 / 3.0;
        let expected = [
            (18_000.0 + third, Action::SendStop(SECOND)),
            (18_000.0 + 2.0 * third, Action::SendStop(FIRST)),
            (28_000.0, Action::KillAll),
        ];
        assert_eq!(sent.len(), expected.len(), "{sent:?}");
        for ((time, action), (expected_time, expected)) in sent.iter().zip(expected) {
            assert_eq!(*action, expected);
            assert!((time.0.as_secs_f64() * 1000.0 - expected_time).abs() < 2.0, "{sent:?}");
        }
    }

    #[test]
    fn exit_codes() {
        let run = |signals: &[Signal], ended: Ended, success: Vec<u8>| {
            let mut pod = Pod::of_one(timing(), success);
            let _ = pod.on(at(0), Event::Stop);
            let _ = pod.on(at(1), Event::Interrupt);
            for signal in signals {
                let _ = pod.on(at(1), sent(*signal, None));
            }
            let _ = pod.on(at(2), main_ended(ended, true));
            pod.on(at(2), Event::Flushed)
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
