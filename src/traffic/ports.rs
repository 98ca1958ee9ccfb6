//! Which sockets are the app's: found, not configured.

use std::collections::{BTreeSet, HashSet};

use crate::core::verdict::Row;
use crate::sys::proc;
use crate::sys::unix_diag::UnixSocket;

/// A process tree with more processes or descriptors than this is not walked: it would hold up the signals.
const MOST_PROCESSES: usize = 4096;
const MOST_DESCRIPTORS: usize = 65_536;

/// Whose sockets are wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Of the processes of the container that we were started in, ourselves left out.
    Container,
    Descendants,
}

/// How the app's ports were found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundBy {
    /// All that listens here: sidecars count too.
    All,
    Cgroup,
    Descriptors,
    Option,
}

impl FoundBy {
    pub fn name(self) -> &'static str {
        match self {
            FoundBy::All => "all",
            FoundBy::Cgroup => "cgroup",
            FoundBy::Descriptors => "descriptors",
            FoundBy::Option => "--port",
        }
    }
}

/// The sockets that the family's processes hold.
#[derive(Debug, Default)]
pub struct Held {
    pub inodes: HashSet<u64>,
    /// Some descriptors could not be seen: another user's, or too many.
    pub hidden: bool,
}

impl Held {
    pub fn by(family: Family) -> Held {
        let own = std::process::id() as i32;
        let processes = proc::processes();
        let family = match family {
            Family::Container => proc::of_our_cgroup(&processes),
            Family::Descendants => proc::descendants(&processes, own),
        };
        let mut others = family.iter().filter(|process| process.pid != own && !process.is_dead()).peekable();
        // Whoever sees nobody else does not see the app.
        let mut held = Held { hidden: others.peek().is_none() || family.len() > MOST_PROCESSES, ..Held::default() };
        let mut left = MOST_DESCRIPTORS;
        for process in others.take(MOST_PROCESSES) {
            match proc::sockets(process, &mut left) {
                Some(sockets) => held.inodes.extend(sockets),
                // It may just have ended.
                None => held.hidden |= proc::process(process.pid).is_some_and(|process| !process.is_dead()),
            }
        }
        held
    }

    pub fn ports(&self, listeners: &[Row]) -> BTreeSet<u16> {
        listeners.iter().filter(|row| self.inodes.contains(&u64::from(row.inode))).map(|row| row.port).collect()
    }

    /// The names of the unix sockets they listen on.
    pub fn names(&self, sockets: &[UnixSocket]) -> HashSet<Vec<u8>> {
        let ours = |socket: &&UnixSocket| socket.listens && self.inodes.contains(&u64::from(socket.inode));
        sockets.iter().filter(ours).map(|socket| socket.name.clone()).collect()
    }

    pub fn udp_ports(&self) -> BTreeSet<u16> {
        proc::udp_listeners().into_iter().filter(|(inode, _)| self.inodes.contains(inode)).map(|(_, port)| port).collect()
    }
}
