//! The app's traffic. Nothing is watched until the stop signal; then it is looked at again and again, each time for as short as possible.

mod closer;
mod closing;
mod ends;
mod kept;
mod metric;
mod origin;
mod own;
mod ports;
mod tables;
mod unix;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use tracing::{debug, info, warn};

use crate::core::servers;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::keepalive::Way;
use crate::core::traffic::question::Question;
use crate::core::traffic::tracker::Tracker;
use crate::core::traffic::verdict::Rules;
use crate::core::traffic::{Sample, Tally};
use crate::plan::Plan;
use crate::sys;
use crate::sys::proc;
pub use closing::{answers_left, may_answers_be_left};
pub use kept::way_out;
use kept::{Kept, Wanted};
use metric::Metric;
use origin::Origins;
pub use own::OwnConnections;
pub use ports::{Family, FoundBy};
use ports::{Ports, joined};
use tables::{BLIND, Tables};
use unix::Unix;

/// The pause after a look is this many times as long as the CPU time of the look, so that looking takes at most a twentieth of one CPU.
const SHARE: u32 = 20;
/// The shortest and the longest pause between two looks.
const SHORTEST: Duration = Duration::from_millis(25);
const LONGEST: Duration = Duration::from_secs(1);
/// A look that would take more CPU time than this is taken in slices. What is done besides fits into the rest of a twentieth of `LONGEST`.
const SLICE: Duration = Duration::from_millis(40);
/// The slice of the first look may be longer: the connections that it finds count as old.
const FIRST_SLICE: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct Traffic {
    tables: Tables,
    ports: Ports,
    origins: Origins,
    unix: Option<Unix>,
    metric: Option<Metric>,
    own: OwnConnections,
    tracker: Tracker,
    /// None: nothing is to be stopped.
    kept: Option<Kept>,
    /// How many connections were ever accepted in this network namespace, and how many of these were seen here.
    opened: Option<u64>,
    known: u64,
    interval: Duration,
    /// The sample of the latest look.
    last: Option<Sample>,
    torn_said: bool,
    warnings: Vec<String>,
}

/// What a single look has found.
#[derive(Debug)]
pub struct Found {
    pub listening: Option<bool>,
    pub source: &'static str,
    pub sample: Sample,
}

/// What to watch.
pub struct Watch<'a> {
    rules: Rules,
    /// The ports of `--port`.
    ports: &'a [u16],
    in_flight: Option<&'a Question>,
    kept: Option<Wanted>,
    family: Family,
}

impl Watch<'_> {
    /// To watch the sockets alone.
    pub fn plain(rules: Rules, ports: &[u16], family: Family) -> Watch<'_> {
        Watch { rules, ports, in_flight: None, kept: None, family }
    }

    /// To watch a stop. `server`: what is known of the kept-alive connections of the server that runs. `own_stop`: lameduck sends it its
    /// own graceful signal.
    pub fn of(plan: &Plan, family: Family, server: servers::KeptAlive, own_stop: bool) -> Watch<'_> {
        let kept = Some(Wanted { keep_alive: plan.keep_alive, server, own_stop });
        Watch { rules: plan.rules.clone(), ports: &plan.ports, in_flight: plan.in_flight.as_ref(), kept, family }
    }
}

/// Returns when connections have ended; never returns if nothing is watched. Cancel-safe.
pub async fn ended(traffic: Option<&Traffic>) {
    match traffic {
        Some(traffic) => traffic.ended().await,
        None => std::future::pending().await,
    }
}

impl Traffic {
    /// Finds the app's sockets. The first look then notes which connections are there: the baseline.
    pub fn begin(now: Uptime, watch: Watch<'_>, own: OwnConnections) -> Traffic {
        let (question, kept, family) = (watch.in_flight.cloned(), watch.kept, watch.family);
        let mut traffic = Traffic::find(now, watch);
        traffic.kept = kept.map(|wanted| Kept::begin(wanted, family, &mut traffic.tracker));
        traffic.metric = question.map(|question| Metric::new(question, own.teller()));
        traffic.own = own;
        traffic.origins = Origins::begin(&traffic.ports);
        traffic.tables.follow_ends(traffic.ports.numbers(), &mut traffic.warnings);
        traffic.opened = proc::passive_opens();
        traffic
    }

    /// A single look, for a question while nothing is watched. What came before it is not known: where that decides whether a connection at
    /// rest was answered, the kernel is asked, and the look is taken once more.
    pub fn look_once(watch: Watch<'_>) -> Found {
        let now = Uptime::default();
        let mut traffic = Traffic::find(now, watch);
        let mut sample = traffic.sample(now, || true);
        if traffic.tracker.was_last_chance() {
            sample = traffic.sample(now, || true);
        }
        Found { listening: traffic.listens(), source: traffic.source(), sample: sample.unwrap_or_default() }
    }

    /// Whether the app listens, as far as can be known.
    pub fn is_listening(watch: Watch<'_>) -> bool {
        let traffic = Traffic::find(Uptime::default(), watch);
        match traffic.ports.found_by() {
            FoundBy::Option => traffic.ports.listen_now(),
            FoundBy::All | FoundBy::Cgroup | FoundBy::Descriptors => traffic.listens() == Some(true),
        }
    }

    fn find(now: Uptime, watch: Watch<'_>) -> Traffic {
        let mut warnings = Vec::new();
        let mut tables = Tables::open(&mut warnings);
        let sockets = if watch.ports.is_empty() { unix::sockets(tables.dump()).0 } else { Vec::new() };
        let mut ports = Ports::find(now, watch.family, watch.ports, &sockets, &mut tables, &mut warnings);
        let unix = if watch.ports.is_empty() { Unix::new(&mut ports, &sockets) } else { None };
        Traffic {
            tables,
            ports,
            origins: Origins::default(),
            unix,
            metric: None,
            own: OwnConnections::default(),
            tracker: Tracker::new(watch.rules),
            kept: None,
            opened: None,
            known: 0,
            interval: SHORTEST,
            last: None,
            torn_said: false,
            warnings,
        }
    }

    fn listens(&self) -> Option<bool> {
        let by_ports = if self.tables.are_off() { None } else { Some(!self.ports.numbers().is_empty()) };
        self.ports.listening.or(by_ports)
    }

    pub fn source(&self) -> &'static str {
        match &self.metric {
            Some(metric) if metric.answers() => "metric",
            _ => self.tables.name(),
        }
    }

    pub fn found_by(&self) -> FoundBy {
        self.ports.found_by()
    }

    pub fn ports(&self) -> &BTreeSet<u16> {
        self.ports.numbers()
    }

    /// Logs the `lame-duck` event: what is watched, and what the first look has found.
    pub fn announce(&mut self, sample: Option<&Sample>) {
        let sample = sample.cloned().unwrap_or_default();
        info!(
            event = "lame-duck",
            ports = joined(self.ports.numbers()),
            unix = self.unix.as_ref().map(Unix::names).unwrap_or_default().join(","),
            found_by = self.ports.found_by().name(),
            source = self.source(),
            busy = sample.busy,
            cooling = sample.cooling,
            idle = sample.idle,
            queued = sample.queued,
        );
        if !self.ports.udp().is_empty() {
            let udp = joined(self.ports.udp());
            self.warnings
                .push(format!("the app listens on UDP {udp}: UDP and QUIC have no connections to watch; {BLIND} for them"));
        }
        self.say_warnings();
    }

    /// Logs what could not be read, each time once.
    pub fn say_warnings(&mut self) {
        for warning in std::mem::take(&mut self.warnings) {
            warn!(event = "warning", message = warning);
        }
    }

    /// What to do about kept-alive connections, if that has changed since the last call.
    pub fn keep_alive(&mut self) -> Option<Way> {
        self.kept.as_mut().and_then(Kept::news)
    }

    /// Closes the kept-alive connections that the last look has chosen.
    pub fn close_kept(&mut self, now: Uptime) {
        if let Some(kept) = &mut self.kept {
            kept.close(now, &mut self.tracker, &mut self.warnings);
        }
    }

    /// How many kept-alive connections were closed.
    pub fn closed(&self) -> u64 {
        self.kept.as_ref().map_or(0, Kept::closed)
    }

    /// How long to wait until the next look.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// The app has been sent its stop signal.
    pub fn stopping(&mut self) {
        if let Some(kept) = &self.kept {
            kept.say(self.last.as_ref().map_or(0, |sample| sample.kept.open));
        }
        self.tracker.stopping();
        self.metric = None;
    }

    /// Every process of the app has ended.
    pub fn app_ended(&mut self) {
        self.tracker.app_ended();
    }

    /// How the connections have ended. None: nothing could be seen at all.
    pub fn tally(&self) -> Option<Tally> {
        if self.tables.are_off() { None } else { Some(self.tracker.tally()) }
    }

    /// The ports on which connections were cut.
    pub fn cut_on(&self) -> Vec<u16> {
        self.tracker.cut_on()
    }

    /// The sample of the latest look.
    pub fn last(&self) -> Option<&Sample> {
        self.last.as_ref()
    }

    /// Returns when connections have ended; never returns where that cannot be followed. Cancel-safe.
    async fn ended(&self) {
        match self.tables.events() {
            Some(events) => events.readable().await,
            None => std::future::pending().await,
        }
    }

    /// Takes a look, or one slice of it. None: nothing can be seen any more.
    pub fn look(&mut self, now: Uptime) -> Option<Sample> {
        let before = sys::cpu_time();
        let spent = || sys::cpu_time().saturating_sub(before);
        self.read_ends(now);
        self.find_new_listeners(now);
        if let Some(kept) = &mut self.kept {
            kept.hear(now, &mut self.tracker, &mut self.warnings);
        }
        let slice = if self.last.is_none() { FIRST_SLICE } else { SLICE };
        let mut sample = self.sample(now, || spent() < slice);
        self.ask(now, &mut sample);
        let fast = match (&mut self.kept, &sample) {
            (Some(kept), Some(sample)) => {
                kept.looked(sample, &mut self.warnings);
                kept.interval(now, spent(), &self.tracker, sample.kept)
            }
            _ => None,
        };
        self.interval = fast.unwrap_or((spent() * SHARE).max(SHORTEST)).min(LONGEST);
        self.last.clone_from(&sample);
        if let Some(Sample { busy, cooling, idle, queued, partial, .. }) = sample {
            debug!(event = "look", busy, cooling, idle, queued, partial, next = %Show(self.interval));
        }
        sample
    }

    fn sample(&mut self, now: Uptime, in_time: impl Fn() -> bool) -> Option<Sample> {
        let listening = self.ports.listening;
        let has_tcp = !self.ports.numbers().is_empty();
        if !has_tcp && self.unix.is_none() {
            // There is nothing to watch: all that is known is whether it listens.
            let known = !self.tables.are_off() || listening == Some(false);
            return known.then(|| Sample { listening, ..Sample::default() });
        }
        if has_tcp {
            match self.read(now, &in_time).map(|whole| whole && self.tables.break_ties(&mut self.tracker, &in_time)) {
                Ok(true) => {}
                Ok(false) => {
                    // The look goes on later. Until then nothing may be concluded from what is missing.
                    let last = self.last.clone().unwrap_or_default();
                    return Some(Sample { listening, watched: true, partial: true, ..last });
                }
                Err(error) => return self.degrade(now, &error, in_time),
            }
        }
        let mut torn = self.tables.end();
        self.origins.looked(torn);
        if let Some(unix) = &mut self.unix {
            torn |= unix.look(now, &mut self.ports, self.tables.dump(), &mut self.tracker);
        }
        if self.tables.events().is_none() && has_tcp {
            // Short connections are not seen otherwise.
            self.count_opened(now);
        }
        if torn && !std::mem::replace(&mut self.torn_said, true) {
            self.warnings.push("a look at the sockets was incomplete: nothing follows from what such a look lacks".to_owned());
        }
        let sample = self.tracker.end(now);
        self.own.looked(now);
        Some(Sample { listening, partial: torn, ..sample })
    }

    /// Goes on with the look, or begins one. True: all rows are there.
    fn read(&mut self, now: Uptime, in_time: &impl Fn() -> bool) -> io::Result<bool> {
        let (tracker, origins, ports, own) = (&mut self.tracker, &mut self.origins, &mut self.ports, &mut self.own);
        let tell = self.tables.tell_client_ends();
        let whole = self.tables.read(ports.numbers(), self.last.is_none(), in_time, |row| {
            if !own.has(now, row) && origins.is_traffic(row, ports, tell) {
                tracker.row(now, row);
            }
        })?;
        if whole {
            origins.settle(ports, &mut self.tables, |row| tracker.row(now, row));
        }
        Ok(whole)
    }

    /// The source has failed: it is tried once more, and after that the next best is used. Returns the sample of that one. None: none is
    /// left.
    fn degrade(&mut self, now: Uptime, error: &io::Error, in_time: impl Fn() -> bool) -> Option<Sample> {
        let other_names = self.tables.degrade(error, &mut self.warnings);
        self.origins.begin_again();
        if other_names {
            self.tracker.begin_again();
        } else {
            self.tracker.begin_look_again();
        }
        if self.tables.are_off() { None } else { self.sample(now, in_time) }
    }

    /// `--in-flight`: the app's own figure replaces the verdict. Arrivals and the accept queue still come from the kernel.
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

    /// Looks for new listeners, but only between two looks: in the middle it would end a look that takes long, each time.
    fn find_new_listeners(&mut self, now: Uptime) {
        if self.tables.are_being_read() {
            return;
        }
        let before = self.tables.name();
        let new = self.ports.look_again(now, &mut self.tables, &mut self.warnings);
        if self.tables.name() != before {
            // Another source names the connections from now on.
            self.tracker.begin_again();
        }
        if !new.is_empty() {
            self.tables.follow_ends(self.ports.numbers(), &mut self.warnings);
        }
    }
}

/// The largest figure that --in-flight may give: a larger one is wrong, and sums must not overflow.
const MOST_IN_FLIGHT: u64 = 1 << 30;
