//! `lameduck drain`: the preStop command, for a container whose PID 1 is something else. It looks as lameduck does and decides as lameduck does, and
//! nothing that must be there already: no running lameduck, no writable path. A hook may run more than once; each run waits anew.

use std::fmt::Write as _;

use tracing::warn;

use crate::clock::Clock;
use crate::core::servers;
use crate::core::shutdown::StopReason;
use crate::core::shutdown::pod::{Action, Event, Pod};
use crate::core::shutdown::service::ServiceId;
use crate::core::signals::Signal;
use crate::core::time::Show;
use crate::core::traffic::Sample;
use crate::output::print;
use crate::plan::Plan;
use crate::services::{Services, Target};
use crate::sys::proc::{self, CommandLine};
use crate::traffic::{self, Family, OwnConnections, Traffic, Watch};

/// `--strict`: time was up.
const NOT_DRAINED: u8 = 3;
const INIT: i32 = 1;

enum Woken {
    ConnectionsEnded,
    Deadline,
    Look,
}

/// Waits until the traffic of this container has drained or time is up, and returns the exit code.
pub async fn drain(plan: &Plan, clock: Clock) -> u8 {
    if command_line(INIT, is_lameduck) {
        warn!(
            event = "warning",
            message = "PID 1 is lameduck, which waits by itself when the stop signal comes: this only adds to the time"
        );
    }
    for warning in &plan.warnings {
        warn!(event = "warning", message = warning);
    }
    let services = Services::of_one(plan, INIT);
    let (server, own_stop) = services.kept_alive();
    // Without --stop the kubelet sends TERM.
    let own_stop = own_stop
        && (plan.stop
            || services
                .target(ServiceId::MAIN)
                .and_then(|target| target.server)
                .is_some_and(|server| server.stop_signal() == Signal::TERM));
    let traffic = Traffic::begin(clock.now(), Watch::of(plan, Family::Container, server, own_stop), OwnConnections::default());
    let mut hook =
        Hook { plan, clock, pod: Pod::of_one(plan.timing.clone(), Vec::new()), services, traffic, stopped: None, code: None };
    hook.feed(Event::Stop);
    let sample = hook.traffic.look(clock.now());
    hook.traffic.announce(sample.as_ref());
    hook.feed(Event::Traffic(sample));
    let mut look_at = clock.now() + hook.traffic.interval();
    while hook.code.is_none() {
        let woken = tokio::select! {
            biased;
            () = clock.until(hook.pod.deadline()) => Woken::Deadline,
            () = clock.until(Some(look_at)) => Woken::Look,
            () = traffic::ended(Some(&hook.traffic)) => Woken::ConnectionsEnded,
        };
        match woken {
            Woken::Deadline => hook.feed(Event::Wake),
            Woken::ConnectionsEnded => hook.traffic.read_ends(clock.now()),
            Woken::Look => {
                hook.look();
                look_at = clock.now() + hook.traffic.interval();
            }
        }
    }
    hook.code.unwrap_or_default()
}

struct Hook<'a> {
    plan: &'a Plan,
    clock: Clock,
    pod: Pod,
    services: Services<'a>,
    traffic: Traffic,
    /// Who was sent the stop signal.
    stopped: Option<Target>,
    code: Option<u8>,
}

impl Hook<'_> {
    fn look(&mut self) {
        if self.stopped.is_some_and(|target| proc::process(target.pid).is_none_or(|process| process.is_dead())) {
            // When PID 1 ends, so do we; another main process may be outlived.
            self.code = Some(self.verdict());
            return;
        }
        let sample = self.traffic.look(self.clock.now());
        self.traffic.say_warnings();
        if let Some(way) = self.traffic.keep_alive() {
            self.feed(Event::KeepAlive(way));
        }
        self.feed(Event::Traffic(sample));
    }

    fn feed(&mut self, event: Event) {
        for action in self.pod.on(self.clock.now(), event) {
            match action {
                Action::CloseKept => self.traffic.close_kept(self.clock.now()),
                Action::SendStop(_) => self.over(),
                Action::SendSecond(_, signal) => {
                    if let Some(target) = self.stopped {
                        self.send(target, signal, None);
                    }
                }
                // What is left is the kubelet's to kill.
                Action::KillAll => self.code = Some(self.verdict()),
                Action::Exit(_)
                | Action::ForwardInterrupt
                | Action::CheckLeftovers { .. }
                | Action::RunOnStop
                | Action::StopSurvivors
                | Action::WatchFlush
                | Action::WatchTraffic => {}
            }
        }
    }

    /// The wait is over.
    fn over(&mut self) {
        let line = self.line();
        print(&line);
        if !(self.plan.stop && self.stop()) {
            self.code = Some(self.verdict());
        }
    }

    fn verdict(&self) -> u8 {
        if self.plan.strict && !self.is_drained() { NOT_DRAINED } else { 0 }
    }

    fn is_drained(&self) -> bool {
        match self.pod.reason() {
            Some(StopReason::Drained | StopReason::ListensOnNothing | StopReason::OwnStop) => true,
            // Nothing was to be waited for, or nothing could be seen.
            Some(StopReason::DelayOver) => self.traffic.last().is_some(),
            Some(StopReason::FewestBusy | StopReason::GaveUp | StopReason::Hurried | StopReason::OutOfTime) | None => false,
        }
    }

    /// Sends PID 1 its graceful signal, if it handles that. False: left to the kubelet.
    fn stop(&mut self) -> bool {
        let leave = |why: String| {
            warn!(event = "warning", message = %format_args!("cannot stop PID 1: {why}; left to the kubelet"));
            false
        };
        let Some(target) = self.services.target(ServiceId::MAIN) else { return leave("it is not there".to_owned()) };
        if !proc::of_our_cgroup(&proc::processes()).iter().any(|process| process.pid == target.pid) {
            return leave("it belongs to another container (shareProcessNamespace)".to_owned());
        }
        let signals = self.services.stop_signals(ServiceId::MAIN, target);
        let Some(signal) = signals.first().copied() else { return false };
        match proc::caught(target.pid) {
            Some(caught) if caught.contains(signal) => {}
            // It waits for signals instead, which /proc does not show, and passes them on.
            Some(_) if command_line(target.pid, servers::is_init) => {}
            Some(_) => return leave(format!("process {} does not handle {signal}", target.pid)),
            None => return leave("/proc does not say which signals it handles".to_owned()),
        }
        self.stopped = Some(target);
        self.traffic.stopping();
        self.send(target, signal, signals.get(1).copied())
    }

    /// `second`: what the server is to be sent later. False: it could not be sent.
    fn send(&mut self, target: Target, signal: Signal, second: Option<Signal>) -> bool {
        if let Err(error) = self.services.stop(ServiceId::MAIN, target, signal) {
            warn!(event = "warning", message = %format_args!("cannot send {signal} to process {}: {error}; left to the kubelet", target.pid));
            return false;
        }
        self.feed(Event::StopSent { service: ServiceId::MAIN, signal, second });
        true
    }

    /// What the wait came to.
    fn line(&self) -> String {
        let now = self.clock.now();
        let began = self.pod.stopped_at().unwrap_or_default();
        let sample = self.traffic.last().cloned().unwrap_or_default();
        let mut line = String::from("lameduck: ");
        let took = Show(now.since(began));
        let _ = match self.pod.reason() {
            Some(StopReason::Drained) => write!(line, "drained after {took}"),
            Some(StopReason::OwnStop) => {
                write!(line, "drained after {took}, but for kept-alive connections, which the server's own stop serves")
            }
            Some(StopReason::FewestBusy) => {
                write!(line, "not drained: kept-alive connections are in use after {took}, the fewest now")
            }
            Some(StopReason::GaveUp) => write!(line, "drained after {took}, but for connections that were given up"),
            Some(StopReason::ListensOnNothing) => write!(line, "nothing listens here"),
            Some(StopReason::DelayOver) => write!(line, "waited for {took}"),
            Some(StopReason::Hurried | StopReason::OutOfTime) | None => {
                write!(line, "not drained: the time for waiting was up after {took}")
            }
        };
        self.traffic_in_words(&mut line, &sample);
        line.push('\n');
        line
    }

    fn traffic_in_words(&self, line: &mut String, sample: &Sample) {
        if !sample.watched {
            return;
        }
        let began = self.pod.stopped_at().unwrap_or_default();
        let _ = write!(line, "; {} new connections", sample.accepted);
        if let Some(last) = sample.last_arrival {
            let _ = write!(line, " (the last after {})", Show(last.since(began)));
        }
        let _ =
            write!(line, ", {} busy, {} cooling, {} queued, {} idle", sample.busy, sample.cooling, sample.queued, sample.idle);
        if self.traffic.closed() > 0 {
            let _ = write!(line, ", {} kept alive and closed", self.traffic.closed());
        }
        let ports = self.traffic.ports().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !ports.is_empty() {
            let _ = write!(line, " on port {ports} (found by {})", self.traffic.found_by().name());
        }
    }
}

fn command_line(pid: i32, is: impl Fn(&str) -> bool) -> bool {
    let mut buffer = [0; 4096];
    CommandLine::open(pid).read(&mut buffer).is_some_and(|line| is(&line))
}

fn is_lameduck(line: &str) -> bool {
    line.split('\0').next().is_some_and(|program| program.rsplit('/').next() == Some("lameduck"))
}
