//! What is executed: the words and the environment of each service and of every other command, made before anything starts.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use crate::fatal::{Fatal, exit};
use crate::plan::Plan;
use crate::sys::child::{self, Command, Setup, SpawnError, Step, Streams};
use crate::sys::inherited::Inherited;

/// Variables of socket activation, which is the main command's.
const LISTEN: [&[u8]; 3] = [b"LISTEN_PID", b"LISTEN_FDS", b"LISTEN_FDNAMES"];

#[derive(Debug)]
pub struct Programs {
    /// The main command first.
    services: Vec<Program>,
    before: Vec<Program>,
    on_stop: Vec<Program>,
    /// Of every other command.
    helper_environment: Vec<CString>,
    setup: Setup,
    inherited: &'static Inherited,
}

#[derive(Debug)]
struct Program {
    argv: Vec<CString>,
    environment: Vec<CString>,
}

impl Programs {
    pub fn new(plan: &Plan, inherited: &'static Inherited, setup: Setup) -> Programs {
        let program = |command: &[OsString], gained: &[(String, String)], is_main: bool| Program {
            argv: command.iter().filter_map(|word| child::c_string(word)).collect(),
            environment: environment(inherited, &setup, gained, is_main),
        };
        let services = plan.services.iter().enumerate();
        let services = services.map(|(place, service)| program(&service.command, &service.child_env, place == 0)).collect();
        let helper = |command: &[OsString]| program(command, &plan.helper_env, false);
        Programs {
            services,
            before: plan.before_commands.iter().map(|before| helper(&before.command)).collect(),
            on_stop: plan.on_stop.iter().map(|command| helper(command)).collect(),
            helper_environment: environment(inherited, &setup, &plan.helper_env, false),
            setup,
            inherited,
        }
    }

    /// Looks whether every program is there, if there are several: whichever is missing, nothing is started.
    pub fn find(&self) -> Result<(), Fatal> {
        let all: Vec<&Program> = [&self.before, &self.services, &self.on_stop].into_iter().flatten().collect();
        if all.len() == 1 {
            return Ok(());
        }
        for program in all {
            let path = child::value(&program.environment, "PATH");
            let Some(name) = program.argv.first().map(|name| OsStr::from_bytes(name.to_bytes())) else { continue };
            let found = child::find(name, path, self.setup.directory.as_deref());
            found.map_err(|error| cannot_run(name, program.argv.len(), &error))?;
        }
        Ok(())
    }

    /// Service number `place`. The main command gets all that we inherited.
    pub fn service(&self, place: usize) -> Command<'_> {
        let streams = if place == 0 { Streams::All } else { Streams::Outputs };
        self.command(&self.services[place], streams)
    }

    pub fn before(&self, place: usize) -> Command<'_> {
        self.command(&self.before[place], Streams::Outputs)
    }

    pub fn on_stop(&self, place: usize) -> Command<'_> {
        self.command(&self.on_stop[place], Streams::Outputs)
    }

    /// A command that only its exit code is asked of.
    pub fn probe<'a>(&'a self, argv: &'a [CString]) -> Command<'a> {
        let Programs { helper_environment, setup, inherited, .. } = self;
        Command { argv, environment: helper_environment, setup, inherited, streams: Streams::Nothing, from: None }
    }

    fn command<'a>(&'a self, program: &'a Program, streams: Streams) -> Command<'a> {
        let Programs { setup, inherited, .. } = self;
        Command { argv: &program.argv, environment: &program.environment, setup, inherited, streams, from: None }
    }
}

/// Ours as it was, and what is added. Ours is never changed.
fn environment(inherited: &Inherited, setup: &Setup, gained: &[(String, String)], is_main: bool) -> Vec<CString> {
    let home = setup.identity.as_ref().map(|identity| ("HOME", identity.home.as_str()));
    let added = || gained.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(home);
    // What is added may stand there, empty or to be appended to.
    let is_added = |name: &[u8]| added().any(|(known, _)| known.as_bytes() == name);
    let is_kept = |variable: &&CString| {
        let name = variable.to_bytes().split(|byte| *byte == b'=').next().unwrap_or_default();
        !is_added(name) && (is_main || !LISTEN.contains(&name))
    };
    let kept = inherited.environment.iter().filter(is_kept);
    kept.cloned().chain(added().filter_map(|(name, value)| child::variable(name, value))).collect()
}

/// Why a command could not be started.
pub fn cannot_start(plan: &Plan, command: &[OsString], error: SpawnError) -> Fatal {
    let before = &plan.before;
    match error {
        SpawnError::Fork(error) => Fatal::internal("start a process", error),
        SpawnError::Step(Step::Exec, error) => match command.first() {
            Some(program) => cannot_run(program, command.len(), &error),
            None => Fatal::internal("start a process", error),
        },
        SpawnError::Step(Step::OpenFiles, error) => Fatal::usage(format!(
            "cannot allow {} open files (--nofile): {error}; raise the container's own limit (ulimit), or add the capability SYS_RESOURCE",
            before.nofile.unwrap_or_default()
        )),
        SpawnError::Step(Step::User, error) => Fatal::usage(format!(
            "cannot become {:?} (--user): {error}; add the capabilities SETUID and SETGID, or run the container as that user",
            before.user.as_deref().unwrap_or_default(),
        )),
        SpawnError::Step(Step::Directory, error) => Fatal::usage(format!(
            "cannot change to {:?} (--chdir): {error}; is it in the image, and the app's user's to enter?",
            before.chdir.as_deref().unwrap_or_default()
        )),
    }
}

fn cannot_run(program: &OsStr, words: usize, error: &std::io::Error) -> Fatal {
    let code = error.raw_os_error().map_or(exit::INTERNAL, child::exec_code);
    let text = program.to_string_lossy();
    let hint = match code {
        127 if words == 1 && text.contains(char::is_whitespace) => {
            format!("that is one word; give each word by itself (-- {text}), or a shell all of them: sh -c {program:?}")
        }
        127 => "is it in the image, and in PATH?".to_owned(),
        _ => "is it executable, and of this machine's kind?".to_owned(),
    };
    Fatal { code, message: format!("cannot run {program:?}: {error}; {hint}") }
}
