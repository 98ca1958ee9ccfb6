//! From the plan to services that run: what is prepared, what is run before, what is waited for, and in which order they start. Whatever
//! can fail fails before the first service runs.

mod before;
mod prepare;
mod program;
mod wait_for;

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::Read;
use std::path::Path;

use tracing::{info, warn};

use crate::clock::Clock;
use crate::core::shutdown::Ended;
use crate::core::shutdown::service::ServiceId;
use crate::core::signals::Signal;
use crate::core::start::script;
use crate::endpoints::{Endpoints, Message};
use crate::fatal::Fatal;
use crate::output::events::{self, Events};
use crate::output::log;
use crate::output::termination::TerminationMessage;
use crate::plan::{Env, Plan};
use crate::run::{self, Already, Helper};
use crate::services::Services;
use crate::sys;
use crate::sys::child;
use crate::sys::inherited::Inherited;
use crate::sys::signals::Signals;
use crate::traffic::OwnConnections;
use program::{Programs, cannot_start};
use wait_for::Waited;

/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// A signal came before the start, and nothing is started: what we exit with.
#[derive(Clone, Copy, Debug)]
struct Stopped {
    signal: Signal,
    code: u8,
}

/// What starting needs.
struct Starter<'a> {
    plan: &'a Plan,
    programs: &'static Programs,
    runtime: &'a tokio::runtime::Runtime,
    signals: &'a Signals,
    clock: Clock,
    /// So many of `--wait-for` have been waited for.
    waited: usize,
}

pub fn event_loop() -> Result<tokio::runtime::Runtime, Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|error| Fatal::internal("make the event loop", error))
}

fn open_signals(runtime: &tokio::runtime::Runtime) -> Result<Signals, Fatal> {
    let _inside = runtime.enter();
    Signals::open().map_err(|error| Fatal::internal("take signals", error))
}

/// Starts the services, and stays until the end.
pub fn supervise(
    plan: &Plan,
    env: &Env,
    inherited: &'static Inherited,
    clock: Clock,
    termination: &mut TerminationMessage,
) -> Result<u8, Fatal> {
    log::install(plan.log_level, plan.log_format);
    let runtime = event_loop()?;
    let signals = open_signals(&runtime)?;
    if std::process::id() != 1
        && let Err(error) = child::become_subreaper()
    {
        warn!(event = "warning", message = %format_args!("cannot become a subreaper: {error}; orphans are not reaped"));
    }
    let own = OwnConnections::default();
    let mut endpoints = {
        let _inside = runtime.enter();
        Endpoints::open(plan, &own)?
    };
    let programs: &'static Programs = Box::leak(Box::new(Programs::new(plan, inherited, prepare::setup(plan)?)));
    programs.find()?;
    prepare::render(plan, env)?;
    let mut starter = Starter { plan, programs, runtime: &runtime, signals: &signals, clock, waited: 0 };
    if let Some(stopped) = starter.before_services(endpoints.as_mut())? {
        return Ok(not_started(stopped));
    }
    let mut services = Services::new(plan);
    let already = match starter.start(&mut services, endpoints.as_mut())? {
        Outcome::Stopped(stopped) => return Ok(not_started(stopped)),
        Outcome::Run(already) => already,
    };
    inherited.let_go();
    let directory = child::leave_directory();
    let spawn = |helper: Helper<'_>| {
        let from = directory.as_deref();
        match helper {
            Helper::OnStop(place) => child::spawn_helper(&child::Command { from, ..programs.on_stop(place) }),
            Helper::Probe(words) => {
                let argv: Vec<CString> = words.iter().filter_map(|word| child::c_string(OsStr::new(word))).collect();
                child::spawn_helper(&child::Command { from, ..programs.probe(&argv) })
            }
        }
    };
    let main = services.main();
    let outside = run::Outside { endpoints, own, spawn: &spawn };
    let code = runtime.block_on(run::run(plan, services, already, &signals, clock, Events::new(plan, termination), outside));
    if let Some(main) = main.filter(|_| plan.rule.terminal) {
        child::take_terminal_back(main);
    }
    // What is left to tidy is the kernel's: whoever waits for us need not.
    sys::exit(code)
}

/// Prepares as `supervise` does, then becomes the command.
pub fn replace(plan: &Plan, env: &Env, inherited: &'static Inherited, clock: Clock) -> Result<u8, Fatal> {
    log::install(plan.log_level, plan.log_format);
    let runtime = event_loop()?;
    let signals = open_signals(&runtime)?;
    let programs = Box::leak(Box::new(Programs::new(plan, inherited, prepare::setup(plan)?)));
    prepare::render(plan, env)?;
    let mut starter = Starter { plan, programs, runtime: &runtime, signals: &signals, clock, waited: 0 };
    if let Some(stopped) = starter.before_services(None)? {
        return Ok(not_started(stopped));
    }
    if let Waited::Signal(signal) = starter.wait(plan.before.wait_for.len(), &mut Services::new(plan), None)? {
        return Ok(not_started(starter.stopped_by(signal)));
    }
    events::started(plan, ServiceId::MAIN, std::process::id() as i32);
    Err(cannot_start(plan, &plan.main().command, child::replace(&programs.service(ServiceId::MAIN.0))))
}

fn not_started(Stopped { signal, code }: Stopped) -> u8 {
    info!(event = "exit", code, message = %format_args!("{signal} came before the start: nothing was started"));
    sys::exit(code)
}

/// The main command's text, where it is a shell's script of a usual size.
pub fn script(words: &[OsString], env: &Env) -> Option<String> {
    let path = child::find(words.first()?, env.get("PATH"), None).ok()?;
    read_script(&path)
}

fn read_script(path: &Path) -> Option<String> {
    const MOST_BYTES: u64 = 64 << 10;
    // A FIFO is no script.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let mut text = String::new();
    fs::File::open(path).ok()?.take(MOST_BYTES).read_to_string(&mut text).ok()?;
    Some(text).filter(|text| script::is_shell_script(text))
}

/// Answers whoever asks while the main command does not run yet.
fn answer(plan: &Plan, clock: Clock, endpoints: Option<&mut Endpoints>, message: Message) {
    let now = clock.now();
    if let Some(endpoints) = endpoints {
        // Nothing runs yet that could be asked by a command.
        endpoints.on(crate::endpoints::Now::starting(now), message, || events::unstarted(plan, now));
    }
}

enum Outcome {
    /// The loop takes over; what has happened meanwhile.
    Run(Vec<Already>),
    Stopped(Stopped),
}

impl Starter<'_> {
    /// Runs the `--before` commands, and waits for what stands to the left of each. Some: a signal came, and nothing may be started.
    fn before_services(&mut self, mut endpoints: Option<&mut Endpoints>) -> Result<Option<Stopped>, Fatal> {
        if let Some(signal) = self.plan.rule.before_start(sys::signals::pending(), self.plan.main().server) {
            return Ok(Some(self.stopped_by(signal)));
        }
        for (place, before) in self.plan.before_commands.iter().enumerate() {
            if let Waited::Signal(signal) = self.wait(before.waits, &mut Services::new(self.plan), endpoints.as_deref_mut())? {
                return Ok(Some(self.stopped_by(signal)));
            }
            let command = &before.command;
            let pid = child::spawn(self.programs.before(place)).map_err(|error| cannot_start(self.plan, command, error))?;
            let end = before::wait(self.plan, (command, pid), self.signals, self.clock, endpoints.as_deref_mut());
            if let Some(stopped) = self.runtime.block_on(end)? {
                return Ok(Some(stopped));
            }
        }
        Ok(None)
    }

    /// The companions in their order, what is to be waited for, the main command.
    fn start(&mut self, services: &mut Services<'_>, endpoints: Option<&mut Endpoints>) -> Result<Outcome, Fatal> {
        for place in 1..self.plan.services.len() {
            if let Err(fatal) = self.spawn(ServiceId(place), services) {
                return self.give_up(ServiceId(place), fatal, services);
            }
        }
        match self.wait(self.plan.before.wait_for.len(), services, endpoints) {
            Ok(Waited::Ready) => {}
            Ok(Waited::Signal(signal)) if self.plan.has_companions() => return Ok(Outcome::Run(vec![Already::Signal(signal)])),
            Ok(Waited::Signal(signal)) => return Ok(Outcome::Stopped(self.stopped_by(signal))),
            Ok(Waited::Ended(ended)) => return Ok(Outcome::Run(ended)),
            Err(fatal) => return self.give_up(ServiceId::MAIN, fatal, services),
        }
        match self.spawn(ServiceId::MAIN, services) {
            Ok(()) => {
                self.look_at_script(services);
                Ok(Outcome::Run(Vec::new()))
            }
            Err(fatal) => self.give_up(ServiceId::MAIN, fatal, services),
        }
    }

    /// In a thread, since a file system may hang, and only for what runs as a shell now: a script that starts several programs gets a hint.
    fn look_at_script(&self, services: &Services<'_>) {
        if self.plan.has_companions() {
            return;
        }
        let Some(path) = services.script() else { return };
        let _ = std::thread::Builder::new().spawn(move || {
            if let Some(hint) = read_script(&path).as_deref().and_then(script::hint) {
                warn!(event = "warning", message = hint);
            }
        });
    }

    fn spawn(&self, service: ServiceId, services: &mut Services<'_>) -> Result<(), Fatal> {
        let command = &self.plan.services[service.0].command;
        let spawned = child::spawn(self.programs.service(service.0));
        let pid = spawned.map_err(|error| cannot_start(self.plan, command, error))?;
        services.started(service, pid);
        events::started(self.plan, service, pid);
        Ok(())
    }

    /// A service could not be started: those that run are stopped in their order, by the loop.
    fn give_up(&self, service: ServiceId, fatal: Fatal, services: &Services<'_>) -> Result<Outcome, Fatal> {
        if services.pids().iter().all(Option::is_none) {
            return Err(fatal);
        }
        warn!(event = "warning", message = fatal.message);
        Ok(Outcome::Run(vec![Already::Ended(service, Ended::Code(fatal.code))]))
    }

    /// Waits for the first `until` of `--wait-for`, those left out that have been waited for.
    fn wait(&mut self, until: usize, services: &mut Services<'_>, endpoints: Option<&mut Endpoints>) -> Result<Waited, Fatal> {
        let targets = self.plan.before.wait_for.get(self.waited..until).unwrap_or_default();
        if targets.is_empty() {
            return Ok(Waited::Ready);
        }
        self.waited = until;
        self.runtime.block_on(wait_for::wait_for(self.plan, targets, services, self.signals, self.clock, endpoints))
    }

    fn stopped_by(&self, signal: Signal) -> Stopped {
        // A Ctrl-C is what a shell would say it was.
        let is_stop = self.plan.rule.before_start([signal].into_iter().collect(), self.plan.main().server).is_some();
        Stopped { signal, code: if is_stop { 0 } else { INTERRUPTED } }
    }
}
