//! What /proc shows: processes, their sockets, and the network's tables. Parsing is pure, over text.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use crate::core::output::snapshot::AppFigures;
use crate::core::servers;
use crate::core::signals::SignalSet;
use crate::core::traffic::row::{Row, Seen, State};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// The state of its first thread, as one letter.
    pub state: u8,
    pub threads: u32,
    /// When it started, in clock ticks since boot. With the pid this tells it from a later process of the same number.
    pub started: u64,
}

impl Process {
    /// Whether all of it has ended. A first thread that has exited looks like a zombie while other threads of the process run: they still
    /// serve.
    pub fn is_dead(&self) -> bool {
        self.state == b'X' || self.state == b'Z' && self.threads <= 1
    }

    pub fn is_stopped(&self) -> bool {
        self.state == b'T'
    }

    /// The directory that shows its memory and descriptors. If its first thread has exited, that of a thread that runs.
    fn directory(&self) -> String {
        let own = format!("/proc/{}", self.pid);
        if self.state != b'Z' {
            return own;
        }
        let threads = fs::read_dir(format!("{own}/task")).into_iter().flatten().flatten();
        let runs = |thread: &String| {
            let stat = fs::read(format!("{thread}/stat")).unwrap_or_default();
            parse_stat(&String::from_utf8_lossy(&stat)).is_some_and(|thread| !matches!(thread.state, b'Z' | b'X'))
        };
        threads.map(|thread| thread.path().display().to_string()).find(runs).unwrap_or(own)
    }
}

/// Whether the pids of /proc are those of our pid namespace: /proc may be mounted for another one (`unshare --pid` alone), and then its
/// numbers mean other processes.
fn is_ours() -> bool {
    fs::read_link("/proc/self").is_ok_and(|own| own.as_os_str() == std::process::id().to_string().as_str())
}

/// All processes. None where there is no /proc of our pid namespace.
pub fn processes() -> Vec<Process> {
    if !is_ours() {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

pub fn process(pid: i32) -> Option<Process> {
    parse_stat(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

pub fn parse_stat(text: &str) -> Option<Process> {
    // The name in parentheses may hold anything, parentheses too.
    let pid = text.split(' ').next()?.parse().ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    let threads = fields.nth(14)?.parse().ok()?;
    Some(Process { pid, parent, group, state, threads, started: fields.nth(1)?.parse().ok()? })
}

/// The living children of a process. Where the kernel does not list them, all processes are searched.
pub fn children(parent: i32) -> impl Iterator<Item = Process> {
    let listed = if is_ours() { list_children(parent) } else { Some(Vec::new()) };
    let others = if listed.is_none() { processes() } else { Vec::new() };
    let listed = listed.into_iter().flatten().filter_map(process);
    listed.chain(others).filter(move |process| process.parent == parent && !process.is_dead())
}

/// The children of all its threads. None: the kernel does not list them (without CONFIG_PROC_CHILDREN).
fn list_children(parent: i32) -> Option<Vec<i32>> {
    let mut children = Vec::new();
    for thread in fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten() {
        let list = fs::read_to_string(thread.path().join("children")).ok()?;
        children.extend(list.split_ascii_whitespace().filter_map(|pid| pid.parse::<i32>().ok()));
    }
    Some(children)
}

/// All processes that descend from `ancestor`, without itself.
pub fn descendants(processes: &[Process], ancestor: i32) -> Vec<Process> {
    let mut family = HashSet::from([ancestor]);
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for process in processes {
            if family.contains(&process.parent) && family.insert(process.pid) {
                found.push(*process);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// Memory, CPU and descriptors of all descendants, for each of these services; an entry of None is a service that does not run. Also counts
/// the children of `server`. Processes that belong to no other service count for the first one, and so does the CPU time of all reaped
/// processes.
pub fn figures(services: &[Option<i32>], server: Option<i32>) -> Vec<AppFigures> {
    let page = super::page_size();
    let all = descendants(&processes(), std::process::id() as i32);
    let families = services.iter().map(|main| {
        main.map_or(HashSet::new(), |main| descendants(&all, main).iter().map(|process| process.pid).chain([main]).collect())
    });
    let families: Vec<HashSet<i32>> = families.collect();
    let mut services = vec![AppFigures { open_files: Some(0), ..AppFigures::default() }; services.len().max(1)];
    services[0].cpu = super::cpu_of_reaped();
    for process in all {
        let owner = families.iter().skip(1).position(|family| family.contains(&process.pid)).map_or(0, |place| place + 1);
        let figures = &mut services[owner];
        let read = |directory: &str, file: &str| fs::read_to_string(format!("{directory}/{file}")).unwrap_or_default();
        // Until a dead process is reaped, its time is counted nowhere else.
        let stat = read(&format!("/proc/{}", process.pid), "stat");
        figures.cpu = figures.cpu.saturating_add(super::ticks(parse_cpu_ticks(&stat).unwrap_or_default()));
        if process.is_dead() {
            continue;
        }
        figures.processes += 1;
        figures.server_children += usize::from(Some(process.parent) == server);
        let directory = process.directory();
        let pages = read(&directory, "statm").split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok());
        figures.resident_bytes += pages.unwrap_or_default() * page;
        figures.open_files = figures.open_files.and_then(|sum| Some(sum + open_files(&directory)?));
    }
    services
}

/// How many files a process has open. None: it may not be read.
fn open_files(process: &str) -> Option<usize> {
    let directory = format!("{process}/fd");
    match fs::metadata(&directory) {
        // Since Linux 6.2 the size of the directory is their number, and every user may read it.
        Ok(directory) if directory.len() > 0 => return Some(directory.len() as usize),
        // The process has just ended.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Some(0),
        _ => {}
    }
    match fs::read_dir(&directory) {
        Ok(entries) => Some(entries.count()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
        Err(_) => Some(0),
    }
}

/// User and system time in clock ticks, of the process and of its children that it has reaped. None: the text is no such file.
pub fn parse_cpu_ticks(stat: &str) -> Option<u64> {
    let fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    Some(fields.skip(11).take(4).filter_map(|ticks| ticks.parse().ok()).fold(0, u64::saturating_add))
}

/// Those of our own cgroup or of one below it, lameduck included: the container's, whatever other processes its pid namespace shows.
pub fn of_our_cgroup(processes: &[Process]) -> Vec<Process> {
    let cgroups = |pid: &str| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let ours = cgroups("self");
    processes.iter().filter(|process| is_within(&ours, &cgroups(&process.pid.to_string()))).copied().collect()
}

/// Whether every cgroup of `ours` is that of `theirs` or one above it.
pub fn is_within(ours: &str, theirs: &str) -> bool {
    ours.lines().all(|line| {
        let directory = line.trim_end_matches('/');
        theirs.lines().any(|other| {
            let below = other.strip_prefix(directory);
            below.is_some_and(|below| (below.is_empty() || below.starts_with('/')) && !below.starts_with("/.."))
        })
    })
}

/// The command line of one process, kept open: after any number of execs one read shows what it is now.
#[derive(Debug)]
pub struct CommandLine(Option<File>);

impl CommandLine {
    pub fn open(pid: i32) -> CommandLine {
        if !is_ours() {
            return CommandLine(None);
        }
        CommandLine(File::open(format!("/proc/{pid}/cmdline")).ok())
    }

    pub fn of(process: &Process) -> CommandLine {
        CommandLine(File::open(format!("{}/cmdline", process.directory())).ok())
    }

    /// Reads the first page of it into `buffer`: words that end with NUL. None: it cannot be read, or the process is dead.
    pub fn read<'a>(&self, buffer: &'a mut [u8; 4096]) -> Option<Cow<'a, str>> {
        let length = self.0.as_ref()?.read_at(buffer, 0).ok()?;
        if length == 0 { None } else { Some(String::from_utf8_lossy(&buffer[..length])) }
    }

    /// The script that it names, as it is written there, if this is a shell that the kernel has started for it: `sh /entrypoint.sh`. Whether
    /// there is such a file is not looked up.
    pub fn script(&self) -> Option<String> {
        let mut buffer = [0; 4096];
        let line = self.read(&mut buffer).filter(|line| servers::is_shell(line))?;
        line.split('\0').skip(1).find(|word| !word.starts_with('-')).map(str::to_owned)
    }
}

/// The bytes that the first thread of a process has written so far, by write(2) to anything. None: the kernel does not show it.
pub fn written(pid: i32) -> Option<u64> {
    // The file of the whole process also counts the children that it has reaped.
    parse_written(&fs::read_to_string(format!("/proc/{pid}/task/{pid}/io")).ok()?)
}

pub fn parse_written(io: &str) -> Option<u64> {
    io.lines().find_map(|line| line.strip_prefix("wchar: "))?.trim().parse().ok()
}

/// The signals for which a process has handlers. None: unknown.
pub fn caught(pid: i32) -> Option<SignalSet> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(hex.trim(), 16).ok().map(SignalSet)
}

/// The inodes of its sockets, from `left` descriptors at most. None: there were more, or the kernel does not show them (another user, no
/// CAP_SYS_PTRACE).
pub fn sockets(process: &Process, left: &mut usize) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    descriptors(&process.directory(), left, |_, target| inodes.extend(socket_inode(target)))?;
    Some(inodes)
}

/// As `sockets`, each with the number of its descriptor.
pub fn socket_descriptors(process: &Process, left: &mut usize) -> Option<Vec<(i32, u64)>> {
    let mut sockets = Vec::new();
    descriptors(&process.directory(), left, |number, target| sockets.extend(number.zip(socket_inode(target))))?;
    Some(sockets)
}

/// One more than the highest number that its descriptors may have; every user may read it. None: unknown.
pub fn descriptor_count(pid: i32) -> Option<i32> {
    status_number(pid, "FDSize:")?.try_into().ok()
}

/// The real user and group of a process. None: unknown.
pub fn real_ids(pid: i32) -> Option<(u32, u32)> {
    Some((status_number(pid, "Uid:")?, status_number(pid, "Gid:")?))
}

/// The first number behind a key in /proc/PID/status.
fn status_number(pid: i32, key: &str) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(key))?.split_ascii_whitespace().next()?.parse().ok()
}

/// As `sockets`, but of each of its threads, because one may have descriptors of its own (unshare(2) with CLONE_FILES). Also None if it
/// holds an io_uring, whose fixed files cannot be seen.
pub fn sockets_of_threads(process: &Process, left: &mut usize) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    let mut sees_all = true;
    for thread in fs::read_dir(format!("/proc/{}/task", process.pid)).ok()?.flatten() {
        descriptors(&thread.path().display().to_string(), left, |_, target| {
            sees_all &= target != "anon_inode:[io_uring]";
            inodes.extend(socket_inode(target));
        })?;
    }
    sees_all.then_some(inodes)
}

/// Calls `found` with the number and the target of each descriptor of a process or thread. None: not all could be read.
fn descriptors(directory: &str, left: &mut usize, mut found: impl FnMut(Option<i32>, &str)) -> Option<()> {
    for entry in fs::read_dir(format!("{directory}/fd")).ok()?.flatten() {
        *left = left.checked_sub(1)?;
        match fs::read_link(entry.path()) {
            Ok(target) => {
                let number = entry.file_name().to_str().and_then(|number| number.parse().ok());
                target.to_str().into_iter().for_each(|target| found(number, target));
            }
            // It was closed after the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(())
}

fn socket_inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The UDP sockets of servers, as inode and port: bound to a port that somebody chose, and open to datagrams from any address. A client
/// (syslog, statsd, DNS) is bound by the kernel, to any address and a port of its range.
pub fn udp_listeners() -> Vec<(u64, u16)> {
    let tables = ["/proc/net/udp", "/proc/net/udp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let given_out = parse_port_range(&range);
    let is_given_out = |port: &u16| given_out.as_ref().is_some_and(|range| range.contains(port));
    let sockets = tables.iter().flat_map(|table| table.lines().skip(1).filter_map(parse_udp));
    let servers = sockets.filter(|(_, address, port)| !(address.is_unspecified() && is_given_out(port)));
    servers.map(|(inode, _, port)| (inode, port)).collect()
}

pub fn parse_port_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(|c: char| c.is_ascii_whitespace())?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// Inode, address and port of a socket that is not connected. None: the line is no such socket.
pub fn parse_udp(line: &str) -> Option<(u64, IpAddr, u16)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, _, _, _, _, _, _, inode, ..] = fields[..] else { return None };
    let (address, port) = parse_end(local)?;
    (parse_end(remote)?.1 == 0).then_some((inode.parse().ok()?, address, port))
}

/// Whether each of these sockets is in one of the tables. A socket that is in one, but not as a listener, does not listen.
pub fn are_listed(sockets: &HashSet<u64>) -> bool {
    let mut strange = sockets.clone();
    // Where the inode stands in a line.
    for (table, field) in [("tcp", 9), ("tcp6", 9), ("udp", 9), ("udp6", 9), ("netlink", 9), ("unix", 6)] {
        if strange.is_empty() {
            break;
        }
        let Ok(table) = File::open(format!("/proc/net/{table}")) else { continue };
        for line in BufReader::new(table).split(b'\n').map_while(Result::ok) {
            if let Some(inode) = parse_inode(&String::from_utf8_lossy(&line), field) {
                strange.remove(&inode);
            }
        }
    }
    strange.is_empty()
}

pub fn parse_inode(line: &str, field: usize) -> Option<u64> {
    line.split_ascii_whitespace().nth(field)?.parse().ok()
}

/// Whether /proc may hide other users' processes (hidepid).
pub fn may_hide_processes() -> bool {
    fs::read_to_string("/proc/self/mounts").is_ok_and(|mounts| parse_hidepid(&mounts))
}

pub fn parse_hidepid(mounts: &str) -> bool {
    let mut options = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
        (place == "/proc" && kind == "proc").then_some(options)
    });
    let mut options = options.next_back().unwrap_or_default().split(',');
    options.any(|option| option.strip_prefix("hidepid=").is_some_and(|how| !matches!(how, "0" | "off")))
}

/// How many connections were ever accepted in this network namespace. None: unknown.
pub fn passive_opens() -> Option<u64> {
    parse_passive_opens(&fs::read_to_string("/proc/net/snmp").ok()?)
}

pub fn parse_passive_opens(text: &str) -> Option<u64> {
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_ascii_whitespace);
    rows.next()?.zip(rows.next()?).find(|(name, _)| *name == "PassiveOpens")?.1.parse().ok()
}

/// How many TCP sockets of this host no process holds any more while the kernel still works on them, in all network namespaces. None:
/// unknown.
pub fn tcp_orphans() -> Option<u64> {
    // It has a few lines: one read is enough, and the exit waits for it.
    let mut buffer = [0; 1024];
    let length = File::open("/proc/net/sockstat").ok()?.read(&mut buffer).ok()?;
    parse_orphans(str::from_utf8(&buffer[..length]).ok()?)
}

pub fn parse_orphans(text: &str) -> Option<u64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix("TCP:"))?.split_ascii_whitespace();
    fields.find(|word| *word == "orphan")?;
    fields.next()?.parse().ok()
}

/// Whether the ping-pong bit of /proc/net/tcp means "the last event was an answer" on this kernel. It does where the threshold is 1: before
/// 5.1 and again since 6.0, if tcp_pingpong_thresh (6.7) was not changed.
pub fn ping_pong_tells(release: &str) -> bool {
    if let Ok(threshold) = fs::read_to_string("/proc/sys/net/ipv4/tcp_pingpong_thresh") {
        return threshold.trim() == "1";
    }
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => (major, minor) < (5, 1) || major >= 6,
        _ => false,
    }
}

/// The connections and listeners of /proc/net/tcp and tcp6, read piece by piece: queues and the ping-pong bit, but no ages and no counters.
#[derive(Debug)]
pub struct TcpTables {
    now: BufReader<File>,
    /// The next file. None in a kernel without IPv6.
    then: Option<File>,
    line: String,
}

impl TcpTables {
    pub fn open() -> io::Result<TcpTables> {
        let table = BufReader::with_capacity(32 * 1024, File::open("/proc/net/tcp")?);
        Ok(TcpTables { now: table, then: File::open("/proc/net/tcp6").ok(), line: String::new() })
    }

    /// Reads some lines. True: they were the last ones.
    pub fn piece(&mut self, mut found: impl FnMut(Row)) -> io::Result<bool> {
        for _ in 0..200 {
            self.line.clear();
            if self.now.read_line(&mut self.line)? > 0 {
                parse_tcp(&self.line).into_iter().for_each(&mut found);
            } else if let Some(table) = self.then.take() {
                self.now = BufReader::with_capacity(32 * 1024, table);
            } else {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads all lines at once.
    pub fn rows(mut found: impl FnMut(Row)) -> io::Result<()> {
        let mut tables = TcpTables::open()?;
        while !tables.piece(&mut found)? {}
        Ok(())
    }
}

/// Decodes one line. None: it is no socket. Never panics, whatever the text.
pub fn parse_tcp(line: &str) -> Option<Row> {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let (local, remote, state, queues) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let retransmits = fields.nth(1)?;
    let inode = fields.nth(2)?;
    let (address, port) = parse_end(local)?;
    let (peer, peer_port) = parse_end(remote)?;
    let (wqueue, rqueue) = queues.split_once(':')?;
    let state = State::from_number(u8::from_str_radix(state, 16).ok()?);
    // quick << 1 | pingpong; TIME_WAIT rows end before it.
    let ping_pong = if state == State::Established {
        fields.nth(4).and_then(|field| field.parse::<u32>().ok()).map(|field| field & 1 == 1)
    } else {
        None
    };
    Some(Row {
        // The two ends serve as its name: no other connection has them at the same time.
        cookie: fingerprint(local, remote),
        state,
        local: address,
        port,
        peer,
        peer_port,
        rqueue: u32::from_str_radix(rqueue, 16).ok()?,
        wqueue: u32::from_str_radix(wqueue, 16).ok()?,
        inode: inode.parse().ok()?,
        cgroup: None,
        retransmits: u32::from_str_radix(retransmits, 16).ok()?.min(255) as u8,
        full: false,
        seen: Seen::Queues { ping_pong },
    })
}

/// How many messages the kernel could not put on a netlink socket of ours. None: unknown.
pub fn netlink_drops(address: u32) -> Option<u64> {
    parse_netlink_drops(&fs::read_to_string("/proc/net/netlink").ok()?, address)
}

pub fn parse_netlink_drops(text: &str, address: u32) -> Option<u64> {
    const SOCK_DIAG: &str = "4";
    let address = address.to_string();
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, SOCK_DIAG, pid, _, _, _, _, _, drops, ..] = fields[..] else { return None };
        if pid == address { drops.parse().ok() } else { None }
    })
}

fn fingerprint(local: &str, remote: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (local, remote).hash(&mut hasher);
    hasher.finish()
}

/// Decodes an end such as `0100007F:1F90`: words in the machine's byte order.
fn parse_end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let mut bytes = [0; 16];
    if !address.is_ascii() || (address.len() != 8 && address.len() != 32) {
        return None;
    }
    for (index, place) in bytes.chunks_exact_mut(4).take(address.len() / 8).enumerate() {
        place.copy_from_slice(&u32::from_str_radix(&address[index * 8..index * 8 + 8], 16).ok()?.to_ne_bytes());
    }
    let address = if address.len() == 8 {
        IpAddr::V4(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]))
    } else {
        IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_ticks_is_too_much() {
        let stat = |user: u64| format!("7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 {user} 2 3 4 20 0");
        assert_eq!(parse_cpu_ticks(&stat(1)), Some(10));
        assert_eq!(parse_cpu_ticks(&stat(u64::MAX)), Some(u64::MAX));
    }

    #[test]
    fn stat_with_a_nasty_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 999";
        assert_eq!(parse_stat(stat), Some(Process { pid: 42, parent: 7, group: 42, state: b'S', threads: 3, started: 12345 }));
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn families() {
        let process = |pid, parent| Process { pid, parent, group: 1, state: b'S', threads: 1, started: 0 };
        let all = [process(9, 5), process(5, 3), process(3, 1), process(1, 0), process(7, 0), process(8, 7)];
        let mut found: Vec<i32> = descendants(&all, 3).iter().map(|process| process.pid).collect();
        found.sort();
        assert_eq!(found, [5, 9]);
    }

    #[test]
    fn the_container_s_processes_are_those_of_its_cgroup() {
        for (ours, theirs, within) in [
            ("0::/\n", "0::/\n", true),
            ("0::/\n", "0::/app.slice\n", true),
            // Another container, seen from our cgroup namespace.
            ("0::/\n", "0::/../c2\n", false),
            ("4:cpu:/pod/c1\n0::/pod/c1\n", "4:cpu:/pod/c1\n0::/pod/c1\n", true),
            ("4:cpu:/pod/c1\n0::/\n", "4:cpu:/pod/c12\n0::/\n", false),
            ("", "0::/x\n", true),
        ] {
            assert_eq!(is_within(ours, theirs), within, "{ours} {theirs}");
        }
    }

    #[test]
    fn lines_of_tcp() {
        let line = "   1: 0100007F:1F90 0100007F:D431 01 00000005:00000003 01:00000019 00000002     0        0 51234 2 00000000f0 20 4 1 10 -1";
        let row = parse_tcp(line).unwrap();
        assert_eq!((row.port, row.peer, row.peer_port), (8080, "127.0.0.1".parse().unwrap(), 0xd431));
        assert_eq!((row.state, row.wqueue, row.rqueue, row.inode, row.retransmits), (State::Established, 5, 3, 51234, 2));
        assert_eq!(row.seen, Seen::Queues { ping_pong: Some(true) });
        let mapped = "1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:0051 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1";
        let row = parse_tcp(mapped).unwrap();
        assert_eq!((row.peer, row.seen), ("127.0.0.1".parse().unwrap(), Seen::Queues { ping_pong: Some(false) }));
        assert!(parse_tcp("  sl  local_address rem_address   st tx_queue rx_queue").is_none());
    }

    #[test]
    fn the_last_mount_of_proc_says_whether_it_hides() {
        let plain = "overlay / overlay rw,relatime 0 0\nproc /proc proc rw,nosuid,relatime 0 0\n";
        for (options, hides) in [
            ("rw", false),
            ("rw,hidepid=off", false),
            ("rw,hidepid=0", false),
            ("rw,hidepid=2,gid=5", true),
            ("rw,hidepid=invisible", true),
        ] {
            let mounts = format!("{plain}proc /proc proc {options} 0 0\nproc /elsewhere/proc proc rw,hidepid=2 0 0\n");
            assert_eq!(parse_hidepid(&mounts), hides, "{options}");
        }
        assert!(!parse_hidepid(""));
    }

    #[test]
    fn counters() {
        let snmp = "Ip: a\nIp: 1\nTcp: RtoAlgorithm PassiveOpens X\nTcp: 1 4711 9\n";
        assert_eq!(parse_passive_opens(snmp), Some(4711));
        assert_eq!(parse_passive_opens("Tcp: PassiveOpens\n"), None);
        let netlink = "sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode\n0 0 7 0 0 0 0 2 1 4\n0 4 7 00000005 0 0 0 2 186 9\n";
        assert_eq!((parse_netlink_drops(netlink, 7), parse_netlink_drops(netlink, 8)), (Some(186), None));
        let udp = "  12: 00000000:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4321 2 0 0";
        assert_eq!(parse_udp(udp), Some((4321, IpAddr::V4(Ipv4Addr::UNSPECIFIED), 53)));
        assert_eq!(parse_udp(&udp.replace("00000000:0000 07", "0100007F:0016 01")), None, "connected: from one peer only");
        assert_eq!((parse_written("rchar: 5\nwchar: 77\nsyscr: 1\n"), parse_written("")), (Some(77), None));
        assert_eq!((parse_port_range("32768\t60999\n"), parse_port_range("")), (Some(32768..=60999), None));
        let unix = "0000000000000000: 00000003 00000000 00000000 0001 03   734 @x";
        assert_eq!((parse_inode(udp, 9), parse_inode(unix, 6), parse_inode("sl local", 9)), (Some(4321), Some(734), None));
        assert_eq!(parse_orphans("sockets: used 5\nTCP: inuse 3 orphan 2 tw 9\nUDP: inuse 1\n"), Some(2));
        assert_eq!((parse_orphans("TCP: inuse 3\n"), parse_orphans("")), (None, None));
    }
}
