//! `--in-flight`: the app itself says how much it is working on. Asked between two looks, over HTTP/1.0, within bounds of time and
//! size; the loop never waits for it.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use crate::core::exposition::{Malformed, Sum};
use crate::core::question::Question;
use crate::core::time::Uptime;
use crate::core::verdict::Row;
use crate::http;

/// One question and its whole answer.
const TIMEOUT: Duration = Duration::from_secs(1);
/// An answer counts this long.
const FRESH: Duration = Duration::from_millis(1500);
const MOST_BYTES: usize = 16 << 20;
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
}

impl Metric {
    pub fn new(question: Question) -> Metric {
        let (sender, messages) = channel();
        let own_ports = VecDeque::with_capacity(OWN_PORTS);
        Metric { question, sender, messages, asking: false, answer: None, own_ports, asked: 0, failing: false }
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
                    (self.asking, self.answer) = (false, None);
                    if !std::mem::replace(&mut self.failing, true) {
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

    /// Whether this connection is one of our questions.
    pub fn is_own(&self, row: &Row) -> bool {
        row.port == self.question.url.port && self.own_ports.contains(&row.peer_port)
    }
}

async fn ask(question: &Question, sender: &Sender<Message>) -> Result<u64, String> {
    let stream = connect(question, sender).await?;
    let answer = http::get(&stream, &question.url).await?;
    if answer.status != 200 {
        return Err(format!("it answers {}", answer.status));
    }
    let malformed = |error| match error {
        Malformed::Line(number) => format!("line {number} of the answer is not Prometheus' text format"),
        Malformed::NotACount => "what matches is not a count".to_owned(),
        Malformed::NothingMatches => "no sample of the answer matches".to_owned(),
    };
    let mut sum = Sum::of(&question.selector);
    answer.body(MOST_BYTES, |bytes| sum.feed(bytes).map_err(malformed)).await?;
    let count = sum.finish().map_err(malformed)?;
    Ok((count.ceil() as u64).saturating_sub(question.less.into()))
}

async fn connect(question: &Question, sender: &Sender<Message>) -> Result<TcpStream, String> {
    let mut why = String::new();
    for address in &question.addresses {
        let connecting = async {
            let (socket, any) = match address {
                SocketAddr::V4(_) => (TcpSocket::new_v4()?, SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))),
                SocketAddr::V6(_) => (TcpSocket::new_v6()?, SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))),
            };
            // Said before it connects, so that no look takes it for a client.
            socket.bind(any)?;
            let _ = sender.send(Message::From(socket.local_addr()?.port()));
            socket.connect(*address).await
        };
        match connecting.await {
            Ok(stream) => return Ok(stream),
            Err(error) => why = format!("{address}: {error}"),
        }
    }
    Err(why)
}
