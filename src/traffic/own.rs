//! lameduck's own connections to the app (readiness, warm-up, `--in-flight`), which are not traffic.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::core::time::Uptime;
use crate::core::traffic::row::Row;
use crate::http::Own;

/// How many may be open at once; with more, the oldest counts as a client's.
const MOST: usize = 1024;
/// How many are remembered while nothing is watched: these may still be open.
const MOST_UNWATCHED: usize = 64;
/// After this time without a whole look that shows it, a connection counts as ended: its port may be a client's next. On a busy machine the
/// kernel announces an end long after it.
const OVER_AFTER: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct OwnConnections {
    sender: UnboundedSender<Own>,
    said: UnboundedReceiver<Own>,
    /// In the order in which they were made, with the time at which each was last seen.
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
    /// Where to announce a connection of our own before it is made.
    pub fn teller(&self) -> UnboundedSender<Own> {
        self.sender.clone()
    }

    /// Takes the announcements; to be called before rows are judged.
    pub fn hear(&mut self, now: Uptime) {
        while let Ok(own) = self.said.try_recv() {
            if self.open.len() == MOST {
                self.open.pop_front();
            }
            self.open.push_back((own, now));
            self.count += 1;
        }
    }

    /// To be called while nothing is watched: takes the announcements, and keeps only the latest `MOST_UNWATCHED`.
    pub fn forget(&mut self, now: Uptime) {
        self.hear(now);
        let many = self.open.len().saturating_sub(MOST_UNWATCHED);
        self.open.drain(..many);
    }

    /// Whether this row is one of them.
    pub fn has(&mut self, now: Uptime, row: &Row) -> bool {
        let place = self.place(row);
        if let Some(place) = place {
            self.open[place].1 = now;
        }
        place.is_some()
    }

    /// Whether this is the end of one of them.
    pub fn ended(&mut self, row: &Row) -> bool {
        self.place(row).is_some_and(|place| self.open.remove(place).is_some())
    }

    /// A whole look is over: forgets those that were not seen for `OVER_AFTER`.
    pub fn looked(&mut self, now: Uptime) {
        self.open.retain(|(_, seen)| now.since(*seen) < OVER_AFTER);
    }

    /// Where it stands in the list: it has our port, and comes from the address itself or over loopback.
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
