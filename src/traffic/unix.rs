//! The app's unix sockets. A connection there has no ages and no counters: it counts as work for as long as it is open, or until
//! `--max-silence`. A connection between two processes of the app does not count: that work is seen at its front end.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

use super::ports::{self, Ports};
use crate::core::time::Uptime;
use crate::core::traffic::row::{Row, Seen, State};
use crate::core::traffic::tracker::Tracker;
use crate::sys::netlink::Dump;
use crate::sys::unix_diag::{self, UnixSocket};

/// How many connections are remembered whose other end is known.
const MOST_REMEMBERED: usize = 16_384;

#[derive(Debug)]
pub struct Unix {
    /// The names that the app listens on.
    names: HashSet<Vec<u8>>,
    /// By cookie: whether the other end is the app's too.
    internal: HashMap<u64, bool>,
}

impl Unix {
    /// None: the app listens on no unix socket.
    pub fn new(ports: &mut Ports, sockets: &[UnixSocket]) -> Option<Unix> {
        let names = ports::names(ports.holders(), sockets);
        if names.is_empty() { None } else { Some(Unix { names, internal: HashMap::new() }) }
    }

    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.names.iter().map(|name| String::from_utf8_lossy(name).replacen('\0', "@", 1)).collect();
        names.sort();
        names
    }

    /// Shows the tracker all rows. True: some may be missing.
    pub fn look(&mut self, now: Uptime, ports: &mut Ports, dump: Option<&mut Dump>, tracker: &mut Tracker) -> bool {
        let (mut sockets, partial) = sockets(dump);
        sockets.retain(|socket| self.names.contains(&socket.name));
        if self.internal.len() > MOST_REMEMBERED {
            self.internal.clear();
        }
        let unknown = |socket: &&UnixSocket| !self.internal.contains_key(&socket.cookie);
        let waiting = sockets.iter().flat_map(|socket| socket.waiting.iter().copied().map(u64::from));
        let is_strange = |peer: u64| !ports.holders().app.contains(&peer);
        if sockets.iter().filter(unknown).filter_map(peer).chain(waiting).any(is_strange) {
            // An unknown process: the descriptors are read at most once in a look.
            ports.holders_now();
        }
        let app = &ports.holders().app;
        for socket in &mut sockets {
            // A connection in the queue does not count either if it comes from a process of the app.
            let of_app = socket.waiting.iter().filter(|inode| app.contains(&u64::from(**inode))).count();
            socket.rqueue = socket.rqueue.saturating_sub(of_app as u32);
            let is_internal =
                peer(socket).is_some_and(|peer| *self.internal.entry(socket.cookie).or_insert_with(|| app.contains(&peer)));
            if !is_internal && socket.peer != Some(NOBODY) {
                tracker.row(now, &row(socket));
            }
        }
        partial
    }
}

/// The inode of an end that was closed.
const NOBODY: u32 = 0;

fn peer(socket: &UnixSocket) -> Option<u64> {
    socket.peer.filter(|peer| *peer != NOBODY && !socket.listens).map(u64::from)
}

/// The unix sockets that have a name. True: some may be missing.
pub fn sockets(dump: Option<&mut Dump>) -> (Vec<UnixSocket>, bool) {
    let mut sockets = Vec::new();
    if let Some(dump) = dump {
        match unix_diag::sockets(dump, |socket| sockets.push(socket)) {
            Ok(partial) => return (sockets, partial),
            // A kernel without unix_diag.
            Err(_) => sockets.clear(),
        }
    }
    // If this is missing too, nothing can be seen of them.
    let _ = unix_diag::sockets_of_proc(|socket| sockets.push(socket));
    (sockets, false)
}

fn row(socket: &UnixSocket) -> Row {
    Row {
        cookie: socket.cookie,
        state: if socket.listens { State::Listen } else { State::Established },
        local: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        port: 0,
        peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        peer_port: 0,
        rqueue: socket.rqueue,
        wqueue: socket.wqueue,
        inode: socket.inode,
        cgroup: None,
        retransmits: 0,
        full: false,
        seen: Seen::Unix,
    }
}
