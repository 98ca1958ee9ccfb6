//! The app as it runs: whom to signal, what it is, and what its signals mean. Looked up when it is needed, since entrypoint scripts
//! exec and servers rename themselves.

use std::io;

use crate::core::servers::{self, KeptAlive, Server};
use crate::core::shutdown::Ended;
use crate::core::signals::{Signal, SignalSet, rewritten};
use crate::plan::{Plan, StopOn};
use crate::sys::child::{self, Left};
use crate::sys::proc::{self, CommandLine, Process};

#[derive(Debug)]
pub struct App<'a> {
    plan: &'a Plan,
    /// The main process, until it is reaped: later its number may be another's.
    main: Option<i32>,
    /// The process group that it was born into.
    group: i32,
    main_line: CommandLine,
    /// The server that was told in place of its shell: the shell gets a TERM if it outlives it.
    told_for_shell: Option<(i32, u64)>,
}

/// What a round of reaping found.
#[derive(Clone, Copy, Debug)]
pub struct Reaped {
    /// How the main process ended, if it did.
    pub main: Option<Ended>,
    /// No child is left at all.
    pub none_left: bool,
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

impl<'a> App<'a> {
    pub fn new(plan: &'a Plan, main: i32) -> App<'a> {
        App { plan, main: Some(main), group: main, main_line: CommandLine::open(main), told_for_shell: None }
    }

    /// Reaps the dead and calls `found` for each; the main process's end is reported once.
    pub fn reap(&mut self, mut found: impl FnMut(i32, Ended)) -> Reaped {
        let mut ended = None;
        let main = self.main;
        let left = child::reap(|pid, how| {
            if Some(pid) == main {
                ended = Some(how);
            }
            found(pid, how);
        });
        if left == Left::Nobody && main.is_some() {
            // Nobody else reaps here; but whatever happened, a main process that is not there must not be waited for.
            ended = ended.or(Some(Ended::Code(70)));
        }
        if ended.is_some() {
            self.main = None;
        }
        Reaped { main: ended, none_left: left == Left::Nobody }
    }

    pub fn main(&self) -> Option<i32> {
        self.main
    }

    pub fn meaning(&self, signal: Signal) -> Meaning {
        if signal == Signal::CHLD {
            return Meaning::Reap;
        }
        if self.begins_shutdown(signal) {
            return Meaning::Stop;
        }
        if signal == Signal::INT {
            return Meaning::Interrupt;
        }
        match rewritten(&self.plan.rewrites, signal) {
            // What somebody asked for is sent, be it STOP or KILL.
            Some(sent) if sent != signal || signal.is_forwarded() => Meaning::Forward(sent),
            _ => Meaning::Nothing,
        }
    }

    /// TERM, and what the running server understands as graceful, since a wrapped image keeps its STOPSIGNAL. QUIT too for an app
    /// that neither is known nor handles it: forwarding could only kill it.
    fn begins_shutdown(&self, signal: Signal) -> bool {
        if let StopOn::Given(set) = self.plan.stop_on {
            return set.contains(signal);
        }
        if signal == Signal::TERM {
            return true;
        }
        if self.plan.rewrites.iter().any(|rewrite| rewrite.from == signal) {
            return false;
        }
        if let Some(stop) = self.plan.stop_signal {
            return signal == stop && !self.is_resize(signal);
        }
        // A quick look: HUP, USR2 and most others are nobody's graceful signal, USR1 only that of a server seldom met.
        let mut buffer = [0; 4096];
        let line = self.main_line.read(&mut buffer);
        let known = self.plan.server.is_some_and(|server| server.stop_signal() == signal);
        let possible = signal == Signal::QUIT
            || known
            || line.is_none_or(|line| servers::is_shell(&line) || servers::may_stop_on(&line, signal));
        if !possible || !servers::KNOWN.iter().any(|server| server.stop_signal() == signal) {
            return false;
        }
        let Some(target) = self.target() else { return false };
        match target.server {
            Some(server) => server.stop_signal() == signal && !self.is_resize(signal),
            None => signal == Signal::QUIT && !proc::caught(target.pid).is_some_and(|caught| caught.contains(signal)),
        }
    }

    /// A terminal that is resized sends WINCH: where there is one, WINCH is no stop signal.
    fn is_resize(&self, signal: Signal) -> bool {
        signal == Signal::WINCH && self.plan.terminal
    }

    /// Whom the stop signal goes to.
    pub fn target(&self) -> Option<Target> {
        self.main.map(|main| target_by(main, &self.main_line, self.plan.server))
    }

    /// Whom a forwarded signal goes to: as `target`, but which server it is does not matter.
    fn addressee(&self) -> Option<Target> {
        let main = self.main?;
        let mut buffer = [0; 4096];
        let is_shell = self.main_line.read(&mut buffer).is_some_and(|line| servers::is_shell(&line));
        let server = if is_shell { behind_shell(main) } else { None };
        Some(server.unwrap_or(Target { pid: main, server: None }))
    }

    /// Sends a signal to the app as it came, rewritten already.
    pub fn forward(&self, signal: Signal) -> io::Result<()> {
        let Some(target) = self.addressee() else { return Ok(()) };
        self.send(target, signal)
    }

    /// What is known of kept-alive connections of the server that runs now, and whether the signal that it gets is its own.
    pub fn kept_alive(&self) -> (KeptAlive, bool) {
        match self.target().and_then(|target| target.server) {
            Some(server) => (server.kept_alive, self.plan.stop_signal.is_none_or(|signal| signal == server.stop_signal())),
            None => (KeptAlive::UNKNOWN, true),
        }
    }

    /// The stop signals for what runs now.
    pub fn stop_signals(&self, target: Target) -> Vec<Signal> {
        match (self.plan.stop_signal, target.server) {
            (Some(signal), _) => vec![signal],
            (None, Some(server)) => server.stop.to_vec(),
            (None, None) => vec![Signal::TERM],
        }
    }

    /// Sends a stop signal, and wakes a stopped process so that it can act on it.
    pub fn tell(&mut self, target: Target, signal: Signal) -> io::Result<()> {
        // Before it is sent: a server may die of it at once, and its shell be done with it.
        if self.main.is_some_and(|main| main != target.pid) {
            self.told_for_shell = Some((target.pid, proc::process(target.pid).map_or(0, |process| process.started)));
        }
        let result = self.send(target, signal);
        self.wake(target);
        result
    }

    /// Who is stopped acts on no signal but this.
    fn wake(&self, target: Target) {
        if proc::process(target.pid).is_none_or(|process| process.is_stopped()) {
            let _ = self.send(target, Signal::CONT);
        }
    }

    fn send(&self, target: Target, signal: Signal) -> io::Result<()> {
        match self.main {
            // A hook's PID 1: -1 is not its group, but everybody else.
            Some(main) if self.plan.group && main > 1 => child::send_group(main, signal),
            _ => child::send(target.pid, signal),
        }
    }

    /// Sends TERM to a shell that has outlived the server that was told in its place; true once it did.
    pub fn tell_shell(&mut self) -> bool {
        let (Some((server, started)), Some(main)) = (self.told_for_shell, self.main) else { return false };
        let lives = proc::process(server).is_some_and(|process| process.started == started && !process.is_dead());
        if lives {
            return false;
        }
        self.told_for_shell = None;
        let told = child::send(main, Signal::TERM).is_ok();
        self.wake(Target { pid: main, server: None });
        told
    }

    /// To all that the main process left behind.
    pub fn send_survivors(&self, signal: Signal) -> io::Result<()> {
        let result = child::send_all(signal, self.group);
        if signal != Signal::KILL {
            let _ = child::send_all(Signal::CONT, self.group);
        }
        result
    }
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

/// What begins the shutdown before anything runs: then nothing is started.
pub fn stops_before_start(plan: &Plan, pending: SignalSet) -> Option<Signal> {
    let stops = |signal: &Signal| match plan.stop_on {
        StopOn::Given(set) => set.contains(*signal),
        StopOn::Auto => {
            let own = plan.stop_signal.or(plan.server.map(Server::stop_signal));
            let quit = own.is_none() && *signal == Signal::QUIT && !plan.rewrites.iter().any(|rewrite| rewrite.from == *signal);
            *signal == Signal::TERM || quit || (own == Some(*signal) && !(*signal == Signal::WINCH && plan.terminal))
        }
    };
    pending.iter().find(stops)
}
