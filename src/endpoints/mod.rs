//! `--admin`: /livez, /readyz, /metrics and /status. What takes long (reading /proc, looking at sockets, asking the app) is done by threads
//! and tasks, and only while somebody asks. The loop is asked once for each question, and builds one snapshot for it.

mod figures;
mod readiness;
mod server;
mod warm_up;

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::info;

use crate::core::output::metrics;
use crate::core::output::snapshot::Snapshot;
use crate::core::shutdown::{Ended, Phase};
use crate::core::time::Uptime;
use crate::fatal::{Fatal, exit};
use crate::plan::Plan;
use crate::traffic::OwnConnections;
use figures::{Figures, Found};
pub use readiness::Probe;
use readiness::{Checked, Readiness};
#[cfg(fuzzing)]
pub use server::serve;
use server::{Asked, Form, Question, Reply};
use warm_up::{WarmUp, Warmed};

/// A message to the loop.
#[derive(Debug)]
pub enum Message {
    Asked(Asked),
    Checked(Checked),
    Found(Found),
    Warmed(Warmed),
}

/// What the loop knows when a message comes.
#[derive(Clone, Debug)]
pub struct Now {
    pub time: Uptime,
    pub phase: Phase,
    /// The process of each service while it runs, the main command first.
    pub processes: Vec<Option<i32>>,
    /// The companion whose end began the shutdown.
    pub ended: Option<String>,
    /// The loop watches the traffic itself.
    pub watched: bool,
}

pub struct Endpoints {
    /// Whether the admin port is open; if not, only the warm-up is waited for.
    listens: bool,
    asked: UnboundedReceiver<Asked>,
    readiness: Readiness,
    figures: Figures,
    warm_up: WarmUp,
    /// Questions that wait for the present figures.
    waiting: Vec<Asked>,
}

impl Now {
    /// The state before any service runs.
    pub fn starting(time: Uptime) -> Now {
        Now { time, phase: Phase::Serving, processes: Vec::new(), ended: None, watched: false }
    }

    /// The main command's process, while it runs.
    pub fn main(&self) -> Option<i32> {
        self.processes.first().copied().flatten()
    }
}

impl Endpoints {
    /// Opens the admin port before the app starts, so that an address in use is an error then. None: `--admin` and `--warm-up` are off.
    pub fn open(plan: &Plan, own: &OwnConnections) -> Result<Option<Endpoints>, Fatal> {
        if plan.outside.admin.is_none() && plan.outside.warm_up.is_none() {
            return Ok(None);
        }
        let (sender, asked) = unbounded_channel();
        if let Some((text, addresses)) = &plan.outside.admin {
            let listener = listen(addresses).map_err(|error| Fatal {
                code: exit::UNAVAILABLE,
                message: format!("cannot listen on {text:?} (--admin): {error}; nothing was started"),
            })?;
            let address = listener.local_addr().map_or(text.clone(), |address| address.to_string());
            info!(event = "admin", address);
            tokio::spawn(server::accept(listener, sender));
        }
        Ok(Some(Endpoints {
            listens: plan.outside.admin.is_some(),
            asked,
            readiness: Readiness::new(plan, own.teller()),
            figures: Figures::new(plan),
            warm_up: WarmUp::new(plan, own.teller()),
            waiting: Vec::new(),
        }))
    }

    /// The next message for `on`. Cancel-safe.
    async fn next(&mut self) -> Message {
        tokio::select! {
            Some(checked) = self.readiness.next() => Message::Checked(checked),
            Some(found) = self.figures.next() => Message::Found(found),
            Some(warmed) = self.warm_up.next() => Message::Warmed(warmed),
            Some(asked) = self.asked.recv() => Message::Asked(asked),
            else => std::future::pending().await,
        }
    }

    pub fn is_needed(&self) -> bool {
        self.listens || self.warm_up.progress().is_some()
    }

    /// The app has been started.
    pub fn started(&mut self) {
        self.warm_up.begin();
    }

    /// The shutdown has begun: the warm-up ends.
    pub fn stopped(&mut self) {
        self.warm_up.stop();
    }

    /// A readiness command has ended.
    pub fn probe_ended(&mut self, now: Uptime, pid: i32, ended: Ended) {
        self.readiness.probe_ended(now, pid, ended);
    }

    /// The readiness command runs, or could not be started.
    pub fn probing(&mut self, now: Uptime, pid: std::io::Result<i32>) {
        self.readiness.probing(now, pid);
    }

    /// Handles a message. Returns a command that the loop is to run.
    pub fn on(&mut self, now: Now, message: Message, snapshot: impl FnOnce() -> Snapshot) -> Option<Probe> {
        match message {
            Message::Asked(Asked { question: Question::Readyz, reply }) => {
                return self.readiness.ask(now, reply, self.warm_up.progress());
            }
            Message::Asked(asked) => {
                self.waiting.push(asked);
                if self.figures.are_fresh(now.time) || !self.figures.look(now) {
                    self.answer(snapshot());
                }
            }
            Message::Checked(checked) => self.readiness.checked(now.time, checked),
            Message::Found(found) => {
                if self.figures.found(now.time, found) {
                    self.answer(snapshot());
                }
            }
            Message::Warmed(warmed) => self.warm_up.warmed(now.time, warmed),
        }
        None
    }

    /// Answers all questions that wait for figures.
    fn answer(&mut self, snapshot: Snapshot) {
        let snapshot = self.figures.with(snapshot);
        self.waiting.drain(..).for_each(|asked| answer(asked, &snapshot));
    }
}

/// The next message; never returns if there are no endpoints. Cancel-safe.
pub async fn next(endpoints: Option<&mut Endpoints>) -> Message {
    match endpoints {
        Some(endpoints) => endpoints.next().await,
        None => std::future::pending().await,
    }
}

pub fn answer(asked: Asked, snapshot: &Snapshot) {
    let (kind, body) = match asked.question {
        Question::Metrics => (metrics::CONTENT_TYPE, metrics::page(snapshot)),
        Question::Status(Form::Json) => ("application/json", snapshot.json()),
        Question::Status(Form::Drawn) => (server::TEXT, snapshot.draw()),
        Question::Readyz => return,
    };
    let _ = asked.reply.send(Reply { status: 200, kind, body });
}

/// Whether the address family is missing: EAFNOSUPPORT, or EADDRNOTAVAIL where IPv6 is switched off for all devices.
fn is_absent(error: &std::io::Error) -> bool {
    const NO_SUCH_FAMILY: i32 = 97;
    error.raw_os_error() == Some(NO_SUCH_FAMILY) || error.kind() == std::io::ErrorKind::AddrNotAvailable
}

fn listen(addresses: &[SocketAddr]) -> std::io::Result<tokio::net::TcpListener> {
    // Without IPv6 in the kernel the next address is tried; an address in use is an error.
    let mut result = Err(std::io::ErrorKind::AddrNotAvailable.into());
    for address in addresses {
        result = bind(*address);
        if !matches!(&result, Err(error) if is_absent(error)) {
            break;
        }
    }
    tokio::net::TcpListener::from_std(result?.into())
}

fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    const BACKLOG: i32 = 128;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking().cloexec(), None)?;
    if address.is_ipv6() {
        // Takes both families, whatever net.ipv6.bindv6only says; an address of one family takes no other anyway.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}
