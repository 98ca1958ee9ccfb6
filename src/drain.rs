//! `lameduck drain`: the preStop command, for a container whose PID 1 is something else. The same eyes and the same machine, and
//! nothing that must be there already: no running lameduck, no writable path. A hook may run more than once; each run waits anew.

use std::fmt::Write as _;

use tracing::warn;

use crate::app::{App, Target};
use crate::core::servers;
use crate::core::shutdown::{Action, Because, Event, Machine};
use crate::core::signals::Signal;
use crate::core::time::Show;
use crate::core::traffic::Sample;
use crate::plan::Plan;
use crate::run::{Clock, ended};
use crate::sys::proc::{self, CommandLine};
use crate::traffic::{Family, OwnConnections, Traffic, Watch};

/// `--strict`: time was up.
const NOT_DRAINED: u8 = 3;
const INIT: i32 = 1;

enum Woken {
    Deadline,
    Ends,
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
    let app = App::new(plan, INIT);
    let (server, own_stop) = app.kept_alive();
    // Without --stop the kubelet sends TERM.
    let own_stop = own_stop
        && (plan.stop
            || app.target().and_then(|target| target.server).is_some_and(|server| server.stop_signal() == Signal::TERM));
    let traffic = Traffic::begin(clock.now(), Watch::of(plan, Family::Container, server, own_stop), OwnConnections::default());
    let mut hook = Hook {
        plan,
        clock,
        machine: Machine::new(plan.timing.clone(), Vec::new()),
        app,
        traffic,
        told: None,
        second: None,
        code: None,
    };
    hook.feed(Event::Stop);
    let sample = hook.traffic.look(clock.now());
    hook.traffic.announce(sample.as_ref());
    hook.feed(Event::Traffic(sample));
    let mut look_at = clock.now() + hook.traffic.interval();
    while hook.code.is_none() {
        let woken = tokio::select! {
            biased;
            () = clock.until(hook.machine.deadline()) => Woken::Deadline,
            () = clock.until(Some(look_at)) => Woken::Look,
            () = ended(Some(&hook.traffic)) => Woken::Ends,
        };
        match woken {
            Woken::Deadline => hook.feed(Event::Wake),
            Woken::Ends => hook.traffic.read_ends(clock.now()),
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
    machine: Machine,
    app: App<'a>,
    traffic: Traffic,
    /// Who was told to stop.
    told: Option<Target>,
    second: Option<Signal>,
    code: Option<u8>,
}

impl Hook<'_> {
    fn look(&mut self) {
        if self.told.is_some_and(|target| proc::process(target.pid).is_none_or(|process| process.is_dead())) {
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
        for action in self.machine.on(self.clock.now(), event) {
            match action {
                Action::CloseKept => self.traffic.close_kept(self.clock.now()),
                Action::Tell { second: false } => self.over(),
                Action::Tell { second: true } => {
                    if let (Some(target), Some(signal)) = (self.told, self.second.take()) {
                        self.send(target, signal);
                    }
                }
                // What is left is the kubelet's to kill.
                Action::KillAll => self.code = Some(self.verdict()),
                Action::Exit(_)
                | Action::ForwardInterrupt
                | Action::TermSurvivors
                | Action::WatchFlush
                | Action::WatchTraffic => {}
            }
        }
    }

    /// The wait is over.
    fn over(&mut self) {
        let line = self.line();
        crate::print(&line);
        if !(self.plan.stop && self.tell()) {
            self.code = Some(self.verdict());
        }
    }

    fn verdict(&self) -> u8 {
        if self.plan.strict && !self.is_drained() { NOT_DRAINED } else { 0 }
    }

    fn is_drained(&self) -> bool {
        match self.machine.because() {
            Some(Because::Drained | Because::ListensOnNothing | Because::OwnStop) => true,
            // Nothing was to be waited for, or nothing could be seen.
            Some(Because::Timed) => self.traffic.last().is_some(),
            Some(Because::Fewest | Because::GaveUp | Because::Hurried | Because::OutOfTime) | None => false,
        }
    }

    /// Sends PID 1 its graceful signal, if it handles that. False: left to the kubelet.
    fn tell(&mut self) -> bool {
        let leave = |why: String| {
            warn!(event = "warning", message = %format_args!("cannot stop PID 1: {why}; left to the kubelet"));
            false
        };
        let Some(target) = self.app.target() else { return leave("it is not there".to_owned()) };
        if !proc::of_our_cgroup(&proc::processes()).iter().any(|process| process.pid == target.pid) {
            return leave("it belongs to another container (shareProcessNamespace)".to_owned());
        }
        let signals = self.app.stop_signals(target);
        let Some(signal) = signals.first().copied() else { return false };
        match proc::caught(target.pid) {
            Some(caught) if caught.contains(signal) => {}
            // It waits for signals instead, which /proc does not show, and passes them on.
            Some(_) if command_line(target.pid, servers::is_init) => {}
            Some(_) => return leave(format!("process {} does not handle {signal}", target.pid)),
            None => return leave("/proc does not say which signals it handles".to_owned()),
        }
        self.told = Some(target);
        self.second = signals.get(1).copied();
        self.traffic.stopping();
        self.send(target, signal)
    }

    fn send(&mut self, target: Target, signal: Signal) -> bool {
        if let Err(error) = self.app.tell(target, signal) {
            warn!(event = "warning", message = %format_args!("cannot send {signal} to process {}: {error}; left to the kubelet", target.pid));
            return false;
        }
        let more = self.second.is_some();
        self.feed(Event::Told { signal, more });
        true
    }

    /// What the wait came to.
    fn line(&self) -> String {
        let now = self.clock.now();
        let began = self.machine.stopped_at().unwrap_or_default();
        let sample = self.traffic.last().cloned().unwrap_or_default();
        let mut line = String::from("lameduck: ");
        let took = Show(now.since(began));
        let _ = match self.machine.because() {
            Some(Because::Drained) => write!(line, "drained after {took}"),
            Some(Because::OwnStop) => {
                write!(line, "drained after {took}, but for kept-alive connections, which the server's own stop serves")
            }
            Some(Because::Fewest) => write!(line, "not drained: kept-alive connections are in use after {took}, the fewest now"),
            Some(Because::GaveUp) => write!(line, "drained after {took}, but for connections that were given up"),
            Some(Because::ListensOnNothing) => write!(line, "nothing listens here"),
            Some(Because::Timed) => write!(line, "waited for {took}"),
            Some(Because::Hurried | Because::OutOfTime) | None => {
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
        let began = self.machine.stopped_at().unwrap_or_default();
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
