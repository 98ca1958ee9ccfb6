//! What cannot be rehearsed: one line that says what to do, and an exit code.

use std::net::TcpListener;

use super::*;

/// It ends with this code, and one line that begins with this; nothing is on standard output.
#[track_caller]
fn refuses(code: i32, begins: &str, command: &mut Command) {
    let output = command.output().expect("it runs");
    let rehearsed = rehearsed(output, Value::Null);
    assert_eq!((rehearsed.code, rehearsed.table.as_str()), (code, ""), "{rehearsed:#?}");
    let mut lines = rehearsed.said.lines();
    let line = lines.next().unwrap_or_default();
    assert!(line.starts_with(&format!("lameduck-rehearse: {begins}")), "{rehearsed:#?}");
    // What the server said may follow.
    assert!(lines.all(|line| line.starts_with("  | ")), "{rehearsed:#?}");
}

#[test]
fn what_is_typed_wrong() {
    let here = "http://127.0.0.1:8080/";
    let table: [(&str, &[&str]); 18] = [
        ("cannot read --rate fast", &["--rate", "fast"]),
        ("cannot read --rate 0", &["--rate", "0"]),
        ("cannot read --propagate 6s..2s", &["--propagate", "6s..2s"]),
        ("cannot read --grace-period soon", &["--grace-period", "soon"]),
        ("cannot read --stop-signal TREM", &["--stop-signal", "TREM"]),
        ("cannot read --against tinny", &["--against", "tinny"]),
        ("cannot read --network ours", &["--network", "ours"]),
        ("cannot read --seed x", &["--seed", "x"]),
        ("cannot read --max-lost -1", &["--max-lost=-1"]),
        ("cannot use --probe-period", &["--probe-period", "1ms"]),
        ("cannot read the command line", &["--no-such-flag"]),
        ("cannot rehearse --url alone", &["--url", here]),
        ("cannot rehearse a server without --url", &["--", "true"]),
        ("cannot rehearse example.com", &["--url", "http://example.com/", "--", "true"]),
        ("cannot read --url ftp://x/", &["--url", "ftp://x/", "--", "true"]),
        ("cannot read --url http://127.0.0.1:8080/<b>", &["--url", "http://127.0.0.1:8080/<b>", "--", "true"]),
        ("cannot read --slow-url http://127.0.0.1:8080/<x", &["--slow-url", "/<x"]),
        ("cannot use --slow-url http://localhost:9/", &["--url", here, "--slow-url", "http://localhost:9/", "--", "true"]),
    ];
    for (begins, words) in table {
        refuses(64, begins, &mut rehearsal(words));
    }
}

#[test]
fn a_server_that_never_becomes_ready() {
    let server =
        |url, words: &[&str]| rehearsal(&[&["--url", url, "--start-timeout", "1s", "--against", "none", "--"], words].concat());
    let here = "http://127.0.0.1:8080/";
    refuses(
        69,
        &format!("cannot get an answer from {here} (none): not ready after 1s: nobody listens there"),
        &mut server(here, &["sleep", "100"]),
    );
    refuses(
        69,
        &format!("cannot get an answer from {here} (none): the server ended with code 3"),
        &mut server(here, &["sh", "-c", "exit 3"]),
    );
    let python = [PYTHON, "-m", "http.server", "8080"];
    let nowhere = "http://127.0.0.1:8080/no/such/page";
    let why = format!("cannot get an answer from {nowhere} (none): it answers with an error");
    refuses(69, &why, rehearsal(&[&["--url", nowhere, "--against", "none", "--"], &python[..]].concat()).current_dir("/"));
}

#[test]
fn what_is_not_there() {
    let here = "http://127.0.0.1:8080/";
    refuses(69, "cannot find /no/such/server", &mut rehearsal(&["--url", here, "--", "/no/such/server"]));
    let empty = Place::new();
    for (words, begins) in [
        (&["--against", "tini"][..], "cannot find tini: no such program here; apt install tini"),
        (&["--against", "none,dumb-init"], "cannot find dumb-init"),
        (&["--url", here, "--image", "x"], "cannot find podman or docker"),
        (&["--url", here, "--image", "x", "--engine", "nerdctl"], "cannot find nerdctl"),
    ] {
        let mut command = Command::new(REHEARSE);
        refuses(69, begins, command.args(words).env("PATH", &empty.0));
    }
}

/// Before anything runs, and not after a minute of it.
#[test]
fn a_report_that_cannot_be_written() {
    for option in ["--json", "--html"] {
        refuses(69, "cannot write /no/such/place/report", &mut rehearsal(&[option, "/no/such/place/report"]));
    }
}

#[test]
fn a_port_that_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let url = format!("http://{address}/");
    let begins = format!("cannot start the server on {address}: somebody listens there already");
    refuses(69, &begins, &mut rehearsal(&["--network", "host", "--url", &url, "--", "sleep", "100"]));
}

#[test]
fn lameducks_own_refusal_is_handed_on() {
    let begins = "cannot get an answer from http://127.0.0.1:8080/ (lameduck --delay 1h)";
    refuses(64, begins, &mut rehearsal(&["--against", "lameduck --delay 1h"]));
}

#[test]
fn no_namespaces_and_no_root() {
    // Root of a user namespace that allows no further one, without a capability.
    let place = Place::new();
    let program = place.path("rehearse");
    fs::copy(REHEARSE, &program).expect("a copy");
    let story = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-all --inh-caps=-all \"$0\"";
    let mut command = Command::new("unshare");
    refuses(69, "cannot make namespaces: ", command.args(["--user", "--map-root-user", "sh", "-c", story, &program]));
}
