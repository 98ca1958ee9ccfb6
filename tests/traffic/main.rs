//! What is seen of the traffic, where it can be seen well, badly or not at all; each on a real PID 1 with a real server.

mod arrivals;
mod degraded;
mod metric;
mod ownership;
mod queue;
#[path = "../support/mod.rs"]
mod support;
mod unix;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Cgroups, LAMEDUCK, Pid1, in_own_network, listening};

const TERM: i32 = 15;
const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/server.py");
const WITHOUT_NETLINK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/without_netlink.py");
const VANISH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/vanish.py");
const POOL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/pool.py");
const METRIC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/metric.py");
const PYTHON: &str = "/usr/bin/python3";

/// Asks for `/seconds` and returns the whole answer.
fn ask(address: &str, seconds: f32) -> thread::JoinHandle<std::io::Result<String>> {
    let address: SocketAddr = address.parse().expect("an address");
    let mut stream = TcpStream::connect(address).expect("a connection");
    let request = format!("GET /{seconds} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("a request sent");
    thread::spawn(move || {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    })
}

/// One story for each case, at the same time: they mostly wait.
fn side_by_side<C: Send>(cases: impl IntoIterator<Item = C>, story: impl Fn(C) + Sync) {
    let story = &story;
    thread::scope(|scope| cases.into_iter().for_each(|case| _ = scope.spawn(move || story(case))));
}

fn answered(request: thread::JoinHandle<std::io::Result<String>>) {
    let answer = request.join().expect("the client").expect("an answer");
    assert!(answer.ends_with("answer\n"), "{answer:?}");
}

/// The value of a field in a log line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('=')).unwrap_or_else(|| panic!("no {name} in {line}"))
}

fn seconds(text: &str) -> f64 {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().expect("a number") / 1000.0,
        None => text.trim_end_matches('s').parse().expect("a number"),
    }
}

/// A request of 4 s in flight when the stop signal comes is answered, whatever is behind lameduck's eyes.
fn holds_for_a_request(before: &[&str], source: &str) {
    let before: Vec<String> = before.iter().map(|word| (*word).to_owned()).collect();
    let source = source.to_owned();
    in_own_network(move || {
        let mut argv: Vec<&str> = before.iter().map(String::as_str).collect();
        argv.extend([LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        let mut init = Pid1::start(&argv);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 4.0);
        init.line("asked");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), source);
        answered(request);
        assert_eq!(init.exit(), 0, "{:#?}", init.seen);
    });
}

#[test]
fn by_sock_diag() {
    holds_for_a_request(&[], "sock_diag");
}

#[test]
fn by_proc_net_where_netlink_is_refused() {
    holds_for_a_request(&[PYTHON, WITHOUT_NETLINK], "proc_net");
}

#[test]
fn without_proc_the_cgroup_or_all_that_listens() {
    holds_for_a_request(&["sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh"], "sock_diag");
}

#[test]
fn blind_it_keeps_the_delay() {
    in_own_network(|| {
        let blindfold = "mount -t tmpfs none /proc && exec \"$@\"";
        let mut init = Pid1::start(&[
            "sh",
            "-c",
            blindfold,
            "sh",
            PYTHON,
            WITHOUT_NETLINK,
            LAMEDUCK,
            "--delay",
            "2s",
            "--",
            PYTHON,
            "-u",
            SERVER,
            "127.0.0.1",
            "8080",
        ]);
        init.line("ready");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), "none");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the delay was over\""), "{stopping}");
        let after = seconds(field(&stopping, "after"));
        assert!((2.0..4.0).contains(&after), "{stopping}");
        assert_eq!(init.exit(), 0);
    });
}

/// A process whose first thread has exited is a zombie in /proc, and serves on.
#[test]
fn a_server_whose_first_thread_has_exited_is_alive() {
    in_own_network(|| {
        let server = format!("{PYTHON} -u {SERVER} 127.0.0.1 8080 headless; true");
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", "sh", "-c", &server]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 4.0);
        init.line("asked");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "ports"), "8080");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        answered(request);
        init.exit();
    });
}

/// Descriptors of a thread's own stand in no list but the thread's.
#[test]
fn a_listener_in_a_thread_s_own_descriptors_is_found() {
    in_own_network(|| {
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080", "unshared"]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 4.0);
        init.line("asked");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "found_by"), field(&begun, "ports")), ("descriptors", "8080"), "{begun}");
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
    });
}

/// A fixed file of an io_uring is open and stands nowhere: what waits in its accept queue is in flight all the same.
#[test]
fn a_listener_that_only_io_uring_knows_is_not_nothing() {
    in_own_network(|| {
        let app = "import ctypes, os, signal, socket; libc = ctypes.CDLL(None, use_errno=True)
s = socket.create_server(('127.0.0.1', 8080)); ring = libc.syscall(425, 8, ctypes.create_string_buffer(120))
assert ring > 0, os.strerror(ctypes.get_errno())
assert libc.syscall(427, ring, 2, ctypes.byref(ctypes.c_int(s.fileno())), 1) == 0, os.strerror(ctypes.get_errno())
s.close(); print('ready', flush=True); signal.pause()";
        let options = ["--delay", "1s", "--grace-period", "6s", "--stop-timeout", "1s"];
        let mut init = Pid1::start(&[&[LAMEDUCK], &options[..], &["--", PYTHON, "-c", app]].concat());
        init.app_line("ready");
        let request = ask("127.0.0.1:8080", 60.0);
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "ports"), "8080");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the time for waiting was up\""), "{stopping}");
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "cut"), "1");
        let _ = request.join();
    });
}

/// An ignored peer's request holds up nothing: it is cut, as asked for.
#[test]
fn ignored_peers_do_not_count() {
    in_own_network(|| {
        let mut init = Pid1::start(&[
            LAMEDUCK,
            "--delay",
            "1s",
            "--ignore-peer",
            "127.0.0.0/8",
            "--",
            PYTHON,
            "-u",
            SERVER,
            "127.0.0.1",
            "8080",
        ]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 20.0);
        init.line("asked");
        init.signal(TERM);
        assert!(seconds(field(&init.line(" stopping "), "after")) < 3.5, "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        let _ = request.join();
    });
}

/// A request nobody answers: --max-silence gives it up, the default would wait until the budget's end.
#[test]
fn max_silence() {
    in_own_network(|| {
        let mut init =
            Pid1::start(&[LAMEDUCK, "--delay", "1s", "--max-silence", "3s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 60.0);
        init.line("asked");
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"all is done but what was given up\""), "{stopping}");
        let after = seconds(field(&stopping, "after"));
        assert!((2.0..6.0).contains(&after), "{after}");
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "cut"), "1");
        let _ = request.join();
    });
}

/// A server that pushes (WebSocket, server-sent events): its client asks for nothing more, and --max-silence is about that.
#[test]
fn max_silence_ends_the_wait_for_a_client_that_only_listens() {
    in_own_network(|| {
        let mut init =
            Pid1::start(&[LAMEDUCK, "--delay", "1s", "--max-silence", "3s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        init.line("ready");
        let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
        stream.write_all(b"GET /push HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let listening = thread::spawn(move || stream.read_to_end(&mut Vec::new()));
        init.line("asked");
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"all is done but what was given up\""), "{stopping}");
        let after = seconds(field(&stopping, "after"));
        assert!((2.0..6.0).contains(&after), "{after}");
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "cut"), "1");
        let _ = listening.join();
    });
}

/// The kernel delivers all that the app had written; what it had still to write when it died is missing.
#[test]
fn an_answer_that_the_app_s_end_breaks_off_is_cut() {
    in_own_network(|| {
        let options = ["--grace-period", "6s", "--delay", "1s", "--stop-timeout", "1s", "--log-level", "debug"];
        let mut init = Pid1::start(&[&[LAMEDUCK], &options[..], &["--", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]].concat());
        init.line("ready");
        let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
        stream.write_all(b"GET /huge HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        // Slow at first: the app writes on whenever there is room. Then not at all until the app is gone, so that it waits for room when it
        // ends. Then fast: all that was written is delivered in time.
        let (gone, is_gone) = std::sync::mpsc::channel::<()>();
        let reader = thread::spawn(move || {
            let (mut piece, mut all) = (vec![0; 64 << 10], 0);
            let mut pieces = 0;
            while let Ok(length @ 1..) = stream.read(&mut piece) {
                (all, pieces) = (all + length, pieces + 1);
                let pause = if pieces < 100 { Duration::from_millis(20) } else { support::PATIENCE };
                let _ = is_gone.recv_timeout(pause);
            }
            all
        });
        init.line("asked");
        init.signal(TERM);
        init.line(" stopping ");
        let children = format!("/proc/{0}/task/{0}/children", init.pid);
        support::eventually("the app is gone", || fs::read_to_string(&children).ok()?.is_empty().then_some(()));
        init.next_line(" look ");
        drop(gone);
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert!(exit.contains(" flushing="), "{exit}");
        assert_eq!((field(&exit, "finished"), field(&exit, "cut"), field(&exit, "cut_on")), ("0", "1", "8080"), "{exit}");
        let read = reader.join().unwrap();
        assert!(read < 64_000_000, "{read}");
    });
}

/// Time is up while a request is in flight: the app is told all the same, and the request is counted as cut.
#[test]
fn the_budget_is_kept() {
    in_own_network(|| {
        let mut init = Pid1::start(&[
            LAMEDUCK,
            "--grace-period",
            "6s",
            "--delay",
            "1s",
            "--stop-timeout",
            "1s",
            "--",
            PYTHON,
            "-u",
            SERVER,
            "127.0.0.1",
            "8080",
        ]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 60.0);
        init.line("asked");
        let asked = Instant::now();
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the time for waiting was up\""), "{stopping}");
        assert!((4.4..5.5).contains(&seconds(field(&stopping, "after"))), "{stopping}");
        assert_eq!(init.exit(), 0);
        assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
        assert_eq!(field(&init.line(" exit "), "cut"), "1");
        let _ = request.join();
    });
}

/// Another user without CAP_SYS_PTRACE: the app's descriptors are hidden. Its cgroup tells its ports from a sidecar's.
#[test]
fn hidden_descriptors_are_made_up_for_by_the_cgroup() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let _sidecar = groups.spawn("sidecar", &[PYTHON, "-u", SERVER, "127.0.0.1", "9090"]);
        let join = groups.join("app");
        let mut argv = vec!["sh", "-c", &join, "sh", "setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
        argv.extend([LAMEDUCK, "--delay", "1s", "--", "setpriv", "--reuid", "33", "--clear-groups", PYTHON, "-u", "-c"]);
        let server = fs::read_to_string(SERVER).unwrap();
        argv.extend([&server, "127.0.0.1", "8080"]);
        let mut init = Pid1::start(&argv);
        // Not by its line: the start event quotes the whole program.
        listening(8080);
        let request = ask("127.0.0.1:8080", 3.0);
        init.line("asked /3");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "found_by"), field(&begun, "ports")), ("cgroup", "8080"), "{begun}");
        answered(request);
        assert_eq!(init.exit(), 0);
    });
}

/// As on version 1 nodes: the cgroup is the root, so all that listens counts, and lameduck says so.
#[test]
fn without_a_cgroup_of_its_own_all_listeners_count() {
    in_own_network(|| {
        let mut argv = vec!["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];
        let server = fs::read_to_string(SERVER).unwrap();
        argv.extend([LAMEDUCK, "--delay", "1s", "--", "setpriv", "--reuid", "33", "--clear-groups", PYTHON, "-u", "-c"]);
        argv.extend([&server, "127.0.0.1", "8080"]);
        let root = Cgroups::new();
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", root.mount);
        let argv: Vec<&str> = ["sh", "-c", &join, "sh"].into_iter().chain(argv).collect();
        let mut init = Pid1::start(&argv);
        // Not by its line: the start event quotes the whole program.
        listening(8080);
        init.signal(TERM);
        init.line("sidecars too");
        assert_eq!(field(&init.line("lame-duck"), "found_by"), "all");
        assert_eq!(init.exit(), 0);
    });
}

/// A client that vanished without a word is not waited for longer than 10 s, and counted as cut.
#[test]
fn a_client_that_vanished_is_given_up() {
    in_own_network(|| {
        let mut client = Command::new("unshare")
            .args(["--net", "--", PYTHON, "-u", VANISH])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut said = BufReader::new(client.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert_eq!(said.next().as_deref(), Some("born"));
        for command in [
            "ip link add v0 type veth peer name v1".to_owned(),
            format!("ip link set v1 netns {}", client.id()),
            "ip addr add 10.9.9.1/24 dev v0".to_owned(),
            "ip link set v0 up".to_owned(),
        ] {
            let words: Vec<&str> = command.split(' ').collect();
            assert!(Command::new(words[0]).args(&words[1..]).status().unwrap().success(), "{command}");
        }
        let mut init =
            Pid1::start(&[LAMEDUCK, "--delay", "1s", "--grace-period", "60s", "--", PYTHON, "-u", SERVER, "10.9.9.1", "8080"]);
        init.line("ready");
        client.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        assert_eq!(said.next().as_deref(), Some("gone"));
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"all is done but what was given up\""), "{stopping}");
        let after = seconds(field(&stopping, "after"));
        assert!((7.0..16.0).contains(&after), "{stopping}");
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "cut"), "1");
        client.kill().unwrap();
        client.wait().unwrap();
    });
}
