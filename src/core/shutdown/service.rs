//! One service of the pod: from its start to its end, and the stop signals that it is sent.

use std::time::Duration;

use super::Ended;
use crate::core::signals::{Signal, SignalSet};
use crate::core::time::Uptime;

/// A service by its place in the plan.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ServiceId(pub usize);

impl ServiceId {
    /// The main command. Its companions follow, in the order in which they are started.
    pub const MAIN: ServiceId = ServiceId(0);
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Life {
    NotStarted,
    Running,
    Ended(Ended),
}

/// The second stop signal of a server whose first one waits for idle connections.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Second {
    None,
    /// To be sent at `by` at the latest, and sooner when nothing has been in flight since `rest`.
    Pending {
        signal: Signal,
        by: Uptime,
        rest: Uptime,
    },
    Sent,
}

#[derive(Clone, Debug)]
pub struct Service {
    /// Its end is no reason to end the others.
    pub expendable: bool,
    life: Life,
    /// It could be started.
    has_run: bool,
    /// When it was to be sent its stop signal.
    stopped_at: Option<Uptime>,
    /// The signals that it was sent to stop it.
    sent: SignalSet,
    second: Second,
}

impl Service {
    pub fn new(expendable: bool) -> Service {
        Service {
            expendable,
            life: Life::NotStarted,
            has_run: false,
            stopped_at: None,
            sent: SignalSet::default(),
            second: Second::None,
        }
    }

    pub fn start(&mut self) {
        self.life = Life::Running;
        self.has_run = true;
    }

    pub fn end(&mut self, ended: Ended) {
        self.life = Life::Ended(ended);
        self.second = Second::None;
    }

    /// Whether it ever ran; what could not be started has ended without.
    pub fn has_run(&self) -> bool {
        self.has_run
    }

    pub fn was_started(&self) -> bool {
        self.life != Life::NotStarted
    }

    /// It was to be sent its stop signal.
    pub fn was_stopped(&self) -> bool {
        self.stopped_at.is_some()
    }

    pub fn is_running(&self) -> bool {
        self.life == Life::Running
    }

    pub fn ended(&self) -> Option<Ended> {
        match self.life {
            Life::Ended(ended) => Some(ended),
            Life::NotStarted | Life::Running => None,
        }
    }

    /// It is to be sent its stop signal now.
    pub fn stop(&mut self, now: Uptime) {
        self.stopped_at.get_or_insert(now);
    }

    /// It was sent `signal`. `second`: what its server is to be sent later; `until`: when its time to stop is up.
    pub fn was_sent(&mut self, now: Uptime, signal: Signal, second: Option<Signal>, until: Uptime) {
        self.sent.insert(signal);
        if let (Life::Running, Second::None, Some(signal), Some(at)) = (self.life, self.second, second, self.stopped_at) {
            self.second = Second::Pending { signal, by: at + until.since(at) / 2, rest: now };
        }
    }

    /// The second stop signal, when nothing has been in flight for `idle_after`, or half of the time is gone. Once.
    pub fn second_due(&mut self, now: Uptime, is_busy: bool, idle_after: Duration) -> Option<Signal> {
        let Second::Pending { signal, by, rest } = &mut self.second else { return None };
        if is_busy {
            *rest = now;
        }
        if now < *by && now.since(*rest) < idle_after {
            return None;
        }
        let signal = *signal;
        self.second = Second::Sent;
        Some(signal)
    }

    /// As `second_due`, by the time alone.
    pub fn second_overdue(&mut self, now: Uptime) -> Option<Signal> {
        let Second::Pending { signal, by, .. } = self.second else { return None };
        if now < by {
            return None;
        }
        self.second = Second::Sent;
        Some(signal)
    }

    /// When the second stop signal is to be sent at the latest.
    pub fn deadline(&self) -> Option<Uptime> {
        match self.second {
            Second::Pending { by, .. } => Some(by),
            Second::None | Second::Sent => None,
        }
    }

    /// Its exit code: its own; 128+n for a death by signal n, but 0 if n is a stop signal that it was sent (also as a plain code, the habit
    /// of the JVM and of shells); 137 if nobody could reap it.
    pub fn code(&self) -> u8 {
        match self.ended() {
            None => 137,
            Some(Ended::Signal(signal)) if self.sent.contains(signal) => 0,
            Some(Ended::Signal(signal)) => 128 + signal.number() as u8,
            Some(Ended::Code(code)) if self.sent.iter().any(|signal| 128 + signal.number() == i32::from(code)) => 0,
            Some(Ended::Code(code)) => code,
        }
    }
}
