//! Up to the app's first instruction.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, Pid1, eventually, in_own_network, script};
use crate::{CALLER, PYTHON, SHOW_ARGS, SLACK, children, inherited, lameduck, report, run, scene, scratch};

fn numbers(set: &[i32]) -> String {
    set.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

fn bits(set: &[i32]) -> String {
    format!("{:016x}", set.iter().map(|n| 1u64 << (n - 1)).sum::<u64>())
}

/// PID 1 with that mask, those signals ignored and those pending, then COMMAND.
fn caller(mask: &[i32], ignored: &[i32], pending: &[i32], command: &[&str]) -> Vec<String> {
    let start = [PYTHON, "-c", CALLER, &numbers(mask), &numbers(ignored), &numbers(pending), "--"];
    start.iter().chain(command).map(|arg| arg.to_string()).collect()
}

fn run_caller(mask: &[i32], ignored: &[i32], pending: &[i32], command: &[&str], story: impl FnOnce(&mut Pid1) + Send + 'static) {
    let argv = caller(mask, ignored, pending, command);
    run(&argv.iter().map(String::as_str).collect::<Vec<_>>(), |_| {}, story);
}

#[test]
fn the_callers_mask_and_ignored_set_reach_the_app_exactly() {
    let all: Vec<i32> = (1..=64).filter(|n| ![9, 19].contains(n)).collect();
    let cases: [(&[i32], &[i32]); 10] = [
        (&[], &[]),
        (&[], &[13]),           // PIPE: Rust's std ignores it in itself and resets it in children
        (&[], &[17]),           // CHLD: the kernel would reap behind our back
        (&[], &[1]),            // HUP: nohup
        (&[20, 21, 22], &[20]), // what job control needs
        (&[32, 33, 34], &[]),   // musl and glibc keep these for themselves
        (&[], &[32, 33, 34, 35, 64]),
        (&[1, 15, 17, 35, 64], &[2, 3]),
        (&all, &[]),
        (&[], &all),
    ];
    for (mask, ignored) in cases {
        let (blocked_line, ignored_line) = (format!("SigBlk:\t{}", bits(mask)), format!("SigIgn:\t{}", bits(ignored)));
        run_caller(mask, ignored, &[], &[LAMEDUCK, "--", "cat", "/proc/self/status"], move |init| {
            assert_eq!(init.exit(), 0, "{:?}", init.seen);
            for line in [blocked_line, ignored_line] {
                assert!(init.seen.contains(&line), "not {line:?} but {:#?}", init.seen);
            }
        });
    }
}

#[test]
fn what_the_caller_ignores_or_blocks_is_still_a_stop_signal_to_us() {
    let all: Vec<i32> = (1..=64).filter(|n| ![9, 19].contains(n)).collect();
    run_caller(&[], &all, &[], &[LAMEDUCK, "--", report()], |init| {
        init.app_line("ready ");
        init.signal(15);
        init.app_line("got TERM");
        assert_eq!(init.exit(), 0);
    });
    // The app inherits TERM blocked and takes it by sigwait, as some daemons do.
    let app = "import signal; print('waits', flush=True); print('took', signal.sigwait([15]), flush=True)";
    run_caller(&[15], &[], &[], &[LAMEDUCK, "--", PYTHON, "-c", app], |init| {
        init.app_line("waits");
        init.signal(15);
        init.app_line("took 15");
        assert_eq!(init.exit(), 0);
    });
}

/// The kernel discards what comes for a PID 1 before.
#[test]
fn signals_are_blocked_before_rust_s_own_start_up() {
    let tracer = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pid1/first_calls.py");
    let traced = Command::new(PYTHON).args([tracer, LAMEDUCK, "--", "true"]).output().unwrap();
    let text = String::from_utf8_lossy(&traced.stdout).into_owned();
    let mask = u64::from_str_radix(text.trim(), 16).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&traced.stderr)));
    let faults = [4, 5, 7, 8, 9, 11, 19, 31].iter().fold(0, |set, signal| set | 1u64 << (signal - 1));
    assert_eq!(mask, !faults, "{mask:016x}");
}

#[test]
fn a_stop_signal_that_waits_at_the_start_means_that_the_app_is_never_started() {
    let file = scratch("started");
    let path = file.to_str().unwrap().to_owned();
    run_caller(&[15], &[], &[15], &[LAMEDUCK, "--", "touch", &path], |init| assert_eq!(init.exit(), 0, "{:?}", init.seen));
    assert!(!file.exists(), "the app was started");
}

#[test]
fn another_signal_that_waits_at_the_start_reaches_the_app() {
    let app =
        "import signal; print('took', signal.sigtimedwait([10, 36], 50).si_signo, signal.sigtimedwait([10, 36], 50).si_signo)";
    run_caller(&[10, 36], &[], &[10, 36], &[LAMEDUCK, "--", PYTHON, "-c", app], |init| {
        init.app_line("took 10 36");
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn a_stop_signal_right_after_the_spawn_is_never_lost() {
    at_once(&[LAMEDUCK, "--", "sleep", "1000"], 100);
}

#[test]
fn nor_is_it_with_group() {
    at_once(&[LAMEDUCK, "--group", "--", "sleep", "1000"], 50);
}

fn at_once(argv: &[&'static str], times: u32) {
    let argv = argv.to_vec();
    in_own_network(move || {
        for _ in 0..times {
            let mut init = Pid1::start(&argv);
            // Busily: the sooner after the fork, the better.
            while children(init.pid).is_empty() {
                assert!(init.is_running(), "{:?}", init.rest());
                thread::yield_now();
            }
            init.signal(15);
            assert_eq!(init.exit(), 0, "{:?}", init.seen);
        }
    });
}

#[test]
fn the_app_leads_a_process_group_of_its_own() {
    lameduck(&["--", report()], |init| {
        let ready = init.app_line("ready ");
        let field = |key: &str| ready.split(key).nth(1).unwrap().split(' ').next().unwrap().to_owned();
        assert_eq!(field("pid="), field("pgid="), "{ready}");
        assert_eq!(field("fds="), inherited(&[]), "nothing of ours may leak: {ready}");
        assert_eq!((field("blocked=").as_str(), field("tty=").as_str()), ("none", "none"), "{ready}");
        init.signal(15);
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn a_command_that_cannot_run() {
    let plain = scratch("plain");
    fs::write(&plain, "echo never\n").unwrap();
    let plain = plain.to_str().unwrap();
    for (command, code) in
        [("/no/such/command", 127), ("no-such-command", 127), ("", 127), (plain, 126), ("/", 126), ("/tmp", 126)]
    {
        let command = command.to_owned();
        lameduck(&["--", &command.clone(), "arg"], move |init| {
            assert_eq!(init.exit(), code, "{command:?}: {:?}", init.seen);
            let complaints: Vec<_> = init.seen.iter().filter(|line| line.starts_with("lameduck:")).collect();
            assert_eq!(complaints.len(), 1, "{command:?}: {:?}", init.seen);
            assert!(complaints[0].starts_with("lameduck: cannot run ") && complaints[0].contains(&command), "{:?}", init.seen);
        });
    }
}

#[test]
fn the_apps_own_127_and_126_are_no_exec_errors() {
    for code in [126, 127] {
        lameduck(&["--", "sh", "-c", &format!("exit {code}")], move |init| {
            assert_eq!(init.exit(), code);
            assert!(!init.seen.iter().any(|line| line.contains("cannot run")), "{:?}", init.seen);
        });
    }
}

#[test]
fn a_command_is_found_as_a_shell_finds_it() {
    let (empty, full) = (scratch("empty"), scratch("full"));
    fs::create_dir_all(&empty).unwrap();
    fs::create_dir_all(&full).unwrap();
    fs::write(empty.join("the-app"), "not executable").unwrap();
    let app = script("the-app", "#!/bin/sh\necho found \"$0\"\n");
    fs::hard_link(&app, full.join("the-app")).or_else(|_| fs::copy(&app, full.join("the-app")).map(drop)).unwrap();
    let with = |path: String, code, says: &'static str| {
        run(
            &[LAMEDUCK, "the-app"],
            move |command| _ = command.env("PATH", format!("{path}:{}", std::env::var("PATH").unwrap())),
            move |init| {
                assert_eq!(init.exit(), code, "{:?}", init.seen);
                assert!(init.seen.iter().any(|line| line.contains(says)), "{:?}", init.seen);
            },
        );
    };
    with(format!("{}:{}", empty.display(), full.display()), 0, "found ");
    with(empty.display().to_string(), 126, "the-app");
    with("/nowhere".into(), 127, "the-app");
    // No PATH at all, and a path with a slash from the current directory.
    run(&scene("unset PATH; exec \"$0\" \"$@\"", &["true"]), |_| {}, |init| assert_eq!(init.exit(), 0, "{:?}", init.seen));
    run(
        &[LAMEDUCK, "./the-app"],
        move |command| _ = command.current_dir(&full),
        |init| {
            assert_eq!(init.exit(), 0);
            init.app_line("found ./the-app");
        },
    );
}

#[test]
fn a_script_without_a_shebang_runs_as_under_execvp() {
    let path = script("no-shebang", "echo \"$0: $1, $2\"\nexit 5\n");
    lameduck(&["--", &path.clone(), "--delay", "b c"], move |init| {
        init.app_line(&format!("{path}: --delay, b c"));
        assert_eq!(init.exit(), 5);
    });
    let directory = std::path::Path::new(&script("no-shebang-either", "echo by path: $1\n")).parent().unwrap().to_owned();
    run(
        &[LAMEDUCK, "no-shebang-either", "x"],
        move |command| _ = command.env("PATH", format!("{}:/usr/bin:/bin:/usr/sbin:/sbin", directory.display())),
        |init| {
            init.app_line("by path: x");
            assert_eq!(init.exit(), 0);
        },
    );
}

#[test]
fn the_apps_arguments_are_untouched() {
    let odd: [&[u8]; 8] = [b"", b"--delay", b"3s", b"--", b"-h", b"--no-such-flag", b"\xff\xfe\xc3\x28\n", b"${HOME} $(id)"];
    let expected = "args [b'', b'--delay', b'3s', b'--', b'-h', b'--no-such-flag', b'\\xff\\xfe\\xc3(\\n', b'${HOME} $(id)']";
    for ours in [&[LAMEDUCK, PYTHON, "-c", SHOW_ARGS][..], &[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-c", SHOW_ARGS]] {
        run(
            ours,
            move |command| _ = command.args(odd.map(OsStr::from_bytes)),
            move |init| {
                assert_eq!(init.exit(), 0, "{:?}", init.seen);
                assert!(init.seen.iter().any(|line| line == expected), "{:?}", init.seen);
            },
        );
    }
    // A command may be called as one of our own.
    for name in ["plan", "--help", "drain"] {
        lameduck(&["--", name], move |init| {
            assert_eq!(init.exit(), 127);
            assert!(init.line("cannot run").contains(name), "{:?}", init.seen);
        });
    }
}

#[test]
fn the_environment_is_untouched() {
    run(
        &[LAMEDUCK, "--", "/usr/bin/env", "-0"],
        |command| {
            command.env_clear().env("PATH", "/usr/bin:/bin").env("EMPTY", "").env("ODD", OsStr::from_bytes(b"\xff"));
        },
        |init| {
            assert_eq!(init.exit(), 0);
            let seen = init.seen.join("\n");
            assert!(
                seen.contains("EMPTY=\0") && seen.contains("ODD=\u{fffd}\0") && seen.contains("PATH=/usr/bin:/bin\0"),
                "{seen:?}"
            );
        },
    );
}

#[test]
fn bad_usage_is_one_line_and_64_and_nothing_starts() {
    let long = "x".repeat(10_000);
    let cases: &[(&[&str], &str)] = &[
        (&["--no-such-flag"], "--no-such-flag"),
        (&["--dealy", "1s"], "--delay"),
        (&["--delay", "soon"], "--delay"),
        (&["--delay", ""], "--delay"),
        (&["--delay", "-1s"], ""),
        (&["--delay", "1e9999s"], "--delay"),
        (&["--delay", &long], "--delay"),
        (&["--grace-period", "0"], "--grace-period"),
        (&["--grace-period", "99999999999999999999s"], "--grace-period"),
        (&["--stop-signal", "NOSUCH"], "--stop-signal"),
        (&["--stop-signal", "0"], "--stop-signal"),
        (&["--stop-signal", "65"], "--stop-signal"),
        (&["--stop-on", "TERM,NOSUCH"], "--stop-on"),
        (&["--rewrite", "HUP"], "--rewrite"),
        (&["--rewrite", "HUP:"], "--rewrite"),
        (&["--rewrite", "TERM:QUIT"], "--stop-signal"),
        (&["--port", "70000"], "--port"),
        (&["--port", "http"], "--port"),
        (&["--ignore-peer", "300.1.1.1"], "--ignore-peer"),
        (&["--ignore-peer", "10.0.0.0/33"], "--ignore-peer"),
        (&["--cpu-request", "1.5x"], "--cpu-request"),
        (&["--success-code", "256"], "--success-code"),
        (&["--success-code", "-1"], ""),
        (&["--drain", "most"], "--drain"),
        (&["--delay", "25s", "--stop-timeout", "10s"], "30s"),
        (&["--grace-period", "10s", "--delay", "9800ms"], "10s"),
        (&["--workers-min", "4", "--workers-max", "2"], "--workers-m"),
    ];
    let file = scratch("started");
    let path = file.to_str().unwrap().to_owned();
    for (flags, names) in cases {
        let shown: Vec<String> = flags.iter().map(|flag| flag.chars().take(40).collect()).collect();
        let names = names.to_string();
        lameduck(&[flags, &["--", "touch", &path][..]].concat(), move |init| {
            assert_eq!(init.exit(), 64, "{shown:?}: {:?}", init.seen);
            assert_eq!(init.seen.len(), 1, "{shown:?} is said in one line: {:#?}", init.seen);
            assert!(init.seen[0].starts_with("lameduck: ") && init.seen[0].contains(&names), "{shown:?}: {:?}", init.seen);
        });
    }
    let bad_variables = [
        ("LAMEDUCK_DELAY", "soon"),
        ("LAMEDUCK_CPU_REQUEST", "many"),
        ("LAMEDUCK_CPU_REQUEST_MILLIS", "1500m"),
        ("LAMEDUCK_PORT", "80,x"),
    ];
    for (name, value) in bad_variables {
        run(
            &[LAMEDUCK, "--", "touch", &path],
            move |command| _ = command.env(name, value),
            move |init| {
                assert_eq!(init.exit(), 64, "{name}: {:?}", init.seen);
                assert!(init.seen.len() == 1 && init.seen[0].contains(name), "{name}: {:#?}", init.seen);
            },
        );
    }
    for none in [&[][..], &["--"], &["--delay", "1s"], &["--delay"]] {
        lameduck(none, move |init| {
            assert_eq!(init.exit(), 64, "{none:?}: {:?}", init.seen);
            assert_eq!(init.seen.len(), 1, "{none:?}: {:#?}", init.seen);
        });
    }
    assert!(!file.exists(), "the app was started");
}

#[test]
fn help_and_version_start_nothing_and_need_nothing() {
    for flag in ["--help", "--version"] {
        run(
            &scene("exec \"$0\" \"$@\" <&- 2>&-", &[flag]),
            |_| {},
            |init| {
                assert_eq!(init.exit(), 0);
                assert!(init.seen.iter().any(|line| line.to_lowercase().contains("lameduck")), "{:?}", init.seen);
            },
        );
    }
}

/// Holds a lease on a file: who opens it waits until the lease is given up, or broken after /proc/sys/fs/lease-break-time, 45 s.
const LEASE: &str = "import fcntl, os, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
fd = os.open(sys.argv[1], os.O_RDWR)
fcntl.fcntl(fd, 1024, fcntl.F_WRLCK)
print('held', flush=True)
sys.stdin.read()";

/// A network file system whose server is gone, for one.
#[test]
fn an_exec_that_hangs_does_not_delay_the_stop() {
    let program = scratch("leased");
    fs::copy("/bin/sleep", &program).unwrap();
    let path = program.to_str().unwrap().to_owned();
    let mut holder =
        Command::new(PYTHON).args(["-c", LEASE, &path]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut held = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut held).unwrap();
    assert_eq!(held, "held\n");
    lameduck(&["--", &path, "1000"], |init| {
        eventually("the exec has begun", || children(init.pid).first().copied());
        let asked = Instant::now();
        init.signal(15);
        init.line("stop-requested");
        assert_eq!(init.exit(), 0, "{:#?}", init.seen);
        assert!(asked.elapsed() < Duration::from_secs(1) + SLACK, "{:?}", asked.elapsed());
    });
    drop(holder.stdin.take());
    holder.wait().unwrap();
}
