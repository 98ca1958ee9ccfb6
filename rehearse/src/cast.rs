//! Who plays: every contender's program, or why there is none, before anything is started.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lameduck::core::signals::Signal;
use lameduck::core::time::Show;
use serde::{Deserialize, Serialize};

use crate::cli::{Args, Plan, Server};
use crate::contender::Contender;
use crate::image::{Container, Engine, NAME, Run};
use crate::{EMBEDDED, Refused};

#[derive(Debug)]
pub struct Cast {
    /// In the order of the plan's contenders.
    pub programs: Vec<Program>,
    engine: Option<Engine>,
    /// What the kubelet sends.
    pub stop_signal: Signal,
    /// Whether the stage may have a network of its own.
    pub own_network: bool,
}

/// A program with its words; the first may differ from its path.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Program {
    pub path: OsString,
    pub name: OsString,
    pub arguments: Vec<OsString>,
}

impl Cast {
    pub fn of(plan: &Plan, args: &Args) -> Result<Cast, Refused> {
        let Server::Image { image, command } = &plan.server else {
            return Ok(Cast {
                programs: programs(plan)?,
                engine: None,
                stop_signal: plan.stop_signal.unwrap_or(Signal::TERM),
                own_network: plan.own_network,
            });
        };
        let engine = Engine::of(engine_program(args.engine.as_deref())?)?;
        let own = engine.image(image)?;
        let grace = Show(plan.grace).to_string();
        let run = Run { image, command, options: &args.run_option, lameduck: args.lameduck.as_deref(), grace: &grace };
        let programs = plan.contenders.iter().map(|contender| {
            let arguments = engine.run(&own, &run, contender)?;
            Ok(Program { path: engine.program().into(), name: engine.program().into(), arguments })
        });
        Ok(Cast {
            programs: programs.collect::<Result<_, Refused>>()?,
            stop_signal: plan.stop_signal.or(own.stop_signal()).unwrap_or(Signal::TERM),
            own_network: plan.own_network && engine.shares_our_network(),
            engine: Some(engine),
        })
    }

    /// One contender's program in one round: containers have names, and each its own.
    pub fn program(&self, contender: usize, round: u32) -> (Program, Option<Container>) {
        let mut program = self.programs[contender].clone();
        let container = self.engine.as_ref().map(|engine| {
            let name = format!("lameduck-rehearse-{}-{round}-{contender}", std::process::id());
            for word in program.arguments.iter_mut().filter(|word| *word == NAME) {
                *word = OsString::from(&name);
            }
            engine.container(name)
        });
        (program, container)
    }
}

fn programs(plan: &Plan) -> Result<Vec<Program>, Refused> {
    let ourselves = std::env::current_exe().map_err(|error| Refused::internal(format!("cannot find ourselves: {error}")))?;
    let command = match &plan.server {
        Server::Command(command) => command.clone(),
        _ => vec![ourselves.into_os_string(), EMBEDDED.into()],
    };
    let (app, words) = command.split_first().ok_or_else(|| Refused::usage("cannot run nothing".to_owned()))?;
    let app_path = find(app).ok_or_else(|| no_such(app, "give COMMAND as it would be typed in a shell"))?;
    let program = |contender: &Contender| match contender.entrypoint() {
        None => Ok(Program { path: app_path.clone().into(), name: app.clone(), arguments: words.to_vec() }),
        Some((name, options)) => {
            let path = match contender {
                // Ourselves, by another name.
                Contender::Lameduck(_) => PathBuf::from("/proc/self/exe"),
                _ => find(OsStr::new(name))
                    .ok_or_else(|| no_such(OsStr::new(name), &format!("apt install {name}, or leave it out of --against")))?,
            };
            Ok(Program { path: path.into(), name: name.into(), arguments: [&options[..], &command[..]].concat() })
        }
    };
    plan.contenders.iter().map(program).collect()
}

fn engine_program(typed: Option<&OsStr>) -> Result<PathBuf, Refused> {
    match typed {
        Some(name) => find(name).ok_or_else(|| no_such(name, "name podman or docker with --engine")),
        None => ["podman", "docker"].into_iter().find_map(|name| find(OsStr::new(name))).ok_or_else(|| {
            Refused::unavailable("cannot find podman or docker: --image needs one of them; apt install podman".to_owned())
        }),
    }
}

fn no_such(program: &OsStr, what_to_do: &str) -> Refused {
    Refused::unavailable(format!("cannot find {}: no such program here; {what_to_do}", program.to_string_lossy()))
}

/// As execvp does.
pub fn find(program: &OsStr) -> Option<PathBuf> {
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    if program.as_encoded_bytes().contains(&b'/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let directories = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&directories).map(|directory| directory.join(program)).find(|path| runs(path))
}
