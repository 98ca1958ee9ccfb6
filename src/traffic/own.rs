//! Our own connections to the app: questions, which are no traffic.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::core::time::Uptime;
use crate::core::traffic::row::Row;
use crate::http::Own;

/// At once; more and the oldest counts as a client's.
const MOST: usize = 1024;
/// Kept while nobody watches: these may be open still.
const MOST_UNWATCHED: usize = 64;
/// One that no whole look has shown for so long is over, whatever became of it: its port may be a client's next. On a busy machine the
/// kernel tells of an end long after it.
const OVER_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct OwnConnections {
    sender: UnboundedSender<Own>,
    said: UnboundedReceiver<Own>,
    /// In the order they were made; when they were last seen.
    open: VecDeque<(Own, Uptime)>,
    /// How many there were.
    pub count: u64,
}

impl Default for OwnConnections {
    fn default() -> OwnConnections {
        let (sender, said) = unbounded_channel();
        OwnConnections { sender, said, open: VecDeque::new(), count: 0 }
    }
}

impl OwnConnections {
    /// For whoever connects.
    pub fn teller(&self) -> UnboundedSender<Own> {
        self.sender.clone()
    }

    /// Takes what was said: before rows are judged by it.
    pub fn hear(&mut self, now: Uptime) {
        while let Ok(own) = self.said.try_recv() {
            if self.open.len() == MOST {
                self.open.pop_front();
            }
            self.open.push_back((own, now));
            self.count += 1;
        }
    }

    /// While nobody watches: what is said is not kept for ever.
    pub fn forget(&mut self, now: Uptime) {
        self.hear(now);
        let many = self.open.len().saturating_sub(MOST_UNWATCHED);
        self.open.drain(..many);
    }

    /// Whether this is one of them.
    pub fn has(&mut self, now: Uptime, row: &Row) -> bool {
        let place = self.place(row);
        if let Some(place) = place {
            self.open[place].1 = now;
        }
        place.is_some()
    }

    /// Whether it was one of them, whose end this is.
    pub fn ended(&mut self, row: &Row) -> bool {
        self.place(row).is_some_and(|place| self.open.remove(place).is_some())
    }

    /// A whole look is over.
    pub fn looked(&mut self, now: Uptime) {
        self.open.retain(|(_, seen)| now.since(*seen) < OVER_AFTER);
    }

    /// From our port, and from the address itself or over loopback.
    fn place(&self, row: &Row) -> Option<usize> {
        self.open.iter().position(|(own, _)| {
            let same_ports = (own.to.port(), own.from_port) == (row.port, row.peer_port);
            same_ports && (row.peer.is_loopback() || row.peer == bare(own.to.ip()))
        })
    }
}

/// Rows show v4-mapped addresses as IPv4.
fn bare(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::traffic::row::{Seen, State};

    fn own(from_port: u16) -> Own {
        Own { to: "127.0.0.1:80".parse().unwrap(), from_port }
    }

    const START: Uptime = Uptime(Duration::ZERO);

    fn row(peer: &str, peer_port: u16) -> Row {
        Row {
            cookie: 1,
            state: State::Established,
            local: "127.0.0.1".parse().unwrap(),
            port: 80,
            peer: peer.parse().unwrap(),
            peer_port,
            rqueue: 0,
            wqueue: 0,
            inode: 7,
            cgroup: None,
            retransmits: 0,
            full: false,
            seen: Seen::Queues { ping_pong: None },
        }
    }

    #[test]
    fn from_the_connection_to_its_end() {
        let mut ours = OwnConnections::default();
        ours.teller().send(own(4711)).unwrap();
        let has = |ours: &mut OwnConnections, peer, port| ours.has(START, &row(peer, port));
        assert!(!has(&mut ours, "127.0.0.1", 4711), "not heard yet");
        ours.hear(START);
        assert!(has(&mut ours, "127.0.0.1", 4711));
        assert!(!has(&mut ours, "127.0.0.1", 4712) && !has(&mut ours, "10.0.0.1", 4711));
        assert!(ours.ended(&row("127.0.0.1", 4711)));
        assert!(!has(&mut ours, "127.0.0.1", 4711) && !ours.ended(&row("127.0.0.1", 4711)), "its port is anybody's");
    }

    #[test]
    fn one_that_is_not_seen_is_over() {
        let mut ours = OwnConnections::default();
        (0..2).for_each(|port| ours.teller().send(own(port)).unwrap());
        ours.hear(START);
        for second in 0..20 {
            let now = Uptime(Duration::from_secs(second));
            assert!(ours.has(now, &row("127.0.0.1", 1)));
            ours.looked(now);
        }
        assert!(!ours.has(START, &row("127.0.0.1", 0)));
    }

    #[test]
    fn nothing_is_kept_for_ever() {
        let mut ours = OwnConnections::default();
        for port in 0..5000 {
            ours.teller().send(own(port)).unwrap();
        }
        ours.hear(START);
        assert_eq!((ours.open.len(), ours.count), (MOST, 5000));
        ours.forget(START);
        assert!(ours.open.len() == MOST_UNWATCHED && ours.has(START, &row("127.0.0.1", 4999)));
    }
}
