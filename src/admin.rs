//! `--admin`: /livez, /readyz, /metrics and /status. Connections are tasks that hand their questions to the loop, one at a time; what
//! takes long (walking /proc, looking at sockets) is done by a thread while somebody asks, and by nothing while nobody does.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::info;

use crate::core::metrics;
use crate::core::snapshot::{AppFigures, Snapshot};
use crate::core::time::Uptime;
use crate::core::traffic::Sample;
use crate::http;
use crate::plan::Plan;
use crate::ready::{Probe, Readiness, Told};
use crate::sys::proc;
use crate::traffic::{Family, OwnConnections, Traffic, Watch};
use crate::{Fatal, exit};

/// At once; one more and the oldest is closed.
const MOST_CONNECTIONS: usize = 64;
const LONGEST_HEAD: usize = 8 << 10;
/// A request that has begun must be whole by then, and an answer taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longer than any readiness check.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);
/// Questions that come this soon after a look share it.
const FRESH: Duration = Duration::from_millis(250);

/// What a client wants to know; `/livez` needs nobody's answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Question {
    Metrics,
    Readyz,
    Status(Form),
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    Json,
    Drawn { colour: bool },
}

#[derive(Debug)]
pub struct Reply {
    status: u16,
    kind: &'static str,
    body: String,
}

const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    pub fn text(status: u16, line: &str) -> Reply {
        Reply { status, kind: TEXT, body: format!("{line}\n") }
    }
}

/// What comes to the loop from here.
#[derive(Debug)]
pub enum Message {
    Asked(Asked),
    Looked(Look),
    Told(Told),
}

#[derive(Debug)]
pub struct Asked {
    question: Question,
    reply: oneshot::Sender<Reply>,
}

/// What the thread found.
#[derive(Clone, Debug)]
pub struct Look {
    /// None: nobody could look.
    app: Option<AppFigures>,
    /// None: the loop watches, and knows more.
    traffic: Option<(Option<bool>, &'static str, Sample)>,
}

pub struct Admin {
    /// Somebody may ask; else only the warm-up is to be waited for.
    listens: bool,
    sender: UnboundedSender<Message>,
    messages: UnboundedReceiver<Message>,
    readiness: Readiness,
    looking: bool,
    latest: Option<(Uptime, Look)>,
    /// Who waits for the present look.
    waiting: Vec<Asked>,
}

impl Admin {
    /// Before the app starts: what is in use is said then. None: `--admin` and `--warm-up` are off.
    pub fn open(plan: &Plan, own: &OwnConnections) -> Result<Option<Admin>, Fatal> {
        let (sender, messages) = unbounded_channel();
        match &plan.outside.admin {
            Some((text, addresses)) => {
                let listener = listen(addresses).map_err(|error| Fatal {
                    code: exit::UNAVAILABLE,
                    message: format!("cannot listen on {text:?} (--admin): {error}; nothing was started"),
                })?;
                let address = listener.local_addr().map_or(text.clone(), |address| address.to_string());
                info!(event = "admin", address);
                tokio::spawn(accept(listener, sender.clone()));
            }
            None if plan.outside.warm_up.is_none() => return Ok(None),
            None => {}
        }
        let readiness = Readiness::new(plan, sender.clone(), own.teller());
        Ok(Some(Admin {
            listens: plan.outside.admin.is_some(),
            sender,
            messages,
            readiness,
            looking: false,
            latest: None,
            waiting: Vec::new(),
        }))
    }

    /// The next message for `on`. Cancel-safe.
    pub async fn next(&mut self) -> Message {
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    pub fn is_needed(&self) -> bool {
        self.listens || !self.readiness.is_warm()
    }

    pub fn readiness(&mut self) -> &mut Readiness {
        &mut self.readiness
    }

    /// `watched`: the loop looks at the traffic itself. Returns a command that the loop is to run.
    pub fn on(
        &mut self,
        now: Uptime,
        message: Message,
        plan: &Plan,
        watched: bool,
        snapshot: impl Fn() -> Snapshot,
    ) -> Option<Probe> {
        match message {
            Message::Asked(Asked { question: Question::Readyz, reply }) => {
                let snapshot = snapshot();
                return self.readiness.ask(reply, snapshot.phase, snapshot.pid.is_some());
            }
            Message::Asked(asked) => match &self.latest {
                Some((at, look)) if now.since(*at) < FRESH => answer(asked, with(snapshot(), look)),
                _ => {
                    self.waiting.push(asked);
                    self.look(plan, watched, &snapshot());
                }
            },
            Message::Looked(mut look) => {
                self.looking = false;
                // Who was reaped meanwhile is missing from both sums: a counter does not go back.
                if let (Some(app), Some((_, Look { app: Some(last), .. }))) = (&mut look.app, &self.latest) {
                    app.cpu = app.cpu.max(last.cpu);
                }
                for asked in std::mem::take(&mut self.waiting) {
                    answer(asked, with(snapshot(), &look));
                }
                self.latest = Some((now, look));
            }
            Message::Told(told) => self.readiness.told(now, told),
        }
        None
    }

    fn look(&mut self, plan: &Plan, watched: bool, snapshot: &Snapshot) {
        if std::mem::replace(&mut self.looking, true) {
            return;
        }
        let (sender, rules, ports) = (self.sender.clone(), plan.rules.clone(), plan.ports.clone());
        let (target, runs) = (snapshot.target, snapshot.pid.is_some());
        let started = std::thread::Builder::new().spawn(move || {
            let app = Some(proc::figures(target));
            let traffic = (!watched && runs).then(|| {
                let found = Traffic::look_once(Watch::plain(rules, &ports, Family::Descendants));
                (found.listening, found.source, found.sample)
            });
            let _ = sender.send(Message::Looked(Look { app, traffic }));
        });
        if started.is_err() {
            // No thread to be had: then without these figures.
            let _ = self.sender.send(Message::Looked(Look { app: None, traffic: None }));
        }
    }
}

/// EAFNOSUPPORT, and EADDRNOTAVAIL where IPv6 is switched off for all devices.
fn is_absent(error: &std::io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.raw_os_error() == Some(NO_SUCH_FAMILY) || error.kind() == std::io::ErrorKind::AddrNotAvailable
}

fn listen(addresses: &[SocketAddr]) -> std::io::Result<tokio::net::TcpListener> {
    // Without IPv6 in the kernel the next will do; but what is in use is in use.
    let mut result = Err(std::io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        result = TcpListener::bind(address);
        if !matches!(&result, Err(error) if is_absent(error)) {
            break;
        }
    }
    let listener = result?;
    listener.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(listener)
}

fn with(mut snapshot: Snapshot, look: &Look) -> Snapshot {
    snapshot.app = look.app.filter(|_| snapshot.pid.is_some());
    if let Some((listening, source, sample)) = &look.traffic {
        snapshot.traffic.listening = *listening;
        snapshot.traffic.source = source;
        snapshot.traffic.in_flight = sample.at_work();
        snapshot.traffic.ports.clone_from(&sample.ports);
    }
    snapshot
}

pub fn answer(asked: Asked, snapshot: Snapshot) {
    let (kind, body) = match asked.question {
        Question::Metrics => (metrics::CONTENT_TYPE, metrics::page(&snapshot)),
        Question::Status(Form::Json) => ("application/json", snapshot.json()),
        Question::Status(Form::Drawn { colour }) => (TEXT, snapshot.draw(colour)),
        Question::Readyz => return,
    };
    let _ = asked.reply.send(Reply { status: 200, kind, body });
}

async fn accept(listener: tokio::net::TcpListener, sender: UnboundedSender<Message>) {
    let mut open: VecDeque<AbortHandle> = VecDeque::with_capacity(MOST_CONNECTIONS);
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // No descriptors, most likely: they come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        open.retain(|connection| !connection.is_finished());
        if open.len() >= MOST_CONNECTIONS
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back(tokio::spawn(serve(stream, sender.clone())).abort_handle());
    }
}

/// One connection, kept alive for as long as its client likes: it costs nothing while it rests.
pub async fn serve(stream: TcpStream, sender: UnboundedSender<Message>) {
    let mut begun = Vec::new();
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
                let (reply, replied) = oneshot::channel();
                let _ = sender.send(Message::Asked(Asked { question, reply }));
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
    }
}

struct Request {
    /// Only the head of the answer is wanted.
    head: bool,
    keep: bool,
    wants: Result<Question, Reply>,
}

/// Reads one request; what comes behind it stays in `begun`. None: the client is gone.
async fn request(stream: &TcpStream, begun: &mut Vec<u8>) -> Option<Request> {
    let refused = |status, why: &str| Some(Request { head: false, keep: false, wants: Err(Reply::text(status, why)) });
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 64];
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
    // A body is nothing we wait for.
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
            "drawn" => Form::Drawn { colour: false },
            "drawn=colour" => Form::Drawn { colour: true },
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
        let drawn = Question::Status(Form::Drawn { colour: true });
        assert_eq!(understood("GET /status?drawn=colour HTTP/1.1\r\n\r\n").wants.ok(), Some(drawn));
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
