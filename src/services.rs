//! The services as they run: whose each process is, whom a signal goes to, which server that is. Looked up when it is needed, since
//! entrypoint scripts exec and servers rename themselves.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::core::servers::{self, KeptAlive, Server};
use crate::core::shutdown::Ended;
use crate::core::shutdown::rule::{self, Runs};
use crate::core::shutdown::service::ServiceId;
use crate::core::signals::{Signal, rewritten};
use crate::plan::Plan;
use crate::sys::child::{self, Left};
use crate::sys::proc::{self, CommandLine, Process};

/// What a process that we started is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// A `--before` command.
    Before,
    Service(ServiceId),
    /// An `--on-stop` command, by its place.
    OnStop(usize),
    /// The command that says whether the app is ready.
    Probe,
}

#[derive(Debug)]
pub struct Services<'a> {
    plan: &'a Plan,
    /// By the place in the plan. None: not started yet.
    running: Vec<Option<Running>>,
    /// Our own children until they are reaped: later a number may be another's.
    roles: BTreeMap<i32, Role>,
    /// How many processes were reaped.
    pub reaped: u64,
}

#[derive(Debug)]
struct Running {
    /// None: it has been reaped.
    pid: Option<i32>,
    /// How it ended, since then.
    ended: Option<Ended>,
    /// The process group that it was born into.
    group: i32,
    line: CommandLine,
    /// The server that was sent the stop signal in place of its shell, and when it was started: the shell gets a TERM if it outlives it.
    stopped_for_shell: Option<(i32, u64)>,
}

/// Who is signalled, and which server it is.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub pid: i32,
    pub server: Option<&'static Server>,
}

/// What a signal that came means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meaning {
    Forward(Signal),
    Interrupt,
    Nothing,
    Reap,
    Stop,
}

impl<'a> Services<'a> {
    pub fn new(plan: &'a Plan) -> Services<'a> {
        Services { plan, running: plan.services.iter().map(|_| None).collect(), roles: BTreeMap::new(), reaped: 0 }
    }

    /// Where the main command is somebody else's process.
    pub fn of_one(plan: &'a Plan, main: i32) -> Services<'a> {
        let mut services = Services { plan, running: vec![None], roles: BTreeMap::new(), reaped: 0 };
        services.started(ServiceId::MAIN, main);
        services
    }

    pub fn started(&mut self, service: ServiceId, pid: i32) {
        self.roles.insert(pid, Role::Service(service));
        if let Some(place) = self.running.get_mut(service.0) {
            *place =
                Some(Running { pid: Some(pid), ended: None, group: pid, line: CommandLine::open(pid), stopped_for_shell: None });
        }
    }

    pub fn was_started(&self, service: ServiceId) -> bool {
        self.running(service).is_some()
    }

    /// How a service has ended.
    pub fn ended(&self, service: ServiceId) -> Option<Ended> {
        self.running(service)?.ended
    }

    /// A command that is no service was started.
    pub fn helper_started(&mut self, role: Role, pid: i32) {
        self.roles.insert(pid, role);
    }

    /// Reaps the dead and calls `found` for each, with what it was for. True: no child is left at all.
    pub fn reap(&mut self, mut found: impl FnMut(i32, Ended, Option<Role>)) -> bool {
        let (roles, running, count) = (&mut self.roles, &mut self.running, &mut self.reaped);
        let mut reaped = |pid: i32, ended: Ended| {
            *count += 1;
            let role = roles.remove(&pid);
            if let Some(Role::Service(service)) = role
                && let Some(Some(running)) = running.get_mut(service.0)
            {
                (running.pid, running.ended) = (None, Some(ended));
            }
            found(pid, ended, role);
        };
        if child::reap(&mut reaped) != Left::Nobody {
            return false;
        }
        // Nobody else reaps here; but whatever happened, a process that is not there must not be waited for.
        while let Some(pid) = self.roles.keys().next().copied() {
            let role = self.roles.remove(&pid);
            let ended = Ended::Code(70);
            if let Some(Role::Service(service)) = role
                && let Some(Some(running)) = self.running.get_mut(service.0)
            {
                (running.pid, running.ended) = (None, Some(ended));
            }
            found(pid, ended, role);
        }
        true
    }

    /// The main command's process, while it runs.
    pub fn main(&self) -> Option<i32> {
        self.pid(ServiceId::MAIN)
    }

    pub fn pid(&self, service: ServiceId) -> Option<i32> {
        self.running(service)?.pid
    }

    /// Where the script is that the main command's process runs, if it is a shell with one.
    pub fn script(&self) -> Option<PathBuf> {
        let running = self.running(ServiceId::MAIN)?;
        let script = running.line.script()?;
        Some(Path::new(&format!("/proc/{}/cwd", running.pid?)).join(script))
    }

    /// The processes of all services: None for those that do not run.
    pub fn pids(&self) -> Vec<Option<i32>> {
        self.running.iter().map(|running| running.as_ref()?.pid).collect()
    }

    fn running(&self, service: ServiceId) -> Option<&Running> {
        self.running.get(service.0)?.as_ref()
    }

    pub fn meaning(&self, signal: Signal) -> Meaning {
        if signal == Signal::CHLD {
            return Meaning::Reap;
        }
        if self.plan.rule.begins(signal).unwrap_or_else(|| self.begins_for_what_runs(signal)) {
            return Meaning::Stop;
        }
        if signal == Signal::INT {
            return Meaning::Interrupt;
        }
        match rewritten(&self.plan.rule.rewrites, signal) {
            // What somebody asked for is sent, be it STOP or KILL.
            Some(sent) if sent != signal || signal.is_forwarded() => Meaning::Forward(sent),
            _ => Meaning::Nothing,
        }
    }

    fn begins_for_what_runs(&self, signal: Signal) -> bool {
        // A quick look first: HUP, USR2 and most others are nobody's graceful signal, USR1 only that of a server seldom met.
        if !servers::KNOWN.iter().any(|server| server.stop_signal() == signal) {
            return false;
        }
        let server = self.plan.main().server;
        let mut buffer = [0; 4096];
        let line = self.running(ServiceId::MAIN).and_then(|running| running.line.read(&mut buffer));
        let is_possible = signal == Signal::QUIT
            || server.is_some_and(|server| server.stop_signal() == signal)
            || line.is_none_or(|line| servers::is_shell(&line) || servers::may_stop_on(&line, signal));
        if !is_possible {
            return false;
        }
        let Some(target) = self.target(ServiceId::MAIN) else {
            return self.plan.rule.begins_for(signal, Runs { server, handles_quit: false });
        };
        let handles_quit = || proc::caught(target.pid).is_some_and(|caught| caught.contains(Signal::QUIT));
        self.plan.rule.begins_for(signal, Runs { server: target.server, handles_quit: target.server.is_some() || handles_quit() })
    }

    /// Whom the stop signal of a service goes to.
    pub fn target(&self, service: ServiceId) -> Option<Target> {
        let running = self.running(service)?;
        Some(target_by(running.pid?, &running.line, self.plan.services.get(service.0)?.server))
    }

    /// Whom a forwarded signal goes to: as `target`, but which server it is does not matter.
    fn addressee(&self) -> Option<Target> {
        let running = self.running(ServiceId::MAIN)?;
        let main = running.pid?;
        let mut buffer = [0; 4096];
        let is_shell = running.line.read(&mut buffer).is_some_and(|line| servers::is_shell(&line));
        let server = if is_shell { behind_shell(main) } else { None };
        Some(server.unwrap_or(Target { pid: main, server: None }))
    }

    /// Sends a signal to the main command as it came, rewritten already.
    pub fn forward(&self, signal: Signal) -> io::Result<()> {
        let Some(target) = self.addressee() else { return Ok(()) };
        self.send(ServiceId::MAIN, target, signal)
    }

    /// What is known of kept-alive connections of the server that runs now, and whether the signal that it gets is its own.
    pub fn kept_alive(&self) -> (KeptAlive, bool) {
        match self.target(ServiceId::MAIN).and_then(|target| target.server) {
            Some(server) => (server.kept_alive, self.plan.rule.is_own_stop(Some(server))),
            None => (KeptAlive::UNKNOWN, true),
        }
    }

    /// The stop signals for what runs now.
    pub fn stop_signals(&self, service: ServiceId, target: Target) -> Vec<Signal> {
        if service == ServiceId::MAIN {
            self.plan.rule.stop_signals(target.server)
        } else {
            rule::own_stop_signals(target.server)
        }
    }

    /// Sends a service a stop signal, and wakes a stopped process so that it can act on it.
    pub fn stop(&mut self, service: ServiceId, target: Target, signal: Signal) -> io::Result<()> {
        if let Some(Some(running)) = self.running.get_mut(service.0)
            && running.pid.is_some_and(|pid| pid != target.pid)
        {
            // Before it is sent: a server may die of it at once, and its shell be done with it.
            let started = proc::process(target.pid).map_or(0, |process| process.started);
            running.stopped_for_shell = Some((target.pid, started));
        }
        let result = self.send(service, target, signal);
        self.wake(service, target);
        result
    }

    /// Who is stopped acts on no signal but this.
    fn wake(&self, service: ServiceId, target: Target) {
        if proc::process(target.pid).is_none_or(|process| process.is_stopped()) {
            let _ = self.send(service, target, Signal::CONT);
        }
    }

    fn send(&self, service: ServiceId, target: Target, signal: Signal) -> io::Result<()> {
        match self.pid(service) {
            // A hook's PID 1: -1 is not its group, but everybody else.
            Some(pid) if self.plan.group && pid > 1 => child::send_group(pid, signal),
            _ => child::send(target.pid, signal),
        }
    }

    /// Sends TERM to each shell that has outlived the server that was sent the stop signal in its place, and returns their services.
    pub fn stop_shells(&mut self) -> Vec<ServiceId> {
        let mut stopped = Vec::new();
        for (place, running) in self.running.iter_mut().enumerate() {
            let Some(Running { pid: Some(shell), stopped_for_shell, .. }) = running else { continue };
            let Some((server, started)) = *stopped_for_shell else { continue };
            if proc::process(server).is_some_and(|process| process.started == started && !process.is_dead()) {
                continue;
            }
            *stopped_for_shell = None;
            if child::send(*shell, Signal::TERM).is_ok() {
                let _ = proc::process(*shell).filter(Process::is_stopped).map(|_| child::send(*shell, Signal::CONT));
                stopped.push(ServiceId(place));
            }
        }
        stopped
    }

    /// Sends KILL to all that is left.
    pub fn kill_all(&self) {
        let _ = child::send_all(Signal::KILL, &self.groups());
    }

    /// Sends a stop signal to all that the services left behind: its own to each worker of a known server, else TERM.
    pub fn stop_survivors(&self) {
        let workers: Vec<_> = child::others().iter().filter_map(|process| Some((*process, worker_signal(process)?))).collect();
        if workers.is_empty() {
            let _ = child::send_all(Signal::TERM, &self.groups());
        } else {
            for process in child::others() {
                let own = workers.iter().find(|(worker, _)| worker.pid == process.pid).map(|(_, signal)| *signal);
                let _ = child::send(process.pid, own.unwrap_or(Signal::TERM));
            }
        }
        let _ = child::send_all(Signal::CONT, &self.groups());
    }

    fn groups(&self) -> Vec<i32> {
        self.running.iter().flatten().map(|running| running.group).collect()
    }

    /// Whether processes of a service are left whose own one has ended. `stop`: sends them its stop signal.
    pub fn leftovers(&self, service: ServiceId, stop: bool) -> bool {
        let Some(gone) = self.running(service).filter(|running| running.pid.is_none()) else { return false };
        let processes = child::others();
        // Of those that run, everybody belongs to them.
        let mut others: Vec<i32> = self.roles.keys().copied().collect();
        for running in self.roles.keys() {
            others.extend(proc::descendants(&processes, *running).iter().map(|process| process.pid));
        }
        let is_left = |process: &&Process| process.group == gone.group && !process.is_dead() && !others.contains(&process.pid);
        let left: Vec<&Process> = processes.iter().filter(is_left).collect();
        for process in left.iter().filter(|_| stop) {
            let _ = child::send(process.pid, worker_signal(process).unwrap_or(Signal::TERM));
        }
        !left.is_empty()
    }
}

/// What a worker whose master has died is sent: the one stop signal of its server, if it handles that.
fn worker_signal(process: &Process) -> Option<Signal> {
    let mut buffer = [0; 4096];
    let server = servers::recognise_running(&CommandLine::of(process).read(&mut buffer)?)?;
    let [signal] = server.stop[..] else { return None };
    proc::caught(process.pid)?.contains(signal).then_some(signal)
}

/// The main process; if that is a shell with exactly one child, and that child or its only child is a known server, the server. `server`: by
/// the command's words, for a process whose own are not to be seen.
pub fn target(main: i32, server: Option<&'static Server>) -> Target {
    target_by(main, &CommandLine::open(main), server)
}

fn target_by(main: i32, line: &CommandLine, server: Option<&'static Server>) -> Target {
    let mut buffer = [0; 4096];
    match line.read(&mut buffer) {
        None => Target { pid: main, server },
        Some(line) if servers::is_shell(&line) => behind_shell(main).unwrap_or(Target { pid: main, server: None }),
        Some(line) => Target { pid: main, server: servers::recognise_running(&line).or(server) },
    }
}

fn behind_shell(shell: i32) -> Option<Target> {
    let only_child = |parent: i32| {
        let mut children = proc::children(parent);
        children.next().filter(|_| children.next().is_none())
    };
    let known = |process: &Process| {
        let mut buffer = [0; 4096];
        let server = servers::recognise_running(&CommandLine::of(process).read(&mut buffer)?)?;
        Some(Target { pid: process.pid, server: Some(server) })
    };
    let child = only_child(shell)?;
    known(&child).or_else(|| known(&only_child(child.pid)?))
}
