//! Every child is reaped, ours or not, by one waiter that only wakes when one died.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, Pid1, eventually, signal_to};
use crate::{PYTHON, SLACK, child_named, children, lameduck, report, run, scene, status};

/// Children of `pid` that are dead and not reaped.
fn zombies(pid: i32) -> usize {
    let dead = |child: &i32| fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| stat.contains(") Z "));
    children(pid).iter().filter(|child| dead(child)).count()
}

/// Nobody but the main process is left under PID 1.
fn only_main_is_left(init: &Pid1) {
    eventually("all orphans are reaped", || (children(init.pid).len() == 1).then_some(()));
}

#[test]
fn two_thousand_orphans_are_reaped() {
    let app =
        "trap 'exit 3' USR1; i=0; while [ $i -lt 2000 ]; do ( : & ); i=$((i+1)); done; echo forked; while :; do sleep 0.05; done";
    // `sleep` is a child of the shell, never of PID 1.
    lameduck(&["--", "sh", "-c", app], |init| {
        init.app_line("forked");
        only_main_is_left(init);
        assert_eq!(zombies(init.pid), 0);
        init.signal(10);
        assert_eq!(init.exit(), 3);
    });
}

#[test]
fn orphans_that_died_at_once_share_one_signal_and_are_all_reaped() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        // Stopped from outside, lameduck hears of all their deaths at once.
        signal_to(init.pid, 19);
        let orphans = "i=0; while [ $i -lt 200 ]; do ( : & ); i=$((i+1)); done";
        let entered = Command::new("nsenter").args(["--target", &init.pid.to_string(), "--pid", "sh", "-c", orphans]).status();
        assert!(entered.expect("nsenter, from util-linux").success());
        eventually("all are dead", || (zombies(init.pid) == 200).then_some(()));
        signal_to(init.pid, 18);
        only_main_is_left(init);
        init.signal(15);
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn orphans_are_reaped_during_the_shutdown_too() {
    let app = "trap '' TERM; trap 'i=0; while [ $i -lt 50 ]; do ( : & ); i=$((i+1)); done; echo forked' HUP; echo ready; while :; do sleep 0.05; done";
    lameduck(&["--delay", "15s", "--", "sh", "-c", app], |init| {
        init.app_line("ready");
        init.signal(15);
        init.line("lame-duck");
        init.signal(1);
        init.app_line("forked");
        only_main_is_left(init);
        assert!(init.is_running());
    });
}

#[test]
fn not_as_pid_1_it_adopts_orphans_all_the_same() {
    // The shell is PID 1; what `setsid -f` leaves behind would be its child.
    let app = "trap 'exit 4' USR1; setsid -f sh -c 'exec sleep 1000'; echo forked; while :; do sleep 0.05; done";
    run(
        &scene("\"$0\" \"$@\"; echo code=$?; exec sleep 1000", &["--", "sh", "-c", app]),
        |_| {},
        |init| {
            init.app_line("forked");
            let name = LAMEDUCK.rsplit('/').next().unwrap();
            let duck = child_named(init.pid, &name[..name.len().min(15)]);
            let orphan = child_named(duck, "sleep");
            // An adopted child that dies is reaped at once.
            signal_to(orphan, 9);
            eventually("the orphan is reaped", || (!fs::exists(format!("/proc/{orphan}")).unwrap()).then_some(()));
            signal_to(duck, 10);
            init.app_line("code=4");
        },
    );
}

#[test]
fn not_as_pid_1_nothing_is_left_behind_and_nobody_else_is_hit() {
    // A bystander in the same pid namespace, started before us, and a survivor of the app that ignores TERM.
    let app = "trap 'exit 4' USR1; setsid -f sh -c 'trap \"\" TERM; echo survivor; while :; do sleep 0.05; done'; while :; do sleep 0.05; done";
    let scene_text = "setsid -f sleep 1000; \"$0\" \"$@\"; echo code=$?; exec sleep 2000";
    run(
        &scene(scene_text, &["--stop-timeout", "1s", "--", "sh", "-c", app]),
        |_| {},
        |init| {
            init.app_line("survivor");
            let name = LAMEDUCK.rsplit('/').next().unwrap();
            let duck = child_named(init.pid, &name[..name.len().min(15)]);
            signal_to(duck, 10);
            init.app_line("code=4");
            let left = children(init.pid);
            let names: Vec<String> = left.iter().map(|pid| status(*pid, "Name")).collect();
            assert_eq!(names, ["sleep"], "the bystander lives and the survivor does not");
        },
    );
}

#[test]
fn children_that_were_there_before_us_are_reaped_and_are_not_the_app() {
    // One has ended, one ends soon, one would stay: as of a shell that did `<(command)` and then exec'd us.
    let text = "(exit 5) & (sleep 0.2; exit 6) & sleep 1000 & exec \"$0\" \"$@\"";
    run(
        &scene(text, &["--", "sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done"]),
        |_| {},
        |init| {
            init.app_line("ready");
            eventually("two are left: the app and the one that stays", || (children(init.pid).len() == 2).then_some(()));
            assert!(init.is_running());
            let asked = Instant::now();
            init.signal(10);
            assert_eq!(init.exit(), 9);
            assert!(asked.elapsed() < Duration::from_secs(5) + SLACK, "the sleeper had TERM, which it obeys: {:?}", init.seen);
        },
    );
}

#[test]
fn a_child_that_ended_while_others_were_waited_for_is_reaped() {
    run(
        &scene("sleep 1000 & exec \"$0\" \"$@\"", &["--wait-for", "tcp://127.0.0.1:8080", "--", report()]),
        |_| {},
        |init| {
            init.line(" waiting ");
            signal_to(child_named(init.pid, "sleep"), 9);
            eventually("it is reaped", || children(init.pid).is_empty().then_some(()));
            let _listener = std::net::TcpListener::bind("127.0.0.1:8080").unwrap();
            init.app_line("ready ");
            only_main_is_left(init);
        },
    );
}

#[test]
fn a_stopped_app_has_not_ended_and_is_continued_to_be_stopped() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        let app = child_named(init.pid, "report");
        signal_to(app, 19);
        eventually("it is stopped", || status(app, "State").starts_with('T').then_some(()));
        assert!(init.is_running());
        init.signal(15);
        init.app_line("got TERM");
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn stopped_and_continued_while_serving() {
    lameduck(&["--", report()], |init| {
        init.app_line("ready ");
        let app = child_named(init.pid, "report");
        for _ in 0..20 {
            signal_to(app, 19);
            eventually("it is stopped", || status(app, "State").starts_with('T').then_some(()));
            signal_to(app, 18);
            init.next_app_line("got CONT");
        }
        assert!(init.is_running() && zombies(init.pid) == 0);
        init.signal(15);
        assert_eq!(init.exit(), 0);
    });
}

/// PTRACE_TRACEME makes us the tracer: each signal stops the app until we let it go on, an exec does too.
#[test]
fn an_app_that_asks_to_be_traced_gets_its_signals_and_has_not_ended() {
    let app = "import ctypes, os, signal, sys; libc = ctypes.CDLL(None); traced = lambda: libc.ptrace(0, 0, None, None)
if len(sys.argv) < 2: assert traced() == 0; os.execv(sys.executable, [sys.executable, '-c', open('/proc/self/cmdline').read().split('\\0')[2], 'again'])
assert traced() == 0
signal.signal(signal.SIGUSR1, lambda *_: print('got USR1', flush=True)); signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True)
while True: signal.pause()";
    lameduck(&["--", PYTHON, "-c", app], |init| {
        init.app_line("ready");
        init.signal(10);
        init.next_app_line("got USR1");
        assert!(init.is_running());
        init.signal(15);
        assert_eq!(init.exit(), 7, "{:#?}", init.seen);
    });
}

#[test]
fn a_grandchild_that_holds_our_streams_does_not_keep_us() {
    // It ignores TERM, so this also is the budget of survivors; nobody waits for the end of a stream.
    let app = "setsid -f sh -c 'trap \"\" TERM HUP; while :; do sleep 0.05; done'; exit 11";
    lameduck(&["--stop-timeout", "500ms", "--", "sh", "-c", app], |init| assert_eq!(init.exit(), 11));
}

#[test]
fn no_wake_up_while_serving() {
    let server = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 8080), h.BaseHTTPRequestHandler); print('serving', flush=True); s.serve_forever(poll_interval=1000)";
    lameduck(&["--", PYTHON, "-c", server], |init| {
        init.app_line("serving");
        let pid = init.pid;
        let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        assert_eq!(threads, 1, "one thread");
        let wakes = || status(pid, "voluntary_ctxt_switches").parse::<u64>().unwrap();
        let mut before = wakes();
        eventually("it has settled", || {
            std::thread::sleep(Duration::from_millis(300));
            let now = wakes();
            (std::mem::replace(&mut before, now) == now).then_some(())
        });
        std::thread::sleep(Duration::from_secs(3)); // the measurement itself
        assert_eq!(wakes() - before, 0, "wake-ups in 3 s");
    });
}
