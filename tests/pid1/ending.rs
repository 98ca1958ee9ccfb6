//! Exit codes, and the end of everything that the main process left behind.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, Pid1, eventually, signal_to};
use crate::{CALLER, PYTHON, SLACK, child_named, children, lameduck, report, run, scene, status};

/// Runs lameduck as PID 1 of a namespace of its own for each number, and prints a line for each wrong code.
fn all_codes(numbers: &str, app: &str, expected: &str) {
    let text = format!(
        "ulimit -c 0; for n in {numbers}; do unshare --pid --fork --mount-proc --kill-child -- \"$0\" -- sh -c '{app}' sh $n 2>/dev/null; \
         code=$?; [ $code = {expected} ] || echo \"wrong: $n gave $code\"; done; echo finished"
    );
    // By way of CALLER: std's Command leaves 32 and 33 ignored in what it starts.
    run(
        &[&[PYTHON, "-c", CALLER, "", "", "", "--"], &scene(&text, &[])[..]].concat(),
        |_| {},
        |init| {
            init.app_line("finished");
            let wrong: Vec<_> = init.rest().iter().filter(|line| line.starts_with("wrong")).cloned().collect();
            assert!(wrong.is_empty(), "{wrong:#?}");
        },
    );
}

#[test]
fn every_exit_code_is_ours() {
    all_codes("$(seq 0 255)", "exit $1", "$n");
}

#[test]
fn a_death_by_any_signal_is_128_and_its_number() {
    // Not those that stop, continue or are ignored by default. Real-time ones included, the C library's too.
    all_codes("1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 24 25 26 27 29 30 31 $(seq 32 64)", "kill -$1 $$; exit 77", "$((128 + n))");
}

#[test]
fn killed_by_the_stop_signal_that_we_sent_is_0() {
    for (stop, app) in [("TERM", "15"), ("INT", "2"), ("RTMIN+2", "36"), ("QUIT", "3")] {
        lameduck(&["--stop-signal", stop, "--", "sh", "-c", "ulimit -c 0; echo ready; exec sleep 1000"], move |init| {
            init.app_line("ready");
            child_named(init.pid, "sleep");
            init.signal(15);
            assert_eq!(init.exit(), 0, "{stop} ({app}): {:?}", init.seen);
        });
    }
}

#[test]
fn codes_after_a_stop() {
    // (what the app does at TERM, the code)
    for (action, code) in
        [("exit:0", 0), ("exit:143", 0), ("exit:7", 7), ("exit:130", 130), ("die:15", 0), ("die:2", 130), ("die:36", 164)]
    {
        lameduck(&["--", report(), "--on", &format!("TERM={action}")], move |init| {
            init.app_line("ready ");
            init.signal(15);
            assert_eq!(init.exit(), code, "{action}: {:?}", init.seen);
        });
    }
}

#[test]
fn codes_without_a_stop() {
    for (action, code) in [("exit:143", 143), ("die:15", 143), ("die:9", 137), ("die:64", 192)] {
        lameduck(&["--", report(), "--on", &format!("USR1={action}")], move |init| {
            init.app_line("ready ");
            init.signal(10);
            assert_eq!(init.exit(), code, "{action}: {:?}", init.seen);
        });
    }
}

#[test]
fn success_codes_are_reported_as_0() {
    for (given, code) in [(3, 0), (5, 0), (4, 4), (143, 0), (0, 0)] {
        lameduck(&["--success-code", "3", "--success-code", "5,143", "--", "sh", "-c", &format!("exit {given}")], move |init| {
            assert_eq!(init.exit(), code, "exit {given}");
        });
    }
}

#[test]
fn an_app_that_ignores_its_stop_signal_is_killed_within_the_grace_period() {
    lameduck(&["--grace-period", "3s", "--", report(), "--on", "TERM=ignore"], |init| {
        init.app_line("ready ");
        let asked = Instant::now();
        init.signal(15);
        assert_eq!(init.exit(), 137, "{:?}", init.seen);
        let took = asked.elapsed();
        // 3 s less a margin of 0.5 s; the app was told at once, so all of that was its own.
        assert!(took >= Duration::from_millis(2400), "too early: {took:?}");
        assert!(took < Duration::from_secs(3) + SLACK, "too late: {took:?}");
        for event in ["stop-requested", "stopping", "killing", "exit"] {
            init.line(&format!(" {event}"));
        }
    });
}

#[test]
fn an_app_that_never_stops_signalling_is_killed_in_time_all_the_same() {
    // Real-time signals queue: there always is a next one. Not so many that no room is left for other tests.
    let app = "import os, signal, time; signal.signal(15, signal.SIG_IGN); signal.signal(40, signal.SIG_IGN)\n\
               print('ready', flush=True); os.fork(); os.fork(); end = time.monotonic() + 20\n\
               while time.monotonic() < end:\n try: os.kill(1, 40)\n except OSError: pass";
    let argv = ["prlimit", "--sigpending=20000", LAMEDUCK, "--grace-period", "2s", "--", PYTHON, "-c", app];
    run(
        &argv,
        |_| {},
        |init| {
            init.app_line("ready");
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 137, "{:?}", init.seen);
            assert!(asked.elapsed() < Duration::from_secs(2) + SLACK, "too late: {:?}", asked.elapsed());
        },
    );
}

/// A server of a known name behind a shell that goes on, the two scheduled before lameduck and all on one CPU: the server has died of
/// its stop signal, and its shell has reaped it, before lameduck can look.
#[test]
fn a_shell_whose_server_is_gone_at_once_gets_its_term() {
    let shell = "chrt --fifo -p 20 $$ || exit 99; \
                 bash -c 'exec -a redis-server sleep 1000' & echo ready; wait $!; echo server gone; sleep 30";
    let scene_text = "exec taskset -c \"$(taskset -pc $$ | sed 's/.*[ ,-]//')\" \"$0\" \"$@\"";
    run(
        &scene(scene_text, &["--grace-period", "30s", "--", "sh", "-c", shell]),
        |_| {},
        |init| {
            init.app_line("ready");
            eventually("the server has its name", || {
                let shell = child_named(init.pid, "sh");
                let server = children(shell).first().map(|server| fs::read_to_string(format!("/proc/{server}/cmdline")));
                server.is_some_and(|line| line.is_ok_and(|line| line.starts_with("redis-server"))).then_some(())
            });
            let asked = Instant::now();
            init.signal(15);
            init.app_line("server gone");
            init.exit();
            assert!(asked.elapsed() < Duration::from_secs(5) + SLACK, "{:?} {:#?}", asked.elapsed(), init.seen);
        },
    );
}

#[test]
fn a_shell_that_is_stopped_is_continued_to_get_its_term() {
    let shell = "bash -c 'exec -a redis-server sleep 1000' & echo ready; wait; sleep 30";
    lameduck(&["--", "sh", "-c", shell], |init| {
        init.app_line("ready");
        let shell = child_named(init.pid, "sh");
        eventually("the server has its name", || {
            let line = fs::read_to_string(format!("/proc/{}/cmdline", children(shell).first()?));
            line.ok()?.starts_with("redis-server").then_some(())
        });
        signal_to(shell, 19);
        eventually("it is stopped", || status(shell, "State").starts_with('T').then_some(()));
        let asked = Instant::now();
        init.signal(15);
        init.exit();
        assert!(asked.elapsed() < Duration::from_secs(5) + SLACK, "{:?} {:#?}", asked.elapsed(), init.seen);
    });
}

/// A process that the app leaves behind, by name of what it does at TERM.
fn leaving(at_term: &str, main: &str) -> String {
    let worker = format!("trap \"{at_term}\" TERM; echo worker ready; while :; do sleep 0.05; done");
    format!("trap '{main}' USR1; setsid sh -c '{worker}' & while :; do sleep 0.05; done")
}

#[test]
fn survivors_get_a_stop_signal_and_a_grace() {
    for main in ["exit 7", "kill -9 $$"] {
        lameduck(&["--", "sh", "-c", &leaving("sleep 0.5; echo worker done; exit 0", main)], move |init| {
            init.app_line("worker ready");
            init.signal(10);
            init.app_line("worker done");
            assert_eq!(init.exit(), if main == "exit 7" { 7 } else { 137 });
        });
    }
}

#[test]
fn survivors_that_ignore_it_are_killed() {
    lameduck(&["--stop-timeout", "1s", "--", "sh", "-c", &leaving("", "exit 7")], |init| {
        init.app_line("worker ready");
        let asked = Instant::now();
        init.signal(10);
        assert_eq!(init.exit(), 7, "the code is the main process's");
        let took = asked.elapsed();
        assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(1) + SLACK, "{took:?}");
    });
}

#[test]
fn survivors_get_it_after_a_stop_as_well() {
    // The main process obeys at once; its worker, in a session of its own, hears of it only from us.
    let worker = "trap \"sleep 0.5; echo worker done; exit 0\" TERM; echo worker ready; while :; do sleep 0.05; done";
    let app = format!("trap 'exit 0' TERM; setsid sh -c '{worker}' & while :; do sleep 0.05; done");
    lameduck(&["--", "sh", "-c", &app], |init| {
        init.app_line("worker ready");
        init.signal(15);
        init.app_line("worker done");
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn nothing_left_is_no_wait() {
    let asked = Instant::now();
    lameduck(&["--", "true"], |init| assert_eq!(init.exit(), 0));
    assert!(asked.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", asked.elapsed());
}

#[test]
fn without_cap_kill_it_says_so_and_ends_when_nothing_is_in_flight() {
    // Root without CAP_KILL and the app under another uid, as gosu and su-exec leave it: every kill() is EPERM.
    let argv = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill", LAMEDUCK, "--grace-period", "60s", "--"];
    let app = ["setpriv", "--reuid", "33", "--clear-groups", PYTHON, "-c"];
    let text = "import signal, time\nsignal.signal(15, lambda *_: print('told', flush=True))\nprint('app ready', flush=True)\nwhile True: time.sleep(1)";
    run(
        &[&argv[..], &app, &[text]].concat(),
        |_| {},
        |init| {
            init.app_line("app ready");
            let warning = init.line("CAP_KILL");
            assert!(warning.contains(" warning "), "{warning}");
            // Neither a forwarded signal nor the stop may end us.
            init.signal(1);
            init.signal(10);
            let asked = Instant::now();
            init.signal(15);
            init.line("stop-requested");
            let code = init.exit();
            let took = asked.elapsed();
            assert_eq!(code, 137, "it could not be told, the kernel killed it: {:#?}", init.seen);
            // Not the 55 s that are left for the app's own stop.
            assert!(took < Duration::from_secs(5) + SLACK, "{took:?}");
            assert!(init.line(" exit ").contains("the app could not be signalled"), "{:#?}", init.seen);
            assert!(!init.seen.iter().any(|line| line == "told"), "{:?}", init.seen);
        },
    );
}

/// A master of our own user, as Apache's, and a worker of another, which outlives it.
#[test]
fn without_cap_kill_what_the_main_process_left_behind_is_not_waited_for() {
    let argv = ["setpriv", "--bounding-set", "-kill", "--inh-caps", "-kill", LAMEDUCK, "--grace-period", "60s", "--"];
    let text = "import os, signal, sys, time
signal.signal(15, lambda *_: os._exit(3))
if os.fork() == 0:
    os.setuid(33)
    print('worker ready', flush=True)
    while True: time.sleep(1)
while True: time.sleep(1)";
    run(
        &[&argv[..], &[PYTHON, "-c", text]].concat(),
        |_| {},
        |init| {
            init.app_line("worker ready");
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 3, "{:#?}", init.seen);
            assert!(asked.elapsed() < Duration::from_secs(5) + SLACK, "{:?}", asked.elapsed());
        },
    );
}

#[test]
fn with_cap_kill_another_uid_is_no_matter() {
    let text = "import signal, sys, time\nsignal.signal(15, lambda *_: (print('told', flush=True), sys.exit(3)))\nprint('app ready', flush=True)\nwhile True: time.sleep(1)";
    lameduck(&["--", "setpriv", "--reuid", "33", "--clear-groups", PYTHON, "-c", text], |init: &mut Pid1| {
        init.app_line("app ready");
        init.signal(15);
        init.app_line("told");
        assert_eq!(init.exit(), 3);
        assert!(!init.seen.iter().any(|line| line.contains("CAP_KILL")), "{:?}", init.seen);
    });
}
