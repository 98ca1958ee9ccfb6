//! One request as a client or a proxy makes it, and how it ended.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use hyper::{Method, Request, Response};
use tokio::task::JoinHandle;

use super::schedule::Kind;
use crate::body::Pieces;
use crate::wire::Wire;

/// An upload's pieces, and the time that they take.
const PIECES: usize = 8;
const PIECE: &[u8] = &[b'x'; 512];
const UPLOAD_TAKES: Duration = Duration::from_millis(1500);
/// Between two sips of a slow reader.
const SIP_EACH: Duration = Duration::from_millis(50);

/// What is asked, and where.
#[derive(Clone, Debug)]
pub struct Target {
    pub address: SocketAddr,
    /// For the Host header.
    pub authority: String,
    pub path: String,
    pub slow: Option<String>,
    pub upload: Option<String>,
    pub stream: Option<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    Answered,
    Refused,
    Reset,
    Cut,
    Failed,
    TimedOut,
    /// It broke here without a byte of an answer, and was sent once more, to another pod.
    Elsewhere,
    /// For want of the client's own descriptors or ports.
    Unsent,
}

/// One client with the connections that it keeps.
#[derive(Debug)]
pub struct Client {
    number: usize,
    target: Arc<Target>,
    /// The one used last is used first, as pools do.
    kept: Vec<Connection>,
    most_kept: usize,
}

#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Pieces>,
    read: Arc<AtomicU64>,
    /// Done when the connection has ended.
    driver: JoinHandle<()>,
}

impl Connection {
    /// Waits until it has ended; to be asked no more after that.
    pub async fn ended(&mut self) {
        // However it ended.
        let _ = (&mut self.driver).await;
    }

    /// Waits until it can take another request. False: it has ended.
    pub async fn is_free(&mut self) -> bool {
        self.sender.ready().await.is_ok()
    }
}

/// What a pinned client sends, in one piece.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Message {
    Get,
    Post,
}

/// An answer that came whole.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// Its end was the connection's end: whether that was all of it nobody can tell.
    pub unmarked: bool,
}

/// Asked of a pool between two requests; the lock is never held across a wait.
pub type Shared = std::sync::Mutex<Client>;

impl Client {
    pub fn new(number: usize, target: Arc<Target>, most_kept: usize) -> Client {
        Client { number, target, kept: Vec::new(), most_kept }
    }

    fn reuse(&mut self) -> Option<Connection> {
        std::iter::from_fn(|| self.kept.pop()).find(|connection| connection.sender.is_ready() && !connection.sender.is_closed())
    }

    fn keep(&mut self, connection: Connection) {
        if self.kept.len() < self.most_kept {
            self.kept.push(connection);
        }
    }
}

impl Target {
    pub fn request(&self, message: Message, keep: bool) -> Request<Pieces> {
        match message {
            Message::Get => request(self, Method::GET, &self.path, keep, Pieces::none()),
            Message::Post => {
                let path = self.upload.as_deref().unwrap_or(&self.path);
                request(self, Method::POST, path, keep, Pieces::whole(PIECE))
            }
        }
    }
}

/// One GET on a connection of its own, as the kubelet's probes are.
pub async fn get(target: &Target, client: usize) -> Result<Whole, Outcome> {
    let connection = &mut connect(target.address, client, None).await?;
    exchange(connection, target.request(Message::Get, false)).await.unwrap_or(Err(Outcome::Reset))
}

/// How it ended, whether it was sent twice, and whether the answer's end was marked.
pub async fn ask(client: &Shared, kind: Kind) -> (Result<Whole, Outcome>, bool) {
    let (number, target) = {
        let client = lock(client);
        (client.number, client.target.clone())
    };
    let path = target.path.as_str();
    let (method, path, body, pause) = match kind {
        Kind::Fresh | Kind::Pool => (Method::GET, path, Pieces::none(), None),
        Kind::Slow => match &target.slow {
            Some(path) => (Method::GET, path.as_str(), Pieces::none(), None),
            None => (Method::GET, path, Pieces::none(), Some(SIP_EACH)),
        },
        Kind::Stream => (Method::GET, target.stream.as_deref().unwrap_or(path), Pieces::none(), None),
        Kind::Upload => {
            let body = Pieces::trickle(Bytes::from_static(PIECE), PIECES, UPLOAD_TAKES / PIECES as u32);
            (Method::POST, target.upload.as_deref().unwrap_or(path), body, None)
        }
    };
    let keep = kind == Kind::Pool;
    let mut retried = false;
    if keep {
        let reused = lock(client).reuse();
        if let Some(mut connection) = reused {
            match exchange(&mut connection, request(&target, Method::GET, path, true, Pieces::none())).await {
                None => {}
                // Closed under the request: a proxy sends what is idempotent once more.
                Some(Err(Outcome::Reset)) => retried = true,
                Some(result) => {
                    give_back(client, connection, &result).await;
                    return (result, false);
                }
            }
        }
    }
    let mut connection = match connect(target.address, number, pause).await {
        Ok(connection) => connection,
        Err(outcome) => return (Err(outcome), retried),
    };
    let result = exchange(&mut connection, request(&target, method, path, keep, body)).await.unwrap_or(Err(Outcome::Reset));
    if keep {
        give_back(client, connection, &result).await;
    }
    (result, retried)
}

fn lock(client: &Shared) -> std::sync::MutexGuard<'_, Client> {
    client.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

async fn give_back(client: &Shared, mut connection: Connection, result: &Result<Whole, Outcome>) {
    if result.is_ok() && connection.is_free().await {
        lock(client).keep(connection);
    }
}

fn request(target: &Target, method: Method, path: &str, keep: bool, body: Pieces) -> Request<Pieces> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, &target.authority);
    if !keep {
        request = request.header(CONNECTION, "close");
    }
    request.body(body).expect("the path was read as a URL's")
}

pub async fn connect(server: SocketAddr, client: usize, pause: Option<Duration>) -> Result<Connection, Outcome> {
    let wire = Wire::connect(server, client, pause).await.map_err(|error| not_connected(&error))?;
    let read = wire.counter();
    let (sender, connection) = handshake(wire).await.map_err(|_| Outcome::Reset)?;
    let driver = tokio::spawn(async {
        // How each request ended is said to who sent it.
        let _ = connection.await;
    });
    Ok(Connection { sender, read, driver })
}

fn not_connected(error: &std::io::Error) -> Outcome {
    use nix::errno::Errno;
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM | Errno::EADDRNOTAVAIL | Errno::EADDRINUSE) => {
            Outcome::Unsent
        }
        _ if error.kind() == ErrorKind::TimedOut => Outcome::TimedOut,
        _ => Outcome::Refused,
    }
}

/// None: the connection had ended before, and nothing was sent.
pub async fn exchange(connection: &mut Connection, request: Request<Pieces>) -> Option<Result<Whole, Outcome>> {
    let before = connection.read.load(Ordering::Relaxed);
    Some(match connection.sender.try_send_request(request).await {
        Ok(answer) => whole(answer).await,
        Err(error) if error.message().is_some() => return None,
        Err(error) if error.error().is_parse() => Err(Outcome::Failed),
        Err(_) if connection.read.load(Ordering::Relaxed) > before => Err(Outcome::Cut),
        Err(_) => Err(Outcome::Reset),
    })
}

async fn whole(answer: Response<Incoming>) -> Result<Whole, Outcome> {
    let status = answer.status().as_u16();
    let chunked = answer.headers().contains_key(TRANSFER_ENCODING);
    let mut body = answer.into_body();
    let unmarked = !chunked && body.size_hint().exact().is_none();
    while let Some(frame) = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        if frame.is_err() {
            return Err(Outcome::Cut);
        }
    }
    if status < 400 { Ok(Whole { unmarked }) } else { Err(Outcome::Failed) }
}
