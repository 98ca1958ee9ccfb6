//! lameduck: the init (PID 1) that lets a server die well. The story of one run is `supervise`; docs/design.md has the house.
#![deny(unsafe_code, clippy::disallowed_methods, clippy::undocumented_unsafe_blocks)]

mod app;
mod cli;
pub mod core;
mod drain;
mod log;
mod plan;
mod run;
pub mod sys;
mod traffic;

use std::ffi::{CString, OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use cli::{Args, Verb};
use plan::{Env, Facts, Plan};
use sys::child::SpawnError;
use sys::inherited::Inherited;

/// What we exit with where it is not the app's code; sysexits(3) and the shells' habit.
mod exit {
    pub const USAGE: u8 = 64;
    pub const INTERNAL: u8 = 70;
}

/// A reason not to start, for the one place that prints it.
struct Fatal {
    code: u8,
    message: String,
}

/// The whole program.
pub fn main() -> ExitCode {
    let inherited = sys::inherited::take();
    let clock = run::Clock::start();
    match begin(&inherited, clock) {
        Ok(code) => code.into(),
        Err(fatal) => {
            // Nothing runs yet that a blocked write could hold up; a lost message is no reason for another code.
            let _ = writeln!(std::io::stderr(), "lameduck: {}", fatal.message);
            fatal.code.into()
        }
    }
}

fn begin(inherited: &Inherited, clock: run::Clock) -> Result<u8, Fatal> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let usage = |message| Fatal { code: exit::USAGE, message };
    let (verb, args) = cli::parse(&words).map_err(usage)?;
    if args.help {
        return Ok(print(&cli::help()));
    }
    if args.version {
        return Ok(print(concat!("lameduck ", env!("CARGO_PKG_VERSION"), "\n")));
    }
    let env = environment(inherited);
    let plan = plan::plan(verb, &args, &env, &facts(&args, &env)).map_err(|error| usage(error.0))?;
    match verb {
        Verb::Drain => wait_here(&plan, clock),
        Verb::Plan => Ok(print(&plan.describe())),
        Verb::Run if plan.command.is_empty() => {
            Err(usage("cannot run nothing: no command was given; try lameduck --help".to_owned()))
        }
        Verb::Run => supervise(&plan, inherited, clock),
    }
}

/// `lameduck drain`: no child, no signals of ours.
fn wait_here(plan: &Plan, clock: run::Clock) -> Result<u8, Fatal> {
    log::install(plan.log_level);
    Ok(event_loop()?.block_on(drain::drain(plan, clock)))
}

fn event_loop() -> Result<tokio::runtime::Runtime, Fatal> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
    runtime.map_err(|error| internal("make the event loop", error))
}

fn internal(what: &str, error: std::io::Error) -> Fatal {
    Fatal { code: exit::INTERNAL, message: format!("cannot {what}: {error}; nothing was started") }
}

/// Prepares, spawns, and stays until the end. Whatever can fail fails before the spawn.
fn supervise(plan: &Plan, inherited: &Inherited, clock: run::Clock) -> Result<u8, Fatal> {
    let argv: Vec<CString> = plan.command.iter().filter_map(|word| sys::child::c_string(word)).collect();
    let environment = child_environment(plan, inherited);
    log::install(plan.log_level);
    let runtime = event_loop()?;
    let signals = {
        let _inside = runtime.enter();
        sys::signals::Signals::open().map_err(|error| internal("take signals", error))?
    };
    if std::process::id() != 1
        && let Err(error) = sys::child::become_subreaper()
    {
        tracing::warn!(event = "warning", message = %format_args!("cannot become a subreaper: {error}; orphans are not reaped"));
    }
    if let Some(signal) = app::stops_before_start(plan, sys::signals::pending()) {
        tracing::info!(event = "exit", code = 0u8, message = %format_args!("{signal} came before the start: nothing was started"));
        return Ok(0);
    }
    let path = sys::child::value(&environment, "PATH");
    let pid = sys::child::spawn(&argv, &environment, path, inherited).map_err(|error| match error {
        SpawnError::Fork(error) => internal("start a process", error),
        SpawnError::Exec(error) => cannot_run(&plan.command[0], &error),
    })?;
    run::announce(plan, pid);
    let code = runtime.block_on(run::run(plan, pid, &signals, clock));
    // What is left to tidy is the kernel's: whoever waits for us need not.
    sys::exit(code)
}

fn cannot_run(command: &OsStr, error: &std::io::Error) -> Fatal {
    let code = error.raw_os_error().map_or(exit::INTERNAL, sys::child::exec_code);
    let hint = if code == 127 { "is it in the image, and in PATH?" } else { "is it executable, and of this machine's kind?" };
    Fatal { code, message: format!("cannot run {command:?}: {error}; {hint}") }
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

/// The app's: ours as it was, and what the plan adds. Ours is never changed.
fn child_environment(plan: &Plan, inherited: &Inherited) -> Vec<CString> {
    let added = |name: &[u8]| plan.child_env.iter().any(|(known, _)| known.as_bytes() == name);
    // What the plan adds may stand there, empty.
    let kept = inherited
        .environment
        .iter()
        .filter(|variable| !variable.to_bytes().split(|byte| *byte == b'=').next().is_some_and(added));
    let added = plan.child_env.iter().filter_map(|(name, value)| sys::child::variable(name, value));
    kept.cloned().chain(added).collect()
}

/// What the plan needs to know of the machine. The cgroup is only asked where nobody said what was requested.
fn facts(args: &Args, env: &Env) -> Facts {
    let requested = args.cpu_request.is_some() || env.get("LAMEDUCK_CPU_REQUEST").is_some();
    let directory = env.get("LAMEDUCK_PODINFO").unwrap_or(OsStr::new("/etc/podinfo")).to_string_lossy().into_owned();
    let podinfo = format!("{directory}/cpu_request");
    let podinfo_cpu = if requested { None } else { fs::read_to_string(&podinfo).ok().map(|text| (podinfo, text)) };
    let cgroup = if requested { sys::cgroup::Cpu::default() } else { sys::cgroup::cpu() };
    Facts {
        terminal: sys::is_terminal(),
        termination_log: fs::exists("/dev/termination-log").unwrap_or(false),
        cannot_signal_others: sys::child::cannot_signal_others(),
        podinfo_cpu,
        cpu_max: cgroup.max,
        cpu_weight: cgroup.weight,
        cpu_shares: cgroup.shares,
        cpus: sys::cpus(),
    }
}
