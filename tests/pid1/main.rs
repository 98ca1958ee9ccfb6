//! The checklist of everything that a new PID 1 gets wrong, against the real binary: startup and spawn, reaping, forwarding, resources.
//! `LAMEDUCK_TEST_BINARY=/usr/bin/tini cargo test --test pid1` shows which of these another init fails.

#[path = "../support/mod.rs"]
mod support;

mod ending;
mod forwarding;
mod reaping;
mod resources;
mod spawn;
mod terminal;

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{LAMEDUCK, Pid1, eventually, in_own_network};

/// Debian's own: a version manager's `python3` is a shell script, and an environment may have changed what it finds.
const PYTHON: &str = "/usr/bin/python3";

/// What a loaded machine may add to a time that lameduck keeps.
const SLACK: Duration = Duration::from_secs(4);

/// examples/report.rs, which cargo builds beside the tests.
fn report() -> &'static str {
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
const CALLER: &str = r#"
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

/// Runs lameduck as PID 1 with these arguments, in a network of its own, and tells the story on it.
fn lameduck(args: &[&str], story: impl FnOnce(&mut Pid1) + Send + 'static) {
    run(&[&[LAMEDUCK], args].concat(), |_| {}, story);
}

/// As `lameduck`, for any PID 1 and with an environment, a directory or streams to adjust.
fn run(argv: &[&str], adjust: impl FnOnce(&mut Command) + Send + 'static, story: impl FnOnce(&mut Pid1) + Send + 'static) {
    let argv: Vec<String> = argv.iter().map(|arg| arg.to_string()).collect();
    in_own_network(move || {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        story(&mut Pid1::spawn(&argv, adjust));
    });
}

/// `sh -c TEXT lameduck-binary args…`: the shell sets the scene, then `exec "$0" "$@"` makes lameduck PID 1, or `"$0" "$@"` makes
/// it an ordinary process.
fn scene<'a>(text: &'a str, args: &[&'a str]) -> Vec<&'a str> {
    [&["sh", "-c", text, LAMEDUCK], args].concat()
}

fn children(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A field of /proc/PID/status.
fn status(pid: i32, key: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_else(|e| panic!("/proc/{pid}/status: {e}"));
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {key} in /proc/{pid}/status")).trim().to_owned()
}

/// A process of that name among the children of `pid`.
fn child_named(pid: i32, name: &str) -> i32 {
    eventually(&format!("{pid} has a child named {name}"), || {
        children(pid)
            .into_iter()
            .find(|child| fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim() == name))
    })
}

/// A path that no other test uses, for files that apps create.
fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let n = COUNT.fetch_add(1, Ordering::Relaxed);
    let directory = std::env::temp_dir().join(format!("lameduck-pid1-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{n}-{name}"))
}

/// `"$@"` of a shell as a list of what really arrived.
const SHOW_ARGS: &str = "import os, sys; print('args', [os.fsencode(arg) for arg in sys.argv[1:]])";

/// The descriptors that an app finds: its three streams, those of `more`, and what the tests themselves were started with (make's
/// jobserver, say), as `report` prints them.
fn inherited(more: &[i32]) -> String {
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
