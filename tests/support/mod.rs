//! Real processes, each run with a pid and a network namespace of its own, watched by handshake: a line, a port, an exit.
#![allow(dead_code)] // each test binary uses its own part

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::kill;
use nix::unistd::Pid;

/// How long anything may take on a loaded machine before the test gives up on it: a minute, or the seconds that `LAMEDUCK_TEST_PATIENCE`
/// named when the tests were built. An emulated machine needs more.
pub const PATIENCE: Duration = match option_env!("LAMEDUCK_TEST_PATIENCE") {
    Some(seconds) if !seconds.is_empty() => match u64::from_str_radix(seconds, 10) {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => panic!("LAMEDUCK_TEST_PATIENCE is no number of seconds"),
    },
    _ => Duration::from_secs(60),
};

/// The binary under test: cargo's, or the one that `LAMEDUCK_TEST_BINARY` named (the static one, say) when the tests were built.
/// cargo rebuilds them when the variable changes.
pub const LAMEDUCK: &str = match option_env!("LAMEDUCK_TEST_BINARY") {
    Some(binary) if !binary.is_empty() => binary,
    _ => env!("CARGO_BIN_EXE_lameduck"),
};

/// Debian's own: a version manager's `python3` is a shell script, and an environment may have changed what it finds.
pub const PYTHON: &str = "/usr/bin/python3";

/// Runs `story` on a thread that has a network namespace of its own, loopback up: what it spawns, processes and threads, shares it.
pub fn in_own_network<T: Send + 'static>(story: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run the tests as root (tests/run does)");
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().expect("ip, from iproute2");
        assert!(up.success(), "cannot bring loopback up");
        story()
    });
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A command that runs as PID 1 of a new pid namespace.
pub struct Pid1 {
    unshare: Child,
    /// PID 1 as this namespace sees it; 0 if it ended at once.
    pub pid: i32,
    lines: Receiver<String>,
    /// Every line seen so far, of both streams.
    pub seen: Vec<String>,
}

impl Pid1 {
    pub fn start(argv: &[&str]) -> Pid1 {
        Pid1::spawn(argv, |_| {})
    }

    /// As `start`, with the environment, directory or streams that `adjust` sets (stdout and stderr stay ours).
    pub fn spawn(argv: &[&str], adjust: impl FnOnce(&mut Command)) -> Pid1 {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "--"]).args(argv);
        command.stdin(Stdio::null());
        // Variables of the outer world must not become settings.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("LAMEDUCK_") {
                command.env_remove(name);
            }
        }
        // Requests of some seconds must fit, with or without Kubernetes.
        command.env("LAMEDUCK_GRACE_PERIOD", "30s");
        adjust(&mut command);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut unshare = command.spawn().expect("unshare, from util-linux");
        let (sender, lines) = channel();
        for stream in
            [Box::new(unshare.stdout.take().unwrap()) as Box<dyn std::io::Read + Send>, Box::new(unshare.stderr.take().unwrap())]
        {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send(String::from_utf8_lossy(&line).into_owned());
                }
            });
        }
        let outer = unshare.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        let pid = eventually("unshare forks", || {
            let forked = fs::read_to_string(&children).ok().and_then(|list| list.split_whitespace().next()?.parse().ok());
            // An end that came sooner than this look (bad usage, say) leaves nobody to signal, and a code.
            forked.or_else(|| unshare.try_wait().expect("wait for unshare").map(|_| 0))
        });
        Pid1 { unshare, pid, lines, seen: Vec::new() }
    }

    /// Sends `signal`, by number (real-time ones too), to PID 1 from outside its namespace.
    pub fn signal(&self, signal: i32) {
        assert!(self.pid > 0, "it ended at once");
        signal_to(self.pid, signal);
    }

    /// Waits for a line that contains `text`, now or before, and returns it.
    pub fn line(&mut self, text: &str) -> String {
        if let Some(line) = self.seen.iter().find(|line| line.contains(text)) {
            return line.clone();
        }
        self.next_line(text)
    }

    /// Waits for a line yet unseen that contains `text`.
    pub fn next_line(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if line.contains(text) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    panic!("no line with {text:?} in {PATIENCE:?}; seen:\n{}", self.seen.join("\n"))
                }
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("ended without a line with {text:?}; seen:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    /// Waits for a line of the app's own, yet unseen or not, that contains `text`: lameduck's `start` line quotes the whole command,
    /// so it holds whatever the app will say.
    pub fn app_line(&mut self, text: &str) -> String {
        let mut seen = self.seen.iter();
        match seen.find(|line| is_app_line(line) && line.contains(text)) {
            Some(line) => line.clone(),
            None => self.next_app_line(text),
        }
    }

    /// Waits for a line of the app's own, yet unseen, that contains `text`.
    pub fn next_app_line(&mut self, text: &str) -> String {
        loop {
            let line = self.next_line(text);
            if is_app_line(&line) {
                return line;
            }
        }
    }

    /// Waits for the end. The code is 128+n when signal n killed PID 1.
    pub fn exit(&mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.unshare.try_wait().expect("wait for unshare") {
                break status;
            }
            assert!(Instant::now() < deadline, "still running after {PATIENCE:?}; seen:\n{}", self.rest().join("\n"));
            thread::sleep(Duration::from_millis(5));
        };
        // With its namespace everybody is gone who could write: the threads that read come to the end of the pipes, on a busy machine later.
        while let Ok(line) = self.lines.recv_timeout(Duration::from_secs(2)) {
            self.seen.push(line);
        }
        code(status)
    }

    /// All lines so far: until none has come for a moment, or none can come any more.
    pub fn rest(&mut self) -> &[String] {
        while let Ok(line) = self.lines.recv_timeout(Duration::from_millis(300)) {
            self.seen.push(line);
        }
        &self.seen
    }

    pub fn is_running(&mut self) -> bool {
        self.unshare.try_wait().expect("wait for unshare").is_none()
    }
}

impl Drop for Pid1 {
    fn drop(&mut self) {
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
        // PID 1 dies with it, but a moment later, and whoever is started next would still find its port taken.
        let deadline = Instant::now() + PATIENCE;
        while self.pid > 0 && lives(self.pid) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// When the last thread of a PID 1 is gone, all others of its namespace are; its first may be a zombie before.
fn lives(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    fields.len() > 17 && (!matches!(fields[0], "Z" | "X") || fields[17].parse::<u32>().is_ok_and(|threads| threads > 1))
}

/// Not `2026-11-20T20:47:27.123Z lameduck …`.
fn is_app_line(line: &str) -> bool {
    line.split(' ').nth(1) != Some("lameduck")
}

pub fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// kill(2) by number: nix has no name for a real-time signal.
pub fn signal_to(pid: i32, signal: i32) {
    let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status().expect("kill, from procps");
    assert!(status.success(), "cannot send signal {signal} to {pid}");
}

/// Asks until there is an answer.
pub fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until something listens on `port` of this network namespace.
pub fn listening(port: u16) {
    eventually(&format!("port {port} listens"), || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
}

/// Whether a process of that pid is there, as this namespace sees it.
pub fn alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
}

/// A script the test wrote, in a directory of the test's process. Another process writes it: a descriptor open for writing here
/// could be inherited by a fork of another test and make the script "text file busy".
pub fn script(name: &str, text: &str) -> String {
    use std::io::Write;
    let directory = std::env::temp_dir().join(format!("lameduck-test-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory for scripts");
    let path = directory.join(name).to_str().expect("a plain path").to_owned();
    let mut install = Command::new("install")
        .args(["-m", "755", "/dev/stdin", &path])
        .stdin(Stdio::piped())
        .spawn()
        .expect("install, from coreutils");
    install.stdin.take().unwrap().write_all(text.as_bytes()).expect("write a script");
    assert!(install.wait().expect("wait for install").success());
    path
}

/// examples/report.rs, which cargo builds beside the tests.
pub fn report() -> &'static str {
    static REPORT: LazyLock<String> = LazyLock::new(|| {
        let path = std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().join("examples/report");
        assert!(path.exists(), "{} is not there: cargo test --examples builds it", path.display());
        path.to_str().unwrap().to_owned()
    });
    &REPORT
}

/// Lets a caller be anything: `python3 -c CALLER MASK IGNORED PENDING -- COMMAND…` becomes COMMAND with exactly the signals of MASK
/// blocked, of IGNORED ignored (the others default) and PENDING pending, comma-separated numbers. By system call, since the C library
/// withholds 32 and 33.
pub const CALLER: &str = r#"
import ctypes, os, platform, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
sigaction, sigprocmask = (13, 14) if platform.machine() == 'x86_64' else (134, 135)
mask, ignored, pending = ([int(n) for n in arg.split(',') if n] for arg in sys.argv[1:4])
for n in set(range(1, 65)) - {9, 19}:
    action = (ctypes.c_uint64 * 4)(1 if n in ignored else 0, 0, 0, 0)
    assert libc.syscall(sigaction, n, action, None, 8) == 0, n
bits = ctypes.c_uint64(sum(1 << (n - 1) for n in mask))
assert libc.syscall(sigprocmask, 2, ctypes.byref(bits), None, 8) == 0
if pending:  # from another process, as a real one
    sender = os.fork()
    if sender == 0:
        for n in pending:
            os.kill(os.getppid(), n)
        os._exit(0)
    os.waitpid(sender, 0)
os.execvp(sys.argv[5], sys.argv[5:])
"#;

/// The descriptors that an app finds: its three streams, those of `more`, and what the tests themselves were started with (make's
/// jobserver, say), as `report` prints them.
pub fn inherited(more: &[i32]) -> String {
    // The flags in fdinfo are octal; 02000000 is close-on-exec.
    let stays = |fd: &i32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
        let flags =
            info.lines().find_map(|line| line.strip_prefix("flags:")).map(|flags| u32::from_str_radix(flags.trim(), 8).unwrap());
        flags.is_some_and(|flags| flags & 0o2000000 == 0)
    };
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: std::collections::BTreeSet<i32> = open.filter(stays).chain([0, 1, 2]).chain(more.iter().copied()).collect();
    all.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

/// Two cgroups of version 2, on a mount of our own: version 1 hosts have one too, if they can mount it.
pub struct Cgroups {
    pub mount: String,
    pub directory: String,
}

impl Cgroups {
    pub fn new() -> Cgroups {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lameduck-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mount = std::env::temp_dir().join(&name).to_str().unwrap().to_owned();
        fs::create_dir_all(&mount).unwrap();
        let mounted = Command::new("mount").args(["-t", "cgroup2", "none", &mount]).status().unwrap();
        assert!(mounted.success(), "cannot mount cgroup2: run the tests as root (tests/run does)");
        let directory = format!("{mount}/{name}");
        for group in ["app", "sidecar"] {
            fs::create_dir_all(format!("{directory}/{group}")).unwrap();
        }
        Cgroups { mount, directory }
    }

    /// A shell's script that runs its arguments in the group.
    pub fn join(&self, group: &str) -> String {
        format!("echo $$ > {}/{group}/cgroup.procs && exec \"$@\"", self.directory)
    }

    /// A server of the group that says `ready`, and ends with the test.
    pub fn spawn(&self, group: &str, argv: &[&str]) -> Sidecar {
        Sidecar::start(&[&["sh", "-c", &self.join(group), "sh"], argv].concat())
    }
}

/// A server outside of the pid namespace of the test, as of another container.
pub struct Sidecar {
    child: Child,
    lines: Receiver<String>,
}

impl Sidecar {
    pub fn start(argv: &[&str]) -> Sidecar {
        let mut child = Command::new(argv[0]).args(&argv[1..]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(lines.next().as_deref(), Some("ready"));
        // A server whose lines nobody takes would wait for room, or fail.
        let (sender, taken) = channel();
        thread::spawn(move || lines.for_each(|line| _ = sender.send(line)));
        Sidecar { child, lines: taken }
    }

    pub fn signal(&self, signal: i32) {
        signal_to(self.child.id() as i32, signal);
    }

    /// The lines that it has written since the last call.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.lines.try_iter()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for group in ["app", "sidecar", ""] {
            let directory = format!("{}/{group}", self.directory);
            // Whose PID 1 was killed dies soon, but not at once.
            for _ in 0..200 {
                if fs::remove_dir(&directory).is_ok() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
        let _ = Command::new("umount").arg(&self.mount).status();
        let _ = fs::remove_dir(&self.mount);
    }
}
