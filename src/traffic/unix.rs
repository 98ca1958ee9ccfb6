//! The app's unix sockets. A connection there has no ages and no counters: it is work for as long as it is open, or until
//! `--max-silence`. One between two processes of the app is none: its front end sees that work.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::ports::{Family, Held};
use crate::core::time::Uptime;
use crate::core::traffic::Tracker;
use crate::core::verdict::{Row, Seen, State};
use crate::sys::netlink::Dump;
use crate::sys::unix_diag::{self, UnixSocket};

/// So many connections whose other end is known are remembered.
const MOST_REMEMBERED: usize = 16_384;

#[derive(Debug)]
pub struct Unix {
    /// What the app listens on.
    names: HashSet<Vec<u8>>,
    family: Family,
    held: Held,
    /// By cookie: whether the other end is the app's too.
    internal: HashMap<u64, bool>,
}

impl Unix {
    /// None: the app listens on no unix socket.
    pub fn new(family: Family, held: Held, sockets: &[UnixSocket]) -> Option<Unix> {
        let names = held.names(sockets);
        if names.is_empty() { None } else { Some(Unix { names, family, held, internal: HashMap::new() }) }
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().map(|name| String::from_utf8_lossy(name).replacen('\0', "@", 1)).collect();
        names.sort();
        names
    }

    /// Shows the tracker all rows; true: some may be missing.
    pub fn look(&mut self, now: Uptime, dump: Option<&mut Dump>, tracker: &mut Tracker) -> bool {
        let (mut sockets, partial) = sockets(dump);
        sockets.retain(|socket| self.names.contains(&socket.name));
        if self.internal.len() > MOST_REMEMBERED {
            self.internal.clear();
        }
        if sockets.iter().any(|socket| self.is_strange(socket)) {
            // Somebody new: the descriptors are walked at most once in a look.
            self.held = Held::by(self.family);
        }
        for socket in &sockets {
            if !self.is_internal(socket) && socket.peer != Some(NOBODY) {
                tracker.row(now, &row(socket));
            }
        }
        partial
    }

    fn is_strange(&self, socket: &UnixSocket) -> bool {
        !self.internal.contains_key(&socket.cookie) && peer(socket).is_some_and(|peer| !self.held.inodes.contains(&peer))
    }

    fn is_internal(&mut self, socket: &UnixSocket) -> bool {
        let Some(peer) = peer(socket) else { return false };
        let held = &self.held;
        *self.internal.entry(socket.cookie).or_insert_with(|| held.inodes.contains(&peer))
    }
}

/// The inode of an end that was closed.
const NOBODY: u32 = 0;

fn peer(socket: &UnixSocket) -> Option<u64> {
    socket.peer.filter(|peer| *peer != NOBODY && !socket.listens).map(u64::from)
}

/// The unix sockets that have a name; true: some may be missing.
pub fn sockets(dump: Option<&mut Dump>) -> (Vec<UnixSocket>, bool) {
    let mut sockets = Vec::new();
    if let Some(dump) = dump {
        match unix_diag::sockets(dump, |socket| sockets.push(socket)) {
            Ok(partial) => return (sockets, partial),
            // A kernel without unix_diag.
            Err(_) => sockets.clear(),
        }
    }
    // Where that is missing too, nothing can be seen of them.
    let _ = unix_diag::sockets_of_proc(|socket| sockets.push(socket));
    (sockets, false)
}

fn row(socket: &UnixSocket) -> Row {
    Row {
        cookie: socket.cookie,
        state: if socket.listens { State::Listen } else { State::Established },
        port: 0,
        peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        peer_port: 0,
        rqueue: socket.rqueue,
        wqueue: socket.wqueue,
        inode: socket.inode,
        cgroup: None,
        retransmits: 0,
        seen: Seen::Unix,
    }
}
