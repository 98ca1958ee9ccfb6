//! The same in a container, through podman or docker. It has the network that its engine has: with podman as root that is the stage's own.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use lameduck::core::signals::Signal;
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::{geteuid, setsid};
use serde::{Deserialize, Serialize};

use crate::Refused;
use crate::contender::Contender;

/// Where an init is found inside.
const INSIDE: &str = "/lameduck-rehearse";

/// Descriptors and processes that a container may have.
const MOST: u64 = 16_384;

/// podman, or docker.
#[derive(Debug)]
pub struct Engine {
    program: PathBuf,
    podman: bool,
}

/// What an image says of itself.
#[derive(Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default, rename_all = "PascalCase")]
pub struct Image {
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    stop_signal: Option<String>,
}

impl Engine {
    /// The program is there; whether it works its own word tells.
    pub fn of(program: PathBuf) -> Result<Engine, Refused> {
        let version = output(Command::new(&program).arg("--version")).map_err(|why| {
            Refused::unavailable(format!("cannot use {}: {why}; name podman or docker with --engine", program.display()))
        })?;
        Ok(Engine { podman: version.to_lowercase().contains("podman"), program })
    }

    /// Whether its containers live below ourselves, in our network: podman's do, docker's live below its daemon. Without root, podman
    /// makes a user namespace of its own, which it cannot do inside ours.
    pub fn shares_our_network(&self) -> bool {
        self.podman && geteuid().is_root()
    }

    /// Looks at the image, which is fetched if need be.
    pub fn image(&self, name: &str) -> Result<Image, Refused> {
        let inspect = || {
            let mut command = Command::new(&self.program);
            output(command.args(["image", "inspect", "--format", "{{json .Config}}", name]))
        };
        let config = inspect().or_else(|_| {
            output(Command::new(&self.program).args(["pull", "--quiet", name])).map_err(|why| {
                Refused::unavailable(format!(
                    "cannot get the image {name}: {why}; see whether {} pull works",
                    self.program.display()
                ))
            })?;
            inspect()
                .map_err(|why| Refused::unavailable(format!("cannot look at the image {name}: {why}; is it an image's name?")))
        })?;
        serde_json::from_str(config.trim())
            .map_err(|error| Refused::unavailable(format!("cannot read what {} says of {name}: {error}", self.program.display())))
    }

    /// `run` and its words, for one contender; `NAME` stands for the container's name, which each round has of its own.
    pub fn run(&self, image: &Image, run: &Run, contender: &Contender) -> Result<Vec<OsString>, Refused> {
        let mut words: Vec<OsString> = ["run", "--rm", "--network=host", "--name", NAME].map(OsString::from).into();
        words.extend(self.limits());
        words.push(format!("--env=LAMEDUCK_GRACE_PERIOD={}", run.grace).into());
        let own = image.entrypoint.clone().unwrap_or_default().into_iter().map(OsString::from).collect::<Vec<_>>();
        let mut after = Vec::new();
        if let Some((name, options)) = contender.entrypoint() {
            let file = static_program(name, run.lameduck)?;
            let inside = format!("{INSIDE}/{name}");
            let mut volume = file.into_os_string();
            volume.push(format!(":{inside}:ro"));
            // A file of another place has no label that SELinux would let it read.
            words.push("--security-opt=label=disable".into());
            words.extend(["--volume".into(), volume, "--entrypoint".into(), inside.into()]);
            after.extend(options);
            after.extend(own);
        }
        words.extend(run.options.iter().cloned());
        words.push(run.image.into());
        words.extend(after);
        if run.command.is_empty() {
            words.extend(image.cmd.iter().flatten().map(OsString::from));
        } else {
            words.extend(run.command.iter().cloned());
        }
        Ok(words)
    }

    /// podman's default limits may be above what it may set on this machine; another `--ulimit` after these overrides them.
    fn limits(&self) -> Vec<OsString> {
        let limit = |(name, resource): (&str, Resource)| {
            let hard = getrlimit(resource).ok()?.1.min(MOST);
            Some(OsString::from(format!("--ulimit={name}={hard}:{hard}")))
        };
        let all = [("nofile", Resource::RLIMIT_NOFILE), ("nproc", Resource::RLIMIT_NPROC)];
        all.into_iter().filter(|_| self.podman).filter_map(limit).collect()
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    pub fn container(&self, name: String) -> Container {
        Container { engine: self.program.clone().into_os_string(), name, podman: self.podman }
    }
}

/// Stands for the container's name.
pub const NAME: &str = "{name}";

/// What of `run` was typed.
#[derive(Debug)]
pub struct Run<'a> {
    pub image: &'a str,
    pub command: &'a [OsString],
    pub options: &'a [OsString],
    pub lameduck: Option<&'a Path>,
    /// As an option takes it.
    pub grace: &'a str,
}

impl Image {
    /// STOPSIGNAL, as a name or a number.
    pub fn stop_signal(&self) -> Option<Signal> {
        Signal::parse(self.stop_signal.as_deref().filter(|text| !text.is_empty())?).ok()
    }
}

/// An init of this machine that needs nothing of the image's.
fn static_program(name: &str, lameduck: Option<&Path>) -> Result<PathBuf, Refused> {
    let (file, what_to_do) = match (name, lameduck) {
        ("lameduck", Some(file)) => (Some(file.to_owned()), "give --lameduck a static one"),
        ("lameduck", None) => (
            std::env::current_exe().ok(),
            "build this rehearsal with --target x86_64-unknown-linux-musl, or name a static lameduck with --lameduck FILE",
        ),
        ("tini", _) => (find("tini-static").or_else(|| find(name)), "install tini-static, or leave tini out of --against"),
        _ => (find(name), "put a static one into PATH, or leave it out of --against"),
    };
    let cannot = |why: &str| Refused::unavailable(format!("cannot put {name} into a container: {why}; {what_to_do}"));
    let file = file.ok_or_else(|| cannot("no such program here"))?;
    let bytes = fs::read(&file).map_err(|error| cannot(&format!("{}: {error}", file.display())))?;
    match interpreter(&bytes) {
        Some(false) => fs::canonicalize(&file).map_err(|error| cannot(&error.to_string())),
        Some(true) => Err(cannot(&format!("{} needs a C library, which the image may lack", file.display()))),
        None => Err(cannot(&format!("{} is no program of this machine's", file.display()))),
    }
}

/// Whether a 64-bit little-endian ELF file asks for a dynamic linker (PT_INTERP).
fn interpreter(file: &[u8]) -> Option<bool> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(file.get(at..at + 2)?.try_into().ok()?) as usize);
    let u64_at = |at: usize| usize::try_from(u64::from_le_bytes(file.get(at..at + 8)?.try_into().ok()?)).ok();
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (table, size, count) = (u64_at(32)?, u16_at(54)?, u16_at(56)?);
    let mut kinds = (0..count).map(|number| file.get(table + number * size..)?.get(..4));
    Some(kinds.any(|kind| kind == Some(&[3, 0, 0, 0])))
}

fn find(program: &str) -> Option<PathBuf> {
    crate::cast::find(OsStr::new(program))
}

/// What it writes, or why it failed, in one line.
fn output(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(said.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or("it failed").to_owned())
}

/// The engine's command and the container's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Container {
    engine: OsString,
    name: String,
    podman: bool,
}

impl Container {
    /// One that has ended needs no signal any more.
    pub async fn signal(&self, signal: Signal) {
        let number = signal.number().to_string();
        let mut command = tokio::process::Command::new(&self.engine);
        command.args(["kill", "--signal", &number, &self.name]);
        let _ = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().await;
    }

    /// PID 1, once it is there.
    pub fn pid(&self) -> Option<i32> {
        let mut command = Command::new(&self.engine);
        let pid = output(command.args(["container", "inspect", "--format", "{{.State.Pid}}", &self.name])).ok()?;
        pid.trim().parse().ok().filter(|pid| *pid > 0)
    }

    /// Removes it, running or not.
    fn remove(&self) {
        let mut command = Command::new(&self.engine);
        command.args(["rm", "--force"]).args(self.podman.then_some("--time=0")).arg(&self.name);
        let _ = output(&mut command);
    }
}

/// The name by which our binary knows that it is a janitor.
pub const JANITOR: &str = "lameduck-rehearse-janitor";
/// An engine that was killed while it made the container may have it a moment later.
const SWEEPS: [Duration; 4] = [Duration::ZERO, Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(3)];

/// Whoever kills us: a container is the engine's child, not ours, and somebody must stay to remove it.
#[derive(Debug)]
pub struct Janitor {
    process: Child,
    alive: Option<PipeWriter>,
}

impl Janitor {
    pub fn of(container: &Container) -> std::io::Result<Janitor> {
        let (theirs, ours): (PipeReader, PipeWriter) = std::io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0(JANITOR).arg(&container.engine).arg(&container.name).args(container.podman.then_some("podman"));
        let process = command.stdin(theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Janitor { process, alive: Some(ours) })
    }
}

impl Janitor {
    /// The engine has seen the container end: one sweep will do.
    pub fn ended(&mut self) {
        if let Some(mut alive) = self.alive.take() {
            // A janitor that is gone hears nothing.
            let _ = alive.write_all(b"ended");
        }
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.alive.take());
        let _ = self.process.wait();
    }
}

/// The janitor: waits until the stage is gone or says so, and removes what it left.
pub fn clean_up(words: &[OsString]) -> ExitCode {
    let [engine, name, podman @ ..] = words else { return ExitCode::FAILURE };
    // Ctrl-C is for the others.
    let _ = setsid();
    let container = Container { engine: engine.clone(), name: name.to_string_lossy().into_owned(), podman: !podman.is_empty() };
    let mut word = String::new();
    let _ = std::io::stdin().read_to_string(&mut word);
    let sweeps = if word.is_empty() { &SWEEPS[..] } else { &SWEEPS[..1] };
    for pause in sweeps {
        sleep(*pause);
        container.remove();
    }
    ExitCode::SUCCESS
}
