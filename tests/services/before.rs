//! What runs before and after, and what is waited for.

use std::net::TcpListener;
use std::time::Instant;

use crate::support::signal_to;
use crate::{INT, SLACK, TERM, field, lameduck, process, ready, report, service, services};

#[test]
fn before_runs_to_its_end_in_the_order_typed() {
    let companion = service("exit:0");
    lameduck(
        &["--before", "sh -c 'sleep 0.3; echo one'", "--with", &companion, "--before", "echo two", "--", report()],
        |init| {
            ready(init, 2);
            let place = |text: &str| init.seen.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}"));
            assert!(init.seen.iter().any(|line| line == "one") && init.seen.iter().any(|line| line == "two"));
            assert!(place("message=ended") < place(" start service=report-2 "), "{:#?}", init.seen);
            let commands: Vec<_> =
                init.seen.iter().filter(|line| line.contains(" before ") && line.contains("message=ended")).collect();
            assert!(commands[0].contains("one") && commands[1].contains("two"), "{commands:#?}");
            init.signal(TERM);
            assert_eq!(init.exit(), 0);
        },
    );
}

#[test]
fn its_failure_is_the_exit_code_and_nothing_starts() {
    for (command, code) in [("sh -c 'exit 5'", 5), ("sh -c 'kill -9 $$'", 137)] {
        lameduck(&["--before", command, "--before", "echo second", "--with", "echo third", "--", "echo", "main"], move |init| {
            assert_eq!(init.exit(), code, "{:#?}", init.seen);
            let said = init.seen.join("\n");
            assert!(said.contains("lameduck: cannot start: ") && said.contains("nothing was started"), "{said}");
            assert!(!["second", "third", "main"].iter().any(|word| init.seen.iter().any(|line| line == word)), "{said}");
        });
    }
}

#[test]
fn a_stop_signal_during_it_ends_with_143() {
    // It obeys, or does not; INT is told apart.
    for (command, signal, code) in [
        ("sleep 1000", TERM, 143),
        ("sh -c 'trap \"echo cleaned; exit 0\" TERM; sleep 1000 & wait'", TERM, 143),
        ("sleep 1000", INT, 130),
    ] {
        lameduck(&["--before", command, "--", "echo", "main"], move |init| {
            let line = init.line(" before ");
            let asked = Instant::now();
            std::thread::sleep(std::time::Duration::from_millis(300));
            init.signal(signal);
            assert_eq!(init.exit(), code, "{line}: {:#?}", init.seen);
            assert!(asked.elapsed() < SLACK, "{:?}", asked.elapsed());
            assert!(!init.seen.iter().any(|line| line == "main"), "{:#?}", init.seen);
        });
    }
    lameduck(
        &["--grace-period", "3s", "--before", "sh -c 'trap \"\" TERM; echo deaf; while :; do sleep 0.1; done'", "--", "true"],
        |init| {
            init.app_line("deaf");
            let asked = Instant::now();
            init.signal(TERM);
            assert_eq!(init.exit(), 143, "{:#?}", init.seen);
            let took = asked.elapsed().as_secs_f64();
            assert!((2.5..3.0 + SLACK.as_secs_f64()).contains(&took), "SIGKILL at 2.5 s: {took}");
        },
    );
}

#[test]
fn wait_for_left_of_before_comes_first_and_the_rest_when_companions_run() {
    let companion = format!("{} --listen 127.0.0.1:7001", report());
    let args = [
        "--wait-for",
        "tcp://127.0.0.1:7000",
        "--before",
        "echo migrated",
        "--wait-for",
        "tcp://127.0.0.1:7001",
        "--with",
        &companion,
        "--",
        report(),
    ];
    lameduck(&args, |init| {
        init.line(" waiting targets=tcp://127.0.0.1:7000 ");
        let _database = TcpListener::bind("127.0.0.1:7000").unwrap();
        ready(init, 2);
        let place = |text: &str| {
            init.seen.iter().position(|line| line.contains(text)).unwrap_or_else(|| panic!("{text}: {:#?}", init.seen))
        };
        assert!(
            place("ready=tcp://127.0.0.1:7000") < place(" before ") && place("message=ended") < place(" start service=report-2 ")
        );
        assert!(place("ready=tcp://127.0.0.1:7001") < place(" start service=report "), "{:#?}", init.seen);
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn a_program_that_is_not_there_is_found_before_anything_starts() {
    for (options, program) in
        [(["--with", "nosuch-a"], "nosuch-a"), (["--before", "nosuch-b"], "nosuch-b"), (["--on-stop", "nosuch-c"], "nosuch-c")]
    {
        lameduck(&[&["--before", "echo before"], &options[..], &["--", "echo", "main"]].concat(), move |init| {
            assert_eq!(init.exit(), 127, "{:#?}", init.seen);
            assert!(
                init.seen.iter().any(|line| line.starts_with(&format!("lameduck: cannot run \"{program}\": "))),
                "{:#?}",
                init.seen
            );
            assert!(!init.seen.iter().any(|line| line == "main" || line == "before"), "{:#?}", init.seen);
        });
    }
    lameduck(&["--with", "echo companion", "--", "nosuch-main"], |init| {
        assert_eq!(init.exit(), 127);
        assert!(!init.seen.iter().any(|line| line == "companion"), "{:#?}", init.seen);
    });
}

#[test]
fn deaths_and_signals_while_the_main_command_is_waited_for() {
    let waits = ["--wait-for", "tcp://127.0.0.1:7000", "--wait-timeout", "60s"];
    // A companion ends: so does everything, and the main command is never started.
    let (a, b) = (service("exit:0"), format!("{} --on USR1=exit:3", report()));
    lameduck(&[&waits[..], &["--with", &a, "--with", &b, "--", "echo", "main"]].concat(), |init| {
        ready(init, 2);
        let pid = process(init, "report-2");
        signal_to(pid, 10);
        assert_eq!(init.exit(), 3, "{:#?}", init.seen);
        assert_eq!(services(init, "stopping"), ["report"]);
        assert!(!init.seen.iter().any(|line| line == "main"));
    });
    // A stop signal: companions are stopped, and that is all.
    for (signal, code) in [(TERM, 0), (INT, 130)] {
        let (a, b) = (service("exit:9"), service("exit:9"));
        lameduck(&[&waits[..], &["--with", &a, "--with", &b, "--", "echo", "main"]].concat(), move |init| {
            ready(init, 2);
            init.signal(signal);
            assert_eq!(init.exit(), code, "{:#?}", init.seen);
            assert_eq!(services(init, "stopping"), ["report-2", "report"]);
            assert!(!init.seen.iter().any(|line| line == "main"));
        });
    }
    // An expendable one: nothing.
    let companion = format!("-{} --on USR1=exit:3", report());
    lameduck(&[&waits[..], &["--with", &companion, "--", report(), "--on", "TERM=exit:2"]].concat(), |init| {
        ready(init, 1);
        let pid = process(init, "report-2");
        signal_to(pid, 10);
        init.line("message=\"report-2 exited with 3\"");
        let _database = TcpListener::bind("127.0.0.1:7000").unwrap();
        ready(init, 2);
        let asked = Instant::now();
        init.signal(TERM);
        assert_eq!(init.exit(), 2, "{:#?}", init.seen);
        assert!(asked.elapsed() < SLACK, "nobody waits for the one that has ended: {:?}", asked.elapsed());
    });
    // In vain.
    let companion = service("exit:0");
    lameduck(
        &["--wait-for", "tcp://127.0.0.1:7000", "--wait-timeout", "1s", "--with", &companion, "--", "echo", "main"],
        |init| {
            assert_eq!(init.exit(), 69, "{:#?}", init.seen);
            assert_eq!(field(&init.line(" exit "), "app"), "the app was not started");
            assert!(init.seen.iter().any(|line| line.contains("cannot start: tcp://127.0.0.1:7000")), "{:#?}", init.seen);
            assert_eq!(services(init, "stopping"), ["report"]);
        },
    );
}

#[test]
fn on_stop_runs_at_the_stop_signal_and_is_waited_for() {
    lameduck(&["--on-stop", "sh -c 'echo deregistering; sleep 1; echo deregistered'", "--", report()], |init| {
        ready(init, 1);
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
        let place =
            |text: &str| init.seen.iter().position(|line| line == text).unwrap_or_else(|| panic!("{text}: {:#?}", init.seen));
        assert!(place("deregistering") < place("deregistered") && place("deregistered") < place("got TERM"), "{:#?}", init.seen);
    });
    // Its failure is a warning, and holds up nothing.
    lameduck(&["--on-stop", "sh -c 'exit 4'", "--", report()], |init| {
        ready(init, 1);
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
        assert!(init.line(" warning ").contains("exited with 4"), "{:#?}", init.seen);
    });
    // The time for waiting is up: 6 s less the margin of 0.6 s, less a third for the stop.
    lameduck(&["--grace-period", "6s", "--on-stop", "sleep 1000", "--", report()], |init| {
        ready(init, 1);
        let asked = Instant::now();
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert_eq!(field(&stopping, "because"), "the time for waiting was up");
        assert!(asked.elapsed().as_secs_f64() >= 3.4, "{:?}", asked.elapsed());
        assert_eq!(init.exit(), 0);
        assert!(asked.elapsed().as_secs_f64() < 6.0 + SLACK.as_secs_f64(), "{:?}", asked.elapsed());
    });
}

/// The main command has our input; all others find it empty.
#[test]
fn only_the_main_command_reads() {
    let argv = [
        crate::LAMEDUCK,
        "--with",
        "-sh -c 'cat; echo companion read to the end'",
        "--",
        "sh",
        "-c",
        "read line; echo main read $line; sleep 1000",
    ];
    crate::in_own_network(move || {
        let mut init = crate::Pid1::spawn(&argv, |command| {
            let (read, write) = std::io::pipe().unwrap();
            std::io::Write::write_all(&mut &write, b"a-line\n").unwrap();
            command.stdin(read);
        });
        init.app_line("companion read to the end");
        init.app_line("main read a-line");
        init.signal(TERM);
        assert_eq!(init.exit(), 0, "{:#?}", init.seen);
    });
}

/// `php-fpm & nginx & wait`, inline and as an image's entrypoint.
#[test]
fn a_script_that_runs_several_programs_gets_a_hint() {
    let path = std::env::temp_dir().join(format!("lameduck-entrypoint-{}.sh", std::process::id()));
    std::fs::write(&path, "#!/bin/sh\nsleep 1000 &\necho ready pid=script\nwait\n").unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for command in [&["sh", "-c", "sleep 1000 & echo ready pid=script; wait"][..], &[path.to_str().unwrap()]] {
        lameduck(&[&["--"], command].concat(), |init| {
            ready(init, 1);
            assert!(init.line(" warning ").contains("--with 'sleep 1000' makes it a companion"), "{:#?}", init.seen);
            init.signal(TERM);
            init.exit();
        });
    }
}
