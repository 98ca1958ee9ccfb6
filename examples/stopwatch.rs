//! The app in `benches/peers`: a tiny one, so that what is measured is the init. Times are wall-clock nanoseconds.
//!
//! `stamp` says when its first instruction ran, `exit` when it is about to end, `echo` when each USR1 arrived; `storm N` makes N orphans
//! that die one by one, `dead N` N that are all dead when they become orphans; both then wait for TERM.

use std::io::Write;
use std::time::SystemTime;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};

fn main() {
    let now = now();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let count = args.get(1).and_then(|count| count.parse().ok()).unwrap_or(0);
    match args.first().map(String::as_str) {
        Some("stamp") => say(now),
        Some("exit") => say(self::now()),
        Some("echo") => echo(),
        Some("storm") => {
            (0..count).for_each(|_| in_child(|| in_background(|| {})));
            wait_for_term();
        }
        Some("dead") => {
            in_child(|| (0..count).for_each(|_| in_background(|| {})));
            wait_for_term();
        }
        _ => std::process::exit(64),
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_nanos())
}

/// In one write.
fn say(time: u128) {
    let _ = std::io::stdout().write_all(format!("{time}\n").as_bytes());
}

fn echo() {
    let set = SigSet::from_iter([Signal::SIGUSR1]);
    set.thread_block().expect("block USR1");
    say(0);
    while set.wait().is_ok() {
        say(now());
    }
}

fn wait_for_term() {
    say(now());
    loop {
        pause();
    }
}

fn in_child(work: impl FnOnce()) {
    if let Some(child) = split(work) {
        let _ = waitpid(child, None);
    }
}

fn in_background(work: impl FnOnce()) {
    split(work);
}

fn split(work: impl FnOnce()) -> Option<nix::unistd::Pid> {
    // SAFETY: this program has one thread.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Parent { child } => Some(child),
        ForkResult::Child => {
            work();
            // SAFETY: ends the child without running what the parent will.
            unsafe { libc::_exit(0) }
        }
    }
}
