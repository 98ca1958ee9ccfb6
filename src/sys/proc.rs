//! What /proc tells: processes, their sockets, and the network's tables. Parsing is pure, over text.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt;

use crate::core::signals::SignalSet;
use crate::core::traffic::{Row, State};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    pub state: u8,
    /// Clock ticks since boot: with the pid, what tells a process from a later one of its number.
    pub started: u64,
}

impl Process {
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    pub fn is_stopped(&self) -> bool {
        self.state == b'T'
    }
}

pub fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| process(entry.file_name().to_str()?.parse().ok()?)).collect()
}

pub fn process(pid: i32) -> Option<Process> {
    parse_stat(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

fn parse_stat(text: &str) -> Option<Process> {
    // The name in parentheses may hold anything, parentheses too.
    let pid = text.split(' ').next()?.parse().ok()?;
    let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, state, started: fields.nth(17)?.parse().ok()? })
}

/// All that descend from `ancestor`, itself left out.
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

/// The command line of one process, kept open: what it is now, after however many execs, is one read away.
#[derive(Debug)]
pub struct CommandLine(Option<File>);

impl CommandLine {
    pub fn open(pid: i32) -> CommandLine {
        CommandLine(File::open(format!("/proc/{pid}/cmdline")).ok())
    }

    /// Words ended by NUL, the first page of them, in `buffer`. None where it cannot be read, or the process is dead.
    pub fn read<'a>(&self, buffer: &'a mut [u8; 4096]) -> Option<Cow<'a, str>> {
        let length = self.0.as_ref()?.read_at(buffer, 0).ok()?;
        if length == 0 { None } else { Some(String::from_utf8_lossy(&buffer[..length])) }
    }
}

/// The signals it has handlers for.
pub fn caught(pid: i32) -> Option<SignalSet> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let hex = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?;
    u64::from_str_radix(hex.trim(), 16).ok().map(SignalSet)
}

/// The inodes of its sockets. None: the kernel does not show its descriptors (another user, no CAP_SYS_PTRACE).
pub fn sockets(pid: i32) -> Option<Vec<u64>> {
    let mut inodes = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten() {
        match fs::read_link(entry.path()) {
            Ok(target) => {
                let inode: Option<u64> =
                    target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
                inodes.extend(inode);
            }
            // Closed since the directory was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(_) => return None,
        }
    }
    Some(inodes)
}

/// Inodes of unix sockets that listen, and of UDP sockets that would take a datagram from anyone.
pub fn other_listeners() -> Option<HashSet<u64>> {
    let mut found = HashSet::new();
    // __SO_ACCEPTCON
    const LISTENS: u32 = 0x10000;
    for line in fs::read_to_string("/proc/net/unix").ok()?.lines().skip(1) {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if let [_, _, _, flags, _, _, inode, ..] = fields[..]
            && u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & LISTENS != 0)
        {
            found.extend(inode.parse::<u64>().ok());
        }
    }
    for table in ["/proc/net/udp", "/proc/net/udp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            if let [_, _, remote, _, _, _, _, _, _, inode, ..] = fields[..]
                && remote.ends_with(":0000")
            {
                found.extend(inode.parse::<u64>().ok());
            }
        }
    }
    Some(found)
}

/// Connections that were ever accepted in this network namespace.
pub fn passive_opens() -> Option<u64> {
    parse_passive_opens(&fs::read_to_string("/proc/net/snmp").ok()?)
}

fn parse_passive_opens(text: &str) -> Option<u64> {
    let mut rows = text.lines().filter(|line| line.starts_with("Tcp:")).map(str::split_ascii_whitespace);
    rows.next()?.zip(rows.next()?).find(|(name, _)| *name == "PassiveOpens")?.1.parse().ok()
}

/// Whether any TCP socket exists in this network namespace, TIME_WAIT left out. None: unknown.
pub fn tcp_in_use() -> Option<bool> {
    // A few lines: one read each, since the exit waits for it.
    let in_use = |file: &str, name: &str| {
        let mut buffer = [0; 1024];
        let length = File::open(file).ok()?.read(&mut buffer).ok()?;
        parse_in_use(str::from_utf8(&buffer[..length]).ok()?, name)
    };
    let v4 = in_use("/proc/net/sockstat", "TCP:")?;
    // Without IPv6 there is no such file.
    let v6 = in_use("/proc/net/sockstat6", "TCP6:").unwrap_or(0);
    Some(v4 + v6 > 0)
}

fn parse_in_use(text: &str, name: &str) -> Option<u64> {
    let mut fields = text.lines().find_map(|line| line.strip_prefix(name))?.split_ascii_whitespace();
    fields.find(|word| *word == "inuse")?;
    fields.next()?.parse().ok()
}

/// Whether the ping-pong bit of /proc/net/tcp means "the last event was an answer" here: so it does where the threshold is 1, before
/// 5.1 and again since 6.0, if nobody changed tcp_pingpong_thresh (6.7).
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

/// The connections and listeners of /proc/net/tcp and tcp6: queues and the ping-pong bit, but no ages and no counters.
pub fn tcp_rows() -> Option<Vec<Row>> {
    let mut rows: Vec<Row> = fs::read_to_string("/proc/net/tcp").ok()?.lines().filter_map(parse_tcp).collect();
    rows.extend(fs::read_to_string("/proc/net/tcp6").unwrap_or_default().lines().filter_map(parse_tcp));
    Some(rows)
}

/// The ping-pong bits by the addresses of both ends.
pub fn ping_pong_bits() -> Option<HashMap<(u16, IpAddr, u16), bool>> {
    let mut bits = HashMap::new();
    for file in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(file).ok().or_else(|| (file == "/proc/net/tcp6").then(String::new))?.lines() {
            if let Some((row, peer_port)) = parse_tcp_line(line)
                && let Some(bit) = row.ping_pong
            {
                bits.insert((row.port, row.peer, peer_port), bit);
            }
        }
    }
    Some(bits)
}

fn parse_tcp(line: &str) -> Option<Row> {
    parse_tcp_line(line).map(|(row, _)| row)
}

pub fn parse_tcp_line(line: &str) -> Option<(Row, u16)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, remote, state, queues, timer, _, _, _, inode, ..] = fields[..] else { return None };
    let (_, port) = parse_end(local)?;
    let (peer, peer_port) = parse_end(remote)?;
    let (wqueue, rqueue) = queues.split_once(':')?;
    let state = super::sock_diag::state(u8::from_str_radix(state, 16).ok()?);
    let row = Row {
        // The two ends are the name: no other connection has them at the same time.
        cookie: fingerprint(local, remote),
        state,
        port,
        peer,
        rqueue: u32::from_str_radix(rqueue, 16).ok()?,
        wqueue: u32::from_str_radix(wqueue, 16).ok()?,
        inode: inode.parse().ok()?,
        cgroup: None,
        retransmits: u8::from(timer.starts_with("01:")),
        info: None,
        // quick << 1 | pingpong; TIME_WAIT rows end before it.
        ping_pong: if state == State::Established {
            fields.get(14).and_then(|field| field.parse::<u32>().ok()).map(|field| field & 1 == 1)
        } else {
            None
        },
    };
    Some((row, peer_port))
}

fn fingerprint(local: &str, remote: &str) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (local, remote).hash(&mut hasher);
    hasher.finish()
}

/// `0100007F:1F90`: words in the machine's byte order.
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
    fn stat_with_a_nasty_name() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 999";
        assert_eq!(parse_stat(stat), Some(Process { pid: 42, parent: 7, state: b'S', started: 12345 }));
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn families() {
        let process = |pid, parent| Process { pid, parent, state: b'S', started: 0 };
        let all = [process(9, 5), process(5, 3), process(3, 1), process(1, 0), process(7, 0), process(8, 7)];
        let mut found: Vec<i32> = descendants(&all, 3).iter().map(|process| process.pid).collect();
        found.sort();
        assert_eq!(found, [5, 9]);
    }

    #[test]
    fn tcp_lines() {
        let line = "   1: 0100007F:1F90 0100007F:D431 01 00000005:00000003 01:00000019 00000002     0        0 51234 2 00000000f0 20 4 1 10 -1";
        let (row, peer_port) = parse_tcp_line(line).unwrap();
        assert_eq!((row.port, row.peer, peer_port), (8080, "127.0.0.1".parse().unwrap(), 0xd431));
        assert_eq!((row.state, row.wqueue, row.rqueue, row.inode, row.retransmits), (State::Established, 5, 3, 51234, 1));
        assert_eq!(row.ping_pong, Some(true));
        let mapped = "1: 0000000000000000FFFF00000100007F:0050 0000000000000000FFFF00000100007F:0051 01 00000000:00000000 00:00000000 00000000 0 0 1 1 0 20 4 30 10 -1";
        let (row, _) = parse_tcp_line(mapped).unwrap();
        assert_eq!((row.peer, row.ping_pong), ("127.0.0.1".parse().unwrap(), Some(false)));
        assert!(parse_tcp_line("  sl  local_address rem_address   st tx_queue rx_queue").is_none());
    }

    #[test]
    fn counters() {
        let snmp = "Ip: a\nIp: 1\nTcp: RtoAlgorithm PassiveOpens X\nTcp: 1 4711 9\n";
        assert_eq!(parse_passive_opens(snmp), Some(4711));
        assert_eq!(parse_passive_opens("Tcp: PassiveOpens\n"), None);
        assert_eq!(parse_in_use("sockets: used 5\nTCP: inuse 3 orphan 0 tw 9\n", "TCP:"), Some(3));
    }
}
