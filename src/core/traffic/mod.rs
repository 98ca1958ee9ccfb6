//! The app's traffic: whose a connection is, what it is doing, how much is in flight, and what became of it all.

pub mod exposition;
pub mod keepalive;
pub mod network;
pub mod origin;
pub mod question;
pub mod row;
pub mod tracker;
pub mod verdict;

use super::time::Uptime;

/// One look at all connections.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Whether the app listens on anything; None where that cannot be known.
    pub listening: Option<bool>,
    /// Whether there are TCP ports or unix sockets to watch at all.
    pub watched: bool,
    /// New connections since the stop signal, those included that came and went between two looks.
    pub accepted: u64,
    pub last_arrival: Option<Uptime>,
    pub busy: usize,
    pub cooling: usize,
    pub idle: usize,
    /// Waiting to be accepted.
    pub queued: usize,
    /// Of the busy ones: closed by the app, still being delivered by the kernel.
    pub flushing: usize,
    /// Of the idle ones: not waited for any more, though their work is not done (`--max-silence`, a client that is gone).
    pub given_up: usize,
    /// Connections may be missing: nothing follows from there being none.
    pub partial: bool,
    pub kept: KeptAlive,
    /// The same by port, listeners without connections included; 0 is unix sockets.
    pub ports: Vec<PortSample>,
}

/// Kept-alive connections, those with turns of request and answer since the stop signal, in one look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeptAlive {
    /// All of them that are open and were not closed by us.
    pub open: usize,
    /// Of those: with a request that is not older than `--idle-after`.
    pub busy: usize,
    pub cooling: usize,
    /// When the last one was closed.
    pub closed_at: Option<Uptime>,
}

/// One port in one look.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortSample {
    pub port: u16,
    pub busy: usize,
    pub cooling: usize,
    pub idle: usize,
    pub queued: usize,
    /// New connections since the stop signal.
    pub accepted: u64,
}

impl Sample {
    /// What the stop waits for.
    pub fn in_flight(&self) -> usize {
        self.busy + self.cooling + self.queued
    }

    /// As `in_flight`, kept-alive connections in their usual turn left out.
    pub fn in_flight_besides_kept(&self) -> usize {
        self.in_flight().saturating_sub(self.kept.busy + self.kept.cooling)
    }

    /// What is being worked on, or waits for that. One that was just answered is at rest.
    pub fn at_work(&self) -> usize {
        self.busy + self.queued
    }
}

/// What became of the connections since the stop signal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub accepted: u64,
    /// So many more may have come: the kernel told of more ends than we could read.
    pub uncertain: u64,
    /// Connections that carried work and ended it.
    pub finished: u64,
    /// Connections whose work did not end: no answer, or not all of it delivered.
    pub cut: u64,
}
