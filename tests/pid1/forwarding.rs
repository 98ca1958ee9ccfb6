//! Signals on their way to the app, before and during a shutdown.

use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, Pid1, eventually, listening};
use crate::{PYTHON, SLACK, child_named, lameduck, report, status};

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

fn name(signal: i32) -> String {
    NAMES.get(signal as usize - 1).map_or(signal.to_string(), |name| name.to_string())
}

/// Not KILL and STOP, which nobody can catch; not TERM, which begins the shutdown; not CHLD, faults and TTIN, TTOU; not 32 to 34.
fn forwarded() -> impl Iterator<Item = i32> {
    (1..=31).filter(|n| ![9, 19, 15, 17, 4, 5, 7, 8, 11, 31, 21, 22].contains(n)).chain(35..=64)
}

/// What the app got so far, in order.
fn got(init: &Pid1) -> Vec<&str> {
    init.seen.iter().filter_map(|line| line.strip_prefix("got ")).collect()
}

#[test]
fn every_signal_that_can_be_is_forwarded() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        for signal in forwarded() {
            init.signal(signal);
            init.app_line(&format!("got {}", name(signal)));
        }
        init.signal(15);
        assert_eq!(init.exit(), 0);
        let expected: Vec<String> = forwarded().chain([15]).map(name).collect();
        assert_eq!(got(init), expected, "in order, once each");
    });
}

#[test]
fn and_every_one_during_the_shutdown_but_the_one_that_hurries() {
    lameduck(&["--grace-period", "150s", "--delay", "100s", "--", report(), "--listen", "127.0.0.1:0"], |init| {
        init.app_line("ready ");
        init.signal(15);
        init.line("lame-duck");
        for signal in forwarded().filter(|n| *n != 2) {
            init.signal(signal);
            init.app_line(&format!("got {}", name(signal)));
        }
        assert!(init.is_running() && !got(init).contains(&"TERM"), "{:?}", got(init));
    });
}

#[test]
fn faults_and_terminal_signals_are_not() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        for signal in [4, 5, 7, 8, 11, 31, 21, 22, 17] {
            init.signal(signal); // from outside the namespace: the kernel drops what PID 1 does not handle
        }
        init.signal(10);
        init.app_line("got USR1");
        assert_eq!(got(init), ["USR1"]);
        init.signal(15);
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn real_time_signals_queue_and_keep_their_number() {
    let app = "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [36, 37])\nprint('ready', flush=True)\n\
               while True: print('took', signal.sigwait([36, 37]), flush=True)";
    lameduck(&["--", PYTHON, "-c", app], |init| {
        init.app_line("ready");
        for _ in 0..10 {
            init.signal(36);
        }
        for _ in 0..10 {
            init.next_app_line("took 36");
        }
        init.signal(37);
        init.next_app_line("took 37");
    });
}

#[test]
fn signals_are_rewritten_by_name_and_number_or_dropped() {
    let rewrites = ["--rewrite", "HUP:USR2", "--rewrite", "10:35", "--rewrite", "SIGWINCH:0,RTMIN+3:SIGALRM"];
    lameduck(&[&rewrites[..], &["--", report()]].concat(), |init| {
        init.app_line("ready ");
        for (sent, arrives) in [(1, "USR2"), (10, "35"), (37, "ALRM"), (12, "USR2"), (35, "35")] {
            init.signal(sent);
            init.next_app_line(&format!("got {arrives}"));
        }
        init.signal(28);
        init.signal(14);
        init.next_app_line("got ALRM");
        assert_eq!(got(init), ["USR2", "35", "ALRM", "USR2", "35", "ALRM"]);
    });
}

#[test]
fn a_signal_is_rewritten_to_one_that_is_never_forwarded() {
    lameduck(&["--rewrite", "TSTP:STOP", "--", report()], |init| {
        init.app_line("ready ");
        let app = child_named(init.pid, "report");
        init.signal(20);
        eventually("it is stopped", || status(app, "State").starts_with('T').then_some(()));
        init.signal(15);
        assert_eq!(init.exit(), 0, "{:?}", init.seen);
    });
}

#[test]
fn the_main_process_alone_is_signalled_unless_it_is_the_group() {
    let app = "trap 'echo main got it' USR1; trap 'wait; exit 6' USR2; \
               sh -c 'trap \"echo worker got it\" USR1; trap \"exit 0\" USR2; echo worker ready; while :; do sleep 0.05; done' & \
               while :; do sleep 0.05; done";
    lameduck(&["--group", "--", "sh", "-c", app], |init| {
        init.app_line("worker ready");
        init.signal(10);
        init.app_line("main got it");
        init.app_line("worker got it");
        init.signal(12);
        assert_eq!(init.exit(), 6);
    });
    lameduck(&["--", "sh", "-c", app], |init| {
        init.app_line("worker ready");
        init.signal(10);
        init.next_app_line("main got it");
        init.signal(10);
        init.next_app_line("main got it");
        assert!(!init.seen.iter().any(|line| line == "worker got it"), "{:?}", init.seen);
    });
}

#[test]
fn the_stop_goes_to_the_group_when_asked() {
    let app = "trap 'wait; exit 6' TERM; \
               sh -c 'trap \"echo worker got it; exit 0\" TERM; echo worker ready; while :; do sleep 0.05; done' & \
               while :; do sleep 0.05; done";
    lameduck(&["--group", "--", "sh", "-c", app], |init| {
        init.app_line("worker ready");
        init.signal(15);
        init.app_line("worker got it"); // before the main process ended: it waits for this one
        assert_eq!(init.exit(), 6);
    });
}

/// `--group` is the group that the app is in, not only the one that it was born into.
#[test]
fn an_app_that_has_moved_into_another_group_is_signalled_all_the_same() {
    let app = "import os, signal, sys, time
def says(who):
    signal.signal(10, lambda *_: os.write(1, (who + ' got it\\n').encode()))
    signal.signal(15, lambda *_: os._exit(6))
heard, say = os.pipe()
if os.fork() == 0:
    says('who stayed')
    os.write(say, b'x')
    while True: time.sleep(1)
other = os.fork()
if other == 0:
    os.setpgid(0, 0)
    says('the other')
    os.write(say, b'x')
    while True: time.sleep(1)
says('main')
os.read(heard, 1)
os.read(heard, 1)
os.setpgid(0, other)
print('ready', flush=True)
while True: time.sleep(1)";
    lameduck(&["--group", "--", PYTHON, "-c", app], |init| {
        init.app_line("ready");
        init.signal(10);
        for who in ["who stayed", "the other", "main"] {
            init.app_line(&format!("{who} got it"));
        }
        init.signal(15);
        assert_eq!(init.exit(), 6, "{:?}", init.seen);
    });
}

#[test]
fn a_repeated_stop_signal_changes_nothing() {
    lameduck(
        &[
            "--delay",
            "2s",
            "--quiet-period",
            "0s",
            "--",
            report(),
            "--listen",
            "127.0.0.1:0",
            "--on",
            "TERM=ignore",
            "--on",
            "USR1=exit:0",
        ],
        |init| {
            init.app_line("ready ");
            let asked = Instant::now();
            init.signal(15);
            init.line("lame-duck");
            init.signal(15);
            init.signal(15);
            init.app_line("got TERM");
            assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
            // After the app was told as well.
            init.signal(15);
            init.signal(10);
            assert_eq!(init.exit(), 0);
            assert_eq!(got(init), ["TERM", "USR1"], "once");
            assert_eq!(init.seen.iter().filter(|line| line.contains(" stop-requested")).count(), 1, "{:#?}", init.seen);
        },
    );
}

#[test]
fn int_is_forwarded_before_a_stop_and_hurries_after_it() {
    lameduck(&["--delay", "15s", "--", report(), "--listen", "127.0.0.1:0", "--on", "TERM=ignore"], |init| {
        init.app_line("ready ");
        init.signal(2);
        init.app_line("got INT");
        let asked = Instant::now();
        init.signal(15);
        init.line("lame-duck");
        init.signal(2); // ends the wait
        init.app_line("got TERM");
        init.signal(2); // ends the patience
        assert_eq!(init.exit(), 137, "{:#?}", init.seen);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        assert_eq!(got(init), ["INT", "TERM"], "an INT that hurries is not forwarded");
    });
}

#[test]
fn an_int_that_is_a_stop_signal_repeats_it() {
    lameduck(
        &["--stop-on", "TERM,INT", "--delay", "2s", "--quiet-period", "0s", "--", report(), "--listen", "127.0.0.1:0"],
        |init| {
            init.app_line("ready ");
            let asked = Instant::now();
            init.signal(2);
            init.line("lame-duck");
            init.signal(2);
            init.signal(15);
            assert_eq!(init.exit(), 0);
            assert!(asked.elapsed() >= Duration::from_secs(2), "{:?}", asked.elapsed());
            assert_eq!(got(init), ["TERM"], "the app's stop signal, once");
        },
    );
}

#[test]
fn quit_begins_the_shutdown_of_an_app_that_does_not_handle_it() {
    // A wrapped image keeps its STOPSIGNAL: forwarded, QUIT could only kill this one.
    lameduck(&["--", "sh", "-c", "ulimit -c 0; exec sleep 1000"], |init| {
        child_named(init.pid, "sleep");
        init.signal(3);
        let line = init.line("stop-requested");
        assert!(line.contains("QUIT"), "{line}");
        assert_eq!(init.exit(), 0, "told by TERM: {:#?}", init.seen);
    });
}

#[test]
fn an_app_that_listens_on_nothing_is_told_at_once() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        let asked = Instant::now();
        init.signal(15);
        init.app_line("got TERM");
        assert!(asked.elapsed() < Duration::from_secs(3), "the default delay is 5 s: {:?}", asked.elapsed());
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn unless_a_delay_was_asked_for() {
    lameduck(&["--delay", "1500ms", "--", report()], |init| {
        init.app_line("ready ");
        let asked = Instant::now();
        init.signal(15);
        init.app_line("got TERM");
        assert!(asked.elapsed() >= Duration::from_millis(1500), "{:?}", asked.elapsed());
    });
}

#[test]
fn an_app_that_listens_on_anything_is_not() {
    // Default delay: half of what 6 s leave, 1.7 s.
    let tell = "import signal, socket, sys, time\nsignal.signal(15, lambda *_: (print('told', flush=True), sys.exit(0)))\n";
    for listen in [
        "s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen()",
        "s = socket.socket(socket.AF_INET6); s.bind(('::1', 0)); s.listen()",
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))",
        "s = socket.socket(socket.AF_UNIX); s.bind('\\0lameduck-test'); s.listen()",
    ] {
        let app = format!("{tell}{listen}\nprint('ready', flush=True)\nwhile True: time.sleep(1)");
        lameduck(&["--grace-period", "6s", "--", PYTHON, "-c", &app], move |init| {
            init.app_line("ready");
            let asked = Instant::now();
            init.signal(15);
            init.app_line("told");
            assert!(asked.elapsed() >= Duration::from_secs(1), "{listen}: {:?}", asked.elapsed());
            assert_eq!(init.exit(), 0);
        });
    }
}

#[test]
fn a_server_serves_on_for_the_delay() {
    lameduck(&["--delay", "2s", "--", PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "8080"], |init| {
        listening(8080);
        let asked = Instant::now();
        init.signal(15);
        init.line("lame-duck");
        listening(8080); // still
        assert_eq!(init.exit(), 0);
        let took = asked.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(5) + SLACK, "{took:?}: {:#?}", init.seen);
    });
}

#[test]
fn the_log_tells_the_phases_in_order() {
    lameduck(&["--delay", "1s", "--", report(), "--listen", "127.0.0.1:0"], |init| {
        init.app_line("ready ");
        init.signal(15);
        assert_eq!(init.exit(), 0);
        let events: Vec<&str> =
            init.seen.iter().filter_map(|line| line.split(" lameduck info ").nth(1)?.split(' ').next()).collect();
        // Draining may take no time at all.
        let events: Vec<&str> = events.into_iter().filter(|event| *event != "draining").collect();
        assert_eq!(events, ["start", "stop-requested", "lame-duck", "stopping", "exit"], "{:#?}", init.seen);
        let line = init.seen.iter().find(|line| line.contains(" stop-requested ")).unwrap();
        assert!(
            line.contains("signal=TERM") && line.len() > 25 && line.as_bytes()[10] == b'T' && line.as_bytes()[23] == b'Z',
            "{line}"
        );
    });
}

/// Whose name has blanks and parentheses in it, and who forked before: /proc must be read with care.
#[test]
fn an_odd_process_name_is_no_matter() {
    let app = "import ctypes, signal, sys, time\nctypes.CDLL(None).prctl(15, b') Z 1 (x', 0, 0, 0)\n\
               signal.signal(15, lambda *_: sys.exit(0))\nprint('ready', flush=True)\nwhile True: time.sleep(1)";
    crate::run(
        &[LAMEDUCK, "--", PYTHON, "-c", app],
        |_| {},
        |init| {
            init.app_line("ready");
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 0);
            assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
        },
    );
}
