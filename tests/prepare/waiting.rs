//! `--wait-for`: what is waited for comes by the test's hand, after lameduck was seen to wait.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::UnixListener;
use std::thread;

use crate::support::{LAMEDUCK, Pid1, eventually};
use crate::{Stage, in_own_network};

const INT: i32 = 2;
const USR1: i32 = 10;
const TERM: i32 = 15;

/// Says that it runs, and leaves a trace.
const APP: [&str; 4] = ["--", "sh", "-c", "touch started; echo started"];

fn waits(stage: &Stage, verb: &[&str], settings: &[&str]) -> Pid1 {
    let mut pid1 = stage.start(&[], &[&[LAMEDUCK], verb, settings, &APP].concat());
    pid1.line(" waiting ");
    pid1
}

fn starts(stage: &Stage, mut pid1: Pid1) {
    pid1.app_line("started");
    assert_eq!(pid1.exit(), 0, "{:#?}", pid1.seen);
    fs::remove_file(stage.path("started")).expect("started");
}

/// So many connections of this network were refused.
fn refused_connections() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/net/snmp").expect("/proc/net/snmp");
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(|line| line.split_whitespace());
    let (names, mut values) = (rows.next().expect("names"), rows.next().expect("values"));
    names.zip(&mut values).find(|(name, _)| *name == "AttemptFails").expect("AttemptFails").1.parse().expect("a number")
}

#[test]
fn tcp_that_comes_later() {
    in_own_network(|| {
        let stage = Stage::new();
        for (port, verb, host) in [(7001, &[][..], "127.0.0.1"), (7002, &["exec"], "localhost"), (7003, &[], "[::1]")] {
            let before = refused_connections();
            let pid1 = waits(&stage, verb, &["--wait-for", &format!("tcp://{host}:{port}")]);
            eventually("an attempt was refused", || (refused_connections() > before).then_some(()));
            assert!(!stage.has("started"));
            let listener = TcpListener::bind((host.trim_matches(['[', ']']), port)).expect("a listener");
            starts(&stage, pid1);
            drop(listener);
        }
    });
}

/// What is there already is not waited for: by variable too.
#[test]
fn what_is_there_already_starts_the_app_at_once() {
    in_own_network(|| {
        let stage = Stage::new();
        let _tcp = TcpListener::bind(("127.0.0.1", 7001)).expect("a listener");
        let _unix = UnixListener::bind(stage.path("app.sock")).expect("a listener");
        let unix = format!("unix://{}", stage.path("app.sock"));
        let settings = [("--wait-for", "tcp://127.0.0.1:7001"), ("--wait-for", unix.as_str()), ("--wait-timeout", "50s")];
        stage.both_ways(&settings, &APP[1..], |ended| {
            ended.is(0, &["started"]);
            let waiting = ended.lines.iter().find(|line| line.contains(" waiting ")).expect("an event");
            assert!(waiting.contains("timeout=50s") && waiting.contains("tcp://127.0.0.1:7001 unix:///"), "{waiting}");
            assert!(ended.lines.iter().any(|line| line.contains("2 of 2")), "{:#?}", ended.lines);
        });
    });
}

#[test]
fn a_unix_socket_that_nobody_holds_is_not_there() {
    in_own_network(|| {
        let stage = Stage::new();
        let path = stage.path("app.sock");
        // What a dead server left.
        drop(UnixListener::bind(&path).expect("a listener"));
        let mut pid1 = waits(&stage, &[], &["--wait-for", &format!("unix://{path}"), "--wait-timeout", "1s"]);
        assert_eq!(pid1.exit(), 69, "{:#?}", pid1.seen);
        assert!(pid1.line("lameduck: cannot start: ").contains("Connection refused"), "{:#?}", pid1.seen);
        let pid1 = waits(&stage, &[], &["--wait-for", &format!("unix://{path}")]);
        assert!(!stage.has("started"));
        fs::remove_file(&path).expect("the old one");
        let _listener = UnixListener::bind(&path).expect("a listener");
        starts(&stage, pid1);
    });
}

/// Answers each request with the next of these, the last one for ever, and says so first.
fn http(port: u16, answers: &'static [&'static str]) {
    let listener = TcpListener::bind(("127.0.0.1", port)).expect("a listener");
    thread::spawn(move || {
        for number in 0.. {
            let Ok((mut connection, _)) = listener.accept() else { return };
            let mut request = Vec::new();
            let mut buffer = [0; 1024];
            while !request.ends_with(b"\r\n\r\n") {
                match connection.read(&mut buffer) {
                    Ok(0) | Err(_) => break,
                    Ok(length) => request.extend(&buffer[..length]),
                }
            }
            assert!(request.starts_with(b"GET /ready?x=1 HTTP/1.0\r\n"), "{:?}", String::from_utf8_lossy(&request));
            let answer = answers[number.min(answers.len() - 1)];
            let _ = connection.write_all(format!("HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n").as_bytes());
        }
    });
}

#[test]
fn http_must_answer_well() {
    in_own_network(|| {
        let stage = Stage::new();
        http(7001, &["503 Service Unavailable", "500 No", "302 Found\r\nLocation: /", "404 Not Found", "204 No Content"]);
        starts(&stage, waits(&stage, &[], &["--wait-for", "http://127.0.0.1:7001/ready?x=1"]));
        http(7002, &["503 Service Unavailable"]);
        let settings = ["--wait-for", "http://127.0.0.1:7002/ready?x=1", "--wait-timeout", "1s"];
        let mut pid1 = waits(&stage, &[], &settings);
        assert_eq!(pid1.exit(), 69, "{:#?}", pid1.seen);
        let said = pid1.line("lameduck: cannot start: ");
        assert!(said.contains("http://127.0.0.1:7002/ready?x=1 (it answers 503) did not come within 1s"), "{said}");
        assert!(!stage.has("started"));
    });
}

#[test]
fn of_several_the_last_one_starts_the_app() {
    in_own_network(|| {
        let stage = Stage::new();
        let unix = stage.path("app.sock");
        let all = format!("tcp://127.0.0.1:7001,unix://{unix},http://127.0.0.1:7002/ready?x=1");
        let mut pid1 = waits(&stage, &[], &["--wait-for", &all]);
        let _unix = UnixListener::bind(&unix).expect("a listener");
        assert!(pid1.line("1 of 3").contains("unix://"), "{:#?}", pid1.seen);
        http(7002, &["200 OK"]);
        assert!(pid1.line("2 of 3").contains("http://"), "{:#?}", pid1.seen);
        assert!(!stage.has("started"), "started with two of three");
        let _tcp = TcpListener::bind(("127.0.0.1", 7001)).expect("a listener");
        assert!(pid1.line("3 of 3").contains("tcp://"), "{:#?}", pid1.seen);
        starts(&stage, pid1);
    });
}

/// 69, one line that says what is missing and why; what came is not in it.
#[test]
fn in_vain() {
    in_own_network(|| {
        let stage = Stage::new();
        let _there = TcpListener::bind(("127.0.0.1", 7001)).expect("a listener");
        let none = format!("unix://{}", stage.path("none.sock"));
        let settings = [
            ("--wait-for", "tcp://127.0.0.1:7001"),
            ("--wait-for", "tcp://127.0.0.1:7002"),
            ("--wait-for", none.as_str()),
            ("--wait-timeout", "300ms"),
        ];
        let said = format!(
            "lameduck: cannot start: tcp://127.0.0.1:7002 (Connection refused (os error 111)), {none} (No such file or directory (os error \
             2)) did not come within 300ms; nothing was started; see --wait-for and --wait-timeout"
        );
        stage.refuses(&settings, 69, &[&said]);
    });
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let stage = Stage::new();
    for text in ["db:5432", "https://db", "tcp://db", "unix://x.sock", "udp://db:1"] {
        stage.refuses(&[("--wait-for", text)], 64, &[&format!("cannot read what to wait for {text:?} from ")]);
    }
    stage.refuses(&[("--wait-for", "http://u:p@db/")], 64, &["cannot read what to wait for \"http://***@db/\" from "]);
    stage.refuses(&[("--wait-timeout", "soon")], 64, &["cannot read wait timeout \"soon\" from "]);
}

/// Long before the time is up.
#[test]
fn a_stop_signal_ends_it_and_the_app_is_never_started() {
    in_own_network(|| {
        let stage = Stage::new();
        for (verb, options, signal, code) in [
            (&[][..], &[][..], TERM, 0),
            (&["exec"], &[], TERM, 0),
            (&[], &[], INT, 130),
            (&["exec"], &[], INT, 130),
            (&[], &["--stop-on", "INT"], INT, 0),
        ] {
            let settings = [&["--wait-for", "tcp://127.0.0.1:7001", "--wait-timeout", "10m"], options].concat();
            let mut pid1 = waits(&stage, verb, &settings);
            pid1.signal(signal);
            assert_eq!(pid1.exit(), code, "{verb:?} {options:?} {signal}: {:#?}", pid1.seen);
            pid1.line("came before the start: nothing was started");
            assert!(!stage.has("started"), "{verb:?} {options:?} {signal}");
        }
    });
}

/// There is nobody yet whom another signal could be meant for.
#[test]
fn another_signal_does_not_end_it() {
    in_own_network(|| {
        let stage = Stage::new();
        let mut pid1 = waits(&stage, &[], &["--wait-for", "tcp://127.0.0.1:7001"]);
        let before = refused_connections();
        pid1.signal(USR1);
        eventually("it still tries", || (refused_connections() > before).then_some(()));
        assert!(pid1.is_running());
        let _listener = TcpListener::bind(("127.0.0.1", 7001)).expect("a listener");
        starts(&stage, pid1);
    });
}

#[test]
fn a_name_that_nobody_knows() {
    in_own_network(|| {
        let stage = Stage::new();
        let settings = ["--wait-for", "tcp://no-such-host.invalid:80", "--wait-timeout", "1s"];
        let mut pid1 = waits(&stage, &[], &settings);
        assert_eq!(pid1.exit(), 69, "{:#?}", pid1.seen);
        let said = pid1.line("lameduck: cannot start: ");
        assert!(said.contains("tcp://no-such-host.invalid:80 (") && said.contains("did not come within 1s"), "{said}");
        assert!(!stage.has("started"));
    });
}

/// A name server that is there and says nothing: the C library waits, lameduck does not.
#[test]
fn a_name_server_that_never_answers_holds_nothing_up() {
    in_own_network(|| {
        let stage = Stage::new();
        let server = UdpSocket::bind(("127.0.0.1", 53)).expect("a name server");
        stage.file("resolv.conf", "nameserver 127.0.0.1\n");
        let scene = ["sh", "-c", "mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"", "sh"];
        let asks = |timeout| {
            let settings = [LAMEDUCK, "--wait-for", "tcp://db.example:80", "--wait-timeout", timeout];
            let pid1 = stage.start(&[], &[&scene[..], &settings, &APP].concat());
            let mut question = [0; 512];
            let (length, _) = server.recv_from(&mut question).expect("a question");
            assert!(question[..length].windows(7).any(|part| part == b"example"), "{:?}", &question[..length]);
            pid1
        };
        let mut pid1 = asks("10m");
        pid1.signal(TERM);
        assert_eq!(pid1.exit(), 0, "{:#?}", pid1.seen);
        let mut pid1 = asks("3s");
        assert_eq!(pid1.exit(), 69, "{:#?}", pid1.seen);
        assert!(pid1.line("lameduck: cannot start: ").contains("(no answer within 2s)"), "{:#?}", pid1.seen);
        assert!(!stage.has("started"));
    });
}

/// It accepts, and says nothing: each attempt ends, and so does the wait.
#[test]
fn an_http_server_that_never_answers() {
    in_own_network(|| {
        let stage = Stage::new();
        let listener = TcpListener::bind(("127.0.0.1", 7001)).expect("a listener");
        let mut pid1 = waits(&stage, &[], &["--wait-for", "http://127.0.0.1:7001/", "--wait-timeout", "10m"]);
        let silent = listener.accept().expect("a connection");
        pid1.signal(TERM);
        assert_eq!(pid1.exit(), 0, "{:#?}", pid1.seen);
        drop(silent);
        let mut pid1 = waits(&stage, &[], &["--wait-for", "http://127.0.0.1:7001/", "--wait-timeout", "3s"]);
        assert_eq!(pid1.exit(), 69, "{:#?}", pid1.seen);
        assert!(pid1.line("lameduck: cannot start: ").contains("(no answer within 2s)"), "{:#?}", pid1.seen);
        // It tried anew.
        assert!(listener.accept().is_ok() && listener.accept().is_ok());
        assert!(!stage.has("started"));
    });
}
