//! Clients of a balancer: fresh connections, a keep-alive pool, slow requests, and late ones just before the balancer has
//! learnt that the server is going. Nothing is ever retried: a POST could not be either, and a retry would hide a loss.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

const FRESH: usize = 3;
const POOL: usize = 4;
const SLOW: usize = 2;

/// What a slow request takes.
const SLOW_FOR: Duration = Duration::from_secs(2);

/// So long before the last call come the late requests.
const LATE: Duration = Duration::from_millis(100);

/// A client that has no whole answer by then has timed out.
const LIMIT: Duration = Duration::from_secs(15);

/// Where the server is and what makes it slow.
#[derive(Clone, Copy)]
pub enum Target {
    /// The app behind this path thinks for `?ms=` milliseconds, then answers with `whole` in a line.
    Thinks(&'static str),
    /// Files of these two paths and sizes; a slow request is one for the large one, by a slow reader.
    Reads { small: (&'static str, usize), large: (&'static str, usize) },
}

/// How a request was lost.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// No connection.
    Refused,
    /// FIN or RST in place of an answer, on a connection that was open when the request was sent.
    Reset,
    /// Some of the answer, then FIN or RST.
    Cut,
    /// A whole answer, but not the app's: a 502, say.
    Failed(u16),
    TimedOut,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Lost::Refused => write!(f, "refused"),
            Lost::Reset => write!(f, "reset"),
            Lost::Cut => write!(f, "cut"),
            Lost::Failed(status) => write!(f, "answered {status}"),
            Lost::TimedOut => write!(f, "timed out"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Request {
    pub client: &'static str,
    /// How long the app thinks about it: the answer cannot come before that.
    pub thinks: Duration,
    /// Just before the first byte was sent, or the connection asked for.
    pub sent: SystemTime,
    /// Just after the last byte was read.
    pub ended: SystemTime,
    pub outcome: Result<(), Lost>,
}

/// How many of each outcome.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub answered: usize,
    pub refused: usize,
    pub reset: usize,
    pub cut: usize,
    pub failed: usize,
    pub timed_out: usize,
}

impl Tally {
    pub fn of<'a>(requests: impl IntoIterator<Item = &'a Request>) -> Tally {
        let mut tally = Tally::default();
        for request in requests {
            *match request.outcome {
                Ok(()) => &mut tally.answered,
                Err(Lost::Refused) => &mut tally.refused,
                Err(Lost::Reset) => &mut tally.reset,
                Err(Lost::Cut) => &mut tally.cut,
                Err(Lost::Failed(_)) => &mut tally.failed,
                Err(Lost::TimedOut) => &mut tally.timed_out,
            } += 1;
        }
        tally
    }

    pub fn lost(&self) -> usize {
        self.refused + self.reset + self.cut + self.failed + self.timed_out
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Tally { answered, refused, reset, cut, failed, timed_out } = self;
        write!(
            f,
            "{answered} answered, {} lost ({refused} refused, {reset} reset, {cut} cut, {failed} failed, {timed_out} timed out)",
            self.lost()
        )
    }
}

/// All clients of one server.
pub struct Load {
    crowd: Arc<Crowd>,
    clients: Vec<JoinHandle<(Vec<Request>, Option<TcpStream>)>>,
}

struct Crowd {
    address: SocketAddr,
    target: Target,
    /// From here on nobody sends; what is in flight is finished.
    last_call: OnceLock<Instant>,
    /// Clients that have had their first answer.
    under_way: AtomicUsize,
}

impl Load {
    pub fn start(address: SocketAddr, target: Target) -> Load {
        let crowd = Arc::new(Crowd { address, target, last_call: OnceLock::new(), under_way: AtomicUsize::new(0) });
        let mut load = Load { crowd, clients: Vec::new() };
        (0..FRESH).for_each(|_| load.client("fresh", Client::ask_afresh));
        (0..POOL).for_each(|number| load.client("pool", move |client| client.ask_kept(number)));
        (0..SLOW).for_each(|_| load.client("slow", Client::ask_slowly));
        load.client("late", Client::ask_late);
        load
    }

    fn client(&mut self, name: &'static str, ask: impl FnOnce(&mut Client) + Send + 'static) {
        let crowd = self.crowd.clone();
        self.clients.push(thread::spawn(move || {
            let mut client = Client { name, crowd, connection: None, requests: Vec::new() };
            ask(&mut client);
            (client.requests, client.connection)
        }));
    }

    /// Every client has had an answer, but the late one, which has yet to ask.
    pub fn is_under_way(&self) -> bool {
        self.crowd.under_way.load(Ordering::SeqCst) == FRESH + POOL + SLOW
    }

    /// Says when the balancer will know; to be called once.
    pub fn last_call(&self, at: Instant) {
        self.crowd.last_call.set(at).expect("one last call");
    }

    /// Waits for all answers. The pool's connections come with them: open and idle until the caller drops them.
    pub fn finish(self) -> (Vec<Request>, Vec<TcpStream>) {
        let (requests, kept): (Vec<_>, Vec<_>) = self.clients.into_iter().map(|client| client.join().expect("a client")).unzip();
        (requests.into_iter().flatten().collect(), kept.into_iter().flatten().collect())
    }
}

struct Client {
    name: &'static str,
    crowd: Arc<Crowd>,
    /// Kept alive between two requests.
    connection: Option<TcpStream>,
    requests: Vec<Request>,
}

impl Client {
    /// One request per connection, every other one 300 ms slow.
    fn ask_afresh(&mut self) {
        while self.left() > Duration::ZERO {
            let slow = self.requests.len() % 2 == 1;
            self.ask(Duration::from_millis(if slow { 300 } else { 0 }), false);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// A connection of an ingress's pool. The first one's last words are the hardest to see from outside: a quick request, and
    /// in the same tick of the kernel's clock as its answer a slow one.
    fn ask_kept(&mut self, number: usize) {
        while self.left() > Duration::from_millis(400) {
            let slow = (self.requests.len() + number) % 4 == 3;
            self.ask(Duration::from_millis(if slow { 100 } else { 0 }), true);
            thread::sleep(Duration::from_millis(100 + (self.requests.len() * 53 + number * 67) as u64 % 200));
        }
        thread::sleep(self.left().saturating_sub(LATE));
        self.ask(Duration::ZERO, true);
        if number == 0 && self.left() > Duration::ZERO {
            self.name = "late, pool";
            self.ask(SLOW_FOR, true);
        }
    }

    fn ask_slowly(&mut self) {
        self.ask(Duration::ZERO, false);
        while self.left() > Duration::ZERO {
            self.ask(SLOW_FOR, false);
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn ask_late(&mut self) {
        self.crowd.last_call.wait();
        thread::sleep(self.left().saturating_sub(LATE));
        self.ask(SLOW_FOR, false);
    }

    /// Time left to send.
    fn left(&self) -> Duration {
        match self.crowd.last_call.get() {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    fn ask(&mut self, slow: Duration, keep: bool) {
        let Crowd { address, target, under_way, .. } = &*self.crowd;
        let thinks = if matches!(target, Target::Thinks(_)) { slow } else { Duration::ZERO };
        let sent = SystemTime::now();
        let outcome = ask(*address, *target, slow, &mut self.connection, keep);
        if self.requests.is_empty() {
            under_way.fetch_add(1, Ordering::SeqCst);
        }
        self.requests.push(Request { client: self.name, thinks, sent, ended: SystemTime::now(), outcome });
    }
}

/// One request and its answer, on the connection kept from the last one if it is still open.
pub fn ask(
    address: SocketAddr,
    target: Target,
    slow: Duration,
    connection: &mut Option<TcpStream>,
    keep: bool,
) -> Result<(), Lost> {
    // One that the server has closed while it was idle carries no request: a new one takes its place, as in any pool.
    let mut stream = match connection.take().filter(is_open) {
        Some(stream) => stream,
        None => TcpStream::connect_timeout(&address, LIMIT)
            .map_err(|error| if error.kind() == ErrorKind::TimedOut { Lost::TimedOut } else { Lost::Refused })?,
    };
    stream.set_read_timeout(Some(LIMIT)).expect("a read timeout");
    let (path, length) = match target {
        Target::Thinks(path) => (format!("{path}?ms={}", slow.as_millis()), 6),
        Target::Reads { large: (path, length), .. } if slow > Duration::ZERO => (path.to_owned(), length),
        Target::Reads { small: (path, length), .. } => (path.to_owned(), length),
    };
    let afterwards = if keep { "keep-alive" } else { "close" };
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: {afterwards}\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(|_| Lost::Reset)?;

    let mut answer = Answer { stream, bytes: Vec::new(), deadline: Instant::now() + LIMIT };
    let body = loop {
        if let Some(end) = answer.bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        answer.read(4096)?;
    };
    let head = String::from_utf8_lossy(&answer.bytes[..body]).to_ascii_lowercase();
    let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    if status != 200 || field("content-length") != Some(&length.to_string()) {
        return Err(Lost::Failed(status));
    }
    // A slow reader takes the body in twenty helpings.
    let (helping, pause) = match target {
        Target::Thinks(_) => (length, Duration::ZERO),
        Target::Reads { .. } => (length.div_ceil(20), slow / 20),
    };
    let whole = body + length;
    while answer.bytes.len() < whole {
        let helped = whole.min(answer.bytes.len() + helping);
        while answer.bytes.len() < helped {
            answer.read(helped - answer.bytes.len())?;
        }
        thread::sleep(pause);
    }
    if matches!(target, Target::Thinks(_)) && &answer.bytes[body..] != b"whole\n" {
        return Err(Lost::Failed(status));
    }
    let stays_open = match field("connection") {
        Some(said) => said == "keep-alive",
        None => head.starts_with("http/1.1"),
    };
    if keep && stays_open {
        *connection = Some(answer.stream);
    }
    Ok(())
}

struct Answer {
    stream: TcpStream,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl Answer {
    fn read(&mut self, most: usize) -> Result<(), Lost> {
        let start = self.bytes.len();
        self.bytes.resize(start + most, 0);
        let read = self.stream.read(&mut self.bytes[start..]);
        self.bytes.truncate(start + *read.as_ref().unwrap_or(&0));
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Lost::TimedOut),
            _ if Instant::now() > self.deadline => Err(Lost::TimedOut),
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) if start == 0 => Err(Lost::Reset),
            Ok(0) | Err(_) => Err(Lost::Cut),
        }
    }
}

/// Neither closed nor reset, and nothing unasked for has come (408, say).
fn is_open(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("non-blocking");
    let silent = matches!(stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("blocking");
    silent
}
