//! Whatever happens to the rehearsal, nothing that it started is left.

use std::os::unix::process::ExitStatusExt;
use std::process::Child;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::*;

/// Processes with this among their words, or that were started by one that is ours.
fn with(marker: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == marker.as_bytes())
    };
    entries.filter(has).collect()
}

/// Below this process, however deep.
fn descendants(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children: Vec<i32> = children.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
    children.iter().flat_map(|&child| [vec![child], descendants(child)].concat()).collect()
}

/// One that would go on for an hour, and is under load. The app leaves its parents by a double fork, and knows no signal.
fn long(marker: &str, more: &[&str]) -> Child {
    let app = "import os, signal, sys, http.server as h\nfor number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n\
               if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0: signal.pause()\n    os._exit(0)\n\
               h.ThreadingHTTPServer(('127.0.0.1', 8085), h.SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--url", "http://127.0.0.1:8085/", "--load-for", "1h"];
    let words = [&words[..], more, &["--", PYTHON, "-c", app, marker]].concat();
    let mut command = Command::new(REHEARSE);
    let rehearsal = command.args(words).current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let rehearsal = rehearsal.spawn().expect("it starts");
    // The server and its grandchild, and the init where there is one, by that word.
    eventually("the app and its orphan run", || (with(marker).len() >= 3).then_some(()));
    rehearsal
}

fn is_nothing_left_of(what: Signal, more: &[&str]) {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let marker = format!("lameduck-remains-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let mut rehearsal = long(&marker, more);
    let pid = i32::try_from(rehearsal.id()).expect("a pid");
    let mut ours = descendants(pid);
    assert!(!ours.is_empty());
    ours.extend(with(&marker));
    kill(Pid::from_raw(pid), what).expect("it is there");
    let status = rehearsal.wait().expect("its end");
    assert_eq!(status.signal(), Some(what as i32), "{status:?}");
    eventually("all are gone", || {
        let left = |pid: &&i32| fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
        (ours.iter().find(left).is_none() && with(&marker).is_empty()).then_some(())
    });
}

#[test]
fn after_a_ctrl_c() {
    is_nothing_left_of(Signal::SIGINT, &["--against", "none"]);
}

#[test]
fn after_term_with_lameduck() {
    is_nothing_left_of(Signal::SIGTERM, &["--against", "lameduck"]);
}

#[test]
fn after_a_kill_in_our_own_network() {
    is_nothing_left_of(Signal::SIGKILL, &["--against", "tini", "--network", "host"]);
}
