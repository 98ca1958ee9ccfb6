//! One connection or listener as the kernel shows it at one moment.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

/// Two ticks of the slowest kernel (HZ=100), in ms: at a longer round trip no request can follow an answer within one tick.
const TWO_TICKS: u32 = 20;

/// The states of a socket that matter here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    Established,
    /// The client has finished sending.
    CloseWait,
    /// FIN_WAIT1, CLOSING, LAST_ACK: the server has closed, the kernel may still be sending.
    Closing,
    Listen,
    /// Nobody's work any more: FIN_WAIT2, TIME_WAIT, CLOSE, and handshakes.
    Gone,
}

/// One connection or listener as the kernel shows it at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// The same number at every look, and for no other connection.
    pub cookie: u64,
    pub state: State,
    /// The app's end.
    pub local: IpAddr,
    pub port: u16,
    pub peer: IpAddr,
    pub peer_port: u16,
    pub rqueue: u32,
    pub wqueue: u32,
    /// 0: the app has not accepted it yet.
    pub inode: u32,
    pub cgroup: Option<u64>,
    pub retransmits: u8,
    /// The send buffer has no room: whoever writes has to wait.
    pub full: bool,
    pub seen: Seen,
}

/// How much of a connection its source shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    Info(Info),
    /// Queues only, and the kernel's ping-pong mode where it is to be trusted: off means that the last event was an input.
    Queues {
        ping_pong: Option<bool>,
    },
    /// A unix socket: queues, and not even which way they moved.
    Unix,
}

impl Row {
    /// The client has left without a word: its FIN is all that ever came. A TCP probe, most likely.
    pub fn is_probe(&self) -> bool {
        self.state == State::CloseWait && self.info().is_some_and(|info| info.bytes_received <= 1)
    }

    /// Both ends are on this host: its client is one of the app's own processes, a neighbour in the network namespace, or what forwards
    /// connections from outside.
    pub fn is_local(&self) -> bool {
        self.peer.is_loopback() || self.peer == self.local
    }

    /// Whether anything but a FIN was received, for all that can be known.
    pub fn has_sent(&self) -> bool {
        let fin = if self.state == State::Established { 0 } else { 1 };
        self.info().is_none_or(|info| info.bytes_received > fin)
    }

    /// Which connection it is, where there are no cookies: the two ends in one number.
    pub fn ends(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.port, self.peer, self.peer_port).hash(&mut hasher);
        hasher.finish()
    }

    pub fn ping_pong(&self) -> Option<bool> {
        match self.seen {
            Seen::Queues { ping_pong } => ping_pong,
            Seen::Info(_) | Seen::Unix => None,
        }
    }

    /// This kernel's bit means something else.
    pub fn distrust_ping_pong(&mut self) {
        if let Seen::Queues { ping_pong } = &mut self.seen {
            *ping_pong = None;
        }
    }

    pub fn info(&self) -> Option<&Info> {
        match &self.seen {
            Seen::Info(info) => Some(info),
            Seen::Queues { .. } | Seen::Unix => None,
        }
    }
}

/// What tcp_info tells. Ages in milliseconds, all from one reading of the kernel's clock.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Info {
    pub last_data_sent: u32,
    pub last_data_recv: u32,
    pub last_ack_recv: u32,
    pub bytes_sent: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    /// Segments sent without data.
    pub bare_acks: u32,
    /// Segments received with data; they may wrap.
    pub segments_in: u32,
    /// Smoothed, in microseconds; 0: not measured yet.
    pub rtt: u32,
    /// Microseconds; None where the kernel has seen none.
    pub min_rtt: Option<u32>,
}

impl Info {
    /// How long no byte moved either way, in ms.
    pub fn rest(&self) -> u32 {
        self.last_data_sent.min(self.last_data_recv)
    }

    pub fn is_tie(&self) -> bool {
        self.last_data_recv == self.last_data_sent
    }

    /// The breakers of a tie that need one look only. True: the last event was the answer.
    pub fn breaks_tie(&self) -> bool {
        let acknowledged = self.last_ack_recv < self.last_data_sent;
        let far = self.min_rtt.is_some_and(|micros| micros > TWO_TICKS * 1000);
        acknowledged || far
    }
}
