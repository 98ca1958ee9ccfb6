//! HTTP requests by lameduck: a connection, one GET and its answer. The size is bounded here, the time by the caller.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::sync::mpsc::UnboundedSender;

use crate::core::start::url::{self, Target, Url};

const LONGEST_HEAD: usize = 16 << 10;

/// A connection of lameduck's own, announced before it is made: its target and its local port.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    pub to: SocketAddr,
    pub from_port: u16,
}

/// Why a target is not reached.
#[derive(Debug)]
pub struct Unreached {
    pub why: String,
    /// Something answers, but not as wanted.
    pub answers: bool,
}

/// Checks whether the target accepts a connection, or answers 2xx.
pub async fn reach(target: &Target, own: Option<&UnboundedSender<Own>>) -> Result<(), Unreached> {
    let absent = |why| Unreached { why, answers: false };
    let wrong = |why| Unreached { why, answers: true };
    match target {
        Target::Tcp { host, port } => connect(host, *port, own).await.map(drop).map_err(absent),
        Target::Unix { path } => UnixStream::connect(path).await.map(drop).map_err(|error| absent(error.to_string())),
        Target::Http(url) => {
            let stream = connect(&url.host, url.port, own).await.map_err(absent)?;
            match get(&stream, url).await.map_err(wrong)?.status {
                200..=299 => Ok(()),
                status => Err(wrong(format!("it answers {status}"))),
            }
        }
    }
}

/// Connects to any address of the name. The name is looked up each time, since it may have moved. The error is the reason in words.
pub async fn connect(host: &str, port: u16, own: Option<&UnboundedSender<Own>>) -> Result<TcpStream, String> {
    let literal = url::addresses(host, port);
    let is_name = literal.as_ref().is_none_or(|addresses| addresses.len() > 1);
    let addresses = match literal {
        Some(addresses) => addresses,
        None => look_up(host, port).await.map_err(|error| error.to_string())?,
    };
    let mut why = "the name has no address".to_owned();
    for address in addresses {
        match connect_to(address, own).await {
            Ok(stream) => return Ok(stream),
            Err(error) if is_name => why = format!("{address}: {error}"),
            Err(error) => why = error.to_string(),
        }
    }
    Err(why)
}

async fn connect_to(to: SocketAddr, own: Option<&UnboundedSender<Own>>) -> io::Result<TcpStream> {
    let (socket, any) = match to {
        SocketAddr::V4(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
        SocketAddr::V6(_) => (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
    };
    if let Some(own) = own {
        // Announced before it connects, so that no look takes it for a client.
        socket.bind(any)?;
        let _ = own.send(Own { to, from_port: socket.local_addr()?.port() });
    }
    socket.connect(to).await
}

/// Looks a name up in a thread, because the C library's resolver blocks. The thread ends with its answer, or with lameduck.
async fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let host = host.to_owned();
    std::thread::Builder::new().spawn(move || {
        let addresses = std::net::ToSocketAddrs::to_socket_addrs(&(host.as_str(), port));
        let _ = sender.send(addresses.map(Iterator::collect));
    })?;
    receiver.await.unwrap_or_else(|_| Err(io::Error::other("the lookup failed")))
}

/// The head of an answer, and the body as it comes.
pub struct Answer<'a> {
    pub status: u16,
    stream: &'a TcpStream,
    /// The bytes of the body that came with the head.
    begun: Vec<u8>,
    length: Result<Option<usize>, String>,
}

/// Sends a GET in HTTP/1.0, so that the answer is neither chunked nor kept alive. The error is the reason in words.
pub async fn get<'a>(stream: &'a TcpStream, url: &Url) -> Result<Answer<'a>, String> {
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nAccept: */*\r\nConnection: close\r\nUser-Agent: lameduck\r\n\r\n",
        url.path, url.authority
    );
    write(stream, request.as_bytes()).await.map_err(|error| error.to_string())?;
    head(stream).await
}

async fn head(stream: &TcpStream) -> Result<Answer<'_>, String> {
    let mut bytes = Vec::with_capacity(4096);
    let mut buffer = vec![0; 4096];
    loop {
        // The shortest header has four bytes.
        let mut headers = vec![httparse::EMPTY_HEADER; bytes.len() / 4 + 1];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&bytes) {
            Ok(httparse::Status::Complete(end)) => {
                let status = response.code.unwrap_or_default();
                let length = body_length(response.headers);
                return Ok(Answer { status, stream, begun: bytes.split_off(end), length });
            }
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => {}
            Ok(httparse::Status::Partial) => return Err("the head of the answer is too long".to_owned()),
            Err(error) => return Err(format!("not HTTP: {error}")),
        }
        match read(stream, &mut buffer).await.map_err(|error| error.to_string())? {
            0 => return Err("the answer was cut".to_owned()),
            length => bytes.extend(&buffer[..length]),
        }
    }
}

/// The length of the body. None: it ends with the connection.
fn body_length(headers: &[httparse::Header<'_>]) -> Result<Option<usize>, String> {
    let header = |name: &str| {
        let header = headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok()
    };
    let encoded = header("content-encoding").is_some_and(|encoding| encoding != "identity");
    if header("transfer-encoding").is_some() || encoded {
        return Err("it answers in an encoding that was not asked for".to_owned());
    }
    let length = header("content-length").map(|length| length.trim().parse());
    length.transpose().map_err(|_| "it answers with a bad Content-Length".to_owned())
}

impl Answer<'_> {
    /// Passes the body on piece by piece, `most` bytes at most. The error is the reason in words.
    pub async fn body(self, most: usize, mut take: impl FnMut(&[u8]) -> Result<(), String>) -> Result<(), String> {
        let length = self.length?;
        let too_long = || format!("the answer is longer than {most} bytes");
        if length.is_some_and(|length| length > most) {
            return Err(too_long());
        }
        let mut left = length.unwrap_or(most);
        let mut buffer = self.begun;
        let mut read_bytes = buffer.len();
        if buffer.len() < 16 << 10 {
            buffer.resize(16 << 10, 0);
        }
        loop {
            let bytes = &buffer[..read_bytes.min(left)];
            left -= bytes.len();
            take(bytes)?;
            match (left, length) {
                (0, Some(_)) => return Ok(()),
                (0, None) => return Err(too_long()),
                _ => {}
            }
            // A flood of data must not delay signals and deadlines.
            tokio::task::yield_now().await;
            read_bytes = read(self.stream, &mut buffer).await.map_err(|error| error.to_string())?;
            match (read_bytes, length) {
                (0, Some(_)) => return Err("the answer was cut".to_owned()),
                (0, None) => return Ok(()),
                _ => {}
            }
        }
    }
}

pub async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads some bytes. 0: the answer is over.
pub async fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
