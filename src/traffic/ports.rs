//! Which sockets are the app's. They are found, not configured.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use super::tables::{BLIND, Tables};
use crate::core::servers;
use crate::core::time::Uptime;
use crate::core::traffic::origin::{Holders, Shared};
use crate::core::traffic::row::Row;
use crate::sys::proc::{self, CommandLine, Process};
use crate::sys::unix_diag::UnixSocket;

/// A process tree with more processes or descriptors than this is not read, since that would delay signals.
const MOST_PROCESSES: usize = 4096;
const MOST_DESCRIPTORS: usize = 65_536;
/// How often new listeners are looked for.
const LISTENERS_EVERY: Duration = Duration::from_secs(1);

/// Whose sockets are looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Family {
    /// Those of the processes of the container that lameduck was started in, without lameduck itself.
    Container,
    Descendants,
}

impl Family {
    /// Those of `processes` that belong to it and are alive, without lameduck itself.
    pub fn members(self, processes: &[Process]) -> Vec<Process> {
        let own = std::process::id() as i32;
        let mut family = match self {
            Family::Container => proc::of_our_cgroup(processes),
            Family::Descendants => proc::descendants(processes, own),
        };
        family.retain(|process| process.pid != own && !process.is_dead());
        family
    }
}

/// How the app's ports were found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FoundBy {
    /// Everything that listens here is taken: sidecars count too.
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

/// The TCP ports that the app listens on, and who else is in this network namespace.
#[derive(Debug)]
pub struct Ports {
    family: Family,
    numbers: BTreeSet<u16>,
    found_by: FoundBy,
    /// Whether the app listens on anything. None: this cannot be known.
    pub listening: Option<bool>,
    udp: BTreeSet<u16>,
    holders: Option<Holders>,
    /// The cgroup of this container, once it was looked up. Inside, None: unknown.
    cgroup: Option<Option<u64>>,
    /// All listeners of this network namespace, if they can be seen.
    listeners: Vec<Row>,
    sees_listeners: bool,
    /// The listeners of the app that were found so far.
    app_listeners: Vec<Row>,
    /// Ports on which other processes listen too.
    shared: BTreeMap<u16, Shared>,
    /// The listeners that were judged, the app's and others.
    judged: HashSet<u32>,
    looked_at: Uptime,
}

impl Ports {
    /// Takes the ports of `--port`, or those that the app's processes listen on. `unix`: all unix sockets that have a name.
    pub fn find(
        now: Uptime,
        family: Family,
        named: &[u16],
        unix: &[UnixSocket],
        tables: &mut Tables,
        warnings: &mut Vec<String>,
    ) -> Ports {
        let mut ports = Ports {
            family,
            numbers: named.iter().copied().collect(),
            found_by: FoundBy::Option,
            listening: Some(true),
            udp: BTreeSet::new(),
            holders: None,
            cgroup: None,
            listeners: Vec::new(),
            sees_listeners: false,
            app_listeners: Vec::new(),
            shared: BTreeMap::new(),
            judged: HashSet::new(),
            looked_at: now,
        };
        if let Some(listeners) = tables.listeners(warnings) {
            (ports.listeners, ports.sees_listeners) = (listeners, true);
        }
        if named.is_empty() {
            ports.search(unix, tables, warnings);
        } else if ports.sees_listeners {
            ports.check_named(warnings);
        }
        ports.judged = ports.listeners.iter().map(|row| row.inode).collect();
        ports.find_neighbours(tables, warnings);
        ports
    }

    pub fn numbers(&self) -> &BTreeSet<u16> {
        &self.numbers
    }

    pub fn udp(&self) -> &BTreeSet<u16> {
        &self.udp
    }

    pub fn found_by(&self) -> FoundBy {
        self.found_by
    }

    /// Whether something listens there now. Where this cannot be known: true.
    pub fn listen_now(&self) -> bool {
        !self.sees_listeners || self.listeners.iter().any(|row| self.numbers.contains(&row.port))
    }

    /// Who holds which sockets; looked up at the first call.
    pub fn holders(&mut self) -> &Holders {
        let (family, cgroup) = (self.family, self.cgroup.flatten());
        self.holders.get_or_insert_with(|| Holders { cgroup, ..holders(family) })
    }

    /// As `holders`, but looked up again.
    pub fn holders_now(&mut self) -> &Holders {
        self.holders = None;
        self.holders()
    }

    /// Looks up the cgroup of this container, which `holders` may need.
    pub fn know_cgroup(&mut self, tables: &mut Tables) {
        if self.cgroup.is_none() {
            let cgroup = tables.own_cgroup();
            self.cgroup = Some(cgroup);
            if let Some(holders) = &mut self.holders {
                holders.cgroup = cgroup;
            }
        }
    }

    /// Whether only the app and lameduck listen in this network namespace, as far as can be seen.
    pub fn is_alone(&mut self) -> bool {
        let listeners = std::mem::take(&mut self.listeners);
        let is_alone = self.holders().is_alone(&listeners);
        self.listeners = listeners;
        is_alone
    }

    /// The pids of the app's processes that are known to connect to their own server.
    pub fn self_connecting(&self) -> Vec<i32> {
        let processes = proc::processes();
        let members = self.family.members(&processes);
        let is_httpd = |process: &&Process| {
            let mut buffer = [0; 4096];
            let line = CommandLine::of(process).read(&mut buffer).map(Cow::into_owned);
            line.and_then(|line| servers::recognise_running(&line)).is_some_and(|server| server.connects_to_itself)
        };
        let parents = members.iter().filter(|process| members.iter().any(|child| child.parent == process.pid));
        parents.filter(is_httpd).map(|process| process.pid).collect()
    }

    /// Whether this is a listener that is not the app's, or a connection that such a listener has accepted.
    pub fn is_neighbours(&self, row: &Row) -> bool {
        self.shared.get(&row.port).is_some_and(|shared| shared.is_neighbours(row))
    }

    /// Whether another process listens on this port too.
    pub fn is_shared(&self, port: u16) -> bool {
        self.shared.contains_key(&port)
    }

    /// Finds the ports of the listening sockets that the app's processes hold; where the kernel hides their descriptors, those of our
    /// cgroup; where that is unknown, all.
    fn search(&mut self, unix: &[UnixSocket], tables: &mut Tables, warnings: &mut Vec<String>) {
        if !self.sees_listeners {
            self.listening = None;
            warnings.push(format!("cannot see the traffic: no sock_diag and no /proc/net/tcp; {BLIND}"));
            tables.give_up();
            return;
        }
        let holders = self.holders().clone();
        let udp = proc::udp_listeners();
        self.udp = udp.iter().filter(|(inode, _)| holders.app.contains(inode)).map(|(_, port)| *port).collect();
        if holders.hidden {
            self.guess(tables, warnings);
            let others = self.listeners.iter().any(|row| !holders.ours.contains(&row.inode.into()));
            if !others && udp.is_empty() && unix.iter().all(|socket| !socket.listens) {
                // Whatever processes are hidden: nothing in this network namespace listens.
                self.listening = Some(false);
            }
            return;
        }
        let mut numbers = self.held_numbers();
        let mut listens = !numbers.is_empty() || !names(&holders, unix).is_empty() || !self.udp.is_empty();
        if !listens {
            // What is seen may be only a shell in front of the app.
            let hides = proc::may_hide_processes() || self.hides_a_listener(tables);
            numbers = self.held_numbers();
            listens = !numbers.is_empty();
            if hides && !listens {
                self.guess(tables, warnings);
                return;
            }
        }
        if !listens && tables.are_proc_net() && !proc::are_listed(&holders.app) {
            warnings.push(format!("cannot see the traffic: /proc/net does not show what the app listens on; {BLIND}"));
            self.listening = None;
            tables.give_up();
            return;
        }
        self.listening = Some(listens);
        self.numbers = numbers;
        self.found_by = FoundBy::Descriptors;
    }

    /// The ports of the listeners that the app's processes hold.
    fn held_numbers(&mut self) -> BTreeSet<u16> {
        let listeners = std::mem::take(&mut self.listeners);
        let holders = self.holders();
        let held = listeners.iter().filter(|row| holders.app.contains(&row.inode.into()));
        let numbers = held.map(|row| row.port).collect();
        self.listeners = listeners;
        numbers
    }

    /// Whether something listens here that may be the app's: its socket is in a thread's own descriptors or in an io_uring, which cannot be
    /// seen, or it is of our cgroup and no visible process holds it.
    fn hides_a_listener(&mut self, tables: &mut Tables) -> bool {
        if self.listeners.is_empty() {
            return false;
        }
        self.know_cgroup(tables);
        let processes = proc::processes();
        let by_threads = sockets_of(&self.family.members(&processes), proc::sockets_of_threads);
        let by_anybody = sockets_of(&processes, proc::sockets).0;
        let holders = self.holders.get_or_insert_default();
        holders.app.extend(&by_threads.0);
        holders.hidden |= by_threads.1;
        self.listeners.iter().any(|row| holders.may_be_app(row, &by_anybody))
    }

    fn guess(&mut self, tables: &mut Tables, warnings: &mut Vec<String>) {
        // The ports are a guess, so it is not known that the app listens on nothing.
        self.listening = None;
        self.know_cgroup(tables);
        let cgroup = self.cgroup.flatten();
        let ours = self.holders().ours.clone();
        // lameduck's own listener among them is that of --admin.
        let is_theirs = |row: &&Row| (cgroup.is_none() || row.cgroup == cgroup) && !ours.contains(&row.inode.into());
        self.numbers = self.listeners.iter().filter(is_theirs).map(|row| row.port).collect();
        self.found_by = if cgroup.is_some() { FoundBy::Cgroup } else { FoundBy::All };
        if cgroup.is_none() && !self.numbers.is_empty() {
            warnings.push(
                "cannot tell the app's ports: its descriptors are hidden or too many, and its cgroup is unknown; all that listens here counts, sidecars too (name them with --port)"
                    .to_owned(),
            );
        }
    }

    /// Warns of ports of `--port` on which nothing listens.
    fn check_named(&self, warnings: &mut Vec<String>) {
        let silent: BTreeSet<u16> =
            self.numbers.iter().copied().filter(|port| self.listeners.iter().all(|row| row.port != *port)).collect();
        if !silent.is_empty() {
            warnings.push(format!(
                "nothing that listens on port {} (--port) is to be seen: what is in flight there cannot be known",
                joined(&silent)
            ));
        }
    }

    /// Finds out who else listens on the app's ports.
    fn find_neighbours(&mut self, tables: &mut Tables, warnings: &mut Vec<String>) {
        let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
        for row in self.listeners.iter().filter(|row| self.numbers.contains(&row.port)) {
            *counts.entry(row.port).or_default() += 1;
        }
        // If the app's listeners are the only ones, nothing more is looked up.
        counts.retain(|_, count| *count > 1);
        if counts.is_empty() && self.found_by == FoundBy::Option {
            return;
        }
        if self.holders().hidden {
            self.know_cgroup(tables);
        }
        let holders = self.holders().clone();
        let mut others = Vec::new();
        for row in self.listeners.iter().filter(|row| self.numbers.contains(&row.port)) {
            match holders.is_app(row.inode, row.cgroup) {
                _ if self.app_listeners.iter().any(|known| known.inode == row.inode) => {}
                Some(false) => others.push(row),
                _ => self.app_listeners.push(row.clone()),
            }
        }
        let before = std::mem::take(&mut self.shared);
        for row in self.app_listeners.iter().filter(|ours| others.iter().any(|theirs| theirs.port == ours.port)) {
            self.shared.entry(row.port).or_default().add(row, true);
        }
        // A port that only another process listens on was named by `--port`, so it counts.
        for row in others {
            if let Some(shared) = self.shared.get_mut(&row.port) {
                shared.add(row, false);
            }
        }
        for (port, _) in self.shared.iter().filter(|(port, shared)| !shared.can_be_told() && !before.contains_key(port)) {
            warnings.push(format!(
                "another process listens on port {port} now, and nothing tells its connections from the app's: its connections count too"
            ));
        }
    }

    /// Looks for listeners again: the app may listen on another port by now, or on its first. Returns the new ports.
    pub fn look_again(&mut self, now: Uptime, tables: &mut Tables, warnings: &mut Vec<String>) -> BTreeSet<u16> {
        let mut new = BTreeSet::new();
        if now.since(self.looked_at) < LISTENERS_EVERY {
            return new;
        }
        self.looked_at = now;
        let Some(listeners) = tables.listeners(warnings) else { return new };
        self.listeners = listeners;
        let strange: Vec<Row> = self.listeners.iter().filter(|row| !self.judged.contains(&row.inode)).cloned().collect();
        if strange.is_empty() {
            return new;
        }
        let by_descriptors = self.found_by == FoundBy::Descriptors;
        let holders = self.holders_now().clone();
        for row in strange {
            match holders.is_app(row.inode, row.cgroup) {
                // It may be visible the next time.
                None => continue,
                Some(true) if by_descriptors && !self.numbers.contains(&row.port) => _ = new.insert(row.port),
                Some(_) => {}
            }
            self.judged.insert(row.inode);
        }
        if !new.is_empty() {
            warnings.push(format!("the app listens on {} since the stop signal: watched from now on", joined(&new)));
            self.numbers.extend(&new);
        }
        self.find_neighbours(tables, warnings);
        new
    }
}

/// The names of the unix sockets that the app listens on, without those that only the app can know or reach.
pub fn names(holders: &Holders, sockets: &[UnixSocket]) -> HashSet<Vec<u8>> {
    let is_app = |socket: &&UnixSocket| socket.listens && holders.app.contains(&socket.inode.into());
    sockets.iter().filter(is_app).filter(|socket| !is_private(&socket.name)).map(|socket| socket.name.clone()).collect()
}

/// Whether only the app knows or reaches this name: a name as Python's multiprocessing makes it, by the number of its process; or a path in
/// a directory that only its owner may enter, on the file system of the container's root (what containers share is mounted).
fn is_private(name: &[u8]) -> bool {
    if let Some(name) = name.strip_prefix(b"\0") {
        let numbers = str::from_utf8(name).ok().and_then(|name| name.strip_prefix("listener-")?.split_once('-'));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        return numbers.is_some_and(|(process, count)| is_number(process) && is_number(count));
    }
    let place = Path::new(std::ffi::OsStr::from_bytes(name)).parent().and_then(|directory| fs::metadata(directory).ok());
    let (Some(place), Ok(root)) = (place, fs::metadata("/")) else { return false };
    place.mode() & 0o077 == 0 && place.dev() == root.dev()
}

fn holders(family: Family) -> Holders {
    let own = std::process::id() as i32;
    let members = family.members(&proc::processes());
    let (app, hidden) = sockets_of(&members, proc::sockets);
    let ours = proc::process(own).and_then(|us| proc::sockets(&us, &mut 1024)).unwrap_or_default();
    // If no process is visible, the app is not visible either.
    Holders { app, hidden: hidden || members.is_empty(), ours: ours.into_iter().collect(), cgroup: None }
}

/// The sockets that these processes hold, and whether some could not be read.
fn sockets_of(processes: &[Process], sockets: impl Fn(&Process, &mut usize) -> Option<Vec<u64>>) -> (HashSet<u64>, bool) {
    let mut inodes = HashSet::new();
    let mut hidden = processes.len() > MOST_PROCESSES;
    let mut left = MOST_DESCRIPTORS;
    for process in processes.iter().take(MOST_PROCESSES) {
        match sockets(process, &mut left) {
            Some(sockets) => inodes.extend(sockets),
            // The process may just have ended.
            None => hidden |= proc::process(process.pid).is_some_and(|process| !process.is_dead()),
        }
    }
    (inodes, hidden)
}

pub fn joined(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
