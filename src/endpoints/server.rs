//! Connections to `--admin`: requests in, answers out. Each is a task that hands its question to the loop and waits for the answer.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::http;

/// How many connections there may be at once; for one more, the least important one is closed.
const MOST_CONNECTIONS: usize = 64;
const LONGEST_HEAD: usize = 8 << 10;
/// The time in which a request that has begun must be whole, and in which an answer must be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// The time for an answer; it is longer than any readiness check.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// What a client asks for. `/livez` is answered without the loop.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Question {
    Metrics,
    Readyz,
    Status(Form),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Form {
    Json,
    Drawn,
}

#[derive(Debug)]
pub struct Asked {
    pub question: Question,
    pub reply: oneshot::Sender<Reply>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub kind: &'static str,
    pub body: String,
}

pub const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    pub fn text(status: u16, line: &str) -> Reply {
        Reply { status, kind: TEXT, body: format!("{line}\n") }
    }
}

/// Accepts connections without end, and starts a task for each.
pub async fn accept(listener: tokio::net::TcpListener, sender: UnboundedSender<Asked>) {
    let mut open: VecDeque<Connection> = VecDeque::with_capacity(MOST_CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Most likely there are no free descriptors: some are freed soon.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|connection| !connection.task.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(dispensable) = (0..open.len()).min_by_key(|index| open[*index].stage())
            && let Some(connection) = open.remove(dispensable)
        {
            connection.task.abort();
            // Its task closes its descriptor when it runs next; in a flood of connections this loop would never let it run.
            tokio::task::yield_now().await;
        }
        let stage = Arc::new(AtomicU8::new(Stage::Silent as u8));
        let task = tokio::spawn(serve(stream, sender.clone(), Arc::clone(&stage))).abort_handle();
        open.push_back(Connection { task, stage });
    }
}

/// How far a client has come; one that stands earlier in this list is closed sooner.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Stage {
    /// It has asked nothing yet.
    Silent,
    /// Its question was answered, and it keeps its connection.
    AtRest,
    /// It has asked, and waits for the answer.
    Waiting,
}

/// A connection in the accepting task's list, the oldest first.
struct Connection {
    task: AbortHandle,
    stage: Arc<AtomicU8>,
}

impl Connection {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }
}

/// Serves one connection for as long as its client keeps it: it costs nothing while it is idle.
pub async fn serve(stream: TcpStream, sender: UnboundedSender<Asked>, stage: Arc<AtomicU8>) {
    let mut begun = Vec::new();
    let enter = |entered: Stage| stage.store(entered as u8, Ordering::Relaxed);
    loop {
        let mut first = [0; 1024];
        if begun.is_empty() {
            match http::read(&stream, &mut first).await {
                Ok(length @ 1..) => begun.extend(&first[..length]),
                _ => return,
            }
        }
        let request = match tokio::time::timeout(PATIENCE, request(&stream, &mut begun)).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(_) => Request { head: false, keep: false, wants: Err(Reply::text(408, "the request did not come in time")) },
        };
        let reply = match request.wants {
            Err(reply) => reply,
            Ok(question) => {
                enter(Stage::Waiting);
                let (reply, replied) = oneshot::channel();
                let _ = sender.send(Asked { question, reply });
                match tokio::time::timeout(LONGEST_ANSWER, replied).await {
                    Ok(Ok(reply)) => reply,
                    _ => Reply::text(503, "no answer in time"),
                }
            }
        };
        let response = response(&reply, request.head, request.keep);
        let written = tokio::time::timeout(PATIENCE, http::write(&stream, &response)).await;
        if !matches!(written, Ok(Ok(()))) || !request.keep {
            return;
        }
        enter(Stage::AtRest);
    }
}

struct Request {
    /// The request is HEAD: the answer has no body.
    head: bool,
    keep: bool,
    wants: Result<Question, Reply>,
}

/// Reads one request; bytes that follow it stay in `begun`. None: the client is gone.
async fn request(stream: &TcpStream, begun: &mut Vec<u8>) -> Option<Request> {
    let refused = |status, why: &str| Some(Request { head: false, keep: false, wants: Err(Reply::text(status, why)) });
    loop {
        // The shortest header is `a:` and its line end.
        let mut headers = vec![httparse::EMPTY_HEADER; begun.len() / 4 + 1];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(begun) {
            Ok(httparse::Status::Complete(end)) => {
                let understood = understand(&request);
                begun.drain(..end);
                return Some(understood);
            }
            Ok(httparse::Status::Partial) if begun.len() < LONGEST_HEAD => {}
            Ok(httparse::Status::Partial) => return refused(431, "the request is too long"),
            Err(_) => return refused(400, "not an HTTP request"),
        }
        let mut more = [0; 1024];
        match http::read(stream, &mut more).await {
            Ok(length @ 1..) => begun.extend(&more[..length]),
            _ => return None,
        }
    }
}

fn understand(request: &httparse::Request<'_, '_>) -> Request {
    let header = |name: &str| {
        let header = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        str::from_utf8(header.value).ok().map(str::to_ascii_lowercase)
    };
    // A body is not read: the connection is closed after the answer.
    let has_body = header("content-length").is_some_and(|length| length.trim() != "0") || header("transfer-encoding").is_some();
    let connection = header("connection").unwrap_or_default();
    let keep =
        !has_body && if request.version == Some(0) { connection.contains("keep-alive") } else { !connection.contains("close") };
    let method = request.method.unwrap_or_default();
    let target = request.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let wants = match path {
        "/livez" => Err(Reply::text(200, "alive")),
        "/readyz" => Ok(Question::Readyz),
        "/metrics" => Ok(Question::Metrics),
        "/status" => Ok(Question::Status(match query {
            "drawn" => Form::Drawn,
            _ => Form::Json,
        })),
        _ => Err(Reply::text(404, "there are /livez, /readyz, /metrics and /status")),
    };
    let known = !matches!(&wants, Err(reply) if reply.status == 404);
    let wants = if known && !matches!(method, "GET" | "HEAD") { Err(Reply::text(405, "only GET")) } else { wants };
    Request { head: method == "HEAD", keep, wants }
}

fn response(reply: &Reply, head: bool, keep: bool) -> Vec<u8> {
    let reason = match reply.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        431 => "Request Header Fields Too Large",
        _ => "Service Unavailable",
    };
    let mut text = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n",
        reply.status,
        reply.kind,
        reply.body.len()
    );
    if reply.status == 405 {
        text.push_str("Allow: GET, HEAD\r\n");
    }
    text.push_str(if keep { "Connection: keep-alive\r\n\r\n" } else { "Connection: close\r\n\r\n" });
    if !head {
        text.push_str(&reply.body);
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Request {
        let mut headers = [httparse::EMPTY_HEADER; 8];
        let mut request = httparse::Request::new(&mut headers);
        assert!(request.parse(text.as_bytes()).unwrap().is_complete());
        understand(&request)
    }

    fn status(text: &str) -> u16 {
        understood(text).wants.map_or_else(|reply| reply.status, |_| 0)
    }

    #[test]
    fn only_reads_of_four_paths() {
        assert_eq!(status("GET /livez HTTP/1.1\r\n\r\n"), 200);
        assert_eq!(understood("GET /metrics?x HTTP/1.1\r\n\r\n").wants.ok(), Some(Question::Metrics));
        assert_eq!(understood("HEAD /readyz HTTP/1.1\r\n\r\n").wants.ok(), Some(Question::Readyz));
        let drawn = Question::Status(Form::Drawn);
        assert_eq!(understood("GET /status?drawn HTTP/1.1\r\n\r\n").wants.ok(), Some(drawn));
        assert_eq!(status("POST /metrics HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("DELETE /livez HTTP/1.1\r\n\r\n"), 405);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 404);
        assert_eq!(status("POST /x HTTP/1.1\r\n\r\n"), 404);
    }

    #[test]
    fn who_is_kept_alive() {
        assert!(understood("GET /livez HTTP/1.1\r\n\r\n").keep);
        assert!(!understood("GET /livez HTTP/1.0\r\n\r\n").keep);
        assert!(understood("GET /livez HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep);
        assert!(!understood("GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n").keep);
        assert!(!understood("GET /livez HTTP/1.1\r\nContent-Length: 5\r\n\r\n").keep, "its body is not read");
    }
}
