//! Figures that must be read from the machine, by a thread, when somebody asks: processes, memory, CPU, and sockets while the loop does not
//! watch them itself.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;

use super::Now;
use crate::core::output::snapshot::{AppFigures, Snapshot};
use crate::core::servers::Server;
use crate::core::time::Uptime;
use crate::core::traffic::Sample;
use crate::core::traffic::verdict::Rules;
use crate::plan::Plan;
use crate::services::{self, Target};
use crate::sys::proc;
use crate::traffic::{self, Family, Traffic, Watch};

/// Questions that come within this time after a look share its result.
const FRESH: Duration = Duration::from_millis(250);
/// A look that takes longer is given up: questions are then answered without it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many looks may be given up and still run. While there are this many, no other one begins.
const MOST_LOST: usize = 2;

/// What a thread has found, or that its time is up.
#[derive(Debug)]
pub struct Found {
    number: u64,
    /// None: its time was up.
    look: Option<Box<Look>>,
}

#[derive(Clone, Debug, Default)]
struct Look {
    /// The figures of each service. Empty: they could not be read.
    services: Vec<AppFigures>,
    target: Option<Target>,
    /// None: the loop watches the sockets itself.
    traffic: Option<Traffics>,
}

#[derive(Clone, Debug)]
struct Traffics {
    listening: Option<bool>,
    source: &'static str,
    sample: Sample,
}

pub struct Figures {
    rules: Rules,
    ports: Vec<u16>,
    server: Option<&'static Server>,
    sender: UnboundedSender<Found>,
    found: UnboundedReceiver<Found>,
    /// The number of the look that is being taken, and the timer that ends it.
    looking: Option<(u64, AbortHandle)>,
    looks: u64,
    lost: usize,
    latest: Option<(Uptime, Look)>,
}

impl Figures {
    pub fn new(plan: &Plan) -> Figures {
        let (sender, found) = unbounded_channel();
        Figures {
            rules: plan.rules.clone(),
            ports: plan.ports.clone(),
            server: plan.main().server,
            sender,
            found,
            looking: None,
            looks: 0,
            lost: 0,
            latest: None,
        }
    }

    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Found> {
        self.found.recv().await
    }

    pub fn are_fresh(&self, now: Uptime) -> bool {
        self.latest.as_ref().is_some_and(|(at, _)| now.since(*at) < FRESH)
    }

    /// Begins a look, if none is being taken. False: there is none to wait for.
    pub fn look(&mut self, now: Now) -> bool {
        if self.looking.is_some() {
            return true;
        }
        if self.lost >= MOST_LOST {
            self.latest = None;
            return false;
        }
        self.looks += 1;
        let (number, sender) = (self.looks, self.sender.clone());
        let (rules, ports, server) = (self.rules.clone(), self.ports.clone(), self.server);
        let started = std::thread::Builder::new().spawn(move || {
            let target = now.main().map(|main| services::target(main, server));
            let services = proc::figures(&now.processes, target.map(|target| target.pid));
            let traffic = (!now.watched && now.main().is_some()).then(|| {
                let traffic::Found { listening, source, sample } =
                    Traffic::look_once(Watch::plain(rules, &ports, Family::Descendants));
                Traffics { listening, source, sample }
            });
            let _ = sender.send(Found { number, look: Some(Box::new(Look { services, target, traffic })) });
        });
        if started.is_err() {
            // No thread could be started: the answer has no such figures.
            self.latest = None;
            return false;
        }
        let sender = self.sender.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let _ = sender.send(Found { number, look: None });
        });
        self.looking = Some((number, timer.abort_handle()));
        true
    }

    /// Takes the result of a look. True: those who wait for it can be answered.
    pub fn found(&mut self, now: Uptime, found: Found) -> bool {
        let is_present = self.looking.as_ref().is_some_and(|(number, _)| *number == found.number);
        match found.look {
            Some(mut look) if is_present => {
                // Processes that were reaped meanwhile are missing from both sums, and a counter must not go back.
                let before = self.latest.iter().flat_map(|(_, look)| &look.services);
                look.services.iter_mut().zip(before).for_each(|(service, before)| service.cpu = service.cpu.max(before.cpu));
                self.latest = Some((now, *look));
            }
            // A look that was given up has come back.
            Some(_) => self.lost = self.lost.saturating_sub(1),
            None if is_present => {
                self.lost += 1;
                self.latest = None;
            }
            None => {}
        }
        if is_present && let Some((_, timer)) = self.looking.take() {
            timer.abort();
        }
        is_present
    }

    pub fn with(&self, mut snapshot: Snapshot) -> Snapshot {
        let Some((_, look)) = &self.latest else { return snapshot };
        snapshot.services.iter_mut().zip(&look.services).for_each(|(service, figures)| service.figures = Some(*figures));
        let runs = snapshot.pid.is_some() || snapshot.services.iter().any(|service| service.pid.is_some());
        snapshot.app = look.services.iter().copied().reduce(AppFigures::plus).filter(|_| runs);
        if let Some(target) = look.target.filter(|_| snapshot.pid.is_some()) {
            snapshot.target = Some(target.pid);
            snapshot.server = target.server.map(|server| server.name);
        }
        if let Some(Traffics { listening, source, sample }) = &look.traffic {
            snapshot.traffic.listening = *listening;
            snapshot.traffic.source = source;
            snapshot.traffic.in_flight = sample.at_work();
            snapshot.traffic.ports.clone_from(&sample.ports);
        }
        snapshot
    }
}
