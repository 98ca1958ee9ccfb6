//! lameduck: the init (PID 1) that lets a server die well. The story of one run is `supervise`; docs/design.md has the house.
#![deny(unsafe_code, clippy::disallowed_methods, clippy::undocumented_unsafe_blocks)]

mod app;
mod cli;
mod client;
pub mod core;
mod drain;
mod endpoints;
pub mod foresee;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod install;
mod log;
mod oom_kills;
mod plan;
mod prepare;
mod run;
pub mod sys;
mod termination;
mod traffic;
mod wait_for;

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

#[doc(hidden)]
pub use cli::reference;

use cli::Verb;
use core::cgroup::{Cgroup, Figure};
use core::secrets::Secrets;
use endpoints::{Endpoints, Probe};
use plan::{Env, Facts, Plan, Refused};
use sys::child::{Setup, SpawnError, Step};
use sys::inherited::Inherited;
use sys::signals::Signals;
use termination::TerminationMessage;
use traffic::OwnConnections;

/// What we exit with where it is not the app's code; sysexits(3) and the shells' habit.
mod exit {
    pub const USAGE: u8 = 64;
    pub const UNAVAILABLE: u8 = 69;
    pub const INTERNAL: u8 = 70;
    pub const BAD_FILE: u8 = 78;
}

/// Open files that watching the traffic, the log and the app's streams may need at once.
const LEAST_FILES: u64 = 16;

/// 128 + SIGINT.
const INTERRUPTED: u8 = 130;

/// `command: [lameduck, --]` in a pod is an ENTRYPOINT without its CMD.
const NO_COMMAND: &str = "cannot run nothing: no command was given; \
    in a pod `command:` replaces the image's CMD too (as `entrypoint:` does in Compose): repeat it in `args:`; or see lameduck --help";

/// A reason not to start, for the one place that prints it.
struct Fatal {
    code: u8,
    message: String,
}

/// The whole program.
pub fn main() -> ExitCode {
    let inherited = Box::leak(Box::new(sys::inherited::take()));
    let clock = run::Clock::start();
    let mut termination = TerminationMessage::default();
    match begin(inherited, clock, &mut termination) {
        Ok(code) => code.into(),
        Err(fatal) => {
            let line = format!("lameduck: {}", log::masked(&fatal.message));
            // Nothing runs yet that a blocked write could hold up; a lost message is no reason for another code.
            let _ = writeln!(std::io::stderr(), "{line}");
            termination.write(&line);
            fatal.code.into()
        }
    }
}

fn begin(inherited: &'static Inherited, clock: run::Clock, termination: &mut TerminationMessage) -> Result<u8, Fatal> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let usage = |message| Fatal { code: exit::USAGE, message };
    let env = environment(inherited);
    // Before anything is said.
    log::keep(secrets(&env, &words));
    *termination = TerminationMessage::unplanned(cli::verb(&words), &env);
    let (verb, args) = cli::parse(&words).map_err(usage)?;
    if args.reporting.help {
        return Ok(print(&cli::help(verb)));
    }
    if args.reporting.version {
        return Ok(print(concat!("lameduck ", env!("CARGO_PKG_VERSION"), "\n")));
    }
    let files = sys::open_files();
    if files < LEAST_FILES {
        return Err(usage(format!(
            "cannot work with {files} open files (RLIMIT_NOFILE): lameduck needs {LEAST_FILES}; raise the limit (ulimit -n)"
        )));
    }
    let plan = plan::plan(verb, &args, &env, &facts(verb, &env)?).map_err(|refused| match refused {
        Refused::Usage(message) => usage(message),
        Refused::BadFile(message) => Fatal { code: exit::BAD_FILE, message },
    })?;
    if matches!(verb, Verb::Run | Verb::Exec) {
        *termination = TerminationMessage::at(plan.termination_log.as_deref());
    }
    match verb {
        Verb::Drain => wait_here(&plan, inherited, clock),
        Verb::Health => health(&plan, inherited),
        Verb::Status => status(&plan, inherited),
        Verb::Plan => Ok(print(&log::masked(&plan.describe()))),
        Verb::Run | Verb::Exec if plan.command.is_empty() => Err(usage(NO_COMMAND.to_owned())),
        Verb::Install => install::install(&args.app.command),
        Verb::Run => supervise(&plan, &env, inherited, clock, termination),
        Verb::Exec => replace(&plan, &env, inherited, clock),
    }
}

/// `lameduck drain`: no child, no signals of ours.
fn wait_here(plan: &Plan, inherited: &Inherited, clock: run::Clock) -> Result<u8, Fatal> {
    inherited.let_end();
    log::install(plan.log_level, plan.log_format);
    Ok(event_loop()?.block_on(drain::drain(plan, clock)))
}

/// `lameduck health`: the answer is the exit code, and the reason a line.
fn health(plan: &Plan, inherited: &Inherited) -> Result<u8, Fatal> {
    inherited.let_end();
    let path = if plan.outside.live { "/livez" } else { "/readyz" };
    let unhealthy = |message| Fatal { code: 1, message };
    match event_loop()?.block_on(client::ask(plan, path)) {
        Ok((200, body)) => Ok(print(&body)),
        Ok((status, body)) => Err(unhealthy(format!("{}: {} ({status})", &path[1..], body.trim_end()))),
        Err(why) => Err(unhealthy(why)),
    }
}

/// `lameduck status`: drawn by whoever knows, for a terminal in colour.
fn status(plan: &Plan, inherited: &Inherited) -> Result<u8, Fatal> {
    inherited.let_end();
    let path = if std::io::stdout().is_terminal() { "/status?drawn=colour" } else { "/status?drawn" };
    match event_loop()?.block_on(client::ask(plan, path)) {
        Ok((200, body)) => Ok(print(&body)),
        Ok((status, body)) => Err(Fatal { code: exit::UNAVAILABLE, message: format!("status: {} ({status})", body.trim_end()) }),
        Err(why) => Err(Fatal { code: exit::UNAVAILABLE, message: why }),
    }
}

fn event_loop() -> Result<tokio::runtime::Runtime, Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|error| internal("make the event loop", error))
}

fn internal(what: &str, error: std::io::Error) -> Fatal {
    Fatal { code: exit::INTERNAL, message: format!("cannot {what}: {error}; nothing was started") }
}

/// Prepares, spawns, and stays until the end. Whatever can fail fails before the spawn.
fn supervise(
    plan: &Plan,
    env: &Env,
    inherited: &'static Inherited,
    clock: run::Clock,
    termination: &mut TerminationMessage,
) -> Result<u8, Fatal> {
    log::install(plan.log_level, plan.log_format);
    let runtime = event_loop()?;
    let signals = open_signals(&runtime)?;
    if std::process::id() != 1
        && let Err(error) = sys::child::become_subreaper()
    {
        tracing::warn!(event = "warning", message = %format_args!("cannot become a subreaper: {error}; orphans are not reaped"));
    }
    let own = OwnConnections::default();
    let mut endpoints = {
        let _inside = runtime.enter();
        Endpoints::open(plan, &own)?
    };
    let setup = match prepare(plan, env, &runtime, &signals, clock, endpoints.as_mut())? {
        Start::Go(setup) => setup,
        Start::Stopped(code) => sys::exit(code),
    };
    let setup = Box::leak(Box::new(setup));
    let program = Box::leak(Box::new(Program::new(plan, inherited, setup)));
    let pid = sys::child::spawn(program.command(inherited, setup)).map_err(|error| cannot_start(plan, error))?;
    run::announce(plan, pid);
    let directory = sys::child::leave_directory();
    let probe = |probe: &Probe| {
        let argv: Vec<CString> = probe.words.iter().filter_map(|word| sys::child::c_string(OsStr::new(word))).collect();
        let from = directory.as_deref();
        sys::child::spawn_probe(&sys::child::Command { argv: &argv, from, ..program.command(inherited, setup) })
    };
    let outside = run::Outside { endpoints, own, probe: &probe, termination };
    let code = runtime.block_on(run::run(plan, pid, &signals, clock, outside));
    if plan.terminal {
        sys::child::take_terminal_back(pid);
    }
    // What is left to tidy is the kernel's: whoever waits for us need not.
    sys::exit(code)
}

/// Prepares as `supervise` does, then is the command.
fn replace(plan: &Plan, env: &Env, inherited: &Inherited, clock: run::Clock) -> Result<u8, Fatal> {
    log::install(plan.log_level, plan.log_format);
    let runtime = event_loop()?;
    let signals = open_signals(&runtime)?;
    let setup = match prepare(plan, env, &runtime, &signals, clock, None)? {
        Start::Go(setup) => setup,
        Start::Stopped(code) => sys::exit(code),
    };
    let program = Program::new(plan, inherited, &setup);
    run::announce(plan, std::process::id() as i32);
    Err(cannot_start(plan, sys::child::replace(&program.command(inherited, &setup))))
}

fn open_signals(runtime: &tokio::runtime::Runtime) -> Result<Signals, Fatal> {
    let _inside = runtime.enter();
    Signals::open().map_err(|error| internal("take signals", error))
}

enum Start {
    Go(Setup),
    /// A stop signal came first: exit with this.
    Stopped(u8),
}

fn prepare(
    plan: &Plan,
    env: &Env,
    runtime: &tokio::runtime::Runtime,
    signals: &Signals,
    clock: run::Clock,
    endpoints: Option<&mut Endpoints>,
) -> Result<Start, Fatal> {
    let setup = prepare::setup(plan)?;
    prepare::render(plan, env)?;
    let mut stop = app::stops_before_start(plan, sys::signals::pending());
    if stop.is_none() && !plan.before.wait_for.is_empty() {
        stop = runtime.block_on(wait_for::wait_for(plan, signals, clock, endpoints))?;
    }
    let Some(signal) = stop else { return Ok(Start::Go(setup)) };
    // A Ctrl-C is what a shell would say it was.
    let code = if app::stops_before_start(plan, [signal].into_iter().collect()).is_some() { 0 } else { INTERRUPTED };
    tracing::info!(event = "exit", code, message = %format_args!("{signal} came before the start: nothing was started"));
    Ok(Start::Stopped(code))
}

/// The words and the environment of the app.
struct Program {
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Program {
    fn new(plan: &Plan, inherited: &Inherited, setup: &Setup) -> Program {
        let argv = plan.command.iter().filter_map(|word| sys::child::c_string(word)).collect();
        Program { argv, environment: child_environment(plan, inherited, setup) }
    }

    fn command<'a>(&'a self, inherited: &'a Inherited, setup: &'a Setup) -> sys::child::Command<'a> {
        sys::child::Command { argv: &self.argv, environment: &self.environment, setup, inherited, from: None }
    }
}

fn cannot_start(plan: &Plan, error: SpawnError) -> Fatal {
    let usage = |message| Fatal { code: exit::USAGE, message };
    let before = &plan.before;
    match error {
        SpawnError::Fork(error) => internal("start a process", error),
        SpawnError::Step(Step::Exec, error) => cannot_run(&plan.command, &error),
        SpawnError::Step(Step::OpenFiles, error) => usage(format!(
            "cannot allow {} open files (--nofile): {error}; raise the container's own limit (ulimit), or add the capability SYS_RESOURCE",
            before.nofile.unwrap_or_default()
        )),
        SpawnError::Step(Step::User, error) => usage(format!(
            "cannot become {:?} (--user): {error}; add the capabilities SETUID and SETGID, or run the container as that user",
            before.user.as_deref().unwrap_or_default(),
        )),
        SpawnError::Step(Step::Directory, error) => usage(format!(
            "cannot change to {:?} (--chdir): {error}; is it in the image, and the app's user's to enter?",
            before.chdir.as_deref().unwrap_or_default()
        )),
    }
}

fn cannot_run(command: &[OsString], error: &std::io::Error) -> Fatal {
    let code = error.raw_os_error().map_or(exit::INTERNAL, sys::child::exec_code);
    let program = &command[0];
    let words = program.to_string_lossy();
    let hint = match code {
        127 if command.len() == 1 && words.contains(char::is_whitespace) => {
            format!("that is one word; give each word by itself (-- {words}), or a shell all of them: sh -c {program:?}")
        }
        127 => "is it in the image, and in PATH?".to_owned(),
        _ => "is it executable, and of this machine's kind?".to_owned(),
    };
    Fatal { code, message: format!("cannot run {program:?}: {error}; {hint}") }
}

fn print(text: &str) -> u8 {
    // A closed pipe is whoever reads it having had enough.
    let _ = std::io::stdout().write_all(text.as_bytes());
    0
}

/// The environment for reading settings; names and values that are not UTF-8 are the app's business.
fn environment(inherited: &Inherited) -> Env {
    Env::new(inherited.environment.iter().filter_map(|variable| {
        let bytes = variable.to_bytes();
        let at = bytes.iter().position(|byte| *byte == b'=')?;
        Some((str::from_utf8(&bytes[..at]).ok()?.to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
    }))
}

/// What must not be seen of the environment and of the command line.
fn secrets(env: &Env, words: &[OsString]) -> Secrets {
    let variables: Vec<_> = env.variables().map(|(name, value)| (name, value.to_string_lossy())).collect();
    // `--ready exec:` is a command, in its variable too.
    let check = env.get("LAMEDUCK_READY");
    let words: Vec<_> = words.iter().map(OsString::as_os_str).chain(check).map(OsStr::to_string_lossy).collect();
    Secrets::new(variables.iter().map(|(name, value)| (*name, value.as_ref())), words.iter().map(AsRef::as_ref))
}

/// The app's: ours as it was, and what the plan adds. Ours is never changed.
fn child_environment(plan: &Plan, inherited: &Inherited, setup: &Setup) -> Vec<CString> {
    let home = setup.identity.as_ref().map(|identity| ("HOME", identity.home.as_str()));
    let added = || plan.size.child_env.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(home);
    // What is added may stand there, empty or to be appended to.
    let is_added = |name: &[u8]| added().any(|(known, _)| known.as_bytes() == name);
    let kept = inherited
        .environment
        .iter()
        .filter(|variable| !variable.to_bytes().split(|byte| *byte == b'=').next().is_some_and(is_added));
    kept.cloned().chain(added().filter_map(|(name, value)| sys::child::variable(name, value))).collect()
}

/// Why connections of the app cannot be closed here, and the way out.
fn cannot_close() -> Option<String> {
    let error = sys::connection::is_permitted().err()?;
    Some(format!("{error}; {}", traffic::way_out(&error)))
}

/// What the plan needs to know of the machine.
fn facts(verb: Verb, env: &Env) -> Result<Facts, Fatal> {
    // Who starts nothing needs no size; `plan` shows it.
    let sized = matches!(verb, Verb::Run | Verb::Exec | Verb::Plan);
    let directory = env.get("LAMEDUCK_PODINFO").unwrap_or(OsStr::new("/etc/podinfo")).to_string_lossy().into_owned();
    let podinfo = |file: &str, what: &str| match fs::read(format!("{directory}/{file}")) {
        Ok(text) => Ok(Some(Figure { path: format!("{directory}/{file}"), text: String::from_utf8_lossy(&text).into_owned() })),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Fatal {
            code: exit::BAD_FILE,
            message: format!("cannot read {what} from {directory}/{file}: {error}; may it be read?"),
        }),
    };
    Ok(Facts {
        terminal: sys::is_terminal(),
        termination_log: fs::exists(termination::USUAL_PLACE).unwrap_or(false),
        cannot_signal_others: sys::child::cannot_signal_others(),
        cannot_close: if verb == Verb::Plan { cannot_close() } else { None },
        podinfo_cpu: if sized { podinfo("cpu_request", "CPU request")? } else { None },
        podinfo_memory: if sized { podinfo("memory_limit", "memory limit")? } else { None },
        cgroup: if sized { sys::cgroup::read() } else { Cgroup::default() },
        cpus: sys::cpus(),
        memory: sys::memory(),
    })
}
