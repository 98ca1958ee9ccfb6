//! Pinned clients: each keeps one connection and goes on asking on it, whatever became of the pod's endpoints. When the server closes it
//! between two requests they go to another pod, which is the end of them here.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A client that has no whole answer by then has timed out.
const LIMIT: Duration = Duration::from_secs(20);

/// How a client asks.
#[derive(Clone, Copy, Debug)]
pub struct Habit {
    /// From one request to the next, at the least and at the most.
    pub every: (Duration, Duration),
    /// So long the server thinks, at the least and at the most.
    pub thinks: (Duration, Duration),
    /// When its connection is closed it opens another one to the same server.
    pub comes_back: bool,
}

/// Five requests a second.
pub const USUAL: Habit = Habit {
    every: (Duration::from_millis(150), Duration::from_millis(250)),
    thinks: (Duration::from_millis(5), Duration::from_millis(50)),
    comes_back: false,
};

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub answered: usize,
    /// No byte came: FIN or RST in place of an answer.
    pub lost: usize,
    /// Some of an answer, then FIN or RST.
    pub cut: usize,
    /// The connection was closed between two requests.
    pub left: usize,
}

impl std::ops::Add for Tally {
    type Output = Tally;

    fn add(self, other: Tally) -> Tally {
        Tally {
            answered: self.answered + other.answered,
            lost: self.lost + other.lost,
            cut: self.cut + other.cut,
            left: self.left + other.left,
        }
    }
}

pub struct Clients {
    threads: Vec<JoinHandle<Tally>>,
    open: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
}

impl Clients {
    /// Connects all of them, to be called in their network namespace; each has been answered once when this returns.
    pub fn connect(address: SocketAddr, count: usize, habit: Habit) -> Clients {
        let open = Arc::new(AtomicUsize::new(count));
        let over = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let threads = (0..count)
            .map(|number| {
                let (open, over, answered) = (open.clone(), over.clone(), answered.clone());
                thread::spawn(move || {
                    let tally = play(address, number, habit, &over, &answered);
                    open.fetch_sub(1, Ordering::SeqCst);
                    tally
                })
            })
            .collect();
        let patience = Instant::now() + LIMIT;
        while answered.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < patience, "not all clients were answered");
            thread::sleep(Duration::from_millis(5));
        }
        Clients { threads, open, over }
    }

    /// How many connections are not closed yet.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub fn finish(self) -> Tally {
        self.over.store(true, Ordering::SeqCst);
        self.threads.into_iter().map(|thread| thread.join().expect("a client")).fold(Tally::default(), |sum, one| sum + one)
    }
}

fn play(address: SocketAddr, number: usize, habit: Habit, over: &AtomicBool, answered: &AtomicUsize) -> Tally {
    let mut chance = Chance(number as u64 * 7919 + 12_345);
    // Not all in step.
    thread::sleep(habit.every.0.mul_f64(chance.next()));
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut tally = Tally::default();
    while !over.load(Ordering::SeqCst) {
        if is_closed(&stream) {
            tally.left += 1;
            match TcpStream::connect(address) {
                Ok(another) if habit.comes_back => stream = another,
                _ => return tally,
            }
        }
        let began = Instant::now();
        let millis = chance.between(habit.thinks).as_millis();
        let request = format!("GET /?ms={millis} HTTP/1.1\r\nHost: shop\r\nUser-Agent: pinned\r\n\r\n");
        let sent = stream.write_all(request.as_bytes());
        match sent.and_then(|()| answer(&mut stream)) {
            Ok(Answer::Whole) => tally.answered += 1,
            Ok(Answer::Last) => {
                tally.answered += 1;
                tally.left += 1;
            }
            Ok(Answer::Cut) => tally.cut += 1,
            Ok(Answer::None) | Err(_) => tally.lost += 1,
        }
        if tally.answered == 1 {
            answered.fetch_add(1, Ordering::SeqCst);
        }
        if tally.lost + tally.cut > 0 || tally.left > 0 && !habit.comes_back {
            return tally;
        }
        let pause = chance.between(habit.every);
        // A client sees the end of its connection as soon as it looks for a new request to send.
        thread::sleep((began + pause).saturating_duration_since(Instant::now()));
    }
    tally
}

/// Closed by the server, between two requests.
pub fn is_closed(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false).unwrap();
    match peeked {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

enum Answer {
    Whole,
    /// Whole, and it says that the connection will be closed.
    Last,
    Cut,
    None,
}

fn answer(stream: &mut TcpStream) -> std::io::Result<Answer> {
    let mut bytes = Vec::new();
    loop {
        let mut part = [0; 4096];
        let read = match stream.read(&mut part) {
            Ok(0) => 0,
            Ok(read) => read,
            Err(_) if !bytes.is_empty() => 0,
            Err(error) => return Err(error),
        };
        if read == 0 {
            return Ok(if bytes.is_empty() { Answer::None } else { Answer::Cut });
        }
        bytes.extend_from_slice(&part[..read]);
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let chunked = head.contains("transfer-encoding: chunked");
        let is_whole = if chunked { body.ends_with("0\r\n\r\n") } else { body.ends_with("whole\n") };
        if is_whole {
            assert!(head.starts_with("http/1.1 200"), "{text}");
            return Ok(if head.contains("connection: close") { Answer::Last } else { Answer::Whole });
        }
        if head.starts_with("http/1.1 5") || head.starts_with("http/1.1 4") {
            // A proxy that says that its backend is gone, or the server that it did not understand.
            return Ok(Answer::Cut);
        }
    }
}

/// A small generator: the same each time, and different for each client.
struct Chance(u64);

impl Chance {
    /// From 0 to 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, (least, most): (Duration, Duration)) -> Duration {
        least + (most - least).mul_f64(self.next())
    }
}
