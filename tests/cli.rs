//! What is said about bad input, and that nothing was started.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

fn lameduck(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_lameduck"))
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .envs(variables.iter().copied())
        .output()
        .expect("lameduck runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// One line, exit 64, and the command did not run: it would have printed.
#[test]
fn bad_input_is_refused_with_one_line() {
    for (arguments, variables, part) in [
        (&["--bogus"][..], &[][..], "cannot read option --bogus"),
        (&["--delay", "soon"], &[], "cannot read delay \"soon\" from --delay"),
        (&["--delay"], &[], "--delay"),
        (&[], &[("LAMEDUCK_QUIET_PERIOD", "-1s")], "cannot read quiet period \"-1s\" from LAMEDUCK_QUIET_PERIOD"),
        (&["--stop-signal", "99"], &[], "cannot read stop signal \"99\" from --stop-signal"),
        (&["--rewrite", "TERM:INT"], &[], "--stop-signal"),
        (&["--port", "http"], &[], "cannot read port \"http\" from --port"),
        (&["--ignore-peer", "10.0.0.0/40"], &[], "cannot read peer \"10.0.0.0/40\" from --ignore-peer"),
        (
            &[],
            &[("LAMEDUCK_CPU_REQUEST", "0.5.0")],
            "cannot read CPU request \"0.5.0\" from LAMEDUCK_CPU_REQUEST: not a Kubernetes quantity (try 500m or 2)",
        ),
        (&[], &[("LAMEDUCK_CPU_REQUEST_MILLIS", "500m")], "LAMEDUCK_CPU_REQUEST_MILLIS"),
        (
            &["--delay", "20s", "--stop-timeout", "9s"],
            &[],
            "delay 20s (--delay) + stop timeout 9s (--stop-timeout) + margin 1s > grace period 10s (default: Docker, podman and Compose kill after 10s)",
        ),
        (&["--workers-min", "3", "--workers-max", "2"], &[], "--workers-min 3 > --workers-max 2"),
    ] {
        let all: Vec<&str> = arguments.iter().copied().chain(["echo", "started"]).collect();
        // "--delay" alone must end the line to lack its value.
        let all = if arguments == ["--delay"] { &all[..1] } else { &all[..] };
        let output = lameduck(all, variables);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(
            error.starts_with("lameduck: cannot ") && error.lines().count() == 1 && error.contains(part),
            "{arguments:?}: {error}"
        );
        assert_eq!(text(&output.stdout), "", "{arguments:?}");
    }
}

/// Whoever stops the container kills it then; the start event says what was taken.
#[test]
fn the_default_grace_period_is_what_the_platform_gives() {
    for (options, variables, said) in [
        (&[][..], &[][..], "grace_period=10s grace_period_from=\"default: Docker, podman and Compose kill after 10s\""),
        (&[], &[("KUBERNETES_SERVICE_HOST", "10.96.0.1")], "grace_period=30s grace_period_from=\"default: Kubernetes' own\""),
        (&["--grace-period", "20s"], &[], "grace_period=20s grace_period_from=--grace-period"),
    ] {
        let error = text(&lameduck(&[options, &["--", "true"]].concat(), variables).stderr);
        assert!(error.lines().next().is_some_and(|line| line.contains(said)), "{error}");
        assert!(!error.contains(" warn "), "{error}");
    }
}

#[test]
fn no_command() {
    let output = lameduck(&[], &[]);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(64), 1));
    assert!(error.contains("`command:` replaces the image's CMD"), "{error}");
}

#[test]
fn what_cannot_run() {
    for (command, code, part) in [
        ("/no/such", 127, "No such file"),
        ("no-such-program", 127, "No such file"),
        ("/etc/passwd", 126, "Permission denied"),
        ("/", 126, "Permission denied"),
        ("/etc/passwd/x", 127, "Not a directory"),
    ] {
        let output = lameduck(&[command], &[]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command}: {error}");
        assert!(error.lines().count() == 1 && error.starts_with("lameduck: cannot run ") && error.contains(part), "{error}");
    }
}

#[test]
fn help_and_version_go_to_stdout() {
    let help = lameduck(&["--help"], &[]);
    assert!(help.status.success() && help.stderr.is_empty());
    let help = text(&help.stdout);
    assert!(help.lines().all(|line| line.len() <= 100), "wider than 100 columns");
    assert!(help.contains("Examples:") && help.contains("--grace-period <DURATION>"));
    let version = lameduck(&["--version"], &[]);
    assert_eq!(text(&version.stdout), concat!("lameduck ", env!("CARGO_PKG_VERSION"), "\n"));
    let quiet = lameduck(&["-h"], &[]);
    assert_eq!(text(&quiet.stdout), help);
}

#[test]
fn each_command_has_a_help_of_its_own() {
    let help = |arguments: &[&str]| {
        let output = lameduck(arguments, &[]);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}");
        text(&output.stdout)
    };
    let whole = help(&["--help"]);
    assert_eq!(help(&["help"]), whole);
    assert_eq!(help(&["version"]), help(&["--version"]));
    for (verb, shown, hidden) in [
        ("drain", "--strict", "--workers-min"),
        ("exec", "--workers-min", "--strict"),
        ("health", "--live", "--delay"),
        ("plan", "--delay", "--strict"),
        ("status", "--admin", "--delay"),
    ] {
        let own = help(&[verb, "--help"]);
        assert!(own.contains(&format!("Usage: lameduck {verb}")), "{own}");
        assert!(own.contains(&format!("      {shown}")) && !own.contains(&format!("      {hidden}")), "{verb}: {own}");
        assert!(own.len() < whole.len() && own.contains("lameduck --help"), "{own}");
        assert_eq!(help(&["help", verb]), own);
    }
}

#[test]
fn what_tini_and_dumb_init_call_otherwise_gets_a_hint() {
    for (arguments, part) in [
        (&["-g", "--", "x"][..], "--group"),
        (&["-s", "--", "x"], "subreaper"),
        (&["-e", "143", "--", "x"], "--success-code"),
        (&["-vvv", "--", "x"], "--log-level debug"),
        (&["-p", "SIGTERM", "--", "x"], "tini"),
        (&["-w", "--", "x"], "--log-level debug"),
        (&["-c", "--", "x"], "dumb-init"),
        (&["--single-child", "--", "x"], "dumb-init"),
        (&["-r", "15:3", "--", "x"], "--rewrite"),
    ] {
        let output = lameduck(arguments, &[]);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {error}");
        assert!(error.lines().count() == 1 && error.contains("there is none of that name; ") && error.contains(part), "{error}");
    }
}

#[test]
fn a_command_typed_as_one_word_is_recognised() {
    let output = lameduck(&["--", "nginx -g 'daemon off;'"], &[]);
    let error = text(&output.stderr);
    assert_eq!((output.status.code(), error.lines().count()), (Some(127), 1), "{error}");
    assert!(error.contains("that is one word") && error.contains("-- nginx -g 'daemon off;'"), "{error}");
}

/// What it says to the letter is held by src/plan/describe.rs; here it looks at this machine.
#[test]
fn plan_says_what_would_happen_and_why() {
    let output = lameduck(
        &["plan", "--grace-period", "60s", "--workers-per-cpu", "2", "--", "sh", "-c", "exec gunicorn app:app"],
        &[("LAMEDUCK_CPU_REQUEST_MILLIS", "1500"), ("LAMEDUCK_QUIET_PERIOD", "2s"), ("LAMEDUCK_DELAYS", "3s")],
    );
    assert!(output.status.success(), "{}", text(&output.stderr));
    let said = text(&output.stdout);
    for line in [
        "server        gunicorn (https://docs.gunicorn.org/en/stable/signals.html)",
        "  grace-period     1m           --grace-period",
        "  quiet-period     2s           LAMEDUCK_QUIET_PERIOD",
        "  cpu              1500m        request",
        "  count            3            by CPU: round(1500m x 2) + 0 = 3",
        "  sets             WEB_CONCURRENCY=3",
        "  LAMEDUCK_DELAYS is no setting and was ignored; did you mean LAMEDUCK_DELAY?",
    ] {
        assert!(said.lines().any(|said| said == line), "{line:?} is missing:\n{said}");
    }
    assert!(said.contains("> cpu              LAMEDUCK_CPU_REQUEST_MILLIS "), "{said}");
}

/// Who answers nobody: the question is given up after 5 s, or when somebody says so.
#[test]
fn health_and_status_end_of_a_signal_as_any_command() {
    for verb in ["health", "status"] {
        let admin = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = admin.local_addr().unwrap().to_string();
        let mut asks = Command::new(env!("CARGO_BIN_EXE_lameduck")).args([verb, "--admin", &address]).spawn().unwrap();
        let _asked = admin.accept().unwrap();
        let killed = Command::new("kill").args(["-TERM", &asks.id().to_string()]).status().unwrap();
        assert!(killed.success());
        assert_eq!(asks.wait().unwrap().signal(), Some(15), "{verb}");
    }
}

/// Where an option cannot even be read, too.
#[test]
fn no_refusal_shows_a_secret() {
    let variables = [("DB_PASSWORD", "hunter2-hunter2")];
    for arguments in [&["--group=hunter2-hunter2", "x"][..], &["--hunter2-hunter2", "x"], &["--delay", "hunter2-hunter2", "x"]] {
        let output = lameduck(arguments, &variables);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{error}");
        assert!(error.contains("***") && !error.contains("hunter2"), "{error}");
    }
}

/// Into a directory and as a file, again and again, with the same bytes, for everybody to run.
#[test]
fn install_copies_this_binary() {
    let directory = std::env::temp_dir().join(format!("lameduck-test-{}-install", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let ours = fs::read(env!("CARGO_BIN_EXE_lameduck")).unwrap();
    for (path, installed) in [(directory.clone(), "lameduck"), (directory.join("wrap"), "wrap"), (directory.clone(), "lameduck")]
    {
        let output = lameduck(&["install", path.to_str().unwrap()], &[]);
        assert_eq!((output.status.code(), text(&output.stderr), text(&output.stdout)), (Some(0), String::new(), String::new()));
        let installed = directory.join(installed);
        assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(fs::read(&installed).unwrap() == ours, "not the same bytes");
        let again = Command::new(&installed).arg("--version").output().expect("it runs");
        assert!(again.status.success());
    }
    // Nothing half-written is left beside it.
    let mut left: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["lameduck", "wrap"]);
    fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn install_says_in_one_line_what_is_wrong() {
    for (arguments, code, part) in [
        (&["install"][..], 64, "it needs one path"),
        (&["install", "/tmp/a", "/tmp/b"], 64, "it needs one path"),
        (&["install", "/nowhere/lameduck"], 78, "cannot install lameduck as /nowhere/lameduck: "),
        (&["install", "/proc/self/comm"], 78, "cannot install lameduck as /proc/self/comm: "),
        (&["install", "/dev/null"], 78, "not a plain file"),
    ] {
        let output = lameduck(arguments, &[]);
        let error = text(&output.stderr);
        assert_eq!((output.status.code(), error.lines().count()), (Some(code), 1), "{error}");
        assert!(error.starts_with("lameduck: cannot install") && error.contains(part), "{error}");
    }
}
