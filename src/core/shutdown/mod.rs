//! The shutdown: what happens between the stop signal and the exit. All of it is decided here, and none of it is done here.

pub mod pod;
pub mod report;
pub mod rule;
pub mod service;

use std::fmt;
use std::time::Duration;

use super::signals::Signal;

/// `--drain`: what to wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Drain {
    /// Until every connection is closed.
    Connections,
    /// For the delay alone.
    Off,
    /// Until no request is in flight.
    Requests,
}

/// The one budget, and how it is divided.
#[derive(Clone, Debug)]
pub struct Timing {
    pub grace: Duration,
    pub delay: Duration,
    /// Somebody asked for this delay: it is kept even for an app that listens on nothing.
    pub delay_given: bool,
    pub quiet: Duration,
    pub stop_timeout: Duration,
    pub idle_after: Duration,
    pub drain: Drain,
}

impl Timing {
    /// Kept free before the kubelet's SIGKILL: a tenth of the grace period, between 0.5 s and 2 s.
    pub fn margin(grace: Duration) -> Duration {
        (grace / 10).clamp(Duration::from_millis(500), Duration::from_secs(2))
    }

    /// From the stop signal to our own SIGKILL.
    pub fn until_kill(&self) -> Duration {
        self.grace.saturating_sub(Timing::margin(self.grace))
    }

    /// From the stop signal that lameduck gets to the one that it sends to the app, at the latest.
    pub fn until_sent(&self) -> Duration {
        self.until_kill().saturating_sub(self.stop_timeout)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    Code(u8),
    Signal(Signal),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ended::Code(code) => write!(f, "exited with {code}"),
            Ended::Signal(signal) => write!(f, "died of {signal}"),
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Phase {
    Serving,
    /// The app serves on while endpoints propagate.
    LameDuck,
    /// Nothing new comes; what is in flight is waited for.
    Draining,
    /// The app has its stop signal.
    Stopping,
    /// The main process is gone; what it left behind has TERM.
    Sweeping,
    /// Every process is gone; the kernel still delivers answers.
    Flushing,
    /// SIGKILL to all that is left.
    Killing,
    Done,
}

impl Phase {
    pub const ALL: [Phase; 8] = [
        Phase::Serving,
        Phase::LameDuck,
        Phase::Draining,
        Phase::Stopping,
        Phase::Sweeping,
        Phase::Flushing,
        Phase::Killing,
        Phase::Done,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::LameDuck => "lame-duck",
            Phase::Draining => "draining",
            Phase::Stopping => "stopping",
            Phase::Sweeping => "sweeping",
            Phase::Flushing => "flushing",
            Phase::Killing => "killing",
            Phase::Done => "done",
        }
    }
}

/// Why the main command was sent its stop signal when it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StopReason {
    /// There was nothing to watch, and the delay is over.
    DelayOver,
    Drained,
    /// Nothing but kept-alive connections is left, and as few of them are busy as in the best moment so far.
    FewestBusy,
    /// All is done but connections that are not waited for any more.
    GaveUp,
    /// By INT.
    Hurried,
    ListensOnNothing,
    OutOfTime,
    /// Nothing but kept-alive connections is left, and the server's own stop serves those.
    OwnStop,
}

impl StopReason {
    pub fn text(self) -> &'static str {
        match self {
            StopReason::DelayOver => "the delay was over",
            StopReason::Drained => "drained",
            StopReason::FewestBusy => "only kept-alive connections are left, and the fewest are busy",
            StopReason::GaveUp => "all is done but what was given up",
            StopReason::Hurried => "hurried by INT",
            StopReason::ListensOnNothing => "it listens on nothing",
            StopReason::OutOfTime => "the time for waiting was up",
            StopReason::OwnStop => "only kept-alive connections are left, which its own stop serves",
        }
    }
}
