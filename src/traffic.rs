//! Where the app's traffic is read from: asleep until the stop signal, then one look after the other.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::core::time::Uptime;
use crate::core::traffic::{Row, Rules, Sample, State, Tally, Tracker};
use crate::sys::proc;
use crate::sys::sock_diag::{self, Dump, Ends};

/// A look every so often, or rarer: looking takes at most a twentieth of the time.
const INTERVAL: Duration = Duration::from_millis(100);
const SHARE: u32 = 20;

#[derive(Debug)]
enum Source {
    /// Netlink: queues, ages, counters, and the ends of connections as events.
    SockDiag {
        dump: Dump,
        ends: Option<Ends>,
    },
    /// /proc/net/tcp: queues.
    ProcNet,
    Off,
}

/// How the app's ports were found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundBy {
    /// All that listens here: sidecars count too.
    All,
    Cgroup,
    Descriptors,
    Option,
}

impl FoundBy {
    pub fn name(self) -> &'static str {
        match self {
            FoundBy::All => "all",
            FoundBy::Cgroup => "cgroup",
            FoundBy::Descriptors => "descriptors",
            FoundBy::Option => "--port",
        }
    }
}

/// Which sockets are the app's.
#[derive(Clone, Debug)]
enum Scope {
    /// By cgroup, or all where the cgroup is unknown: for an app that ended by itself, whose ports nobody noted.
    Cgroup(Option<u64>),
    Ports(BTreeSet<u16>),
}

impl Scope {
    fn has(&self, row: &Row) -> bool {
        match self {
            Scope::Cgroup(own) => own.is_none() || row.cgroup == *own,
            Scope::Ports(ports) => ports.contains(&row.port),
        }
    }
}

#[derive(Debug)]
pub struct Traffic {
    source: Source,
    scope: Scope,
    found_by: FoundBy,
    listening: Option<bool>,
    tracker: Tracker,
    interval: Duration,
    ping_pong_tells: bool,
    opened_before: Option<u64>,
    last: Option<Sample>,
    warnings: Vec<String>,
}

impl Traffic {
    /// Finds the app's ports and notes what is there: the baseline. `own` is our pid, `ports` those of `--port`.
    pub fn begin(rules: Rules, ports: &[u16], own: i32) -> Traffic {
        let mut warnings = Vec::new();
        let source = open(&mut warnings);
        let mut traffic = Traffic {
            source,
            scope: Scope::Ports(ports.iter().copied().collect()),
            found_by: FoundBy::Option,
            listening: Some(true),
            tracker: Tracker::new(rules),
            interval: INTERVAL,
            ping_pong_tells: sys_ping_pong(),
            opened_before: None,
            last: None,
            warnings,
        };
        if ports.is_empty() {
            traffic.find_ports(own);
        }
        if let (Source::SockDiag { ends, .. }, Scope::Ports(ports)) = (&mut traffic.source, &traffic.scope)
            && !ports.is_empty()
        {
            // Before the first look, so that what ends in between is not missed.
            match Ends::join(&ports.iter().copied().collect::<Vec<_>>()) {
                Ok(joined) => *ends = Some(joined),
                Err(error) => traffic
                    .warnings
                    .push(format!("cannot follow the ends of connections: {error}; short ones between two looks are missed")),
            }
        }
        traffic.opened_before = proc::passive_opens();
        traffic
    }

    /// For an app that ended by itself: only what the kernel still delivers.
    pub fn last_answers() -> Traffic {
        let mut warnings = Vec::new();
        let mut source = open(&mut warnings);
        let own = match &mut source {
            Source::SockDiag { dump, .. } => sock_diag::own_cgroup(dump),
            Source::ProcNet | Source::Off => None,
        };
        let rules = Rules { idle_after: Duration::ZERO, max_silence: None, ignored: Vec::new() };
        Traffic {
            source,
            scope: Scope::Cgroup(own),
            found_by: FoundBy::Cgroup,
            listening: None,
            tracker: Tracker::new(rules),
            interval: INTERVAL,
            ping_pong_tells: false,
            opened_before: None,
            last: None,
            warnings,
        }
    }

    pub fn source(&self) -> &'static str {
        match self.source {
            Source::SockDiag { .. } => "sock_diag",
            Source::ProcNet => "proc_net",
            Source::Off => "none",
        }
    }

    pub fn found_by(&self) -> FoundBy {
        self.found_by
    }

    pub fn ports(&self) -> Vec<u16> {
        match &self.scope {
            Scope::Ports(ports) => ports.iter().copied().collect(),
            Scope::Cgroup(_) => Vec::new(),
        }
    }

    /// What could not be had, once.
    pub fn warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// How long to wait until the next look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    pub fn told(&mut self) {
        self.tracker.told();
    }

    /// None: nothing could be seen at all.
    pub fn tally(&self) -> Option<Tally> {
        if matches!(self.source, Source::Off) { None } else { Some(self.tracker.tally()) }
    }

    /// Returns when connections have ended; never, where that cannot be followed. Cancel-safe.
    pub async fn ended(&self) {
        match &self.source {
            Source::SockDiag { ends: Some(ends), .. } => ends.readable().await,
            _ => std::future::pending().await,
        }
    }

    /// Reads the ends of connections.
    pub fn read_ends(&mut self, now: Uptime) {
        let Source::SockDiag { ends: Some(ends), .. } = &mut self.source else { return };
        let (tracker, scope) = (&mut self.tracker, &self.scope);
        let lost = ends.read(|(row, _)| {
            if scope.has(&row) {
                tracker.ended(now, &row);
            }
        });
        if lost {
            // Of the whole namespace, so it may say too much: rather an arrival that was none than one missed.
            let came = match (self.opened_before, proc::passive_opens()) {
                (Some(before), Some(after)) => (after - before.min(after)).saturating_sub(self.tracker.accepted()),
                _ => 1,
            };
            self.tracker.overflowed(now, came);
        }
    }

    /// Takes a look. `clock` tells how long it took. None: the source is lost.
    pub fn look(&mut self, now: Uptime, clock: impl Fn() -> Uptime) -> Option<Sample> {
        self.read_ends(now);
        let sample = self.sample(now);
        self.interval = INTERVAL.max(clock().since(now) * SHARE);
        self.last.clone_from(&sample);
        sample
    }

    /// The latest look.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    fn sample(&mut self, now: Uptime) -> Option<Sample> {
        if matches!(&self.scope, Scope::Ports(ports) if ports.is_empty()) {
            // Nothing on TCP: what is known of its listening is all there is.
            return if matches!(self.source, Source::Off) && self.listening != Some(false) {
                None
            } else {
                Some(Sample { listening: self.listening, ..Sample::default() })
            };
        }
        let states = if matches!(self.scope, Scope::Cgroup(_)) { sock_diag::CLOSING } else { sock_diag::ALL };
        let mut rows = Vec::new();
        let mut peers = Vec::new();
        match &mut self.source {
            Source::SockDiag { dump, .. } => {
                let scope = &self.scope;
                let result = dump.sockets(states, |(row, peer)| {
                    if scope.has(&row) {
                        rows.push(row);
                        peers.push(peer);
                    }
                });
                if let Err(error) = result {
                    self.warnings.push(format!("lost sight of the traffic: {error}; trying /proc/net/tcp"));
                    self.source = Source::ProcNet;
                    return self.sample(now);
                }
            }
            Source::ProcNet => match proc::tcp_rows() {
                Some(all) => {
                    let wanted =
                        |row: &Row| self.scope.has(row) && (matches!(self.scope, Scope::Ports(_)) || row.state == State::Closing);
                    rows.extend(all.into_iter().filter(wanted));
                    if !self.ping_pong_tells {
                        rows.iter_mut().for_each(|row| row.ping_pong = None);
                    }
                }
                None => {
                    self.warnings
                        .push("cannot see the traffic: no sock_diag and no /proc/net/tcp; the delay alone is kept".to_owned());
                    self.source = Source::Off;
                    return None;
                }
            },
            Source::Off => return None,
        }
        if self.ping_pong_tells
            && !peers.is_empty()
            && self.tracker.wants_ping_pong(&rows)
            && let Some(bits) = proc::ping_pong_bits()
        {
            for (row, peer_port) in rows.iter_mut().zip(&peers) {
                row.ping_pong = bits.get(&(row.port, row.peer, *peer_port)).copied();
            }
        }
        Some(Sample { listening: self.listening, ..self.tracker.look(now, &rows) })
    }

    /// The ports of the listening sockets that our descendants hold; where the kernel hides their descriptors, those of our cgroup;
    /// where that is unknown, all.
    fn find_ports(&mut self, own: i32) {
        let listeners = self.listeners();
        let processes = proc::processes();
        let family = proc::descendants(&processes, own);
        let mut inodes = HashSet::new();
        let mut hidden = family.is_empty();
        for process in family.iter().filter(|process| !process.is_dead()) {
            match proc::sockets(process.pid) {
                Some(sockets) => inodes.extend(sockets),
                // It may just have ended.
                None => hidden |= proc::process(process.pid).is_some_and(|process| !process.is_dead()),
            }
        }
        let (Some(listeners), false) = (&listeners, hidden) else {
            return self.guess_ports(listeners);
        };
        let ports: BTreeSet<u16> =
            listeners.iter().filter(|row| inodes.contains(&u64::from(row.inode))).map(|row| row.port).collect();
        self.listening =
            if ports.is_empty() { proc::other_listeners().map(|others| !others.is_disjoint(&inodes)) } else { Some(true) };
        self.scope = Scope::Ports(ports);
        self.found_by = FoundBy::Descriptors;
    }

    fn guess_ports(&mut self, listeners: Option<Vec<Row>>) {
        let Some(listeners) = listeners else {
            self.warnings.push("cannot see the traffic: no sock_diag and no /proc/net/tcp; the delay alone is kept".to_owned());
            self.source = Source::Off;
            self.listening = None;
            self.scope = Scope::Ports(BTreeSet::new());
            return;
        };
        let own = match &mut self.source {
            Source::SockDiag { dump, .. } => sock_diag::own_cgroup(dump),
            Source::ProcNet | Source::Off => None,
        };
        let all = listeners.iter().filter(|row| own.is_none() || row.cgroup == own).map(|row| row.port).collect();
        self.found_by = if own.is_some() { FoundBy::Cgroup } else { FoundBy::All };
        if own.is_none() {
            self.warnings.push(
                "cannot tell the app's ports: its descriptors and cgroup are hidden; all that listens here counts, sidecars too (name them with --port)"
                    .to_owned(),
            );
        }
        // By guess, so not known to listen on nothing.
        self.listening = None;
        self.scope = Scope::Ports(all);
    }

    fn listeners(&mut self) -> Option<Vec<Row>> {
        let mut rows = Vec::new();
        if let Source::SockDiag { dump, .. } = &mut self.source {
            match dump.sockets(sock_diag::LISTENERS, |(row, _)| rows.push(row)) {
                Ok(()) => return Some(rows),
                Err(error) => {
                    self.warnings.push(format!("cannot ask sock_diag for the traffic: {error}; {WITHOUT}"));
                    self.source = Source::ProcNet;
                }
            }
        }
        Some(proc::tcp_rows()?.into_iter().filter(|row| row.state == State::Listen).collect())
    }
}

const WITHOUT: &str = "/proc/net/tcp serves instead: queues are seen, but a request the app is silently working on only for 5 s";

fn open(warnings: &mut Vec<String>) -> Source {
    match Dump::open() {
        Ok(dump) => Source::SockDiag { dump, ends: None },
        Err(error) => {
            warnings.push(format!("cannot ask sock_diag for the traffic: {error}; {WITHOUT}"));
            Source::ProcNet
        }
    }
}

fn sys_ping_pong() -> bool {
    crate::sys::kernel_release().is_some_and(|release| proc::ping_pong_tells(&release))
}
