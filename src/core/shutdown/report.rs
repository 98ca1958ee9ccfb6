//! How it ended: the figures of the `exit` event, and the one line of the termination message.

use std::fmt;
use std::time::Duration;

use super::pod::Pod;
use super::service::Service;
use super::{Ended, Phase, StopReason};
use crate::core::signals::Signal;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::Tally;

#[derive(Clone, Debug)]
pub struct ExitReport {
    pub code: u8,
    pub ended: Option<Ended>,
    pub killed: bool,
    /// The app could be sent no signal.
    pub refused: bool,
    /// The kernel killed so many processes because memory ran out.
    pub oom_kills: u64,
    /// What began the shutdown, if anything did.
    pub began: Option<Began>,
    /// The main command was never started.
    pub not_started: bool,
    /// Why the main command was sent its stop signal.
    pub reason: Option<StopReason>,
    /// How long each phase took, `serving` first.
    pub phases: Vec<(Phase, Duration)>,
    /// None: nothing could be seen of the traffic, or nothing was watched.
    pub traffic: Option<Tally>,
    /// Kept-alive connections that were closed from outside.
    pub closed: u64,
    /// The ports on which connections were cut.
    pub cut_on: Vec<String>,
    /// So long after the stop signal the last new connection came.
    pub last_accept: Option<Duration>,
}

/// What began the shutdown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Began {
    Signal(Signal),
    /// The end of a companion, by its name.
    End {
        service: String,
        ended: Ended,
    },
}

impl fmt::Display for Began {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Began::Signal(signal) => write!(f, "{signal}"),
            Began::End { service, ended } => write!(f, "the end of {service}, which {ended}"),
        }
    }
}

impl ExitReport {
    pub fn new(pod: &Pod, began: Option<Began>, traffic: Option<Tally>, code: u8, now: Uptime) -> ExitReport {
        let entered = pod.entered();
        let ends = entered.iter().skip(1).map(|(_, at)| *at).chain([now]);
        ExitReport {
            code,
            ended: pod.ended(),
            killed: pod.killed(),
            refused: pod.refused(),
            oom_kills: 0,
            began,
            not_started: !pod.services().first().is_some_and(Service::has_run),
            reason: pod.reason(),
            phases: entered
                .iter()
                .zip(ends)
                .map(|((phase, at), end)| (*phase, end.since(*at)))
                .filter(|(phase, _)| *phase != Phase::Done)
                .collect(),
            traffic,
            closed: 0,
            cut_on: Vec::new(),
            last_accept: None,
        }
    }

    /// How long `phase` took, None if it never was.
    pub fn took(&self, phase: Phase) -> Option<Duration> {
        self.phases.iter().find(|(known, _)| *known == phase).map(|(_, took)| *took)
    }

    /// How the app ended, in words.
    pub fn app(&self) -> String {
        match self.ended {
            _ if self.not_started => "the app was not started".to_owned(),
            None if self.refused => "the app could not be signalled, and ends with lameduck".to_owned(),
            None => "the app could not be reaped".to_owned(),
            Some(Ended::Signal(Signal::KILL)) if self.killed => "the app had to be killed".to_owned(),
            Some(Ended::Signal(Signal::KILL)) if self.oom_kills > 0 => "the app died of KILL: memory ran out".to_owned(),
            Some(ended) => format!("the app {ended}"),
        }
    }
}

impl fmt::Display for ExitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lameduck: exit {}, {}", self.code, self.app())?;
        if let Some(began) = &self.began {
            write!(f, "; began by {began}")?;
        }
        for (phase, took) in &self.phases {
            write!(f, "{} {} {}", if *phase == Phase::Serving { ";" } else { "," }, phase.name(), Show(*took))?;
        }
        if let Some(reason) = self.reason {
            write!(f, "; stop signal sent because {}", reason.text())?;
        }
        if let Some(tally) = self.traffic {
            write!(f, "; {} connections finished, {} cut", tally.finished, tally.cut)?;
            if !self.cut_on.is_empty() {
                write!(f, " on {}", self.cut_on.join(", "))?;
            }
            if self.closed > 0 {
                write!(f, ", {} kept alive and closed", self.closed)?;
            }
            if let Some(after) = self.last_accept {
                write!(f, "; the last new one after {}", Show(after))?;
            }
        }
        Ok(())
    }
}
