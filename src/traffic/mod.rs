//! Where the app's traffic is read from: asleep until the stop signal, then one look after the other, each as short as it may be.

mod metric;
mod own;
mod ports;
mod unix;

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::core::question::Question;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::{Sample, Tally, Tie, Tracker};
use crate::core::verdict::{Row, Rules, State};
use crate::plan::Plan;
use crate::sys;
use crate::sys::netlink::{Dump, End};
use crate::sys::proc::{self, TcpTables};
use crate::sys::sock_diag::{self, Ends, Lost};
use metric::Metric;
pub use own::OwnConnections;
use ports::Held;
pub use ports::{Family, FoundBy};
use unix::Unix;

/// Looking takes at most a twentieth of one CPU: so many times what it took is the rest that follows...
const SHARE: u32 = 20;
/// ...but at least this much, and at most that much.
const SHORTEST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);
/// A look that would take more of the CPU is taken in slices. What is done besides fits into the rest of a twentieth of `LONGEST`.
const SLICE: Duration = Duration::from_millis(40);
/// The first one may take longer: what it finds is there already counts as old.
const FIRST_SLICE: Duration = Duration::from_millis(250);
/// New listeners are looked for so often.
const LISTENERS_EVERY: Duration = Duration::from_secs(1);
/// Ties are broken by /proc/net/tcp as long as that is short: it lists every socket. Where it is longer, only if it is the last chance.
const MOST_LISTED: usize = 5000;

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

/// Which TCP sockets are the app's.
#[derive(Clone, Debug)]
enum Scope {
    /// By cgroup, or all where the cgroup is unknown: for an app that ended by itself, whose ports nobody noted.
    Cgroup(Option<u64>),
    Ports(BTreeSet<u16>),
}

impl Scope {
    fn has(&self, row: &Row) -> bool {
        match self {
            Scope::Cgroup(own) => (own.is_none() || row.cgroup == *own) && row.state == State::Closing,
            Scope::Ports(ports) => ports.contains(&row.port),
        }
    }

    fn states(&self, baseline: bool) -> u32 {
        match self {
            Scope::Cgroup(_) => sock_diag::CLOSING,
            // Those that linger would look new when they end.
            Scope::Ports(_) if baseline => sock_diag::ALL | sock_diag::FIN_WAIT2,
            Scope::Ports(_) => sock_diag::ALL,
        }
    }

    fn ports(&self) -> BTreeSet<u16> {
        match self {
            Scope::Cgroup(_) => BTreeSet::new(),
            Scope::Ports(ports) => ports.clone(),
        }
    }
}

/// How far the present look has come.
#[derive(Debug)]
enum Sweep {
    /// By family, the first of those that are left.
    SockDiag(usize),
    ProcNet(TcpTables),
}

/// All rows of the present look are there; its ties are being broken.
#[derive(Debug)]
struct Listing {
    tables: TcpTables,
    /// Ordered by their ends.
    ties: Vec<Tie>,
}

#[derive(Debug)]
pub struct Traffic {
    source: Source,
    family: Family,
    scope: Scope,
    found_by: FoundBy,
    listening: Option<bool>,
    unix: Option<Unix>,
    udp: BTreeSet<u16>,
    metric: Option<Metric>,
    own: OwnConnections,
    tracker: Tracker,
    sweep: Option<Sweep>,
    listing: Option<Listing>,
    /// Rows may be missing from the present look.
    torn: bool,
    torn_said: bool,
    /// The source has failed since the last complete look.
    failed: bool,
    /// In the present look: the app's connections, and the lines of /proc/net/tcp.
    rows: usize,
    lines: usize,
    interval: Duration,
    /// The kernel's ping-pong bit tells what it should.
    ping_pong_tells: bool,
    /// Connections ever accepted in this network namespace, and how many of them we knew of.
    opened: Option<u64>,
    known: u64,
    /// The listeners that were looked at, the app's or not.
    judged: HashSet<u32>,
    listeners_at: Uptime,
    last: Option<Sample>,
    warnings: Vec<String>,
}

/// What one look has found.
#[derive(Debug)]
pub struct Glance {
    pub listening: Option<bool>,
    pub source: &'static str,
    pub sample: Sample,
}

/// What to watch.
pub struct Watch<'a> {
    rules: Rules,
    /// Those of `--port`.
    ports: &'a [u16],
    in_flight: Option<&'a Question>,
    family: Family,
}

impl Watch<'_> {
    /// The sockets alone.
    pub fn plain(rules: Rules, ports: &[u16], family: Family) -> Watch<'_> {
        Watch { rules, ports, in_flight: None, family }
    }

    pub fn of(plan: &Plan, family: Family) -> Watch<'_> {
        Watch { rules: plan.rules.clone(), ports: &plan.ports, in_flight: plan.in_flight.as_ref(), family }
    }
}

impl Traffic {
    /// Finds the app's sockets; the first look then notes what is there: the baseline.
    pub fn begin(now: Uptime, watch: Watch<'_>, own: OwnConnections) -> Traffic {
        let question = watch.in_flight.cloned();
        let mut traffic = Traffic::find(watch);
        traffic.listeners_at = now;
        traffic.metric = question.map(|question| Metric::new(question, own.teller()));
        traffic.own = own;
        traffic.join_ends();
        traffic.opened = proc::passive_opens();
        traffic
    }

    /// One look and no more, for whoever asks while nothing is watched: what came before it is not known, so ties count as cooling.
    pub fn glance(watch: Watch<'_>) -> Glance {
        let mut traffic = Traffic::find(watch);
        let sample = traffic.sample(Uptime::default(), || true);
        Glance { listening: traffic.listens(), source: traffic.source(), sample: sample.unwrap_or_default() }
    }

    /// Whether the app listens, for all that can be known.
    pub fn is_listening(watch: Watch<'_>) -> bool {
        let mut traffic = Traffic::find(watch);
        if traffic.found_by != FoundBy::Option {
            return traffic.listens() == Some(true);
        }
        let Scope::Ports(ports) = traffic.scope.clone() else { return false };
        // Where nobody can tell it is taken to listen.
        traffic.listeners().is_none_or(|listeners| listeners.iter().any(|row| ports.contains(&row.port)))
    }

    fn find(watch: Watch<'_>) -> Traffic {
        let mut traffic = Traffic::new(watch.rules, watch.family, Scope::Ports(watch.ports.iter().copied().collect()));
        if watch.ports.is_empty() {
            traffic.find_ports();
        } else {
            (traffic.found_by, traffic.listening) = (FoundBy::Option, Some(true));
            traffic.check_ports(watch.ports);
        }
        traffic
    }

    fn listens(&self) -> Option<bool> {
        self.listening.or(match &self.scope {
            _ if matches!(self.source, Source::Off) => None,
            Scope::Ports(ports) => Some(!ports.is_empty()),
            Scope::Cgroup(_) => None,
        })
    }

    /// For an app that ended by itself: only what the kernel still delivers.
    pub fn last_answers() -> Traffic {
        let rules = Rules { idle_after: Duration::ZERO, max_silence: None, ignored: Vec::new() };
        let mut traffic = Traffic::new(rules, Family::Descendants, Scope::Cgroup(None));
        traffic.scope = Scope::Cgroup(traffic.own_cgroup());
        traffic.ping_pong_tells = false;
        traffic
    }

    fn new(rules: Rules, family: Family, scope: Scope) -> Traffic {
        let mut warnings = Vec::new();
        let source = match Dump::open() {
            Ok(dump) => Source::SockDiag { dump, ends: None },
            Err(error) => {
                warnings.push(format!("cannot ask sock_diag for the traffic: {error}; {WITHOUT}"));
                Source::ProcNet
            }
        };
        Traffic {
            source,
            family,
            scope,
            found_by: FoundBy::Cgroup,
            listening: None,
            unix: None,
            udp: BTreeSet::new(),
            metric: None,
            own: OwnConnections::default(),
            tracker: Tracker::new(rules),
            sweep: None,
            listing: None,
            torn: false,
            torn_said: false,
            failed: false,
            rows: 0,
            lines: 0,
            interval: SHORTEST,
            ping_pong_tells: crate::sys::kernel_release().is_some_and(|release| proc::ping_pong_tells(&release)),
            opened: None,
            known: 0,
            judged: HashSet::new(),
            listeners_at: Uptime::default(),
            last: None,
            warnings,
        }
    }

    pub fn source(&self) -> &'static str {
        match self.source {
            _ if self.metric.as_ref().is_some_and(Metric::answers) => "metric",
            Source::SockDiag { .. } => "sock_diag",
            Source::ProcNet => "proc_net",
            Source::Off => "none",
        }
    }

    pub fn found_by(&self) -> FoundBy {
        self.found_by
    }

    pub fn ports(&self) -> BTreeSet<u16> {
        self.scope.ports()
    }

    /// The `lame-duck` event: what is watched, and what the first look has found.
    pub fn announce(&mut self, sample: Option<&Sample>) {
        let sample = sample.cloned().unwrap_or_default();
        info!(
            event = "lame-duck",
            ports = joined(&self.scope.ports()),
            unix = self.unix.as_ref().map(Unix::names).unwrap_or_default().join(","),
            found_by = self.found_by.name(),
            source = self.source(),
            busy = sample.busy,
            cooling = sample.cooling,
            idle = sample.idle,
            queued = sample.queued,
        );
        if !self.udp.is_empty() {
            let udp = joined(&self.udp);
            self.warnings
                .push(format!("the app listens on UDP {udp}: UDP and QUIC have no connections to watch; {BLIND} for them"));
        }
        self.say_warnings();
    }

    /// What could not be had, once.
    pub fn say_warnings(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            warn!(event = "warning", message = warning);
        }
    }

    /// How long to wait until the next look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The app has been told.
    pub fn told(&mut self) {
        self.tracker.told();
        self.metric = None;
    }

    /// None: nothing could be seen at all.
    pub fn tally(&self) -> Option<Tally> {
        if matches!(self.source, Source::Off) { None } else { Some(self.tracker.tally()) }
    }

    /// The ports on which connections were cut.
    pub fn cut_on(&self) -> Vec<u16> {
        self.tracker.cut_on()
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
        self.own.hear(now);
        if let Some(why) = self.metric.as_mut().and_then(|metric| metric.hear(now)) {
            self.warnings.push(format!("cannot ask --in-flight: {why}; the sockets decide until it answers"));
        }
        let Source::SockDiag { ends: Some(ends), .. } = &mut self.source else { return };
        let (tracker, scope, own) = (&mut self.tracker, &self.scope, &mut self.own);
        let lost = ends.read(|row| {
            if scope.has(&row) && !own.ended(&row) {
                tracker.ended(now, &row);
            }
        });
        match lost {
            Lost::None => {}
            Lost::Exactly(ends) => self.tracker.missed(now, ends),
            Lost::Some => self.count_opened(now),
        }
    }

    /// What the kernel counted and we did not see. It counts the whole namespace, so it may say too much: rather an arrival that was
    /// none than one missed.
    fn count_opened(&mut self, now: Uptime) {
        let opened = proc::passive_opens();
        let known = self.tracker.accepted() + self.own.count;
        if let (Some(before), Some(after)) = (self.opened, opened) {
            self.tracker.missed(now, after.saturating_sub(before).saturating_sub(known - self.known.min(known)));
        }
        (self.opened, self.known) = (opened, known);
    }

    /// Takes a look, or a slice of one. None: the source is lost.
    pub fn look(&mut self, now: Uptime) -> Option<Sample> {
        let before = sys::cpu_time();
        let spent = || sys::cpu_time().saturating_sub(before);
        self.read_ends(now);
        self.find_new_listeners(now);
        let slice = if self.last.is_none() { FIRST_SLICE } else { SLICE };
        let mut sample = self.sample(now, || spent() < slice);
        self.ask(now, &mut sample);
        self.interval = (spent() * SHARE).clamp(SHORTEST, LONGEST);
        self.last.clone_from(&sample);
        if let Some(Sample { busy, cooling, idle, queued, partial, .. }) = sample {
            debug!(event = "look", busy, cooling, idle, queued, partial, next = %Show(self.interval));
        }
        sample
    }

    /// The latest look.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    fn sample(&mut self, now: Uptime, in_time: impl Fn() -> bool) -> Option<Sample> {
        let has_tcp = !matches!(&self.scope, Scope::Ports(ports) if ports.is_empty());
        if !has_tcp && self.unix.is_none() {
            // Nothing to watch: what is known of its listening is all there is.
            let known = !matches!(self.source, Source::Off) || self.listening == Some(false);
            return known.then(|| Sample { listening: self.listening, ..Sample::default() });
        }
        if has_tcp {
            let whole = if self.listing.is_some() { Ok(true) } else { self.sweep(now, &in_time) };
            match whole.map(|whole| whole && self.break_ties(&in_time)) {
                Ok(true) => {}
                Ok(false) => {
                    // To be continued. Until then nothing can be concluded from what is missing.
                    let last = self.last.clone().unwrap_or_default();
                    return Some(Sample { listening: self.listening, watched: true, partial: true, ..last });
                }
                Err(error) => return self.worse(now, &error, in_time),
            }
        }
        let mut torn = std::mem::take(&mut self.torn);
        if let Some(unix) = &mut self.unix {
            let dump = match &mut self.source {
                Source::SockDiag { dump, .. } => Some(dump),
                Source::ProcNet | Source::Off => None,
            };
            torn |= unix.look(now, dump, &mut self.tracker);
        }
        if !matches!(self.source, Source::SockDiag { ends: Some(_), .. }) && has_tcp {
            // Short connections are not seen otherwise.
            self.count_opened(now);
        }
        if torn && !std::mem::replace(&mut self.torn_said, true) {
            self.warnings.push("a look at the sockets was incomplete: nothing follows from what such a look lacks".to_owned());
        }
        let sample = self.tracker.end(now);
        self.own.looked(now);
        (self.rows, self.failed) = (0, false);
        Some(Sample { listening: self.listening, partial: torn, ..sample })
    }

    /// The source failed: try it once more, then the next best.
    fn worse(&mut self, now: Uptime, error: &io::Error, in_time: impl Fn() -> bool) -> Option<Sample> {
        self.begin_look_again();
        match (&mut self.source, std::mem::replace(&mut self.failed, true)) {
            (Source::SockDiag { dump, .. }, false) if let Ok(again) = Dump::open() => *dump = again,
            (Source::SockDiag { .. }, _) => self.lose_sock_diag(error),
            (Source::ProcNet, _) => {
                self.warnings.push(format!("cannot see the traffic: {error}; {BLIND}"));
                self.source = Source::Off;
                return None;
            }
            (Source::Off, _) => return None,
        }
        self.sample(now, in_time)
    }

    fn lose_sock_diag(&mut self, error: &io::Error) {
        self.warnings.push(format!("cannot ask sock_diag for the traffic: {error}; {WITHOUT}"));
        self.source = Source::ProcNet;
        self.tracker.begin_again();
    }

    /// Goes on with the look, or begins one. True: it is complete.
    fn sweep(&mut self, now: Uptime, in_time: &impl Fn() -> bool) -> io::Result<bool> {
        let (scope, tracker, own, rows) = (&self.scope, &mut self.tracker, &mut self.own, &mut self.rows);
        let (ping_pong_tells, baseline) = (self.ping_pong_tells, self.last.is_none());
        let mut show = |mut row: Row| {
            if !scope.has(&row) || own.has(now, &row) {
                return;
            }
            if !ping_pong_tells {
                row.distrust_ping_pong();
            }
            *rows += 1;
            tracker.row(now, &row);
        };
        loop {
            match (&mut self.source, &mut self.sweep) {
                (Source::Off, _) => return Err(io::ErrorKind::NotFound.into()),
                (Source::SockDiag { dump, .. }, sweep @ (None | Some(Sweep::ProcNet(_)))) => {
                    dump.begin(&sock_diag::request(sock_diag::FAMILIES[0], scope.states(baseline), &scope.ports()))?;
                    *sweep = Some(Sweep::SockDiag(0));
                }
                (Source::ProcNet, sweep @ (None | Some(Sweep::SockDiag(_)))) => *sweep = Some(Sweep::ProcNet(TcpTables::open()?)),
                (Source::SockDiag { dump, .. }, Some(Sweep::SockDiag(family))) => {
                    let done = match dump.piece(|message| sock_diag::decode(message).into_iter().for_each(&mut show)) {
                        Err(error) if sock_diag::is_absent(sock_diag::FAMILIES[*family], &error) => true,
                        Err(error) => return Err(error),
                        Ok(read) => {
                            self.torn |= read.partial;
                            read.end == End::Done
                        }
                    };
                    if done {
                        *family += 1;
                        match sock_diag::FAMILIES.get(*family) {
                            Some(next) => dump.begin(&sock_diag::request(*next, scope.states(baseline), &scope.ports()))?,
                            None => break,
                        }
                    }
                }
                (Source::ProcNet, Some(Sweep::ProcNet(tables))) => {
                    if tables.piece(&mut show)? {
                        break;
                    }
                }
            }
            if !in_time() {
                return Ok(false);
            }
        }
        self.sweep = None;
        Ok(true)
    }

    fn begin_look_again(&mut self) {
        (self.sweep, self.listing, self.torn, self.rows) = (None, None, false, 0);
        self.tracker.begin_look_again();
    }

    /// By the kernel's ping-pong bit, which only /proc/net/tcp shows. True: none is left that it could break.
    fn break_ties(&mut self, in_time: &impl Fn() -> bool) -> bool {
        if self.listing.is_none() {
            let worth_it = self.tracker.is_last_chance() || self.rows.max(self.lines) <= MOST_LISTED;
            let mut ties = self.tracker.ties();
            if ties.is_empty() || !worth_it {
                return true;
            }
            match TcpTables::open() {
                Ok(tables) if self.ping_pong_tells && matches!(self.source, Source::SockDiag { .. }) => {
                    ties.sort_unstable_by_key(|tie| tie.ends);
                    self.listing = Some(Listing { tables, ties });
                    self.lines = 0;
                }
                // Where it is missing, time breaks them.
                _ => {
                    ties.iter().for_each(|tie| self.tracker.ping_pong(tie.cookie, None));
                    return true;
                }
            }
        }
        let Some(Listing { tables, ties }) = &mut self.listing else { return true };
        loop {
            let piece = tables.piece(|row| {
                self.lines += 1;
                if let Some(bit) = row.ping_pong()
                    && let Ok(index) = ties.binary_search_by_key(&row.ends(), |tie| tie.ends)
                {
                    self.tracker.ping_pong(ties[index].cookie, Some(bit));
                }
            });
            match piece {
                Ok(false) if in_time() => {}
                Ok(false) => return false,
                Ok(true) | Err(_) => break,
            }
        }
        // Those that were not listed; the others keep what they were told.
        ties.iter().for_each(|tie| self.tracker.ping_pong(tie.cookie, None));
        self.listing = None;
        true
    }

    /// `--in-flight`: the app's own word replaces the verdict. Arrivals and the accept queue are the kernel's all the same.
    fn ask(&mut self, now: Uptime, sample: &mut Option<Sample>) {
        let Some(metric) = &mut self.metric else { return };
        let count = metric.look(now);
        if count.is_none() && !metric.is_awaited() {
            return;
        }
        let sample = sample.get_or_insert_default();
        sample.watched = true;
        sample.partial = count.is_none();
        if let Some(count) = count {
            (sample.busy, sample.cooling) = (count.min(MOST_IN_FLIGHT) as usize, 0);
        }
    }

    /// The ports of the listening sockets that the family holds; where the kernel hides their descriptors, those of our cgroup; where
    /// that is unknown, all.
    fn find_ports(&mut self) {
        let listeners = self.listeners();
        let held = Held::by(self.family);
        let dump = match &mut self.source {
            Source::SockDiag { dump, .. } => Some(dump),
            Source::ProcNet | Source::Off => None,
        };
        let (unix, _) = unix::sockets(dump);
        self.udp = held.udp_ports();
        let (Some(listeners), false) = (&listeners, held.hidden) else {
            self.unix = Unix::new(self.family, held, &unix);
            return self.guess_ports(listeners);
        };
        let ports = held.ports(listeners);
        let listens = !ports.is_empty() || !held.names(&unix).is_empty() || !self.udp.is_empty();
        if !listens && proc::may_hide_processes() {
            // What is seen may be no more than a shell in front of the app.
            return self.guess_ports(Some(listeners.clone()));
        }
        if !listens && matches!(self.source, Source::ProcNet) && !proc::are_listed(&held.inodes) {
            self.warnings.push(format!("cannot see the traffic: /proc/net does not show what the app listens on; {BLIND}"));
            self.source = Source::Off;
            return;
        }
        self.judged = listeners.iter().map(|row| row.inode).collect();
        self.unix = Unix::new(self.family, held, &unix);
        self.listening = Some(listens);
        self.scope = Scope::Ports(ports);
        self.found_by = FoundBy::Descriptors;
    }

    /// Of the ports that were named, those on which nothing listens.
    fn check_ports(&mut self, named: &[u16]) {
        let Some(listeners) = self.listeners() else { return };
        let silent: BTreeSet<u16> = named.iter().copied().filter(|port| listeners.iter().all(|row| row.port != *port)).collect();
        if !silent.is_empty() {
            self.warnings.push(format!(
                "nothing that listens on port {} (--port) is to be seen: what is in flight there cannot be known",
                joined(&silent)
            ));
        }
    }

    fn guess_ports(&mut self, listeners: Option<Vec<Row>>) {
        // By guess, so not known to listen on nothing.
        self.listening = None;
        let Some(listeners) = listeners else {
            self.warnings.push(format!("cannot see the traffic: no sock_diag and no /proc/net/tcp; {BLIND}"));
            self.source = Source::Off;
            return;
        };
        let own = self.own_cgroup();
        // Ours among them is --admin's.
        let ours = proc::process(std::process::id() as i32).and_then(|us| proc::sockets(&us, &mut 1024)).unwrap_or_default();
        let is_theirs = |row: &&Row| (own.is_none() || row.cgroup == own) && !ours.contains(&u64::from(row.inode));
        let all = listeners.iter().filter(is_theirs).map(|row| row.port).collect();
        self.found_by = if own.is_some() { FoundBy::Cgroup } else { FoundBy::All };
        if own.is_none() {
            self.warnings.push(
                "cannot tell the app's ports: its descriptors are hidden or too many, and its cgroup is unknown; all that listens here counts, sidecars too (name them with --port)"
                    .to_owned(),
            );
        }
        self.scope = Scope::Ports(all);
    }

    /// The app may have begun to listen on another port, or on its first.
    fn find_new_listeners(&mut self, now: Uptime) {
        // Between two looks: one that takes long would be given up for it, each time.
        let rests = self.sweep.is_some() || self.listing.is_some();
        if rests || self.found_by != FoundBy::Descriptors || now.since(self.listeners_at) < LISTENERS_EVERY {
            return;
        }
        self.listeners_at = now;
        let Some(listeners) = self.listeners() else { return };
        let (Scope::Ports(ports), judged) = (&mut self.scope, &mut self.judged) else { return };
        let strange: Vec<Row> = listeners.into_iter().filter(|row| !judged.contains(&row.inode)).collect();
        if strange.is_empty() {
            return;
        }
        let held = Held::by(self.family);
        let mut new = BTreeSet::new();
        for row in strange {
            let is_ours = held.inodes.contains(&u64::from(row.inode));
            if !is_ours && held.hidden {
                // Perhaps it is to be seen the next time.
                continue;
            }
            judged.insert(row.inode);
            match (is_ours, ports.contains(&row.port)) {
                (true, false) => _ = new.insert(row.port),
                (false, true) => {
                    self.warnings.push(format!("another process listens on port {} now: its connections count too", row.port));
                }
                (true, true) | (false, false) => {}
            }
        }
        if !new.is_empty() {
            self.warnings.push(format!("the app listens on {new:?} since the stop signal: watched from now on"));
            ports.extend(new);
            self.join_ends();
        }
    }

    /// Before the first look, so that what ends in between is not missed.
    fn join_ends(&mut self) {
        let (Source::SockDiag { ends, .. }, Scope::Ports(ports)) = (&mut self.source, &self.scope) else { return };
        if ports.is_empty() {
            return;
        }
        match Ends::join(ports) {
            Ok(joined) => *ends = Some(joined),
            Err(error) => self
                .warnings
                .push(format!("cannot follow the ends of connections: {error}; short ones between two looks are only counted")),
        }
    }

    fn listeners(&mut self) -> Option<Vec<Row>> {
        if let Source::SockDiag { dump, .. } = &mut self.source {
            let rows = sock_diag::listeners(dump).or_else(|_| {
                *dump = Dump::open()?;
                sock_diag::listeners(dump)
            });
            match rows {
                Ok(rows) => return Some(rows),
                Err(error) => self.lose_sock_diag(&error),
            }
        }
        let mut rows = Vec::new();
        let listens = |row: Row| {
            if row.state == State::Listen {
                rows.push(row);
            }
        };
        TcpTables::rows(listens).ok()?;
        Some(rows)
    }

    fn own_cgroup(&mut self) -> Option<u64> {
        match &mut self.source {
            Source::SockDiag { dump, .. } => sock_diag::own_cgroup(dump),
            Source::ProcNet | Source::Off => None,
        }
    }
}

/// What --in-flight may say; more is a lie, and sums must not overflow.
const MOST_IN_FLIGHT: u64 = 1 << 30;

const WITHOUT: &str = "/proc/net/tcp serves instead: queues are seen, but a request the app is silently working on only for 5 s";
const BLIND: &str = "the delay alone is kept";

fn joined(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
