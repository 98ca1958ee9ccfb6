//! The last word: what happened, told in the `exit` event and in one line for the termination message.

use std::fmt;
use std::time::Duration;

use super::shutdown::{Because, Ended, Machine, Phase};
use super::signals::Signal;
use super::time::{Show, Uptime};
use super::traffic::Tally;

/// How it ended.
#[derive(Clone, Debug)]
pub struct Story {
    pub code: u8,
    pub ended: Option<Ended>,
    pub killed: bool,
    /// The app could be sent no signal.
    pub refused: bool,
    /// The kernel killed so many processes because memory ran out.
    pub oom_kills: u64,
    /// The signal that began the shutdown, if one did.
    pub began: Option<Signal>,
    pub because: Option<Because>,
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

impl Story {
    pub fn new(machine: &Machine, began: Option<Signal>, traffic: Option<Tally>, code: u8, now: Uptime) -> Story {
        let entered = machine.entered();
        let ends = entered.iter().skip(1).map(|(_, at)| *at).chain([now]);
        Story {
            code,
            ended: machine.ended(),
            killed: machine.killed(),
            refused: machine.refused(),
            oom_kills: 0,
            began,
            because: machine.because(),
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
            None if self.refused => "the app could not be signalled, and ends with lameduck".to_owned(),
            None => "the app could not be reaped".to_owned(),
            Some(Ended::Signal(Signal::KILL)) if self.killed => "the app had to be killed".to_owned(),
            Some(Ended::Signal(Signal::KILL)) if self.oom_kills > 0 => "the app died of KILL: memory ran out".to_owned(),
            Some(ended) => format!("the app {ended}"),
        }
    }
}

impl fmt::Display for Story {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lameduck: exit {}, {}", self.code, self.app())?;
        if let Some(signal) = self.began {
            write!(f, "; began by {signal}")?;
        }
        for (phase, took) in &self.phases {
            write!(f, "{} {} {}", if *phase == Phase::Serving { ";" } else { "," }, phase.name(), Show(*took))?;
        }
        if let Some(because) = self.because {
            write!(f, "; told because {}", because.text())?;
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

impl Because {
    pub fn text(self) -> &'static str {
        match self {
            Because::Drained => "drained",
            Because::Fewest => "only kept-alive connections are left, and the fewest are busy",
            Because::GaveUp => "all is done but what was given up",
            Because::Hurried => "hurried by INT",
            Because::ListensOnNothing => "it listens on nothing",
            Because::OutOfTime => "the time for waiting was up",
            Because::OwnStop => "only kept-alive connections are left, which its own stop serves",
            Because::Timed => "the delay was over",
        }
    }
}
