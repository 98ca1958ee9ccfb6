//! `lameduck drain` as a preStop hook: run as the kubelet runs one, inside the namespaces of a container whose PID 1 is a real server
//! and not lameduck.

mod hook;
#[path = "../keepalive/pinned.rs"]
mod pinned;
mod pod;
mod stop;
#[path = "../support/mod.rs"]
mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{TryRecvError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hook::Hook;
use support::{LAMEDUCK, Pid1, in_own_network, listening, signal_to};

const HUP: i32 = 1;
const INT: i32 = 2;
const KILL: i32 = 9;
const USR1: i32 = 10;
const TERM: i32 = 15;
const WINCH: i32 = 28;
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/server.py");
const PYTHON: &str = "/usr/bin/python3";
/// Waits for 1 s at least, and is out of time after 16 s.
const PATIENT: [&str; 4] = ["--delay", "1s", "--grace-period", "28s"];
/// Out of time after 3 s, and leaves 15 s for the app's own stop.
const HASTY: [&str; 6] = ["--delay", "1s", "--grace-period", "20s", "--stop-timeout", "15s"];

/// Asks for `path` and returns the whole answer, and when it was there.
fn ask(port: u16, path: &str) -> JoinHandle<(std::io::Result<String>, Instant)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request sent");
    thread::spawn(move || {
        let mut answer = String::new();
        (stream.read_to_string(&mut answer).map(|_| answer), Instant::now())
    })
}

/// Returns when it was.
#[track_caller]
fn answered(request: JoinHandle<(std::io::Result<String>, Instant)>, body: &str) -> Instant {
    let (answer, at) = request.join().expect("the client");
    let answer = answer.expect("an answer");
    assert!(answer.starts_with("HTTP/1.") && answer.contains(" 200 OK\r\n") && answer.ends_with(body), "{answer:?}");
    at
}

/// A container whose PID 1 serves on port 8080, and knows no stop signal.
fn server() -> Pid1 {
    let mut pod = Pid1::start(&[PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
    pod.line("ready");
    pod
}

/// Nobody was told anything: PID 1 serves on.
#[track_caller]
fn serves_on(pod: &mut Pid1) {
    assert!(pod.is_running(), "{:#?}", pod.seen);
    answered(ask(8080, "/0"), "answer\n");
}

/// Clients that keep their connection and go on asking: the hook closes each between two requests, as lameduck does as PID 1.
#[test]
fn clients_that_never_leave() {
    const KEEPS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keepalive/threads.py");
    in_own_network(|| {
        let mut pod = Pid1::start(&[PYTHON, "-u", KEEPS]);
        listening(8080);
        let clients = pinned::Clients::connect(([127, 0, 0, 1], 8080).into(), 5, pinned::USUAL);
        let ended = Hook::start(&pod, &[&PATIENT[..], &["--strict"]].concat()).ends();
        assert_eq!((ended.code, &ended.err[..]), (0, &[][..]), "{ended:?}");
        assert!(ended.only_line().contains(", 5 kept alive and closed"), "{ended:?}");
        assert!(ended.after() < 6.0, "{ended:?}");
        let tally = clients.finish();
        assert_eq!((tally.left, tally.cut), (5, 0), "{tally:?}");
        assert!(tally.lost == 0 && pod.is_running(), "{tally:?}");
    });
}

#[test]
fn a_slow_request_is_waited_for() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/4");
        pod.line("asked /4");
        let ended = Hook::start(&pod, &PATIENT).ends();
        let at = Instant::now();
        assert_eq!(ended.code, 0, "{ended:?}");
        let line = ended.only_line();
        assert!(line.starts_with("lameduck: drained after ") && line.contains(", 0 busy, 0 cooling, 0 queued, "), "{line}");
        assert!(line.ends_with(" on port 8080 (found by descriptors)"), "{line}");
        // The client knows of it when it is scheduled.
        assert!(answered(request, "answer\n") < at + Duration::from_secs(1), "the hook did not wait: {line}");
        serves_on(&mut pod);
    });
}

#[test]
fn what_comes_during_the_wait_is_waited_for_and_said() {
    in_own_network(|| {
        let mut pod = server();
        let mut hook = Hook::start(&pod, &[&PATIENT[..], &["--log-level", "info"]].concat());
        assert!(hook.begun().contains(" busy=0 "));
        let request = ask(8080, "/3");
        pod.line("asked /3");
        let ended = hook.ends();
        let line = ended.line();
        assert!(ended.code == 0 && line.contains("; 1 new connections (the last after "), "{ended:?}");
        answered(request, "answer\n");
        assert!(ended.after() >= 3.0, "{line}");
        serves_on(&mut pod);
    });
}

/// However fast connections come and end: the hook looks at them.
#[test]
fn a_crowd_of_short_connections_is_said() {
    in_own_network(|| {
        let mut pod = server();
        let mut hook = Hook::start(&pod, &[&HASTY[..], &["--log-level", "info"]].concat());
        hook.begun();
        let (stop, stopped) = channel::<()>();
        let clients = thread::spawn(move || {
            while stopped.try_recv() == Err(TryRecvError::Empty) {
                let _ = TcpStream::connect(("127.0.0.1", 8080)).and_then(|mut stream| stream.write_all(b"x"));
                // No more than there are ports for.
                thread::sleep(Duration::from_millis(2));
            }
        });
        let ended = hook.ends();
        drop(stop);
        clients.join().unwrap();
        let line = ended.line();
        assert!(line.contains(" new connections (the last after "), "{ended:?}");
        serves_on(&mut pod);
    });
}

/// Both see the same request, and both run out of time: only the one that was told so says it by its code.
#[test]
fn time_is_up() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/60");
        pod.line("asked /60");
        let hooks = [Hook::start(&pod, &HASTY), Hook::start(&pod, &[&HASTY[..], &["--strict"]].concat())];
        for (hook, code) in hooks.into_iter().zip([0, 3]) {
            let ended = hook.ends();
            assert_eq!(ended.code, code, "{ended:?}");
            let line = ended.only_line();
            assert!(line.starts_with("lameduck: not drained: the time for waiting was up after "), "{line}");
            assert!(line.contains(", 1 busy, "), "{line}");
            assert!((3.0..4.5).contains(&ended.after()), "{line}");
        }
        serves_on(&mut pod);
        drop(pod);
        let _ = request.join();
    });
}

/// A restarted kubelet runs the hook again, perhaps while the first one still runs.
#[test]
fn hooks_at_once_and_one_after_the_other() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/4");
        pod.line("asked /4");
        let strict = [&PATIENT[..], &["--strict", "--log-level", "info"]].concat();
        let mut hooks = [Hook::start(&pod, &strict), Hook::start(&pod, &strict)];
        for hook in &mut hooks {
            assert!(hook.begun().contains(" busy=1 "));
        }
        for hook in hooks {
            let ended = hook.ends();
            assert!(ended.code == 0 && ended.line().starts_with("lameduck: drained after "), "{ended:?}");
        }
        answered(request, "answer\n");
        let request = ask(8080, "/3");
        pod.line("asked /3");
        let again = Hook::start(&pod, &[&PATIENT[..], &["--strict"]].concat()).ends();
        assert!(again.code == 0 && again.only_line().starts_with("lameduck: drained after "), "{again:?}");
        answered(request, "answer\n");
        serves_on(&mut pod);
    });
}

/// When PID 1 ends, the kernel ends all that is in its pid namespace.
#[test]
fn the_kernel_ends_the_hook_with_pid_1() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/60");
        pod.line("asked /60");
        let mut hook = Hook::start(&pod, &[&PATIENT[..], &["--log-level", "info"]].concat());
        hook.begun();
        pod.signal(KILL);
        let ended = hook.ends();
        assert_eq!((ended.code, &ended.out[..]), (137, &[][..]), "{ended:?}");
        pod.exit();
        let _ = request.join();
    });
}

/// As any command: from a terminal by Ctrl-C, or by whoever gives up on it.
#[test]
fn int_and_term_end_the_hook() {
    in_own_network(|| {
        let mut pod = server();
        for signal in [INT, TERM] {
            let mut hook = Hook::start(&pod, &["--delay", "15s", "--grace-period", "60s", "--log-level", "info"]);
            hook.begun();
            signal_to(hook.pid(), signal);
            let ended = hook.ends();
            assert_eq!((ended.code, &ended.out[..]), (128 + signal, &[][..]), "{ended:?}");
        }
        let mut hook = Hook::start(&pod, &[&PATIENT[..], &["--log-level", "info"]].concat());
        hook.begun();
        // What httpd sends to everybody when it is told to restart: meant for its workers.
        for signal in [HUP, USR1, WINCH] {
            signal_to(hook.pid(), signal);
        }
        let ended = hook.ends();
        assert!(ended.code == 0 && ended.line().starts_with("lameduck: drained after "), "{ended:?}");
        serves_on(&mut pod);
    });
}

#[test]
fn nothing_listens() {
    in_own_network(|| {
        let pod = Pid1::start(&["sleep", "600"]);
        let began = Instant::now();
        let ended = Hook::start(&pod, &["--strict"]).ends();
        assert_eq!((ended.code, ended.only_line()), (0, "lameduck: nothing listens here"), "{ended:?}");
        // Sooner than the delay, 5 s.
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let ended = Hook::start(&pod, &["--delay", "2s"]).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().starts_with("lameduck: waited for 2"), "a delay that was asked for is kept: {ended:?}");
    });
}

#[test]
fn udp_only() {
    in_own_network(|| {
        let bind = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 5353)); \
                    print('ready', flush=True); time.sleep(600)";
        let mut pod = Pid1::start(&[PYTHON, "-c", bind]);
        pod.line("ready");
        let ended = Hook::start(&pod, &["--delay", "2s", "--strict"]).ends();
        assert_eq!((ended.code, ended.out.len(), ended.err.len()), (0, 1, 1), "{ended:?}");
        assert!(ended.line().starts_with("lameduck: waited for 2"), "{ended:?}");
        assert!(ended.err[0].contains("listens on UDP 5353") && ended.err[0].contains("the delay alone is kept"), "{ended:?}");
    });
}

#[test]
fn bad_flags_are_refused_at_once() {
    in_own_network(|| {
        let mut pod = server();
        for (flags, part) in [
            (&["--delya", "5s"][..], "did you mean --delay?"),
            (&["--delay"], "--delay"),
            (&["--delay", "20s", "--grace-period", "10s"], "delay 20s (--delay) + margin 1s > grace period 10s (--grace-period)"),
            (&["--strict=yes"], "--strict"),
            (&["--", "sleep", "5"], "leave the command out"),
        ] {
            let ended = Hook::start(&pod, flags).ends();
            assert_eq!((ended.code, ended.out.len(), ended.err.len()), (64, 0, 1), "{flags:?}: {ended:?}");
            assert!(ended.err[0].starts_with("lameduck: cannot ") && ended.err[0].contains(part), "{ended:?}");
        }
        serves_on(&mut pod);
    });
}

/// The streams are the runtime's, and may be anything.
#[test]
fn odd_streams() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/3");
        pod.line("asked /3");
        // Something to warn of, so that stderr is written to.
        let flags = [&PATIENT[..], &["--strict", "--stop"]].concat();
        let hooks = [
            "exec \"$@\" <&- >&- 2>&-",
            "exec \"$@\" </dev/null >/dev/full 2>/dev/full",
            // Nobody reads, and nobody will.
            "set -o pipefail; \"$@\" 2>&1 | true",
            // A pipe that is full: a warning is dropped rather than waited for.
            "exec 2> >(exec sleep 600); dd if=/dev/zero bs=4k count=16 >&2 status=none; exec \"$@\" >/dev/null",
        ]
        .map(|script| (script, Hook::start_by(&pod, &["bash", "-c", script, "bash"], LAMEDUCK, &flags)));
        for (script, hook) in hooks {
            let ended = hook.ends_alone();
            assert_eq!(ended.code, 0, "{script}: {ended:?}");
        }
        answered(request, "answer\n");
        serves_on(&mut pod);
    });
}

#[test]
fn beside_a_lameduck_it_says_so() {
    in_own_network(|| {
        let mut pod = Pid1::start(&[LAMEDUCK, "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        pod.line("ready");
        listening(8080);
        let ended = Hook::start(&pod, &PATIENT).ends();
        assert_eq!((ended.code, ended.err.len()), (0, 1), "{ended:?}");
        assert!(ended.err[0].contains("PID 1 is lameduck"), "{ended:?}");
        assert!(ended.line().starts_with("lameduck: drained after ") && ended.line().contains(" on port 8080 "), "{ended:?}");
    });
}
