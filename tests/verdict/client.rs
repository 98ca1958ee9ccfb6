//! A client that notes when each of its requests was in flight. Both edges are the stamps of its own kernel, so that a machine too
//! busy to run it does not make it lie.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::network::{Network, PORT};

/// CLOCK_MONOTONIC, which the servers' logs have too.
pub fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes a timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// One connection of one pattern, from the client's side.
#[derive(Clone, Debug)]
pub struct Story {
    pub pattern: &'static str,
    pub port: u16,
    pub requests: Vec<Request>,
    /// Gone without a word.
    pub vanished: bool,
    pub closed: Option<Duration>,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// By which the server's log names it.
    pub id: usize,
    /// When its first byte left.
    pub begin: Duration,
    /// When the last byte of the answer came; None: the client did not live to see it.
    pub end: Option<Duration>,
    /// The server takes at least this long.
    pub thinks: Duration,
}

pub struct Client {
    network: Arc<Network>,
    pattern: &'static str,
    pub keeps_alive: bool,
    connection: Option<TcpStream>,
    /// Read and not yet understood.
    buffer: Vec<u8>,
    pub stories: Vec<Story>,
}

/// Unique in this test process.
pub fn next_id() -> usize {
    static ID: AtomicUsize = AtomicUsize::new(1);
    ID.fetch_add(1, Ordering::Relaxed)
}

pub fn rest(millis: u64) {
    thread::sleep(Duration::from_millis(millis));
}

impl Client {
    pub fn new(network: Arc<Network>, pattern: &'static str, keeps_alive: bool) -> Client {
        Client { network, pattern, keeps_alive, connection: None, buffer: Vec::new(), stories: Vec::new() }
    }

    /// A new connection, in place of the present one.
    pub fn connect(&mut self) {
        self.connect_to(PORT);
    }

    pub fn connect_to(&mut self, port: u16) {
        self.close();
        let stream = TcpStream::connect((self.network.address, port)).expect("a connection");
        stream.set_nodelay(true).expect("nodelay");
        self.opened(stream);
    }

    /// As `connect`, with a receive buffer so small that the answer waits at the server.
    pub fn connect_narrow(&mut self) {
        use std::os::fd::{FromRawFd, OwnedFd};
        self.close();
        // Before the handshake, or the window is wide already.
        // SAFETY: a new descriptor that is nobody else's; the options and the address are plain memory of the size that is passed.
        let stream = unsafe {
            let fd = OwnedFd::from_raw_fd(libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0));
            let size: libc::c_int = 16 * 1024;
            let (level, name) = (libc::SOL_SOCKET, libc::SO_RCVBUF);
            assert_eq!(libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const size).cast(), 4), 0);
            let mut peer: libc::sockaddr_in = std::mem::zeroed();
            peer.sin_family = libc::AF_INET as u16;
            peer.sin_port = PORT.to_be();
            peer.sin_addr.s_addr = u32::from(self.network.address).to_be();
            let made = libc::connect(fd.as_raw_fd(), (&raw const peer).cast(), size_of_val(&peer) as u32);
            assert_eq!(made, 0, "connect: {}", std::io::Error::last_os_error());
            TcpStream::from(fd)
        };
        self.opened(stream);
    }

    fn opened(&mut self, stream: TcpStream) {
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a read timeout");
        self.story(stream.local_addr().expect("an address").port());
        self.connection = Some(stream);
    }

    pub fn host(&self) -> String {
        self.network.address.to_string()
    }

    /// Begins the story of a new connection.
    pub fn story(&mut self, port: u16) {
        self.stories.push(Story { pattern: self.pattern, port, requests: Vec::new(), vanished: false, closed: None });
    }

    pub fn close(&mut self) {
        if self.connection.take().is_some() {
            self.present().closed = Some(now());
        }
        self.buffer.clear();
    }

    /// Closes with a reset.
    pub fn reset(&mut self) {
        let linger = libc::linger { l_onoff: 1, l_linger: 0 };
        let length = size_of_val(&linger) as u32;
        // SAFETY: the option is plain memory of the size that is passed.
        let set = unsafe {
            libc::setsockopt(self.stream().as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
        };
        assert_eq!(set, 0);
        self.close();
    }

    pub fn finish_sending(&mut self) {
        self.stream().shutdown(Shutdown::Write).expect("shutdown");
    }

    /// Nothing reaches us any more, nor does anything of ours reach the server.
    pub fn vanish(&mut self) {
        let port = self.present().port;
        self.network.cut(port);
        self.present().vanished = true;
    }

    /// The story of the present connection.
    pub fn present(&mut self) -> &mut Story {
        self.stories.last_mut().expect("a connection")
    }

    fn stream(&mut self) -> &mut TcpStream {
        self.connection.as_mut().expect("a connection")
    }

    /// A request's head as text, and its number. `start` is method and target with a query; what `ms=` says there is how long the
    /// server thinks.
    pub fn head(&self, start: &str, headers: &str, version: &str) -> (usize, String) {
        let id = next_id();
        (id, format!("{start}&id={id} HTTP/{version}\r\nHost: localhost\r\n{headers}\r\n"))
    }

    /// Sends a whole request in one piece.
    pub fn ask(&mut self, start: &str) {
        let (id, head) = self.head(start, "", "1.1");
        self.begin(id, start, head.as_bytes());
    }

    /// Sends the first bytes of a request.
    pub fn begin(&mut self, id: usize, start: &str, bytes: &[u8]) {
        self.write(bytes);
        let begin = self.last_sent();
        self.also(id, start, begin);
    }

    /// Another request in the same bytes.
    pub fn also(&mut self, id: usize, start: &str, begin: Duration) {
        let thinks = start.split("ms=").nth(1).and_then(|rest| rest.split('&').next()?.parse().ok()).unwrap_or(0);
        let request = Request { id, begin, end: None, thinks: Duration::from_millis(thinks) };
        self.present().requests.push(request);
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream().write_all(bytes).expect("sent");
    }

    /// When our kernel last sent data.
    pub fn last_sent(&mut self) -> Duration {
        let (moment, info) = tcp_info(self.stream());
        moment - Duration::from_millis(info.tcpi_last_data_sent.into())
    }

    /// The first request that is still without an answer has it.
    pub fn end(&mut self) {
        let id = self.present().requests.iter().find(|request| request.end.is_none()).expect("a request in flight").id;
        self.end_of(id);
    }

    pub fn end_of(&mut self, id: usize) {
        let (moment, info) = tcp_info(self.stream());
        let end = moment - Duration::from_millis(info.tcpi_last_data_recv.into());
        let request = self.present().requests.iter_mut().find(|request| request.id == id).expect("a request");
        request.end = Some(end.max(request.begin));
    }

    /// Reads more into the buffer; false at the end.
    fn more(&mut self, most: usize) -> bool {
        let start = self.buffer.len();
        self.buffer.resize(start + most, 0);
        let stream = self.connection.as_mut().expect("a connection");
        let read = stream.read(&mut self.buffer[start..]);
        let length = match read {
            // As good as an end, where the server closes with something unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            result => result.unwrap_or_else(|error| panic!("{}: {error}", self.pattern)),
        };
        self.buffer.truncate(start + length);
        length > 0
    }

    /// Takes `length` bytes off the stream.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            let missing = length - self.buffer.len();
            assert!(self.more(missing), "{}: cut: {:?}", self.pattern, String::from_utf8_lossy(&self.buffer));
        }
        self.buffer.drain(..length).collect()
    }

    fn take_until(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|part| part == end) {
                return String::from_utf8_lossy(&self.take(at + end.len())).into_owned();
            }
            assert!(self.more(4096), "{}: cut: {:?}", self.pattern, String::from_utf8_lossy(&self.buffer));
        }
    }

    /// `HTTP/1.1 100 Continue`
    pub fn interim(&mut self) {
        let head = self.take_until(b"\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 100 "), "{}: {head:?}", self.pattern);
    }

    /// Reads a whole answer; `helping` bytes of its body at once, and `pause` between them.
    fn read_answer(&mut self, helping: usize, pause: Duration) {
        let head = self.take_until(b"\r\n\r\n").to_ascii_lowercase();
        assert!(head.split(' ').nth(1) == Some("200"), "{}: {head:?}", self.pattern);
        let field = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim);
        if field("transfer-encoding") == Some("chunked") {
            self.take_until(b"0\r\n\r\n");
        } else if let Some(length) = field("content-length") {
            let mut left: usize = length.parse().expect("a length");
            while left > 0 {
                let part = left.min(helping);
                self.take(part);
                left -= part;
                thread::sleep(pause);
            }
        } else {
            while self.more(4096) {}
            self.buffer.clear();
        }
        self.end();
    }

    pub fn answer(&mut self) {
        self.read_answer(usize::MAX, Duration::ZERO);
    }

    pub fn answer_slowly(&mut self, helping: usize, pause: Duration) {
        self.read_answer(helping, pause);
    }

    pub fn upgraded(&mut self) {
        let head = self.take_until(b"\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 101 "), "{head:?}");
        self.end();
    }
}

fn tcp_info(stream: &TcpStream) -> (Duration, libc::tcp_info) {
    // SAFETY: the structure is plain memory of the size that is passed.
    unsafe {
        let mut info: libc::tcp_info = std::mem::zeroed();
        let mut length = size_of_val(&info) as libc::socklen_t;
        let moment = now();
        let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
        let got = libc::getsockopt(stream.as_raw_fd(), level, name, (&raw mut info).cast(), &mut length);
        assert_eq!(got, 0, "TCP_INFO: {}", std::io::Error::last_os_error());
        (moment, info)
    }
}
