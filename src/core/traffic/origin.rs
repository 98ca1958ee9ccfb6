//! Whose a connection on one of the app's ports is: a client's, the app's own, or a connection to a neighbour that listens on the same
//! port. Pure.

use std::collections::HashSet;
use std::net::IpAddr;

use super::row::Row;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whose {
    /// A client's: it is the app's traffic.
    Client,
    /// The app's own: processes of the app hold both ends. Apache wakes its children this way, nginx asks php-fpm.
    Internal,
    /// It belongs to another process that listens on the same port.
    Neighbour,
}

/// The client's end of a connection whose two ends are on this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientEnd {
    /// Its inode. 0: no process holds it any more.
    pub inode: u32,
    /// Its cgroup. None: unknown, as on version 1 nodes.
    pub cgroup: Option<u64>,
}

/// Who holds which sockets in this network namespace, as far as /proc shows it.
#[derive(Clone, Debug, Default)]
pub struct Holders {
    /// The sockets of the app's processes, by inode.
    pub app: HashSet<u64>,
    /// Some descriptors of the app's processes could not be read: another user's, or too many.
    pub hidden: bool,
    /// lameduck's own sockets, such as the one of `--admin`.
    pub ours: HashSet<u64>,
    /// The cgroup of this container. None: unknown.
    pub cgroup: Option<u64>,
}

impl Holders {
    /// Whether a process of the app holds this socket. None: this cannot be known.
    pub fn is_app(&self, inode: u32, cgroup: Option<u64>) -> Option<bool> {
        let inode = u64::from(inode);
        match (self.app.contains(&inode), self.ours.contains(&inode), self.hidden) {
            (_, true, _) => Some(false),
            (true, ..) => Some(true),
            (false, false, false) => Some(false),
            // The cgroup is the container's, and everything in it belongs to the app.
            (false, false, true) => self.cgroup.zip(cgroup).map(|(own, its)| own == its),
        }
    }

    /// Whether only the app and lameduck listen in this network namespace, as far as can be seen.
    pub fn is_alone(&self, listeners: &[Row]) -> bool {
        let mut others = listeners.iter().filter(|row| !self.ours.contains(&row.inode.into()));
        others.all(|row| self.is_app(row.inode, row.cgroup) == Some(true))
    }

    /// Whether a listener may be the app's although no descriptor of the app shows it: the app holds it after all, or some of its
    /// descriptors cannot be read, or the listener is of this container's cgroup and no process holds it. `anybody`: the sockets of all
    /// processes that can be seen.
    pub fn may_be_app(&self, row: &Row, anybody: &HashSet<u64>) -> bool {
        let inode = u64::from(row.inode);
        if self.ours.contains(&inode) {
            return false;
        }
        let is_of_us = self.cgroup.zip(row.cgroup).map(|(own, its)| own == its);
        let is_nobodys = !anybody.contains(&inode);
        self.app.contains(&inode) || is_nobodys && is_of_us.unwrap_or(self.hidden)
    }

    /// Whose a connection is, by its client's end. None: the end is gone, or this cannot be known.
    pub fn whose(&self, end: Option<ClientEnd>) -> Option<Whose> {
        let end = end?;
        let known = match end.inode {
            // It is closed: no process holds it, but its cgroup is still known.
            0 => self.cgroup.zip(end.cgroup).map(|(own, its)| own == its),
            inode => self.is_app(inode, end.cgroup),
        };
        known.map(|is_app| if is_app { Whose::Internal } else { Whose::Client })
    }
}

/// What was seen of the connections to one port whose ends are both on this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct Within {
    internal: bool,
    clients: bool,
}

impl Within {
    pub fn saw(&mut self, whose: Whose) {
        match whose {
            Whose::Internal => self.internal = true,
            Whose::Client => self.clients = true,
            Whose::Neighbour => {}
        }
    }

    /// Whether all connections that were seen alive were the app's own. Then those that were too short to be seen count as its own too.
    pub fn is_internal(&self) -> bool {
        self.internal && !self.clients
    }
}

/// Processes that are known to connect to their own server for less time than a look takes, and how many bytes they have written. Apache's
/// parent wakes each surplus child by a byte in a pipe and a request. That many bytes of requests count as theirs, and no more.
#[derive(Clone, Debug, Default)]
pub struct Writers {
    /// The bytes that each process has written so far, by pid. None: the kernel does not show them.
    processes: Vec<(i32, Option<u64>)>,
    /// How many bytes were written since, and were not found in a connection yet.
    unexplained: u64,
}

impl Writers {
    /// The shortest such request, in bytes: `OPTIONS * HTTP/1.0`, `User-Agent: Apache (internal dummy connection)` and their line ends.
    const SHORTEST: u64 = 71;
    /// The most bytes that are kept as unexplained: as many as a server with 256 children writes at once, but not a whole day's log.
    const MOST_UNEXPLAINED: u64 = 64 << 10;

    pub fn new(pids: Vec<i32>) -> Writers {
        Writers { processes: pids.into_iter().map(|pid| (pid, None)).collect(), unexplained: 0 }
    }

    /// Notes how much each process has written by now. `written`: the bytes that a process has written so far; None: not shown.
    pub fn begin(&mut self, written: impl Fn(i32) -> Option<u64>) {
        self.processes.iter_mut().for_each(|(pid, before)| *before = written(*pid));
    }

    /// Whether one of them has written the request of a connection that has `received` this many bytes, perhaps including its FIN.
    pub fn wrote(&mut self, received: u64, written: impl Fn(i32) -> Option<u64>) -> bool {
        for (pid, before) in &mut self.processes {
            let now = written(*pid);
            if let (Some(before), Some(now)) = (*before, now) {
                self.unexplained = (self.unexplained + now.saturating_sub(before)).min(Writers::MOST_UNEXPLAINED);
            }
            *before = now;
        }
        let is_theirs = received >= Writers::SHORTEST && self.unexplained + 1 >= received;
        if is_theirs {
            self.unexplained = self.unexplained.saturating_sub(received);
        }
        is_theirs
    }
}

/// A port of the app on which somebody else listens too (SO_REUSEPORT, or another address).
#[derive(Clone, Debug, Default)]
pub struct Shared {
    app: Vec<Listener>,
    others: Vec<Listener>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Listener {
    inode: u32,
    address: IpAddr,
    cgroup: Option<u64>,
}

impl Listener {
    fn takes(&self, address: IpAddr) -> bool {
        self.address.is_unspecified() || self.address == address
    }

    /// Whether both may take the same connection.
    fn overlaps(&self, other: &Listener) -> bool {
        self.takes(other.address) || other.takes(self.address)
    }
}

impl Shared {
    pub fn add(&mut self, row: &Row, is_app: bool) {
        let listener = Listener { inode: row.inode, address: row.local, cgroup: row.cgroup };
        if is_app { self.app.push(listener) } else { self.others.push(listener) }
    }

    /// Whether each connection can be assigned to its listener: by the address that it came to, or by its cgroup.
    pub fn can_be_told(&self) -> bool {
        let apart = |ours: &Listener, theirs: &Listener| ours.cgroup.zip(theirs.cgroup).is_some_and(|(a, b)| a != b);
        self.others.iter().all(|theirs| self.app.iter().all(|ours| !ours.overlaps(theirs) || apart(ours, theirs)))
    }

    /// Whether this is a listener that is not the app's, or a connection that such a listener has accepted.
    pub fn is_neighbours(&self, row: &Row) -> bool {
        if self.others.iter().any(|theirs| theirs.inode == row.inode && row.inode != 0) {
            return true;
        }
        let app: Vec<&Listener> = self.app.iter().filter(|ours| ours.takes(row.local)).collect();
        let mut others = self.others.iter().filter(|theirs| theirs.takes(row.local)).peekable();
        if others.peek().is_none() {
            return false;
        }
        // An accepted connection inherits its listener's cgroup.
        let is_of = |listener: &Listener| row.cgroup.is_some() && listener.cgroup == row.cgroup;
        app.is_empty() || !app.iter().any(|ours| is_of(ours)) && others.any(is_of)
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::{Seen, State};
    use super::*;

    fn listener(inode: u32, address: &str, cgroup: Option<u64>) -> Row {
        Row {
            cookie: inode.into(),
            state: State::Listen,
            local: address.parse().unwrap(),
            port: 80,
            peer: "0.0.0.0".parse().unwrap(),
            peer_port: 0,
            rqueue: 0,
            wqueue: 0,
            inode,
            cgroup,
            retransmits: 0,
            full: false,
            seen: Seen::Queues { ping_pong: None },
        }
    }

    fn accepted(address: &str, cgroup: Option<u64>) -> Row {
        Row { state: State::Established, ..listener(99, address, cgroup) }
    }

    fn holders(app: &[u64], hidden: bool, cgroup: Option<u64>) -> Holders {
        Holders { app: app.iter().copied().collect(), hidden, ours: HashSet::from([7]), cgroup }
    }

    #[test]
    fn a_client_end_that_the_app_holds_is_internal() {
        let end = |inode, cgroup| Some(ClientEnd { inode, cgroup });
        let seen = holders(&[1, 2], false, Some(40));
        assert_eq!(seen.whose(end(1, Some(40))), Some(Whose::Internal));
        assert_eq!(seen.whose(end(3, Some(41))), Some(Whose::Client), "a sidecar's");
        assert_eq!(seen.whose(end(3, Some(40))), Some(Whose::Client), "of our cgroup, but not of the app: curl in an exec");
        assert_eq!(seen.whose(end(0, Some(40))), Some(Whose::Internal), "closed by its process");
        assert_eq!(seen.whose(end(0, Some(41))), Some(Whose::Client));
        assert_eq!((seen.whose(end(0, None)), seen.whose(None)), (None, None));
        let hidden = holders(&[], true, Some(40));
        assert_eq!(hidden.whose(end(3, Some(40))), Some(Whose::Internal));
        assert_eq!(hidden.whose(end(3, Some(41))), Some(Whose::Client));
        assert_eq!(holders(&[], true, None).whose(end(3, Some(40))), None);
    }

    #[test]
    fn alone_and_explained() {
        let (app, ours) = (listener(1, "0.0.0.0", Some(40)), listener(7, "127.0.0.1", Some(40)));
        let stranger = listener(3, "127.0.0.1", Some(41));
        let seen = holders(&[1], false, Some(40));
        assert!(seen.is_alone(&[app.clone(), ours.clone()]) && seen.is_alone(&[]));
        assert!(!seen.is_alone(&[app.clone(), stranger.clone()]));
        assert!(!holders(&[], true, None).is_alone(std::slice::from_ref(&app)), "nobody can tell");
        assert!(holders(&[], true, Some(40)).is_alone(&[app.clone(), ours.clone()]));
    }

    #[test]
    fn a_listener_that_no_descriptor_shows_may_be_the_app_s() {
        let (none, held) = (HashSet::new(), HashSet::from([3]));
        let at = |row_cgroup| listener(3, "127.0.0.1", row_cgroup);
        let with = |app: &[u64], hidden, cgroup| holders(app, hidden, cgroup);
        assert!(with(&[], false, Some(40)).may_be_app(&at(Some(40)), &none), "our cgroup's, and nobody's");
        assert!(!with(&[], false, Some(40)).may_be_app(&at(Some(40)), &held), "a process outside of the app holds it");
        assert!(!with(&[], true, Some(40)).may_be_app(&at(Some(41)), &none), "a sidecar's by its cgroup");
        assert!(with(&[], true, None).may_be_app(&at(None), &none), "the app has an io_uring");
        assert!(!with(&[], false, None).may_be_app(&at(None), &none), "all of the app's descriptors are seen");
        assert!(with(&[3], false, None).may_be_app(&at(None), &held), "a thread's own");
        assert!(!with(&[], true, None).may_be_app(&listener(7, "127.0.0.1", None), &none), "ours");
    }

    #[test]
    fn what_is_too_short_to_be_seen_is_as_what_was_seen() {
        let mut within = Within::default();
        assert!(!within.is_internal(), "nothing was seen");
        within.saw(Whose::Internal);
        assert!(within.is_internal());
        within.saw(Whose::Client);
        assert!(!within.is_internal());
    }

    #[test]
    fn a_request_that_a_process_has_written_is_its_own() {
        let mut writers = Writers::new(vec![5]);
        writers.begin(|_| Some(7000));
        assert!(writers.wrote(87, |_| Some(7087)), "a byte in the pipe, a request of 86 and its FIN");
        assert!(writers.wrote(86, |_| Some(7174)), "no FIN came");
        assert!(!writers.wrote(86, |_| Some(7174)), "another's: it has written nothing since");
        assert!(writers.wrote(86, |_| Some(7348)) && writers.wrote(87, |_| Some(7348)), "two at once");
        assert!(!writers.wrote(86, |_| Some(7348)));
        assert!(!writers.wrote(200, |_| Some(7435)), "another's, longer than what was written");
        assert!(writers.wrote(86, |_| Some(7435)));
        assert!(!writers.wrote(30, |_| Some(7522)), "another's, shorter than such a request");
        // Of two that might be meant one counts as traffic.
        assert!(writers.wrote(80, |_| Some(7522)) && !writers.wrote(86, |_| Some(7522)));
        assert!(!writers.wrote(86, |_| None) && !writers.wrote(86, |_| Some(9000)), "it was not to be seen");
        assert!(!Writers::new(Vec::new()).wrote(86, |_| None));
    }

    #[test]
    fn a_neighbour_on_the_same_port_is_told_by_its_cgroup_or_its_address() {
        let shared = |others: &[Row]| {
            let mut shared = Shared::default();
            shared.add(&listener(1, "0.0.0.0", Some(40)), true);
            others.iter().for_each(|row| shared.add(row, false));
            shared
        };
        let by_cgroup = shared(&[listener(2, "0.0.0.0", Some(41))]);
        assert!(by_cgroup.can_be_told());
        assert!(by_cgroup.is_neighbours(&accepted("10.0.0.1", Some(41))));
        assert!(by_cgroup.is_neighbours(&listener(2, "0.0.0.0", Some(41))));
        for ours in [accepted("10.0.0.1", Some(40)), accepted("10.0.0.1", Some(42)), accepted("10.0.0.1", None)] {
            assert!(!by_cgroup.is_neighbours(&ours), "{ours:?}");
        }
        let unknown = shared(&[listener(2, "0.0.0.0", None)]);
        assert!(!unknown.can_be_told() && !unknown.is_neighbours(&accepted("10.0.0.1", None)));
        assert!(unknown.is_neighbours(&listener(2, "0.0.0.0", None)), "its queue is not ours");
        let mut by_address = Shared::default();
        by_address.add(&listener(1, "127.0.0.1", None), true);
        by_address.add(&listener(2, "10.0.0.1", None), false);
        assert!(by_address.can_be_told());
        assert!(by_address.is_neighbours(&accepted("10.0.0.1", None)) && !by_address.is_neighbours(&accepted("127.0.0.1", None)));
    }
}
