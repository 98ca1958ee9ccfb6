//! TCP sockets by NETLINK_SOCK_DIAG. No crate has the destroy events, the cgroup's id or today's tcp_info. Decoding is a pure function over
//! bytes, and accepts a tcp_info that is shorter or longer than ours; docs/traffic.md says what is done with it.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::checked;
use super::netlink::{self, Dump, attributes, be16_at, u32_at, u64_at};
use super::proc;
use crate::core::traffic::origin::ClientEnd;
use crate::core::traffic::row::{Info, Row, Seen, State};

/// struct inet_diag_msg
const MESSAGE: usize = 72;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_SKMEMINFO: u16 = 7;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY
const DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;
/// How many ports one filter can have. For more ports there is no filter, and more is read.
const MOST_FILTERED_PORTS: usize = 64;

/// States, as bits of a request: listeners.
pub const LISTENERS: u32 = 1 << 10;
/// FIN_WAIT1, LAST_ACK, CLOSING.
pub const CLOSING: u32 = 1 << 4 | 1 << 9 | 1 << 11;
/// States with work, and listeners; without TIME_WAIT and handshakes.
pub const ALL: u32 = 1 << 1 | 1 << 8 | CLOSING | LISTENERS;
pub const FIN_WAIT2: u32 = 1 << 5;
pub const FAMILIES: [i32; 2] = [libc::AF_INET, libc::AF_INET6];

/// Decodes one socket from the body of its message. None: it is none. Never panics, whatever the bytes.
pub fn decode(message: &[u8]) -> Option<Row> {
    let family = *message.first()?;
    let wqueue = u32_at(message, 60)?;
    let mut row = Row {
        cookie: u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32,
        state: State::from_number(message[1]),
        local: address(family, message.get(8..24)?)?,
        port: be16_at(message, 4)?,
        peer: address(family, message.get(24..40)?)?,
        peer_port: be16_at(message, 6)?,
        rqueue: u32_at(message, 56)?,
        wqueue,
        inode: u32_at(message, 68)?,
        cgroup: None,
        retransmits: message[3],
        full: false,
        seen: Seen::Queues { ping_pong: None },
    };
    attributes(message.get(MESSAGE..)?, |kind, value| match kind {
        INET_DIAG_INFO => row.seen = decode_info(value, wqueue).map_or(row.seen, Seen::Info),
        INET_DIAG_SKMEMINFO => row.full = is_full(value).unwrap_or(false),
        INET_DIAG_CGROUP_ID => row.cgroup = u64_at(value, 0),
        _ => {}
    });
    Some(row)
}

/// Decodes struct tcp_info. Every kernel that runs containers has the ages; bytes_received came with 4.1, bytes_sent with 4.19. None: it is
/// too short.
pub fn decode_info(info: &[u8], wqueue: u32) -> Option<Info> {
    let bytes_acked = u64_at(info, 120)?;
    // Bytes that were sent again count once.
    let sent = u64_at(info, 200).map(|sent| sent.saturating_sub(u64_at(info, 208).unwrap_or(0)));
    Some(Info {
        last_data_sent: u32_at(info, 44)?,
        last_data_recv: u32_at(info, 52)?,
        last_ack_recv: u32_at(info, 56)?,
        bytes_acked,
        bytes_received: u64_at(info, 128)?,
        bytes_sent: sent.unwrap_or(bytes_acked.saturating_add(wqueue.into())),
        // segs_out - data_segs_out, 4.6; counters wrap.
        bare_acks: u32_at(info, 136)?.wrapping_sub(u32_at(info, 156).unwrap_or(0)),
        rtt: u32_at(info, 68)?,
        segments_in: u32_at(info, 152).unwrap_or(0),
        min_rtt: u32_at(info, 148).filter(|micros| *micros != 0 && *micros != u32::MAX),
    })
}

/// Whether the send buffer is full, by sk_meminfo: a writer that found no room waits until a third of the buffer is free
/// (sk_stream_is_writeable). None: unknown.
fn is_full(memory: &[u8]) -> Option<bool> {
    let (send_buffer, queued) = (u32_at(memory, 12)?, u32_at(memory, 20)?);
    Some(u64::from(queued) * 3 > u64::from(send_buffer) * 2)
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

/// A request for the TCP sockets of a family in these states, and with these local ports (no ports: all).
pub fn request(family: i32, states: u32, ports: &BTreeSet<u16>) -> Vec<u8> {
    let mut body = vec![0; 56];
    body[0] = family as u8;
    body[1] = libc::IPPROTO_TCP as u8;
    body[2] = 1 << (INET_DIAG_INFO - 1) | 1 << (INET_DIAG_SKMEMINFO - 1);
    body[4..8].copy_from_slice(&states.to_ne_bytes());
    if !ports.is_empty() && ports.len() <= MOST_FILTERED_PORTS {
        let program = port_filter(ports);
        body.extend((program.len() as u16 + 4).to_ne_bytes());
        body.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
        body.extend(program);
    }
    netlink::request(&body)
}

/// Finds the client's end of a connection whose two ends are on this host by its addresses. The kernel answers within microseconds, however
/// many sockets there are. None: it is gone, or only TIME_WAIT is left of it.
pub fn client_end(dump: &mut Dump, row: &Row) -> io::Result<Option<ClientEnd>> {
    const NO_COOKIE: [u8; 8] = [0xff; 8];
    let (family, peer, local) = match (row.peer, row.local) {
        (IpAddr::V4(peer), IpAddr::V4(local)) => (libc::AF_INET, padded(&peer.octets()), padded(&local.octets())),
        (IpAddr::V6(peer), IpAddr::V6(local)) => (libc::AF_INET6, peer.octets(), local.octets()),
        _ => return Ok(None),
    };
    let mut body = vec![family as u8, libc::IPPROTO_TCP as u8, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(row.peer_port.to_be_bytes());
    body.extend(row.port.to_be_bytes());
    body.extend(peer);
    body.extend(local);
    body.extend(0u32.to_ne_bytes());
    body.extend(NO_COOKIE);
    let mut end = None;
    match dump.one(&netlink::query(&body), |message| end = decode(message)) {
        Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
        _ => {}
    }
    Ok(end.map(|row| ClientEnd { inode: row.inode, cgroup: row.cgroup }))
}

fn padded(address: &[u8; 4]) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(address);
    bytes
}

/// A filter in the kernel's own byte code. A socket is accepted if the program arrives exactly at its end; past the end means no. For each
/// port there is "at least", "at most", and a jump to the end.
fn port_filter(ports: &BTreeSet<u16>) -> Vec<u8> {
    const JUMP: u8 = 1;
    const SOURCE_AT_LEAST: u8 = 2;
    const SOURCE_AT_MOST: u8 = 3;
    const BLOCK: usize = 20;
    let mut program = Vec::with_capacity(ports.len() * BLOCK);
    let mut step = |code: u8, yes: u8, no: usize| {
        program.extend([code, yes]);
        program.extend((no as u16).to_ne_bytes());
    };
    for (index, port) in ports.iter().enumerate() {
        let left = (ports.len() - index - 1) * BLOCK;
        let otherwise = if left == 0 { 4 } else { 0 };
        // The port stands where the second jump of an operation would stand.
        step(SOURCE_AT_LEAST, 8, BLOCK + otherwise);
        step(0, 0, (*port).into());
        step(SOURCE_AT_MOST, 8, BLOCK - 8 + otherwise);
        step(0, 0, (*port).into());
        step(JUMP, 4, 4 + left);
    }
    program
}

/// All listeners of this network namespace. The kernel answers inside the calls, so nothing is waited for.
pub fn listeners(dump: &mut Dump) -> io::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for family in FAMILIES {
        match dump.all(&request(family, LISTENERS, &BTreeSet::new()), |message| rows.extend(decode(message))) {
            Err(error) if is_absent(family, &error) => {}
            result => _ = result?,
        }
    }
    Ok(rows)
}

/// Whether this error only says that the kernel has no IPv6.
pub fn is_absent(family: i32, error: &io::Error) -> bool {
    family == libc::AF_INET6 && error.raw_os_error() == Some(libc::ENOENT)
}

/// Whether this error of a dump says that the kernel has no module for it, and could not load one; or not in time.
pub fn lacks_module(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOENT) || error.kind() == io::ErrorKind::TimedOut
}

/// The id of our own cgroup (version 2), read from a socket of our own. None: unknown, as on a version 1 node, where all sockets are in the
/// root.
pub fn own_cgroup(dump: &mut Dump) -> Option<u64> {
    const ROOT: u64 = 1;
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))
        .ok()?;
    let port = socket.local_addr().ok()?.port();
    let row = listeners(dump).ok()?.into_iter().find(|row| row.port == port)?;
    row.cgroup.filter(|id| *id != ROOT)
}

/// The kernel's events on TCP sockets that it destroys, with their final counters.
#[derive(Debug)]
pub struct DestroyEvents {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
    /// How many the kernel has dropped so far; `losing`: it may be dropping more.
    lost: u64,
    losing: bool,
}

impl DestroyEvents {
    /// Begins to follow them, for these local ports only, filtered in the kernel: both ends of a loopback connection make events.
    pub fn join(ports: &BTreeSet<u16>) -> io::Result<DestroyEvents> {
        let fd = netlink::open(DESTROY_GROUPS)?;
        // If these two fail, there is more to read and less time for it; nothing else is lost.
        let _ = set_option(&fd, libc::SO_RCVBUF, &MOST_BUFFERED);
        if ports.len() <= MOST_FILTERED_PORTS {
            let _ = filter(&fd, ports);
        }
        // SAFETY: the descriptor is owned by the AsyncFd and closed after it is deregistered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)?;
        Ok(DestroyEvents { fd, buffer: vec![0; 8 * 1024], lost: 0, losing: false })
    }

    /// Waits until there is one to read. Cancel-safe.
    pub async fn readable(&self) {
        if self.fd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reads the events that are there, `most` at most, so that many of them delay nothing else. Returns how many were lost because they
    /// were not read in time: exactly, where the kernel can be asked.
    pub fn read(&mut self, most: usize, mut found: impl FnMut(Row)) -> Lost {
        let mut drained = false;
        for _ in 0..most {
            match netlink::receive(self.fd.get_ref(), &mut self.buffer) {
                Ok(length) => {
                    let length = length.min(self.buffer.len());
                    netlink::decode(&self.buffer[..length], |message| decode(message).into_iter().for_each(&mut found));
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => self.losing = true,
                Err(_) => {
                    use std::task::{Context, Waker};
                    // Nothing is left: the next event wakes the loop again.
                    if let std::task::Poll::Ready(Ok(mut ready)) =
                        self.fd.poll_read_ready(&mut Context::from_waker(Waker::noop()))
                    {
                        ready.clear_ready();
                    }
                    drained = true;
                    break;
                }
            }
        }
        if !self.losing {
            return Lost::None;
        }
        // The kernel reports the loss once, and goes on dropping until the queue was empty.
        self.losing = !drained;
        match netlink::address(self.fd.get_ref()).ok().and_then(proc::netlink_drops) {
            Some(drops) => Lost::Exactly(drops.saturating_sub(std::mem::replace(&mut self.lost, drops))),
            None => Lost::Some,
        }
    }
}

/// Events that could not be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lost {
    None,
    Exactly(u64),
    Some,
}

/// The buffer that is asked for, in bytes; the kernel grants net.core.rmem_max. One event takes about 1.3 kB of it.
const MOST_BUFFERED: libc::c_int = 4 << 20;

/// Sets a filter in classic BPF: a message is kept if its source port, at offset 20, is one of these.
fn filter(fd: &OwnedFd, ports: &BTreeSet<u16>) -> io::Result<()> {
    let step = |code: u32, jt: usize, jf: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 20)];
    for (index, port) in ports.iter().enumerate() {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, ports.len() - index, 0, u32::from(*port)));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    set_option(fd, libc::SO_ATTACH_FILTER, &libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() })
}

fn set_option<T>(fd: &OwnedFd, name: libc::c_int, value: &T) -> io::Result<()> {
    let length = size_of_val(value) as u32;
    // SAFETY: the value, and what it points to, outlive the call, which copies them.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw const *value).cast(), length) }.into())
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A socket as the kernel sends it, with a tcp_info of `info_length` bytes.
    fn message(info_length: usize) -> Vec<u8> {
        let mut body = vec![0u8; MESSAGE];
        body[0] = libc::AF_INET as u8;
        body[1] = 1;
        body[4..6].copy_from_slice(&8080u16.to_be_bytes());
        body[6..8].copy_from_slice(&4711u16.to_be_bytes());
        body[8..12].copy_from_slice(&[10, 0, 0, 2]);
        body[24..28].copy_from_slice(&[10, 0, 0, 7]);
        body[44..48].copy_from_slice(&5u32.to_ne_bytes());
        body[56..60].copy_from_slice(&3u32.to_ne_bytes());
        body[60..64].copy_from_slice(&9u32.to_ne_bytes());
        body[68..72].copy_from_slice(&99u32.to_ne_bytes());
        let mut info = vec![0u8; 300];
        for (at, value) in [(68, 900u32), (44, 11), (52, 22), (56, 33), (136, 40), (148, 700), (152, 4), (156, 30)] {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(120, 1000u64), (128, 2000), (200, 3500), (208, 500)] {
            info[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        let mut attribute = |kind: u16, value: &[u8]| {
            body.extend((value.len() as u16 + 4).to_ne_bytes());
            body.extend(kind.to_ne_bytes());
            body.extend(value);
            body.resize(body.len().next_multiple_of(4), 0);
        };
        attribute(INET_DIAG_INFO, &info[..info_length]);
        attribute(INET_DIAG_CGROUP_ID, &77u64.to_ne_bytes());
        let memory: Vec<u8> = [0u32, 0, 0, 3000, 0, 2001, 0, 0, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
        attribute(INET_DIAG_SKMEMINFO, &memory);
        body
    }

    #[test]
    fn today_s_tcp_info_and_a_longer_one() {
        for length in [232, 280, 300] {
            let row = decode(&message(length)).unwrap();
            assert_eq!((row.port, row.peer, row.peer_port), (8080, "10.0.0.7".parse().unwrap(), 4711));
            assert_eq!((row.local, row.full), ("10.0.0.2".parse().unwrap(), true));
            assert_eq!((row.cookie, row.rqueue, row.wqueue, row.inode, row.cgroup), (5, 3, 9, 99, Some(77)));
            let info = row.info().unwrap();
            assert_eq!((info.last_data_sent, info.last_data_recv, info.last_ack_recv), (11, 22, 33));
            assert_eq!((info.bytes_sent, info.bytes_acked, info.bytes_received), (3000, 1000, 2000));
            assert_eq!((info.bare_acks, info.segments_in, info.rtt, info.min_rtt), (10, 4, 900, Some(700)));
        }
    }

    #[test]
    fn an_older_kernel_s_shorter_tcp_info() {
        let row = decode(&message(160)).unwrap();
        assert_eq!(row.info().unwrap().bytes_sent, 1009, "acknowledged and still queued");
        assert_eq!(decode(&message(104)).unwrap().info(), None, "before 4.1: no counters, no verdict by them");
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = message(232);
        for length in 0..whole.len() {
            decode(&whole[..length]);
        }
        // A small generator is enough here; fuzz/ has the real one.
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut bytes = whole.clone();
            for _ in 0..8 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let at = (state >> 33) as usize % bytes.len();
                bytes[at] = (state >> 20) as u8;
            }
            decode(&bytes);
        }
    }

    #[test]
    fn a_writer_waits_until_a_third_of_the_buffer_is_free() {
        let memory = |queued: u32| [0u32, 0, 0, 3000, 0, queued].iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
        assert_eq!((is_full(&memory(2000)), is_full(&memory(2001)), is_full(&[])), (Some(false), Some(true), None));
    }

    #[test]
    fn the_kernel_finds_the_other_end() {
        use std::os::unix::fs::MetadataExt;
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = std::net::TcpListener::bind(address).unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (local, peer) = (client.peer_addr().unwrap(), client.local_addr().unwrap());
            let row = Row {
                cookie: 0,
                state: State::Established,
                local: local.ip(),
                port: local.port(),
                peer: peer.ip(),
                peer_port: peer.port(),
                rqueue: 0,
                wqueue: 0,
                inode: 0,
                cgroup: None,
                retransmits: 0,
                full: false,
                seen: Seen::Queues { ping_pong: None },
            };
            let mut dump = Dump::open().unwrap();
            let inode = std::fs::metadata(format!("/proc/self/fd/{}", client.as_raw_fd())).unwrap().ino();
            assert_eq!(client_end(&mut dump, &row).unwrap().map(|end| u64::from(end.inode)), Some(inode));
            assert_eq!(client_end(&mut dump, &Row { peer_port: 1, ..row }).unwrap(), None);
        }
    }

    /// A listener and a client of its own on each of two ports; the third is a stranger's.
    #[test]
    fn the_kernel_answers_for_the_ports_that_were_asked_for() {
        let listeners: Vec<_> = (0..3).map(|_| std::net::TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports: Vec<u16> = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let clients: Vec<_> = ports.iter().map(|port| std::net::TcpStream::connect(("127.0.0.1", *port)).unwrap()).collect();
        let mut dump = Dump::open().unwrap();
        let mut ask = |wanted: &[u16]| {
            let mut rows = Vec::new();
            let request = request(libc::AF_INET, ALL, &wanted.iter().copied().collect());
            let partial = dump.all(&request, |message| rows.extend(decode(message))).unwrap();
            assert!(!partial);
            rows.retain(|row| ports.contains(&row.port) || !wanted.is_empty());
            rows
        };
        assert_eq!(ask(&[]).len(), 6, "no filter");
        for wanted in [&ports[..1], &ports[1..2], &ports[..2]] {
            let rows = ask(wanted);
            assert_eq!(rows.len(), wanted.len() * 2, "{rows:?}");
            assert!(rows.iter().all(|row| wanted.contains(&row.port)), "{rows:?}");
        }
        let rows = ask(&ports[..1]);
        let queued = rows.iter().find(|row| row.state == State::Established).unwrap();
        assert_eq!((queued.inode, queued.peer_port), (0, clients[0].local_addr().unwrap().port()));
        assert!(rows.iter().any(|row| row.state == State::Listen && row.inode != 0));
        let most: Vec<u16> = (1..=MOST_FILTERED_PORTS as u16).collect();
        assert!(ask(&most).is_empty(), "the kernel takes the longest filter");
    }
}
