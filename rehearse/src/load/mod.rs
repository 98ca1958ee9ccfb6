//! Clients that behave as those of a cluster do, until each has learnt that the pod is going.

pub mod client;
pub mod pinned;
pub mod schedule;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use fastrand::Rng;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

use client::{Client, Outcome, Target, Whole};
use pinned::{Pinned, Turn};
use schedule::{Arrivals, Kind, Mix};

/// One request, from the beginning of the load on.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// None: of a pinned client.
    pub kind: Option<Kind>,
    pub scheduled: Duration,
    pub sent: Duration,
    pub ended: Duration,
    pub outcome: Outcome,
    /// Sent once more, on another connection.
    pub retried: bool,
    /// Its answer ended with the connection.
    pub unmarked: bool,
}

impl Record {
    /// When it was scheduled, sent, and had ended, and how.
    fn new(kind: Option<Kind>, [scheduled, sent, ended]: [Duration; 3], result: Result<Whole, Outcome>, retried: bool) -> Record {
        let outcome = result.err().unwrap_or(Outcome::Answered);
        Record { kind, scheduled, sent, ended, outcome, retried, unmarked: result.is_ok_and(|whole| whole.unmarked) }
    }
}

#[derive(Clone, Debug)]
pub struct Drive {
    pub rate: f64,
    pub clients: usize,
    pub connections: usize,
    pub pinned: usize,
    pub timeout: Duration,
}

pub struct Load {
    began: Instant,
    state: Arc<State>,
    dispatcher: JoinHandle<Vec<Record>>,
    pinned: JoinSet<(Vec<Record>, Vec<Turn>)>,
}

#[derive(Debug)]
struct State {
    clients: Vec<client::Shared>,
    /// When each client will have learnt of the removal.
    learnt: OnceLock<Vec<Instant>>,
    /// From when on new connections of each pinned client go to another pod.
    removed: OnceLock<Vec<Instant>>,
    /// The pod has ended.
    over: AtomicBool,
    answered: AtomicU64,
    lost: AtomicU64,
}

impl State {
    fn is_removed(&self, pinned: usize) -> bool {
        self.removed.get().is_some_and(|removed| removed[pinned] <= Instant::now())
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn count(&self, result: &Result<Whole, Outcome>) {
        match result {
            Ok(_) => self.answered.fetch_add(1, Ordering::Relaxed),
            Err(Outcome::Elsewhere) => 0,
            Err(_) => self.lost.fetch_add(1, Ordering::Relaxed),
        };
    }
}

impl Load {
    pub fn start(target: Target, drive: &Drive, arrivals: Rng, mut pinned: Rng) -> Load {
        // A slow request without a server that is slow is a slow reader: no server minds a few of these.
        let mix = Mix {
            slow: 4,
            upload: if target.upload.is_some() { 3 } else { 0 },
            stream: if target.stream.is_some() { 3 } else { 0 },
        };
        let target = Arc::new(target);
        let kept = |number| (drive.connections + drive.clients - 1 - number) / drive.clients;
        let clients = (0..drive.clients).map(|number| Mutex::new(Client::new(number, target.clone(), kept(number)))).collect();
        let state = Arc::new(State {
            clients,
            learnt: OnceLock::new(),
            removed: OnceLock::new(),
            over: AtomicBool::new(false),
            answered: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        let began = Instant::now();
        let arrivals = Arrivals::new(arrivals, drive.rate, drive.clients, mix);
        let dispatcher = tokio::spawn(dispatch(began, arrivals, state.clone(), drive.timeout));
        let pinned =
            (0..drive.pinned).map(|number| Pinned::new(number, drive.clients + number, target.clone(), pinned.fork(), began));
        let pinned = pinned.map(|client| client.ask_on(state.clone(), drive.timeout)).collect();
        Load { began, state, dispatcher, pinned }
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    /// The pod was deleted; so much later each client knows, and each pinned client's new connections go elsewhere. To be called once.
    pub fn deleted(&self, at: Instant, learnt: &[Duration], removed: &[Duration]) {
        for (cell, times) in [(&self.state.learnt, learnt), (&self.state.removed, removed)] {
            let _ = cell.set(times.iter().map(|&after| at + after).collect());
        }
    }

    /// Answered and lost, so far.
    pub fn so_far(&self) -> (u64, u64) {
        (self.state.answered.load(Ordering::Relaxed), self.state.lost.load(Ordering::Relaxed))
    }

    /// The pod has ended: waits until every client has learnt and every request has ended. The pools stay open, idle, for as long as
    /// this value lives.
    pub async fn finish(&mut self) -> (Vec<Record>, Vec<Turn>) {
        self.state.over.store(true, Ordering::Relaxed);
        let mut records = (&mut self.dispatcher).await.unwrap_or_default();
        let mut turns = Vec::new();
        while let Some(pinned) = self.pinned.join_next().await {
            let (its, kept) = pinned.unwrap_or_default();
            records.extend(its);
            turns.extend(kept);
        }
        (records, turns)
    }
}

async fn dispatch(began: Instant, arrivals: Arrivals, state: Arc<State>, limit: Duration) -> Vec<Record> {
    let mut under_way = JoinSet::new();
    let mut records = Vec::new();
    for arrival in arrivals {
        let scheduled = began + arrival.at;
        if Instant::now() < scheduled {
            sleep_until(scheduled).await;
        } else {
            tokio::task::yield_now().await;
        }
        while let Some(ended) = under_way.try_join_next() {
            records.extend(ended.ok());
        }
        if let Some(learnt) = state.learnt.get() {
            let now = Instant::now();
            if learnt.iter().all(|at| *at <= now) {
                break;
            }
            // It goes elsewhere.
            if learnt[arrival.client] <= now {
                continue;
            }
        }
        let state = state.clone();
        under_way.spawn(async move {
            let sent = began.elapsed();
            let asked = timeout(limit, client::ask(&state.clients[arrival.client], arrival.kind)).await;
            let (result, retried) = asked.unwrap_or((Err(Outcome::TimedOut), false));
            state.count(&result);
            Record::new(Some(arrival.kind), [arrival.at, sent, began.elapsed()], result, retried)
        });
    }
    while let Some(ended) = under_way.join_next().await {
        records.extend(ended.ok());
    }
    records
}
