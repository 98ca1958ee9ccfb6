//! Our own connections to the app: questions, which are no traffic.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::core::verdict::Row;
use crate::http::Own;

/// So many of the latest are told apart from the app's clients.
const MOST: usize = 64;

#[derive(Debug)]
pub struct OwnConnections {
    sender: Sender<Own>,
    said: Receiver<Own>,
    latest: VecDeque<Own>,
    /// How many there were.
    pub count: u64,
}

impl Default for OwnConnections {
    fn default() -> OwnConnections {
        let (sender, said) = channel();
        OwnConnections { sender, said, latest: VecDeque::new(), count: 0 }
    }
}

impl OwnConnections {
    /// For whoever connects.
    pub fn teller(&self) -> Sender<Own> {
        self.sender.clone()
    }

    /// Takes what was said: before rows are judged by it.
    pub fn hear(&mut self) {
        for own in self.said.try_iter() {
            if self.latest.len() == MOST {
                self.latest.pop_front();
            }
            self.latest.push_back(own);
            self.count += 1;
        }
    }

    /// Whether this is one of them: from our port, and from the address itself or over loopback.
    pub fn has(&self, row: &Row) -> bool {
        self.latest.iter().any(|own| {
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
