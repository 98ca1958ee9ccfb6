//! Clients that mean no good: many, slow, endless. They cost PID 1 little, and what it is there for nothing.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, signal_to};
use crate::{ADMIN, Client, TERM, USR1, field, get, get_from, seconds, start};

const STOP: i32 = 19;
const CONT: i32 = 18;
const WINCH: i32 = 28;
/// All that PID 1 may ever have in memory.
const MOST_KIB: u64 = 10 << 10;

/// The most memory that a process ever had, in KiB.
fn high_water(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn connect() -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(ADMIN)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    stream.set_write_timeout(Some(Duration::from_millis(500)))?;
    Ok(stream)
}

/// One attack, again and again.
type Attack = fn() -> std::io::Result<()>;

const ATTACKS: &[(&str, Attack)] = &[
    ("connects and leaves", || connect().map(drop)),
    ("asks and leaves", || connect()?.write_all(b"GET /metrics HTTP/1.1\r\n\r\n")),
    ("asks for readiness and leaves", || connect()?.write_all(b"GET /readyz HTTP/1.1\r\n\r\n")),
    ("holds a hundred silent connections", || {
        let held: Vec<TcpStream> = (0..100).map_while(|_| connect().ok()).collect();
        held.last().map_or(Ok(0), |mut last| last.read(&mut [0]))?;
        Ok(())
    }),
    ("half a request, a hundred times", || {
        let mut held: Vec<TcpStream> = (0..100).map_while(|_| connect().ok()).collect();
        held.iter_mut().for_each(|stream| _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nHost:"));
        held.last().map_or(Ok(0), |mut last| last.read(&mut [0]))?;
        Ok(())
    }),
    ("byte by byte", || {
        let mut stream = connect()?;
        for byte in b"GET /metrics HTTP/1.1\r\nX: ".iter().chain([b'x'; 10_000].iter()) {
            stream.write_all(&[*byte])?;
        }
        Ok(())
    }),
    ("a head without end", || {
        let mut stream = connect()?;
        stream.write_all(b"GET /status HTTP/1.1\r\n")?;
        loop {
            stream.write_all(&[b"X: ", &[b'x'; 60_000][..], b"\r\n"].concat())?;
        }
    }),
    ("asks a thousand times and never reads", || {
        let mut stream = connect()?;
        stream.write_all(&b"GET /status HTTP/1.1\r\n\r\n".repeat(1000))?;
        thread::sleep(Duration::from_millis(500));
        Ok(())
    }),
    ("noise", || {
        let mut stream = connect()?;
        stream.write_all(&[0xff; 100_000])?;
        stream.read(&mut [0]).map(drop)
    }),
];

/// Attacks, until it is dropped.
struct Siege {
    over: Arc<AtomicBool>,
    times: Arc<AtomicUsize>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Siege {
    fn lay(attacks: &[(&str, Attack)]) -> Siege {
        let (over, times) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let besiege = |(_, attack): &(&str, Attack)| {
            let (attack, over, times) = (*attack, Arc::clone(&over), Arc::clone(&times));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    let _ = attack();
                    times.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = attacks.iter().map(besiege).collect();
        Siege { over, times, threads }
    }

    /// It goes on, so many times more.
    fn goes_on(&self, times: usize) {
        let before = self.times.load(Ordering::Relaxed);
        eventually("the siege goes on", || (self.times.load(Ordering::Relaxed) >= before + times).then_some(()));
    }

    fn lift(self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

/// Four seconds at most for each round of a signal there and a line back.
fn obeys_at_once(init: &mut Pid1) {
    for _ in 0..20 {
        let sent = Instant::now();
        init.signal(WINCH);
        init.next_app_line("orphaned");
        assert!(sent.elapsed() < Duration::from_secs(4), "{:?}", sent.elapsed());
    }
    eventually("the orphans are reaped", || {
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).unwrap();
        (children.split_whitespace().count() == 1).then_some(())
    });
}

/// Signals, reaping, the delay and the kill: all in their time, under all attacks at once.
#[test]
fn nothing_is_delayed_by_a_siege() {
    in_own_network(|| {
        let options =
            ["--ready", "http://127.0.0.1:8080/after/1", "--grace-period", "8s", "--delay", "2s", "--quiet-period", "0s"];
        let mut init = start(&[&options[..], &["--stop-timeout", "3s"]].concat(), &["stays"]);
        init.app_line("ready");
        let siege = Siege::lay(ATTACKS);
        siege.goes_on(2000);
        obeys_at_once(&mut init);
        siege.goes_on(2000);
        let most = high_water(init.pid);
        assert!(most < MOST_KIB, "{most} KiB");
        assert!(descriptors(init.pid) < 64 + 20, "{}", descriptors(init.pid));
        init.signal(TERM);
        init.line("lame-duck");
        init.app_line("told");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert!((2.0..3.0).contains(&seconds(field(&stopping, "after"))), "{stopping}");
        // The app is deaf: killed at 8 s less the margin of 0.8 s.
        let killing = init.line(" killing ");
        assert!((7.2..8.0).contains(&seconds(field(&killing, "after"))), "{killing}");
        assert_eq!(init.exit(), 137);
        siege.lift();
        let exit = init.line(" exit ");
        assert!((4.0..6.0).contains(&seconds(field(&exit, "stopping"))), "{exit}");
    });
}

/// One kind at a time: within bounds, and afterwards all is as it was.
#[test]
fn after_each_attack_all_is_well() {
    in_own_network(|| {
        let mut init = start(&["--ready", "http://127.0.0.1:8080/after/1"], &["stays"]);
        init.app_line("ready");
        assert_eq!(get("/readyz").status, 200);
        let before = descriptors(init.pid);
        for attack in ATTACKS {
            let siege = Siege::lay(&[*attack, *attack, *attack, *attack]);
            siege.goes_on(20);
            thread::sleep(Duration::from_millis(700));
            obeys_at_once(&mut init);
            siege.lift();
            assert_eq!(get("/livez").status, 200, "{}", attack.0);
            assert_eq!(get("/readyz").status, 200, "{}", attack.0);
            assert_eq!(get("/metrics").status, 200, "{}", attack.0);
            let most = high_water(init.pid);
            eprintln!("{}: {most} KiB", attack.0);
            assert!(most < MOST_KIB, "{}: {most} KiB", attack.0);
            eventually("their connections are closed", || (descriptors(init.pid) <= before).then_some(()));
        }
    });
}

/// Somebody who asks in earnest, while others hold all there is.
#[test]
fn an_honest_client_among_silent_ones() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        let mut honest = Client::open(ADMIN).unwrap();
        let mut held: Vec<TcpStream> = Vec::new();
        for _ in 0..500 {
            held.push(connect().unwrap());
            held.last_mut().unwrap().write_all(b"GET /met").unwrap();
        }
        for path in ["/livez", "/readyz", "/metrics", "/status"] {
            assert_eq!(get(path).status, 200, "{path}");
        }
        // The oldest had to go.
        assert!(honest.is_closed());
        let mut last = held.pop().unwrap();
        last.write_all(b"rics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        last.set_read_timeout(Some(Duration::from_secs(50))).unwrap();
        last.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    });
}

/// Descriptors are given back as fast as they are taken, also when all that wait come in at once.
#[test]
fn a_full_queue_of_clients_takes_no_more_descriptors_than_allowed() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        init.signal(STOP);
        let mut held: Vec<TcpStream> = (0..120).map(|_| connect().unwrap()).collect();
        let last = held.last_mut().unwrap();
        last.write_all(b"GET /livez HTTP/1.0\r\n\r\n").unwrap();
        last.set_nonblocking(true).unwrap();
        let (pid, mut most) = (init.pid, 0);
        thread::scope(|scope| {
            scope.spawn(|| signal_to(pid, CONT));
            while last.read(&mut [0]).is_err() {
                most = most.max(descriptors(pid));
            }
        });
        assert!(most < 64 + 20, "{most}");
    });
}

/// Nor is one that waits for its answer closed in favour of those that have asked nothing.
#[test]
fn a_slow_answer_among_silent_clients() {
    in_own_network(|| {
        let mut init = start(&["--ready", "http://127.0.0.1:8080/gate"], &[]);
        init.app_line("ready");
        let mut honest = Client::open(ADMIN).unwrap();
        honest.send("GET /readyz HTTP/1.1\r\n\r\n").unwrap();
        init.app_line("asked /gate");
        // More than may be held.
        let held: Vec<TcpStream> = (0..120).map(|_| connect().unwrap()).collect();
        // The last one was taken: so were all before it.
        drop(held.last().unwrap().try_clone().unwrap().write_all(b"GET /livez HTTP/1.0\r\n\r\n"));
        assert!(held.last().unwrap().read(&mut [0]).unwrap() > 0);
        init.signal(USR1);
        assert_eq!(honest.answer(false).unwrap().expect("an answer").line(), (200, "ready"));
    });
}

/// Real-time signals queue, and are served first: but not alone.
#[test]
fn a_storm_of_signals_from_the_app_starves_nobody() {
    in_own_network(|| {
        let app = "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [36]); [os.fork() for _ in range(2)]; os.write(1, b'ready\\n')
while True: os.kill(1, 36)";
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", ADMIN, "--delay", "500ms", "--", PYTHON, "-c", app]);
        init.app_line("ready");
        for path in ["/livez", "/status", "/readyz"] {
            let mut client = Client::open(ADMIN).unwrap();
            client.0.get_ref().set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            client.send(&crate::probe(path)).unwrap();
            assert!(client.answer(false).is_ok_and(|answer| answer.is_some()), "{path}");
        }
        init.signal(TERM);
        init.line(" stopping ");
        init.exit();
    });
}

/// A file of /proc may not answer, as one that waits for the memory of a process in trouble: here it is a pipe that nobody writes to. Looks
/// that hang are given up, and a question that needs no look is answered without one.
#[test]
fn a_look_that_hangs_is_given_up() {
    in_own_network(|| {
        let pipe = std::env::temp_dir().join(format!("lameduck-pipe-{}", std::process::id()));
        let app = format!("mkfifo {0}; sleep 1000 & mount --bind {0} /proc/$!/stat; rm {0}; echo ready; wait", pipe.display());
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", ADMIN, "--ready", "exec:true", "--", "sh", "-c", &app]);
        init.app_line("ready");
        let begun = Instant::now();
        assert_eq!(get("/readyz").status, 200);
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        for _ in 0..4 {
            let page = get("/metrics").body;
            assert!(page.contains("\nlameduck_reaped_total ") && !page.contains("\nlameduck_app_processes "), "{page}");
        }
        assert!(begun.elapsed() > Duration::from_secs(3), "nothing hangs: {:?}", begun.elapsed());
        // The loop's, and those that hang.
        let threads = fs::read_dir(format!("/proc/{}/task", init.pid)).unwrap().count();
        assert!(threads <= 3, "{threads} threads");
        assert_eq!(get("/livez").status, 200);
        init.signal(9);
    });
}

/// Half a request has its time, then its answer is that it is late; a client that takes nothing is left.
#[test]
fn patience_has_an_end() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        let before = descriptors(init.pid);
        let begun = Instant::now();
        let mut half = Client::open(ADMIN).unwrap();
        half.send("GET /livez HTTP/1.1\r\n").unwrap();
        let mut deaf = connect().unwrap();
        let _ = deaf.write_all(&b"GET /status HTTP/1.1\r\n\r\n".repeat(20_000));
        // Silent between requests is no sin.
        let mut silent = Client::open(ADMIN).unwrap();
        silent.send("GET /livez HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(silent.answer(false).unwrap().unwrap().status, 200);
        let answer = half.answer(false).unwrap().expect("an answer");
        assert_eq!(answer.line(), (408, "the request did not come in time"));
        assert!(begun.elapsed() > Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(half.is_closed());
        eventually("whoever takes nothing is left", || (descriptors(init.pid) == before + 1).then_some(()));
        silent.send("GET /livez HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(silent.answer(false).unwrap().unwrap().status, 200);
        assert_eq!(get_from(ADMIN, "/livez").unwrap().status, 200);
    });
}
