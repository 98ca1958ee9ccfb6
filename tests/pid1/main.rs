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
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use support::{CALLER, LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, inherited, report};

/// What a loaded machine may add to a time that lameduck keeps.
const SLACK: Duration = Duration::from_secs(4);

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
