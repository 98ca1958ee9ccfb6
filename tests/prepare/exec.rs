//! `lameduck exec`: prepares, then is the command.

use crate::Stage;
use crate::support::{CALLER, LAMEDUCK, PYTHON, inherited, report};

#[test]
fn the_command_has_our_pid_and_nothing_of_us_is_left() {
    let stage = Stage::new();
    let look = "echo app $$; cat /proc/[0-9]*/comm; tr '\\0' ' ' < /proc/$$/cmdline; echo";
    stage.lameduck(&[], &["exec", "--", "sh", "-c", look]).is(0, &["app 1", "sh", &format!("sh -c {look} ")]);
    // Behind another init, or at the end of an entrypoint script: not PID 1.
    let script = "echo script $$; exec \"$@\"";
    let command = ["sh", "-c", "sh -c \"$0\" sh \"$@\"; exit $?", script, LAMEDUCK, "exec", "--", "sh", "-c", "echo app $$"];
    let ended = stage.run(&[], &command);
    let pid = |who: &str| ended.said().iter().find_map(|line| line.strip_prefix(who)?.trim().parse::<i32>().ok());
    assert!(ended.code == 0 && pid("script").is_some_and(|pid| pid > 1), "{:#?}", ended.lines);
    assert_eq!(pid("script"), pid("app"), "{:#?}", ended.lines);
}

#[test]
fn its_end_is_the_commands_own() {
    let stage = Stage::new();
    for (command, code) in [
        (&["sh", "-c", "exit 7"][..], 7),
        (&["true"], 0),
        (&["/no/such"], 127),
        (&["no-such-program"], 127),
        (&["/etc/passwd"], 126),
        (&["/"], 126),
        (&["/etc/passwd/x"], 127),
    ] {
        let ended = stage.lameduck(&[], &[&["exec", "--"], command].concat());
        assert_eq!(ended.code, code, "{command:?}: {:#?}", ended.lines);
        let complaints = ended.complaints();
        let expected = usize::from(code > 7);
        assert_eq!(complaints.len(), expected, "{command:?}: {:#?}", ended.lines);
        assert!(complaints.iter().all(|line| line.starts_with("lameduck: cannot run ")), "{:#?}", ended.lines);
    }
    // Killed by a signal, behind another init: as the shell sees it.
    let killed = ["sh", "-c", "\"$@\"; exit $?", "sh", LAMEDUCK, "exec", "sh", "-c", "kill -9 $$"];
    let ended = stage.run(&[], &killed);
    assert_eq!(ended.code, 137, "{:#?}", ended.lines);
    assert_eq!(stage.lameduck(&[], &["exec"]).code, 64);
}

fn caller(mask: &[i32], ignored: &[i32], pending: &[i32], command: &[&str]) -> Vec<String> {
    let numbers = |set: &[i32]| set.iter().map(i32::to_string).collect::<Vec<_>>().join(",");
    let start = [PYTHON, "-c", CALLER, &numbers(mask), &numbers(ignored), &numbers(pending), "--"];
    start.iter().chain(command).map(|word| (*word).to_owned()).collect()
}

fn run(stage: &Stage, argv: &[String]) -> crate::Ended {
    stage.run(&[], &argv.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn the_callers_mask_and_ignored_set_reach_it_exactly() {
    let stage = Stage::new();
    let all: Vec<i32> = (1..=64).filter(|n| ![9, 19].contains(n)).collect();
    let bits = |set: &[i32]| format!("{:016x}", set.iter().map(|n| 1u64 << (n - 1)).sum::<u64>());
    let cases: [(&[i32], &[i32]); 7] = [
        (&[], &[]),
        (&[], &[13]),
        (&[], &[17]),
        (&[32, 33, 34], &[1]),
        (&[1, 15, 17, 64], &[2, 3, 32, 35]),
        (&all, &[]),
        (&[], &all),
    ];
    for (mask, ignored) in cases {
        let ended = run(&stage, &caller(mask, ignored, &[], &[LAMEDUCK, "exec", "--", "cat", "/proc/self/status"]));
        for line in [format!("SigBlk:\t{}", bits(mask)), format!("SigIgn:\t{}", bits(ignored))] {
            assert!(ended.lines.contains(&line), "not {line:?} but {:#?}", ended.lines);
        }
    }
}

/// 3 and 7 are the caller's; none is ours. And those that were closed are closed.
#[test]
fn descriptors_are_those_inherited() {
    let stage = Stage::new();
    stage.file("app.tmpl", "text\n");
    let options = "--template app.tmpl:app.conf --user 4321:4322";
    let script = format!("exec 3</dev/null 7</dev/null; exec \"$0\" exec {options} -- \"$@\"");
    let mut pid1 = stage.start(&[], &["sh", "-c", &script, LAMEDUCK, report()]);
    let ready = pid1.app_line("ready ");
    let field = |key: &str| ready.split(key).nth(1).unwrap().split(' ').next().unwrap().to_owned();
    assert_eq!(field("fds="), inherited(&[3, 7]), "{ready}");
    assert_eq!((field("blocked=").as_str(), field("pid=").as_str(), field("uid=").as_str()), ("none", "1", "4321"), "{ready}");
    pid1.signal(15);
    pid1.app_line("got TERM");
    assert_eq!(pid1.exit(), 0);
    let script = "exec \"$0\" exec sh -c '[ -e /proc/self/fd/0 ]; echo stdin $?' <&-";
    stage.run(&[], &["sh", "-c", script, LAMEDUCK]).is(0, &["stdin 1"]);
}

#[test]
fn a_stop_signal_that_waits_at_the_start_means_that_it_is_never_run() {
    let stage = Stage::new();
    for (signal, started) in [(15, false), (10, true)] {
        let command = [LAMEDUCK, "exec", "--", "touch", "started"];
        let ended = run(&stage, &caller(&[signal], &[], &[signal], &command));
        assert_eq!((ended.code, stage.has("started")), (0, started), "{signal}: {:#?}", ended.lines);
    }
}

/// The environment as it was, and what was gained.
#[test]
fn the_environment_gains_what_lameduck_gives() {
    let stage = Stage::new();
    let variables = [("LAMEDUCK_CPU_REQUEST_MILLIS", "2600"), ("OWN", "a b"), ("EMPTY", "")];
    let ended = stage.lameduck(&variables, &["exec", "--workers-env", "GOMAXPROCS", "env"]);
    let mut said = ended.said();
    said.sort_unstable();
    let expected = [
        "EMPTY=",
        "GOMAXPROCS=3",
        "LAMEDUCK_CPU_REQUEST_MILLIS=2600",
        "LAMEDUCK_WORKERS=3",
        "OWN=a b",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    ];
    assert_eq!((ended.code, said), (0, expected.to_vec()), "{:#?}", ended.lines);
}
