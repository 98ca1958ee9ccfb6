//! What is said of a run: the events of the log, and the termination message.

use std::ffi::OsString;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::core::output::snapshot;
use crate::core::shutdown::pod::Pod;
use crate::core::shutdown::report::{Began, ExitReport};
use crate::core::shutdown::service::ServiceId;
use crate::core::shutdown::{Ended, Phase};
use crate::core::signals::Signal;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::{Sample, Tally};
use crate::output::log;
use crate::output::termination::TerminationMessage;
use crate::plan::Plan;
use crate::services::Target;

/// ESRCH and EPERM, which every Linux numbers so.
const NO_SUCH_PROCESS: i32 = 3;
pub const NOT_PERMITTED: i32 = 1;

pub struct Events<'a> {
    plan: &'a Plan,
    termination: &'a mut TerminationMessage,
    /// The latest phase of which something was said.
    phase: Phase,
}

/// What is known at the end besides the pod's own state.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// None: nothing could be seen of the traffic, or nothing was watched.
    pub tally: Option<Tally>,
    pub cut_on: Vec<u16>,
    pub closed: u64,
    pub last_accept: Option<Duration>,
    pub oom_kills: u64,
}

impl<'a> Events<'a> {
    pub fn new(plan: &'a Plan, termination: &'a mut TerminationMessage) -> Events<'a> {
        Events { plan, termination, phase: Phase::Serving }
    }

    /// The name of a service where there are several, else nothing: then the field is left out.
    pub fn name(&self, service: ServiceId) -> &'a str {
        name(self.plan, service)
    }

    pub fn stop_requested(&self, began: Option<&Began>) {
        let timing = &self.plan.timing;
        let (signal, ended) = match began {
            Some(Began::Signal(signal)) => (signal.to_string(), ""),
            Some(Began::End { service, .. }) => (String::new(), service.as_str()),
            None => (String::new(), ""),
        };
        info!(
            event = "stop-requested",
            signal,
            ended,
            serve_on_for = %Show(timing.delay),
            stop_signal_by = %Show(timing.until_sent()),
            killed_by = %Show(timing.until_kill()),
            grace_period = %Show(timing.grace),
        );
    }

    /// Says once that a phase has begun.
    pub fn phase(&mut self, now: Uptime, pod: &Pod, began: Option<&Began>, sample: Option<&Sample>) {
        let phase = pod.phase();
        if phase == self.phase {
            return;
        }
        self.phase = phase;
        let since_stop = pod.stopped_at().map(|stop| now.since(stop));
        if let (Some(after), Some(began)) = (since_stop, began)
            && phase != Phase::Done
        {
            // What is read if we are killed before the end.
            let (name, grace) = (phase.name(), Show(self.plan.timing.grace));
            self.termination.write_meanwhile(&format!(
                "lameduck: killed from outside, {name} since {} after {began}; its grace period is {grace} (--grace-period)",
                Show(after)
            ));
        }
        let after = since_stop.map_or(String::new(), |after| Show(after).to_string());
        match phase {
            Phase::Draining => {
                let sample = sample.cloned().unwrap_or_default();
                info!(event = "draining", after, accepted = sample.accepted, in_flight = sample.in_flight(), idle = sample.idle);
            }
            Phase::Killing => warn!(event = "killing", after),
            Phase::Sweeping => {
                let what = if self.plan.has_companions() { "every service has" } else { "the main process has" };
                info!(
                    event = "sweeping",
                    message = %format_args!("{what} ended; what else runs is sent TERM, a known server's worker its own stop signal"),
                    after
                );
            }
            // These are said where more is known of them, or at the end.
            Phase::Serving | Phase::LameDuck | Phase::Stopping | Phase::Flushing | Phase::Done => {}
        }
    }

    /// A stop signal was sent.
    pub fn stopping(&self, now: Uptime, pod: &Pod, service: ServiceId, target: Target, signal: Signal, is_second: bool) {
        let because = match pod.reason() {
            _ if is_second => "nothing is in flight, or half of the time is gone",
            Some(reason) if service == ServiceId::MAIN => reason.text(),
            _ if service != ServiceId::MAIN => "it is its turn",
            _ => "",
        };
        info!(
            event = "stopping",
            service = self.name(service),
            signal = %signal,
            pid = target.pid,
            server = target.server.map_or("", |server| server.name),
            because,
            after = pod.stopped_at().map_or(String::new(), |stop| Show(now.since(stop)).to_string()),
        );
    }

    pub fn cannot_signal(&self, service: ServiceId, signal: Signal, error: &std::io::Error) {
        let hint = match error.raw_os_error() {
            // It has just ended: its CHLD is on the way.
            Some(NO_SUCH_PROCESS) => return,
            Some(NOT_PERMITTED) => "; the app runs as another user and CAP_KILL is missing: add the capability KILL",
            _ => "",
        };
        let name = if self.plan.has_companions() { self.name(service) } else { "the app" };
        warn!(event = "warning", message = %format_args!("cannot send {signal} to {name}: {error}{hint}"));
    }

    pub fn exit(&mut self, now: Uptime, pod: &Pod, began: Option<Began>, code: u8, figures: Figures) {
        let Figures { tally, cut_on, closed, last_accept, oom_kills } = figures;
        let mut report = ExitReport::new(pod, began, tally, code, now);
        report.cut_on = cut_on.into_iter().map(snapshot::name).collect();
        report.last_accept = last_accept;
        report.closed = closed;
        report.oom_kills = oom_kills;
        let took = |phase| report.took(phase).map_or(String::new(), |took| Show(took).to_string());
        let companions: Vec<String> = self.plan.services.iter().zip(pod.services()).skip(1).map(ended).collect();
        info!(
            event = "exit",
            code,
            app = report.app(),
            companions = companions.join(", "),
            serving = took(Phase::Serving),
            lame_duck = took(Phase::LameDuck),
            draining = took(Phase::Draining),
            stopping = took(Phase::Stopping),
            sweeping = took(Phase::Sweeping),
            flushing = took(Phase::Flushing),
            killing = took(Phase::Killing),
            oom_kills = Some(report.oom_kills).filter(|count| *count > 0),
            accepted = tally.map(|tally| tally.accepted),
            or_more = tally.map(|tally| tally.uncertain).filter(|uncertain| *uncertain > 0),
            finished = tally.map(|tally| tally.finished),
            cut = tally.map(|tally| tally.cut),
            cut_on = report.cut_on.join(","),
            closed = tally.map(|_| report.closed),
            last_accept = report.last_accept.map_or(String::new(), |after| Show(after).to_string()),
        );
        self.termination.write(&report.to_string());
    }
}

fn ended((plan, service): (&crate::plan::Service, &crate::core::shutdown::service::Service)) -> String {
    match service.ended() {
        Some(_) if !service.has_run() => format!("{} could not be started", plan.name),
        Some(ended) => format!("{} {ended}", plan.name),
        None if service.was_started() => format!("{} could not be reaped", plan.name),
        None => format!("{} was not started", plan.name),
    }
}

fn name(plan: &Plan, service: ServiceId) -> &str {
    if !plan.has_companions() {
        return "";
    }
    plan.services.get(service.0).map_or("", |service| service.name.as_str())
}

pub fn text(command: &[OsString]) -> String {
    command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// A companion has ended. `by_itself`: nobody had sent it a stop signal.
pub fn companion_ended(plan: &Plan, service: ServiceId, ended: Ended, by_itself: bool) {
    let name = name(plan, service);
    let is_expendable = plan.services.get(service.0).is_some_and(|service| service.expendable);
    let says = match ended {
        Ended::Code(0) if by_itself => {
            format!("{name} {ended}; a companion that puts itself into the background must be kept in the foreground")
        }
        _ => format!("{name} {ended}"),
    };
    match (by_itself, is_expendable) {
        (false, _) => debug!(event = "ended", service = name, ended = %ended),
        (true, true) => warn!(event = "warning", service = name, message = says),
        (true, false) => warn!(event = "warning", service = name, message = %format_args!("{says}; the container ends with it")),
    }
}

/// A service runs, with what.
pub fn started(plan: &Plan, service: ServiceId, pid: i32) {
    let Some(planned) = plan.services.get(service.0) else { return };
    let set: Vec<String> = planned.child_env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let is_main = service == ServiceId::MAIN;
    info!(
        event = "start",
        service = name(plan, service),
        pid,
        command = text(&planned.command),
        server = planned.server.map_or("", |server| server.name),
        grace_period = is_main.then(|| Show(plan.timing.grace).to_string()),
        grace_period_from = is_main.then(|| plan.grace_from.to_string()),
        cpu = plan.size.cpu.as_ref().filter(|_| is_main).map_or(String::new(), |cpu| cpu.millicores.to_string()),
        cpu_from = plan.size.cpu.as_ref().filter(|_| is_main).map_or("", |cpu| cpu.from.as_str()),
        memory = plan.size.memory.filter(|_| is_main),
        set = set.join(" "),
        user = plan.before.user.as_deref(),
    );
    if is_main {
        for warning in &plan.warnings {
            warn!(event = "warning", message = warning);
        }
    }
}

/// What can be shown before the main command runs.
pub fn unstarted(plan: &Plan, now: Uptime) -> snapshot::Snapshot {
    snapshot::Snapshot {
        version: env!("CARGO_PKG_VERSION"),
        uptime: now.0,
        phase: Phase::Serving,
        since: now.0,
        pid: None,
        target: None,
        command: log::masked(&text(&plan.main().command)),
        server: None,
        services: plan
            .services
            .iter()
            .filter(|_| plan.has_companions())
            .map(|service| snapshot::Service { name: service.name.clone(), pid: None, figures: None })
            .collect(),
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
