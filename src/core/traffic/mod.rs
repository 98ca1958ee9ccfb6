//! The app's traffic: whose a connection is, what it is doing, how much is in flight, and how each connection ended.

pub mod exposition;
pub mod keepalive;
pub mod network;
pub mod origin;
pub mod question;
pub mod row;
pub mod tracker;
pub mod verdict;

use super::time::Uptime;

/// What one look at all connections has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Whether the app listens on anything. None: this cannot be known.
    pub listening: Option<bool>,
    /// Whether there are TCP ports or unix sockets to watch at all.
    pub watched: bool,
    /// New connections since the stop signal, including those that came and ended between two looks.
    pub accepted: u64,
    pub last_arrival: Option<Uptime>,
    pub busy: usize,
    pub cooling: usize,
    pub idle: usize,
    /// Waiting to be accepted.
    pub queued: usize,
    /// How many of the busy ones the app has closed while the kernel still delivers their last bytes.
    pub flushing: usize,
    /// How many of the idle ones are not waited for any more, although their work is not done (`--max-silence`, a client that is gone).
    pub given_up: usize,
    /// Connections may be missing from this look, so nothing may be concluded from their absence.
    pub partial: bool,
    pub kept: KeptAlive,
    /// The same figures by port, including listeners without connections. Port 0 stands for unix sockets.
    pub ports: Vec<PortSample>,
}

/// In one look: the kept-alive connections, which have shown turns of request and answer since the stop signal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct KeptAlive {
    /// Those that are open and were not closed by lameduck.
    pub open: usize,
    /// How many of these have a request that is not older than `--idle-after`.
    pub busy: usize,
    pub cooling: usize,
    /// When lameduck closed the last one. None: it closed none.
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
    /// How many connections the stop waits for: busy, cooling and queued ones.
    pub fn in_flight(&self) -> usize {
        self.busy + self.cooling + self.queued
    }

    /// As `in_flight`, without kept-alive connections in their usual turn.
    pub fn in_flight_besides_kept(&self) -> usize {
        self.in_flight().saturating_sub(self.kept.busy + self.kept.cooling)
    }

    /// How many connections are busy or queued. One that was just answered is at rest.
    pub fn at_work(&self) -> usize {
        self.busy + self.queued
    }
}

/// How connections have ended since the stop signal.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    pub accepted: u64,
    /// How many more may have come: the kernel announced more ends than could be read.
    pub uncertain: u64,
    /// Connections that carried work and ended it.
    pub finished: u64,
    /// Connections whose work did not end: no answer, or not all of it delivered.
    pub cut: u64,
}
