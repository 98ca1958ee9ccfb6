//! The contender as it runs: a process that is PID 1 of its own namespace, or an engine's container.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use lameduck::core::signals::{Signal, SignalSet};
use lameduck::sys::child::send;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::cast::Program;
use crate::diary::Diary;
use crate::image::{Container, Janitor};
use crate::report::What;
use crate::sandbox::{Alive, Descriptors};

/// Lines of its output that are kept, for whoever asks why it never became ready.
const KEPT: usize = 12;

#[derive(Debug)]
pub struct Pod {
    child: Child,
    container: Option<Container>,
    janitor: Option<Janitor>,
    output: Arc<Mutex<VecDeque<String>>>,
    _alive: Alive,
}

#[derive(Debug)]
pub struct How {
    pub descriptors: Descriptors,
    pub own_processes: bool,
    /// All of it on this CPU alone.
    pub cpu: Option<usize>,
    pub grace: String,
    pub verbose: bool,
}

impl Pod {
    pub fn start(program: &Program, container: Option<Container>, how: &How, diary: &Diary) -> io::Result<Pod> {
        let alive = Alive::new()?;
        let mut command = Command::new(&program.path);
        command.arg0(&program.name).args(&program.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        // A column has the settings that its name says, and the grace period that all have.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("LAMEDUCK_")) {
            command.env_remove(name);
        }
        command.env("LAMEDUCK_GRACE_PERIOD", &how.grace);
        alive.prepare(&mut command, how.descriptors, how.own_processes, how.cpu);
        let janitor = container.as_ref().map(Janitor::of).transpose()?;
        let mut child = command.spawn()?;
        diary.note(What::Started, "");
        let output = Arc::default();
        if let Some(stdout) = child.stdout.take() {
            tokio::spawn(listen(stdout, Arc::clone(&output), diary.clone(), how.verbose));
        }
        if let Some(stderr) = child.stderr.take() {
            tokio::spawn(listen(stderr, Arc::clone(&output), diary.clone(), how.verbose));
        }
        Ok(Pod { child, container, janitor, output, _alive: alive })
    }

    /// Its last words.
    pub fn last_lines(&self) -> String {
        let lines = self.output.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().map(|line| format!("\n  | {line}")).collect()
    }

    /// As the kubelet does: to PID 1, and to nobody else.
    pub async fn signal(&self, signal: Signal) {
        match &self.container {
            Some(container) => container.signal(signal).await,
            // One that has ended needs no signal any more.
            None => drop(self.pid().map(|pid| send(pid, signal))),
        }
    }

    /// PID 1, as we see it.
    pub fn pid(&self) -> Option<i32> {
        match &self.container {
            Some(container) => container.pid(),
            None => self.child.id().and_then(|pid| i32::try_from(pid).ok()),
        }
    }

    /// Waits for its end: the exit code, 128+n if signal n killed it. May be dropped and asked again.
    pub async fn wait(&mut self) -> i32 {
        let code = self.child.wait().await.map_or(-1, code);
        if let Some(janitor) = &mut self.janitor {
            janitor.ended();
        }
        code
    }
}

/// The app: below an init its first child, else PID 1.
pub fn app(pid: i32, below_an_init: bool) -> Option<i32> {
    if !below_an_init {
        return Some(pid);
    }
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

/// What becomes of a signal that is sent to a process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Handling {
    /// Its handler runs, or it ends the process.
    Taken,
    /// The kernel keeps it: for a moment, as while a thread is made, or until the process asks for it.
    Blocked,
    /// The kernel drops it: why.
    Dropped(&'static str),
}

impl Handling {
    /// None where the process is gone.
    pub fn of(pid: i32, signal: Signal) -> Option<Handling> {
        Handling::parse(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, signal)
    }

    fn parse(status: &str, signal: Signal) -> Option<Handling> {
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let has = |name| Some(SignalSet(u64::from_str_radix(field(name)?.trim(), 16).ok()?).contains(signal));
        let is_init = field("NSpid")?.split_whitespace().next_back() == Some("1");
        Some(match (has("SigBlk")?, has("SigIgn")?, has("SigCgt")?) {
            (true, ..) => Handling::Blocked,
            (_, true, _) => Handling::Dropped("it asked the kernel to drop it"),
            (.., false) if is_init => Handling::Dropped("it has no handler for it, and as PID 1 it is not ended without one"),
            _ => Handling::Taken,
        })
    }
}

fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

async fn listen(stream: impl AsyncRead + Unpin, output: Arc<Mutex<VecDeque<String>>>, diary: Diary, verbose: bool) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while matches!(stream.read_until(b'\n', &mut line).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        line.clear();
        match event(&text) {
            Some("stopping") => drop(diary.note(What::AppStopSignal, "")),
            Some("draining") => drop(diary.note(What::Draining, "")),
            Some("killing") => drop(diary.note(What::AppKilled, "")),
            _ => {}
        }
        if verbose {
            eprintln!("  | {text}");
        }
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        if output.len() == KEPT {
            output.pop_front();
        }
        output.push_back(text);
    }
}

/// Which event a line of lameduck's log tells, in each of its formats.
fn event(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    if words.nth(1) == Some("lameduck") {
        return words.nth(1);
    }
    let (_, rest) =
        line.split_once("\"event\":\"").or_else(|| line.split_once("event=")).or_else(|| line.split_once("event:")).filter(
            |_| line.contains("lameduck") || line.contains("level") || line.starts_with('{') || line.starts_with("time"),
        )?;
    rest.split(['"', ' ', '\t']).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_that_the_kernel_drops_is_known() {
        let handling = |pids: &str, blocked: u64, ignored: u64, caught: u64| {
            let sets = format!("SigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n");
            Handling::parse(&format!("Name:\tx\nNSpid:\t{pids}\n{sets}"), Signal::TERM).unwrap()
        };
        let term = 1 << 14;
        assert!(matches!(handling("4711\t1", 0, 0, 2), Handling::Dropped(why) if why.contains("no handler")));
        assert_eq!(handling("4711\t1", 0, 0, term), Handling::Taken);
        assert!(matches!(handling("1", 0, term, 0), Handling::Dropped(why) if why.contains("asked")));
        assert!(matches!(handling("4711\t7", 0, term, 0), Handling::Dropped(_)));
        // Elsewhere the kernel ends it.
        assert_eq!(handling("4711\t7", 0, 0, 0), Handling::Taken);
        // By sigwait or a signalfd, or for a moment.
        assert_eq!(handling("4711\t1", term, 0, 0), Handling::Blocked);
        assert_eq!(handling("4711\t1", term, term, 0), Handling::Blocked);
        assert_eq!(Handling::parse("", Signal::TERM), None);
    }

    #[test]
    fn lameduck_s_log_is_read_in_each_format() {
        for line in [
            "2026-11-21T07:29:05.880Z lameduck info stopping signal=TERM pid=9651 because=\"the delay was over\" after=1.023s",
            r#"{"time":"2026-11-21T07:29:05.880Z","level":"info","event":"stopping","signal":"TERM"}"#,
            "time=2026-11-21T07:29:05.880Z level=info event=stopping signal=TERM",
            "time:2026-11-21T07:29:05.880Z\tlevel:info\tevent:stopping\tsignal:TERM",
        ] {
            assert_eq!(event(line), Some("stopping"), "{line}");
        }
        assert_eq!(event("GET /stopping 200"), None);
        assert_eq!(event("my event=stopping"), None);
    }
}
