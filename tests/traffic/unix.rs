//! Unix sockets, and UDP, which has nothing to see.

use super::*;
use std::os::unix::net::UnixStream;

/// A name of its own for each test: they share a file system.
fn path(name: &str) -> String {
    let path = std::env::temp_dir().join(format!("lameduck-{name}-{}.sock", std::process::id())).to_str().unwrap().to_owned();
    let _ = fs::remove_file(&path);
    path
}

fn ask_unix(path: &str, seconds: f32) -> thread::JoinHandle<std::io::Result<String>> {
    let mut stream = UnixStream::connect(path).expect("a connection");
    stream.write_all(format!("GET /{seconds} HTTP/1.0\r\n\r\n").as_bytes()).expect("a request sent");
    thread::spawn(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })
}

fn holds_for_a_request_over_unix(name: &str, before: &'static [&str], how: &'static str, queued: &'static str) {
    let path = path(name);
    in_own_network(move || {
        let mut argv = before.to_vec();
        argv.extend([LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, &path, "0", how]);
        let mut init = Pid1::start(&argv);
        init.line("ready");
        let first = ask_unix(&path, 3.0);
        init.line("asked /3");
        // Longer than the longest pause between two looks.
        let second = ask_unix(&path, 1.5);
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "unix"), field(&begun, "queued")), (&path[..], queued), "{begun}");
        answered(first);
        answered(second);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!((field(&exit, "finished"), field(&exit, "cut")), ("2", "0"), "{exit}");
        let _ = fs::remove_file(&path);
    });
}

#[test]
fn a_request_over_a_unix_socket_is_in_flight() {
    holds_for_a_request_over_unix("threads", &[], "", "0");
}

#[test]
fn so_is_one_in_its_queue() {
    holds_for_a_request_over_unix("queue", &[], "one", "1");
}

#[test]
fn by_proc_where_netlink_is_refused() {
    holds_for_a_request_over_unix("proc", &[PYTHON, WITHOUT_NETLINK], "", "0");
}

/// A front end with a pool of idle connections to its back end, both ours: that pool is no work, and its requests are seen in front.
#[test]
fn connections_between_the_apps_own_processes_are_not_work() {
    let path = path("pool");
    in_own_network(move || {
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", POOL, "8080", &path]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 2.5);
        init.line("asked");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "unix"), path);
        answered(request);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert!(seconds(field(&stopping, "after")) < 6.0, "{stopping}");
        assert_eq!(init.exit(), 0);
        let _ = fs::remove_file(&path);
    });
}

#[test]
fn udp_is_held_for_the_delay_and_said() {
    in_own_network(|| {
        let program = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('127.0.0.1', 5353)); print('ready', flush=True); s.recv(9)";
        let mut init = Pid1::start(&[LAMEDUCK, "--grace-period", "12s", "--", PYTHON, "-c", program]);
        init.app_line("ready");
        init.signal(TERM);
        init.line("the app listens on UDP 5353: UDP and QUIC have no connections to watch");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the delay was over\""), "{stopping}");
        // Half of what 12 s, less a margin of 1.2 s and 4 s for the stop, leave.
        assert!((3.4..5.0).contains(&seconds(field(&stopping, "after"))), "{stopping}");
        assert_eq!(init.exit(), 0);
    });
}
