//! lameduck: the init (PID 1) that lets a server die well. The story of one run is `supervise`; docs/design.md has the house.
#![deny(unsafe_code, clippy::disallowed_methods, clippy::undocumented_unsafe_blocks)]

mod cli;
mod clock;
mod commands;
pub mod core;
mod endpoints;
mod fatal;
pub mod foresee;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod output;
mod plan;
mod run;
mod services;
mod start;
pub mod sys;
mod traffic;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{ErrorKind, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

#[doc(hidden)]
pub use cli::reference;

use cli::Verb;
use clock::Clock;
use core::output::TERMINATION_LOG;
use core::output::secrets::Secrets;
use core::size::cgroup::{Cgroup, Figure};
use fatal::{Fatal, exit};
use output::termination::TerminationMessage;
use output::{log, print};
use plan::{Env, Facts, Plan, Refused};
use sys::inherited::Inherited;

/// Open files that watching the traffic, the log and the app's streams may need at once.
const LEAST_FILES: u64 = 16;

/// `command: [lameduck, --]` in a pod is an ENTRYPOINT without its CMD.
const NO_COMMAND: &str = "cannot run nothing: no command was given; \
    in a pod `command:` replaces the image's CMD too (as `entrypoint:` does in Compose): repeat it in `args:`; or see lameduck --help";

/// The whole program.
pub fn main() -> ExitCode {
    let inherited = Box::leak(Box::new(sys::inherited::take()));
    let clock = Clock::start();
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

fn begin(inherited: &'static Inherited, clock: Clock, termination: &mut TerminationMessage) -> Result<u8, Fatal> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let env = environment(inherited);
    // Before anything is said.
    log::keep(secrets(&env, &words));
    *termination = TerminationMessage::unplanned(cli::verb(&words), &env);
    let (verb, args) = cli::parse(&words).map_err(Fatal::usage)?;
    if args.reporting.help {
        return Ok(print(&cli::help(verb)));
    }
    if args.reporting.version {
        return Ok(print(concat!("lameduck ", env!("CARGO_PKG_VERSION"), "\n")));
    }
    let files = sys::open_files();
    if files < LEAST_FILES {
        return Err(Fatal::usage(format!(
            "cannot work with {files} open files (RLIMIT_NOFILE): lameduck needs {LEAST_FILES}; raise the limit (ulimit -n)"
        )));
    }
    let plan = plan::plan(verb, &args, &env, &facts(verb, &args.app.command, &env)?).map_err(|refused| match refused {
        Refused::Usage(message) => Fatal::usage(message),
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
        Verb::Run | Verb::Exec if plan.main().command.is_empty() => Err(Fatal::usage(NO_COMMAND.to_owned())),
        Verb::Install => commands::install::install(&args.app.command),
        Verb::Run => start::supervise(&plan, &env, inherited, clock, termination),
        Verb::Exec => start::replace(&plan, &env, inherited, clock),
    }
}

/// `lameduck drain`: no child, no signals of ours.
fn wait_here(plan: &Plan, inherited: &Inherited, clock: Clock) -> Result<u8, Fatal> {
    inherited.let_end();
    log::install(plan.log_level, plan.log_format);
    Ok(start::event_loop()?.block_on(commands::drain::drain(plan, clock)))
}

/// `lameduck health`: the answer is the exit code, and the reason a line.
fn health(plan: &Plan, inherited: &Inherited) -> Result<u8, Fatal> {
    inherited.let_end();
    let path = if plan.outside.live { "/livez" } else { "/readyz" };
    let unhealthy = |message| Fatal { code: 1, message };
    match start::event_loop()?.block_on(commands::client::ask(plan, path)) {
        Ok((200, body)) => Ok(print(&body)),
        Ok((status, body)) => Err(unhealthy(format!("{}: {} ({status})", &path[1..], body.trim_end()))),
        Err(why) => Err(unhealthy(why)),
    }
}

/// `lameduck status`: drawn by the lameduck that runs; the phase in colour on a terminal.
fn status(plan: &Plan, inherited: &Inherited) -> Result<u8, Fatal> {
    inherited.let_end();
    match start::event_loop()?.block_on(commands::client::ask(plan, "/status?drawn")) {
        Ok((200, body)) if std::io::stdout().is_terminal() => Ok(print(&commands::client::in_colour(&body))),
        Ok((200, body)) => Ok(print(&body)),
        Ok((status, body)) => Err(Fatal { code: exit::UNAVAILABLE, message: format!("status: {} ({status})", body.trim_end()) }),
        Err(why) => Err(Fatal { code: exit::UNAVAILABLE, message: why }),
    }
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
    // These hold commands.
    let commands = ["LAMEDUCK_READY", "LAMEDUCK_WITH", "LAMEDUCK_BEFORE", "LAMEDUCK_ON_STOP"];
    let commands = commands.into_iter().filter_map(|name| env.get(name));
    let words: Vec<_> = words.iter().map(OsString::as_os_str).chain(commands).map(OsStr::to_string_lossy).collect();
    Secrets::new(variables.iter().map(|(name, value)| (*name, value.as_ref())), words.iter().map(AsRef::as_ref))
}

/// Why connections of the app cannot be closed here, and the way out.
fn cannot_close() -> Option<String> {
    let error = sys::connection::is_permitted().err()?;
    Some(format!("{error}; {}", traffic::way_out(&error)))
}

/// What the plan needs to know of the machine.
fn facts(verb: Verb, words: &[OsString], env: &Env) -> Result<Facts, Fatal> {
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
        termination_log: fs::exists(TERMINATION_LOG).unwrap_or(false),
        cannot_signal_others: sys::child::cannot_signal_others(),
        cannot_close: if verb == Verb::Plan { cannot_close() } else { None },
        podinfo_cpu: if sized { podinfo("cpu_request", "CPU request")? } else { None },
        podinfo_memory: if sized { podinfo("memory_limit", "memory limit")? } else { None },
        script: if verb == Verb::Plan { start::script(words, env) } else { None },
        cgroup: if sized { sys::cgroup::read() } else { Cgroup::default() },
        cpus: sys::cpus(),
        memory: sys::memory(),
    })
}
