//! Clients that keep their connections and never leave: real servers of Debian, 20 pinned clients at five requests a second, on loopback
//! and 1 ms away. With lameduck each connection is closed between two requests, or left to a server whose own stop serves it; with tini
//! beside, in the same test, requests are lost.
//!
//! `benches/keepalive` prints the whole table.

#[path = "../support/network.rs"]
mod network;
#[path = "../support/serving.rs"]
mod serving;
#[path = "../support/mod.rs"]
mod support;

mod pinned;
mod servers;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use network::{Network, PORT};
use pinned::{Clients, Habit, Tally, USUAL};
use servers::{ALL, Server};
use serving::State;
use support::{LAMEDUCK, PATIENCE, Pid1, eventually};

const TERM: i32 = 15;
const BASE: &[&str] = &["--grace-period", "30s", "--delay", "2s"];
const WAIT: &[&str] = &["--grace-period", "30s", "--delay", "2s", "--keep-alive", "wait"];
const DELAY: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(1);

/// Who is PID 1, and with which options.
#[derive(Clone, Copy, Debug)]
enum Init {
    Tini,
    /// `--drain off`: the server's own stop, after the delay.
    OwnStop,
    Lameduck(&'static [&'static str]),
}

/// One stop.
#[derive(Debug)]
struct Stop {
    tally: Tally,
    /// From T0 to the app's stop signal; lameduck only.
    stopped: Option<Duration>,
    /// From T0 to the end of the init.
    took: Duration,
    code: i32,
    log: Vec<String>,
}

impl Stop {
    /// Of one line of lameduck's log.
    fn field(&self, event: &str, name: &str) -> Option<&str> {
        let line = self.log.iter().find(|line| line.contains(&format!(" {event}")))?;
        line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    fn closed(&self) -> usize {
        self.field("exit ", "closed").and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

fn loopback() -> Network {
    Network::loopback()
}

fn one_millisecond() -> Network {
    Network::apart("1 ms", Duration::from_micros(500))
}

/// Moments of milliseconds are what these stops are about: no more than two at a time, however many tests run.
struct Turn;

static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Turn {
    fn take() -> Turn {
        let taken = TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = TAKEN.1.wait_while(taken, |taken| *taken >= 2).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TAKEN.0.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        TAKEN.1.notify_one();
    }
}

/// Plays one stop: the server and its init in one namespace, the clients in theirs.
fn stop(server: &Server, init: Init, network: fn() -> Network, clients: usize, habit: Habit) -> Stop {
    stop_behind(&[], server, init, network, clients, habit)
}

/// As `stop`; `before` are words that lead to the init.
fn stop_behind(
    before: &[&'static str],
    server: &Server,
    init: Init,
    network: fn() -> Network,
    clients: usize,
    habit: Habit,
) -> Stop {
    let _turn = Turn::take();
    let before = before.to_vec();
    let network = network();
    let address = SocketAddr::from((network.address, PORT));
    let (command, keeps) = (server.command, server.keeps);
    let (say_ready, ready) = channel();
    let (begin, begun) = channel();
    let at_server = network.at_server(move || {
        let state = State::new();
        let command = command(&state);
        let mut argv: Vec<&str> = before;
        match init {
            Init::Tini => argv.push("tini"),
            Init::OwnStop => argv.extend([&[LAMEDUCK], BASE, &["--drain", "off"]].concat()),
            Init::Lameduck(options) => argv.extend([&[LAMEDUCK], options].concat()),
        }
        argv.push("--");
        argv.extend(command.iter().map(String::as_str));
        let mut pid1 = Pid1::spawn(&argv, |spawned| {
            spawned.env("HOME", &state.directory).env("TMPDIR", &state.directory).current_dir(&state.directory);
        });
        eventually("the server listens", || {
            assert!(pid1.is_running(), "the server ended at once:\n{}", pid1.rest().join("\n"));
            std::net::TcpStream::connect(address).ok()
        });
        say_ready.send(()).unwrap();
        begun.recv().unwrap();
        let asked = Instant::now();
        pid1.signal(TERM);
        if let Init::Tini = init {
            // Some servers never end: whoever asks in the next second and a half sees what becomes of it.
            thread::sleep(Duration::from_millis(1500));
            return Stop { tally: Tally::default(), stopped: None, took: asked.elapsed(), code: 0, log: Vec::new() };
        }
        pid1.line(" stopping ");
        let stopped = Some(asked.elapsed());
        let code = pid1.exit();
        Stop { tally: Tally::default(), stopped, took: asked.elapsed(), code, log: pid1.rest().to_vec() }
    });
    let at_client = network.at_client(move || {
        ready.recv().expect("a server");
        let clients = Clients::connect(address, clients, habit);
        thread::sleep(Duration::from_secs(1));
        assert!(clients.open() > 0 || !keeps, "nobody keeps a connection");
        begin.send(()).unwrap();
        clients
    });
    let clients = at_client.join().expect("clients");
    let mut stop = at_server.join().expect("a server");
    stop.tally = clients.finish();
    stop
}

/// With lameduck hardly any request is lost, and the app gets its stop signal in time. With tini some are, else nobody would see it.
fn compare(server: &Server) {
    for network in [loopback as fn() -> Network, one_millisecond] {
        let tini = stop(server, Init::Tini, network, 20, USUAL);
        let auto = stop(server, Init::Lameduck(BASE), network, 20, USUAL);
        println!(
            "{}: tini {:?}\n  {:?}, stop signal after {:?}, closed {}",
            server.name,
            tini.tally,
            auto.tally,
            auto.stopped,
            auto.closed()
        );
        let lost = tini.tally.lost + tini.tally.cut;
        assert!(lost > 0 || !server.tini_loses, "{}: tini is expected to lose requests: {tini:#?}", server.name);
        assert!(auto.tally.lost <= 2 && auto.tally.cut == 0, "{}: {auto:#?}", server.name);
        assert_eq!(auto.code, 0, "{auto:#?}");
        let stopped = auto.stopped.expect("a stop signal");
        assert!(stopped < DELAY + QUIET + Duration::from_millis(2500), "{}: {auto:#?}", server.name);
    }
}

#[test]
fn http_server() {
    compare(&servers::HTTP_SERVER);
}

#[test]
fn gunicorn() {
    compare(&servers::GUNICORN);
}

#[test]
fn uvicorn() {
    compare(&servers::UVICORN);
}

#[test]
fn node() {
    compare(&servers::NODE);
}

#[test]
fn node_with_a_handler() {
    compare(&servers::NODE_CLOSE);
}

#[test]
fn nginx_static() {
    compare(&servers::NGINX_FILES);
}

#[test]
fn nginx_proxy() {
    compare(&servers::NGINX_PROXY);
}

#[test]
fn apache() {
    compare(&servers::APACHE);
}

#[test]
fn puma() {
    compare(&servers::PUMA);
}

#[test]
fn unicorn() {
    compare(&servers::UNICORN);
}

#[test]
fn haproxy() {
    compare(&servers::HAPROXY);
}

#[test]
fn lighttpd() {
    compare(&servers::LIGHTTPD);
}

#[test]
fn java() {
    compare(&servers::JAVA);
}

/// What is no kept-alive connection is left alone while the others are closed: one that has never asked, and one with half a request. A request that takes long holds the stop, so that there is time to see it.
#[test]
fn what_is_left_alone() {
    let network = Network::loopback();
    let address = SocketAddr::from((network.address, PORT));
    let server = network.at_server(move || {
        let state = State::new();
        let command = (servers::HTTP_SERVER.command)(&state);
        let mut pid1 = Pid1::start(&[&[LAMEDUCK][..], BASE, &["--", &command[0], &command[1]]].concat());
        eventually("the server listens", || TcpStream::connect(address).ok());
        let connect = || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        let silent = connect();
        let mut half = connect();
        half.write_all(b"GET /half HTTP/1.1\r\nHost").unwrap();
        let clients = Clients::connect(address, 5, USUAL);
        let mut slow = connect();
        slow.write_all(b"GET /?ms=5000 HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        pid1.signal(TERM);
        eventually("the others are closed", || (clients.open() == 0).then_some(()));
        for (name, stream) in [("silent", &silent), ("half a request", &half)] {
            assert!(!pinned::is_closed(stream), "{name} was closed");
        }
        let mut byte = [0];
        slow.read_exact(&mut byte).expect("an answer");
        pid1.line(" stopping ");
        let line = pid1.line(" keep-alive ");
        assert!(line.contains("closed=5 left=0 way=close"), "{line}");
        assert_eq!(pid1.exit(), 0);
        let tally = clients.finish();
        assert_eq!((tally.left, tally.lost, tally.cut), (5, 0, 0), "{tally:?}");
    });
    server.join().unwrap();
}

#[test]
#[ignore = "takes a quarter of an hour: benches/keepalive"]
fn table() {
    let rounds: usize = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(5);
    let clients: usize = std::env::var("CLIENTS").ok().and_then(|clients| clients.parse().ok()).unwrap_or(20);
    let only = std::env::var("ONLY").unwrap_or_default();
    println!("{:<18} {:>24} {:>30} {:>36}", "", "own stop", "wait", "auto");
    let contenders: [Init; 3] = [Init::OwnStop, Init::Lameduck(WAIT), Init::Lameduck(BASE)];
    let mut sums = [0; 3];
    for server in ALL.iter().filter(|server| server.name.contains(&only)) {
        print!("{:<18}", server.name);
        for (init, sum) in contenders.iter().zip(&mut sums) {
            let mut tally = Tally::default();
            let (mut stopped, mut took, mut closed, mut way) = (Duration::ZERO, Duration::ZERO, 0, String::new());
            for _ in 0..rounds {
                let stop = stop(server, *init, one_millisecond, clients, USUAL);
                tally = tally + stop.tally;
                stopped = stopped.max(stop.stopped.unwrap_or_default());
                took = took.max(stop.took);
                closed += stop.closed();
                way = stop.field("keep-alive ", "way").unwrap_or("-").to_owned();
            }
            *sum += tally.lost + tally.cut;
            print!(
                "  lost {:>3} cut {:>2} stop signal {:>5.2} s end {:>5.2} s",
                tally.lost,
                tally.cut,
                stopped.as_secs_f64(),
                took.as_secs_f64()
            );
            if let Init::Lameduck(options) = init
                && options.is_empty()
            {
                print!(" closed {closed} ({way})");
            }
        }
        println!();
    }
    println!("lost in all: own stop {}, wait {}, auto {}, of {} connections a cell", sums[0], sums[1], sums[2], rounds * clients);
}

/// A mesh proxy in the pod, or a client that knows only this pod: closing its connections achieves nothing.
#[test]
fn clients_that_come_back_are_closed_no_more() {
    let habit = Habit { comes_back: true, ..USUAL };
    const OPTIONS: &[&str] = &["--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s"];
    let stop = stop(&servers::HTTP_SERVER, Init::Lameduck(OPTIONS), loopback, 10, habit);
    assert!(stop.log.iter().any(|line| line.contains("their clients come back here")), "{stop:#?}");
    assert_eq!(stop.field("keep-alive ", "way"), Some("wait"), "{stop:#?}");
    assert!(stop.stopped.is_some_and(|stopped| stopped > Duration::from_secs(7)), "it waits as ever: {stop:#?}");
    assert!(stop.closed() <= 10, "nobody is closed twice: {stop:#?}");
}

/// `pidfd_getfd` is refused, as by Docker's default profile.
const SECCOMP: &str = "import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
# Load the number; pidfd_getfd (438 on every machine): EPERM; all else: allowed.
code = struct.pack('HBBI', 0x20, 0, 0, 0) + struct.pack('HBBI', 0x15, 0, 1, 438)
code += struct.pack('HBBI', 6, 0, 0, 0x50001) + struct.pack('HBBI', 6, 0, 0, 0x7fff0000)
buffer = ctypes.create_string_buffer(code)
program = struct.pack('HxxxxxxP', len(code) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])";

/// Where it is not permitted it is said once, and the next best is done: a server whose own stop is good gets it at once, for the others
/// a good moment is taken.
#[test]
fn where_seccomp_forbids_it() {
    const OPTIONS: &[&str] = &["--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s"];
    let before = ["/usr/bin/python3", "-c", SECCOMP];
    for (server, way, latest) in [(&servers::NGINX_PROXY, "own-stop", 4500), (&servers::HTTP_SERVER, "fewest", 9000)] {
        let stop = stop_behind(&before, server, Init::Lameduck(OPTIONS), loopback, 5, USUAL);
        let said = stop.log.iter().filter(|line| line.contains("cannot close kept-alive connections")).collect::<Vec<_>>();
        assert!(said.len() == 1 && said[0].contains("SYS_PTRACE") && said[0].contains("pidfd_getfd"), "{stop:#?}");
        assert_eq!((stop.field("keep-alive ", "way"), stop.closed()), (Some(way), 0), "{stop:#?}");
        assert!(stop.stopped.is_some_and(|stopped| stopped < Duration::from_millis(latest)), "{stop:#?}");
        assert_eq!(stop.tally.cut, 0, "{stop:#?}");
    }
    // And plan says so.
    let plan = Command::new(before[0]).args(&before[1..]).args([LAMEDUCK, "plan", "--", "gunicorn", "app:app"]).output().unwrap();
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.contains("the moment with the fewest in use"), "{plan}");
    assert!(plan.contains("cannot be closed from outside here: Operation not permitted"), "{plan}");
}

/// Docker's default capabilities have no SYS_PTRACE. An app of another user that was exec'd after the change (gosu, `--user`) is reached with
/// that user's real ids, which takes SETUID and SETGID; without these it is not.
#[test]
fn an_app_of_another_user() {
    const OPTIONS: &[&str] = &["--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s", "--user", "33:33"];
    let without = |capabilities: &'static str| ["setpriv", "--bounding-set", capabilities, "--inh-caps", capabilities];
    let stop = stop_behind(
        &without("-sys_ptrace,-dac_read_search"),
        &servers::HTTP_SERVER,
        Init::Lameduck(OPTIONS),
        loopback,
        10,
        USUAL,
    );
    assert_eq!((stop.field("keep-alive ", "way"), stop.closed()), (Some("close"), 10), "{stop:#?}");
    assert!(stop.tally.lost <= 1 && stop.tally.cut == 0, "{stop:#?}");
}

/// Of a protocol whose turns are shorter than HTTP's nothing is closed, unless somebody says so.
#[test]
fn chats_and_statements_are_left_alone() {
    const OPTIONS: &[&str] = &["--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s"];
    const CLOSE: &[&str] = &["--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s", "--keep-alive", "close"];
    for (options, closed) in [(OPTIONS, 0), (CLOSE, 1)] {
        let network = Network::loopback();
        let address = SocketAddr::from((network.address, PORT));
        let server = network.at_server(move || {
            let state = State::new();
            let script = state.file("echo.py", include_str!("echo.py"));
            let mut pid1 = Pid1::start(&[&[LAMEDUCK][..], options, &["--", "/usr/bin/python3", &script]].concat());
            eventually("the server listens", || TcpStream::connect(address).ok());
            let chat = thread::spawn(move || {
                let mut stream = TcpStream::connect(address).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let mut turns = 0;
                // Four seconds: twice the delay.
                while turns < 40 && stream.write_all(b"SELECT 1\n").is_ok() && matches!(stream.read(&mut [0; 64]), Ok(1..)) {
                    turns += 1;
                    thread::sleep(Duration::from_millis(100));
                }
                turns
            });
            thread::sleep(Duration::from_millis(300));
            pid1.signal(TERM);
            let turns = chat.join().unwrap();
            assert_eq!(pid1.exit(), 0);
            let exit = pid1.line(" exit ");
            assert!(exit.contains(&format!(" closed={closed}")), "{exit}");
            assert_eq!(turns == 40, closed == 0, "{turns} turns: {exit}");
        });
        server.join().unwrap();
    }
}

/// What `--keep-alive wait` would have let end is not cut by closing: a WebSocket that chats, a stream on a connection that was kept alive before,
/// an upload that trickles, `Expect: 100-continue`. node loses what is in flight when it reads end-of-file.
#[test]
fn what_waiting_would_have_kept() {
    let network = Network::loopback();
    let address = SocketAddr::from((network.address, PORT));
    let server = network.at_server(move || {
        let state = State::new();
        let script = state.file("server.js", include_str!("../verdict/server.js"));
        let log = state.file("log", "");
        let node = serving::program("node", "nodejs");
        let options = ["--grace-period", "40s", "--delay", "1s", "--stop-timeout", "4s"];
        let mut pid1 = Pid1::start(&[&[LAMEDUCK][..], &options, &["--", &node, &script, &log, "8080"]].concat());
        eventually("the server listens", || TcpStream::connect(address).ok());
        let connect = move || {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream
        };
        // Beside them others are closed, again and again: the time when all are looked at most often.
        let clients = Clients::connect(address, 5, USUAL);
        let play = |play: fn(TcpStream)| {
            let stream = connect();
            thread::spawn(move || play(stream))
        };
        let plays = [
            ("chat", play(chat)),
            ("stream", play(stream_later)),
            ("upload", play(trickling_upload)),
            ("continue", play(continued)),
        ];
        thread::sleep(Duration::from_millis(300));
        pid1.signal(TERM);
        for (name, play) in plays {
            play.join().unwrap_or_else(|_| panic!("{name} was cut: {:#?}", pid1.rest()));
        }
        assert_eq!(pid1.exit(), 0);
        let tally = clients.finish();
        assert_eq!((tally.left, tally.cut), (5, 0), "{tally:?}");
    });
    server.join().unwrap();
}

/// Messages of some bytes each way, ten a second for four seconds.
fn chat(mut stream: TcpStream) {
    let key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    stream.write_all(format!("GET /chat?id=1 HTTP/1.1\r\nHost: shop\r\n{key}\r\n").as_bytes()).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 101"));
    for number in 1000..1040 {
        let mut frame = vec![0x81, 0x84, 0, 0, 0, 0];
        frame.extend(number.to_string().as_bytes());
        stream.write_all(&frame).unwrap();
        let mut echo = [0; 6];
        stream.read_exact(&mut echo).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
}

/// Quick answers first; then, when others are being closed, pieces with pauses of 0.3 s.
fn stream_later(mut stream: TcpStream) {
    for _ in 0..9 {
        stream.write_all(b"GET /fast?id=1&ms=0 HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
        assert!(head(&mut stream).contains("Content-Length: 6"));
        stream.read_exact(&mut [0; 6]).unwrap();
        thread::sleep(Duration::from_millis(100));
    }
    stream.write_all(b"GET /stream?id=1&gap=300&pieces=10 HTTP/1.1\r\nHost: shop\r\n\r\n").unwrap();
    let mut text = head(&mut stream);
    while !text.ends_with("0\r\n\r\n") {
        let mut part = [0; 1024];
        let read = stream.read(&mut part).unwrap();
        assert!(read > 0, "cut after {text:?}");
        text += &String::from_utf8_lossy(&part[..read]);
    }
}

fn trickling_upload(mut stream: TcpStream) {
    for _ in 0..3 {
        stream.write_all(b"POST /think?id=1&ms=100 HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\n").unwrap();
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x").unwrap();
        }
        assert!(head(&mut stream).contains("Content-Length: 6"));
        stream.read_exact(&mut [0; 6]).unwrap();
    }
}

fn continued(mut stream: TcpStream) {
    for _ in 0..4 {
        let request = "POST /think?id=1&ms=100 HTTP/1.1\r\nHost: shop\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";
        stream.write_all(request.as_bytes()).unwrap();
        assert!(head(&mut stream).starts_with("HTTP/1.1 100"));
        thread::sleep(Duration::from_millis(700));
        stream.write_all(b"body").unwrap();
        assert!(head(&mut stream).contains("Content-Length: 6"));
        stream.read_exact(&mut [0; 6]).unwrap();
        thread::sleep(Duration::from_millis(200));
    }
}

/// Up to the empty line.
fn head(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        text.push(byte[0].into());
    }
    text
}
