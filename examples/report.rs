//! An app that reports: how it was started, then each signal it gets. Run it as the command of a container to see what arrives there:
//!
//! ```text
//! lameduck -- report --listen 0.0.0.0:8080
//! listening 0.0.0.0:8080
//! ready pid=2 pgid=2 sid=1 tty=none uid=0 blocked=none ignored=none fds=0,1,2 cwd=/ LISTEN_PID=none LISTEN_FDS=none
//! got HUP
//! got TERM
//! ```
//!
//! `--on TERM=ignore`, `--on USR1=exit:3` and `--on USR2=die:36` say what a signal does besides being reported; TERM means exit:0
//! unless told otherwise. `--listen ADDR` holds a listening socket (`listening ADDR` says where), so that there is traffic to drain.

use std::collections::HashMap;
use std::env;
use std::fs;
use std::future::poll_fn;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::pin::Pin;
use std::process::{Command, exit};

use futures_core::Stream;
use signal_hook::low_level::signal_name;
use signal_hook_tokio::Signals;

enum Action {
    Nothing,
    Exit(i32),
    Die(i32),
}

fn main() {
    let mut actions = HashMap::from([(15, Action::Exit(0))]);
    let mut listeners = Vec::new();
    let mut args = env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next();
        match (arg.as_str(), value.as_deref()) {
            ("--on", Some(rule)) => {
                let (signal, action) =
                    rule.split_once('=').and_then(|(s, a)| Some((number(s)?, action(a)?))).unwrap_or_else(|| usage());
                actions.insert(signal, action);
            }
            ("--listen", Some(address)) => {
                listeners.push(TcpListener::bind(address).unwrap_or_else(|e| panic!("{address}: {e}")))
            }
            _ => usage(),
        }
    }
    // Read before the runtime opens descriptors of its own.
    let start = start(listeners.iter().map(|listener| listener.as_raw_fd()).collect());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
    runtime.block_on(report(start, listeners, actions));
}

async fn report(start: String, listeners: Vec<TcpListener>, actions: HashMap<i32, Action>) {
    // KILL and STOP cannot be caught, faults must not be (signal-hook refuses them), CHLD is about our own children, and 32 to 34 belong to the C library.
    let mut signals = Signals::new((1..=31).filter(|n| ![4, 8, 9, 11, 17, 19].contains(n)).chain(35..=64)).expect("handlers");
    for listener in &listeners {
        say(&format!("listening {}", listener.local_addr().expect("an address")));
    }
    say(&start);
    while let Some(signal) = poll_fn(|context| Pin::new(&mut signals).poll_next(context)).await {
        say(&format!("got {}", name(signal)));
        match actions.get(&signal) {
            None | Some(Action::Nothing) => {}
            Some(Action::Exit(code)) => exit(*code),
            // Handlers end with execve, so the signal does what it does by default, and the process stays the same.
            Some(Action::Die(n)) => drop(Command::new("sh").args(["-c", &format!("kill -{n} $$; exit 70")]).exec()),
        }
    }
}

fn start(ours: Vec<i32>) -> String {
    // pid (name) state ppid pgrp session tty tpgid …; the name may hold blanks. Without /proc there is less to say.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let stat: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let field = |n: usize| stat.get(n).copied().unwrap_or("unknown");
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let status = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|line| line.split_whitespace().next()).map(str::to_owned)
    };
    let variable = |name: &str| env::var(name).unwrap_or_else(|_| "none".into());
    format!(
        "ready pid={} pgid={} sid={} tty={} uid={} blocked={} ignored={} fds={} cwd={} LISTEN_PID={} LISTEN_FDS={}",
        std::process::id(),
        field(2),
        field(3),
        if field(4) == "0" { "none" } else { field(4) },
        status("Uid").unwrap_or("unknown".into()),
        signals(status("SigBlk"), 0),
        // Rust's own start ignores PIPE before main: what the caller did with it cannot be seen from here.
        signals(status("SigIgn"), 1 << (13 - 1)),
        descriptors(ours),
        env::current_dir().map_or("unknown".into(), |cwd| cwd.display().to_string()),
        variable("LISTEN_PID"),
        variable("LISTEN_FDS"),
    )
}

fn signals(mask: Option<String>, except: u64) -> String {
    match mask.and_then(|hex| u64::from_str_radix(&hex, 16).ok()) {
        None => "unknown".into(),
        Some(mask) => list((1..=64).filter(|n| (mask & !except) >> (n - 1) & 1 == 1).map(name)),
    }
}

/// The open descriptors that this program did not open itself.
fn descriptors(ours: Vec<i32>) -> String {
    let Ok(directory) = fs::read_dir("/proc/self/fd") else { return "unknown".into() };
    let mut open: Vec<i32> = directory.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The one that read the directory is closed by now.
    open.retain(|fd| !ours.contains(fd) && fs::read_link(format!("/proc/self/fd/{fd}")).is_ok());
    open.sort();
    list(open.iter().map(i32::to_string))
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<String> = items.collect();
    if items.is_empty() { "none".into() } else { items.join(",") }
}

fn name(signal: i32) -> String {
    match signal {
        16 => "STKFLT".into(), // two that signal-hook has no name for
        30 => "PWR".into(),
        _ => signal_name(signal).map_or(signal.to_string(), |name| name.trim_start_matches("SIG").into()),
    }
}

fn number(signal: &str) -> Option<i32> {
    signal.parse().ok().or_else(|| (1..=64).find(|n| name(*n) == signal.trim_start_matches("SIG")))
}

fn action(text: &str) -> Option<Action> {
    match text.split_once(':') {
        None if text == "ignore" => Some(Action::Nothing),
        Some(("exit", code)) => code.parse().ok().map(Action::Exit),
        Some(("die", signal)) => number(signal).map(Action::Die),
        _ => None,
    }
}

/// Nobody need be listening: a closed stdout is no reason to die.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn usage() -> ! {
    eprintln!("usage: report [--listen ADDR] [--on SIGNAL=ignore|exit:CODE|die:SIGNAL]…");
    exit(64)
}
