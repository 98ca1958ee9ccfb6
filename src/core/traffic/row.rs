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
    /// It carries no work any more: FIN_WAIT2, TIME_WAIT, CLOSE; or not yet: handshakes.
    Gone,
}

impl State {
    /// The state for the number that every kernel has for it, in netlink and in /proc/net/tcp.
    pub fn from_number(number: u8) -> State {
        match number {
            1 => State::Established,
            4 | 9 | 11 => State::Closing,
            8 => State::CloseWait,
            10 => State::Listen,
            _ => State::Gone,
        }
    }
}

/// One connection or listener as the kernel shows it at one moment.
#[derive(Clone, Debug)]
pub struct Row {
    /// A number that is the same in every look, and that no other connection has.
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
    /// The send buffer is full: a process that writes has to wait.
    pub full: bool,
    pub seen: Seen,
}

/// What the source shows of a connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seen {
    Info(Info),
    /// Queues only, and the kernel's ping-pong mode where it can be trusted: off means that the last event was an input.
    Queues {
        ping_pong: Option<bool>,
    },
    /// A unix socket: the length of its queues only.
    Unix,
}

impl Row {
    /// Whether the client has left without sending anything: its FIN is all that came. Most likely this was a TCP probe.
    pub fn is_probe(&self) -> bool {
        self.state == State::CloseWait && self.info().is_some_and(|info| info.bytes_received <= 1)
    }

    /// Whether both ends are on this host: its client is one of the app's own processes, a neighbour in the network namespace, or a program
    /// that forwards connections from outside.
    pub fn is_local(&self) -> bool {
        self.peer.is_loopback() || self.peer == self.local
    }

    /// Whether anything but a FIN was received, as far as the source shows it.
    pub fn has_sent(&self) -> bool {
        let fin = if self.state == State::Established { 0 } else { 1 };
        self.info().is_none_or(|info| info.bytes_received > fin)
    }

    /// A number for the connection where there are no cookies, made of its two ends.
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

    /// Forgets the ping-pong bit, because on this kernel it means something else.
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

/// The fields of tcp_info that matter. Ages are in milliseconds, and all from one reading of the kernel's clock.
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
    /// Segments received with data; the counter may wrap.
    pub segments_in: u32,
    /// The smoothed round trip in microseconds; 0: not measured yet.
    pub rtt: u32,
    /// The shortest round trip in microseconds. None: the kernel has measured none.
    pub min_rtt: Option<u32>,
}

impl Info {
    /// How long no byte has moved in either direction, in ms.
    pub fn rest(&self) -> u32 {
        self.last_data_sent.min(self.last_data_recv)
    }

    pub fn is_tie(&self) -> bool {
        self.last_data_recv == self.last_data_sent
    }

    /// Breaks a tie by one look alone, where that is possible. True: the last event was the answer.
    pub fn breaks_tie(&self) -> bool {
        let acknowledged = self.last_ack_recv < self.last_data_sent;
        let far = self.min_rtt.is_some_and(|micros| micros > TWO_TICKS * 1000);
        acknowledged || far
    }
}
