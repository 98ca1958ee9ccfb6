//! `--in-flight`: the app itself says how much it is working on. Asked between two looks, over HTTP/1.0, within bounds of time and
//! size; the loop never waits for it.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::core::exposition::{Malformed, Sum};
use crate::core::question::Question;
use crate::core::time::Uptime;
use crate::core::verdict::Row;

/// One question and its whole answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// An answer counts this long.
const FRESH: Duration = Duration::from_millis(1500);
const MOST_BYTES: usize = 16 << 20;
const LONGEST_HEAD: usize = 16 << 10;
/// So many of our own latest connections are told apart from the app's.
const OWN_PORTS: usize = 64;

enum Message {
    /// The port a question is asked from.
    From(u16),
    Answer(Result<u64, String>),
}

#[derive(Debug)]
pub struct Metric {
    question: Question,
    sender: Sender<Message>,
    messages: Receiver<Message>,
    asking: bool,
    answer: Option<(u64, Uptime)>,
    own_ports: VecDeque<u16>,
    /// How many connections we made.
    pub asked: u64,
    failing: bool,
    warned: bool,
}

impl Metric {
    pub fn new(question: Question) -> Metric {
        let (sender, messages) = channel();
        let own_ports = VecDeque::with_capacity(OWN_PORTS);
        Metric { question, sender, messages, asking: false, answer: None, own_ports, asked: 0, failing: false, warned: false }
    }

    /// Takes what came since: before any rows are shown, since our own connections are told by it. Returns why there is no answer,
    /// once.
    pub fn hear(&mut self, now: Uptime) -> Option<String> {
        let mut warning = None;
        for message in self.messages.try_iter() {
            match message {
                Message::From(port) => {
                    if self.own_ports.len() == OWN_PORTS {
                        self.own_ports.pop_front();
                    }
                    self.own_ports.push_back(port);
                    self.asked += 1;
                }
                Message::Answer(Ok(count)) => {
                    (self.asking, self.failing) = (false, false);
                    self.answer = Some((count, now));
                }
                Message::Answer(Err(why)) => {
                    // The answer before counts for as long as it is fresh.
                    (self.asking, self.failing) = (false, true);
                    if !std::mem::replace(&mut self.warned, true) {
                        warning = Some(why);
                    }
                }
            }
        }
        warning
    }

    /// The latest answer, and asks again. None: there is no fresh one, so the sockets decide.
    pub fn look(&mut self, now: Uptime) -> Option<u64> {
        if !std::mem::replace(&mut self.asking, true) {
            let (question, sender) = (self.question.clone(), self.sender.clone());
            tokio::spawn(async move {
                let answer = match tokio::time::timeout(TIMEOUT, ask(&question, &sender)).await {
                    Ok(answer) => answer,
                    Err(_) => Err(format!("no whole answer within {TIMEOUT:?}")),
                };
                let _ = sender.send(Message::Answer(answer));
            });
        }
        self.answer.filter(|(_, at)| now.since(*at) < FRESH).map(|(count, _)| count)
    }

    /// Whether there is an answer to go by.
    pub fn answers(&self) -> bool {
        !self.failing
    }

    /// The first answer is still to come: for no longer than a question may take.
    pub fn is_awaited(&self) -> bool {
        self.answer.is_none() && !self.failing
    }

    /// Whether this connection is one of our questions.
    pub fn is_own(&self, row: &Row) -> bool {
        row.port == self.question.port && self.own_ports.contains(&row.peer_port)
    }
}

async fn ask(question: &Question, sender: &Sender<Message>) -> Result<u64, String> {
    let stream = connect(question, sender).await?;
    let request = format!(
        "GET {} HTTP/1.0\r\nHost: {}\r\nAccept: text/plain;version=0.0.4\r\nConnection: close\r\nUser-Agent: lameduck\r\n\r\n",
        question.path, question.authority
    );
    write(&stream, request.as_bytes()).await.map_err(|error| error.to_string())?;
    let (body, length) = head(&stream).await?;
    let mut left = length.unwrap_or(MOST_BYTES);
    let mut sum = Sum::of(&question.selector);
    let malformed = |error| match error {
        Malformed::Line(number) => format!("line {number} of the answer is not Prometheus' text format"),
        Malformed::NotACount => "what matches is not a count".to_owned(),
        Malformed::NothingMatches => "no sample of the answer matches".to_owned(),
    };
    let mut take = |bytes: &[u8]| {
        let bytes = &bytes[..bytes.len().min(left)];
        left -= bytes.len();
        sum.feed(bytes).map_err(malformed).map(|()| left)
    };
    let mut more = take(&body)?;
    let mut buffer = vec![0; 16 << 10];
    while more > 0 {
        let read = read_some(&stream, &mut buffer).await.map_err(|error| error.to_string())?;
        if read == 0 {
            break;
        }
        more = take(&buffer[..read])?;
        // A flood must not hold up signals and deadlines.
        tokio::task::yield_now().await;
    }
    match (more, length) {
        (1.., Some(_)) => return Err("the answer was cut".to_owned()),
        (0, None) => return Err(format!("the answer is longer than {MOST_BYTES} bytes")),
        _ => {}
    }
    let count = sum.finish().map_err(malformed)?;
    Ok((count.ceil() as u64).saturating_sub(question.less.into()))
}

async fn connect(question: &Question, sender: &Sender<Message>) -> Result<TcpStream, String> {
    let mut why = String::new();
    for address in question.addresses() {
        let connecting = async {
            let (socket, any) = match address {
                SocketAddr::V4(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
                SocketAddr::V6(_) => (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
            };
            // Said before it connects, so that no look takes it for a client.
            socket.bind(any)?;
            let _ = sender.send(Message::From(socket.local_addr()?.port()));
            socket.connect(address).await
        };
        match connecting.await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}

/// The head of the answer: returns what of the body came with it, and how long the body is if that was said.
async fn head(stream: &TcpStream) -> Result<(Vec<u8>, Option<usize>), String> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(&bytes) {
            Ok(httparse::Status::Complete(length)) => {
                let code = response.code.unwrap_or_default();
                if code != 200 {
                    return Err(format!("it answers {code}"));
                }
                let header = |name: &str| {
                    let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
                    str::from_utf8(header.value).ok()
                };
                if header("transfer-encoding").is_some()
                    || header("content-encoding").is_some_and(|encoding| encoding != "identity")
                {
                    return Err("it answers in an encoding that was not asked for".to_owned());
                }
                let body = header("content-length")
                    .map(|length| length.trim().parse::<usize>().ok().filter(|length| *length < MOST_BYTES));
                if body == Some(None) {
                    return Err("it answers with a bad Content-Length".to_owned());
                }
                return Ok((bytes.split_off(length), body.flatten()));
            }
            Ok(httparse::Status::Partial) if bytes.len() < LONGEST_HEAD => {}
            Ok(httparse::Status::Partial) => return Err("the head of the answer is too long".to_owned()),
            Err(error) => return Err(format!("not HTTP: {error}")),
        }
        let mut buffer = [0; 4096];
        match read_some(stream, &mut buffer).await.map_err(|error| error.to_string())? {
            0 => return Err("the answer was cut".to_owned()),
            length => bytes.extend(&buffer[..length]),
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
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

/// 0: the answer is over.
async fn read_some(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}
