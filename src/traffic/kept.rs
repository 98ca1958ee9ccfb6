//! What is done about kept-alive connections that clients go on using: the way that loses least for this server, as far as it is permitted.

use std::io;
use std::time::Duration;

use tracing::info;

use super::closer::{Closer, Outcome};
use super::ports::Family;
use crate::core::servers;
use crate::core::time::Uptime;
use crate::core::traffic::keepalive::{KeepAlive, Way};
use crate::core::traffic::tracker::Tracker;
use crate::core::traffic::{KeptAlive, Sample};
use crate::sys::connection;

/// While connections are closed, the pause after a look is this many times as long as the look's CPU time: looking then takes at most a
/// quarter of one CPU.
const SHARE: u32 = 4;
/// The shortest pause between two looks while connections are closed.
const SHORTEST: Duration = Duration::from_millis(2);
/// How long the looks may come this often. After that they take a twentieth of one CPU again.
const FAST: Duration = Duration::from_secs(3);

/// What the user wants, and for which server.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub keep_alive: KeepAlive,
    pub server: servers::KeptAlive,
    /// lameduck sends the server its own graceful signal.
    pub own_stop: bool,
}

#[derive(Debug)]
pub struct Kept {
    wanted: Wanted,
    family: Family,
    way: Way,
    /// The way has changed since `news` was last called.
    is_new: bool,
    closer: Option<Closer>,
    closed: u64,
    /// Kept-alive connections were seen.
    seen: bool,
    /// Why they cannot be closed. It is logged when there is one to close.
    refused: Option<io::Error>,
}

impl Kept {
    pub fn begin(wanted: Wanted, family: Family, tracker: &mut Tracker) -> Kept {
        let refused = if wanted.keep_alive == KeepAlive::Wait { None } else { connection::is_permitted().err() };
        let way = Way::choose(wanted.keep_alive, wanted.server, wanted.own_stop, refused.is_none());
        if wanted.keep_alive == KeepAlive::Close {
            tracker.close_any();
        }
        Kept { wanted, family, way, is_new: true, closer: None, closed: 0, seen: false, refused }
    }

    /// The way, if it is new since the last call.
    pub fn news(&mut self) -> Option<Way> {
        std::mem::take(&mut self.is_new).then_some(self.way)
    }

    pub fn closed(&self) -> u64 {
        self.closed
    }

    /// To be called before a look: takes the outcomes of the connections that were to be closed.
    pub fn hear(&mut self, now: Uptime, tracker: &mut Tracker, warnings: &mut Vec<String>) {
        while let Some((chosen, outcome)) = self.closer.as_ref().and_then(Closer::outcome) {
            match outcome {
                Outcome::Closed => {
                    self.closed += 1;
                    tracker.closed(now, &chosen);
                }
                Outcome::Moved => tracker.spare(&chosen),
                Outcome::Refused(error) => {
                    tracker.refused(&chosen);
                    if self.closed == 0 && self.way == Way::Close {
                        self.refused = Some(error);
                        self.go(Way::choose(self.wanted.keep_alive, self.wanted.server, self.wanted.own_stop, false));
                    }
                }
            }
        }
        if self.way == Way::Close && tracker.closing().is_some_and(|closing| closing.is_in_vain()) {
            self.go(Way::Wait);
            warnings.push(format!(
                "kept-alive connections are closed no more after {}: their clients come back here; waiting for a moment of rest",
                self.closed
            ));
        }
    }

    fn go(&mut self, way: Way) {
        (self.way, self.is_new) = (way, true);
    }

    /// To be called after a look: logs what cannot be done, if there is something to do.
    pub fn looked(&mut self, sample: &Sample, warnings: &mut Vec<String>) {
        self.seen |= sample.kept.open > 0;
        if self.seen
            && let Some(error) = self.refused.take()
        {
            let instead = match self.way {
                Way::OwnStop => "they are left to the server's own stop",
                Way::Close | Way::Fewest | Way::Wait => "the moment with the fewest in use is taken",
            };
            warnings.push(format!("cannot close kept-alive connections: {error}; {}; {instead}", way_out(&error)));
        }
    }

    /// Closes the connections that the last look has chosen. At the first call it only begins: the next look chooses.
    pub fn close(&mut self, now: Uptime, tracker: &mut Tracker, warnings: &mut Vec<String>) {
        if self.closer.is_none() {
            match Closer::start(self.family) {
                Ok(closer) => self.closer = Some(closer),
                Err(error) => {
                    self.go(Way::choose(self.wanted.keep_alive, self.wanted.server, self.wanted.own_stop, false));
                    warnings.push(format!("cannot close kept-alive connections: no thread for it: {error}"));
                    return;
                }
            }
            tracker.begin_closing(now, self.wanted.server.finishes);
            return;
        }
        let chosen = tracker.take_chosen();
        if !chosen.is_empty() && !self.closer.as_ref().is_some_and(|closer| closer.close(chosen)) {
            self.go(Way::choose(self.wanted.keep_alive, self.wanted.server, self.wanted.own_stop, false));
        }
    }

    /// The pause until the next look while connections are closed, by the CPU time of the last one. None: the usual pause.
    pub fn interval(&self, now: Uptime, spent: Duration, tracker: &Tracker, kept: KeptAlive) -> Option<Duration> {
        let is_fast = tracker.closing().is_some_and(|closing| now.since(closing.since()) < FAST);
        (is_fast && self.way == Way::Close && kept.open > 0).then(|| (spent * SHARE).max(SHORTEST))
    }

    /// Logs the `keep-alive` event, if there were such connections: how many were closed, how many are left, and the way.
    pub fn say(&self, left: usize) {
        if self.seen || self.closed > 0 {
            info!(event = "keep-alive", closed = self.closed, left, way = self.way.name());
        }
    }
}

/// What would permit the closing. A seccomp profile may answer as an old kernel does.
pub fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "add the capability SYS_PTRACE, or a seccomp profile that allows pidfd_getfd (docs/keepalive.md)"
        }
        io::ErrorKind::Unsupported => {
            "it takes Linux 5.6, and SYS_PTRACE or a seccomp profile that allows pidfd_getfd (docs/keepalive.md)"
        }
        _ => "see docs/keepalive.md",
    }
}
