//! NETLINK_SOCK_DIAG by hand: no crate shows the destroy events, the cgroup's id or today's tcp_info. Decoding is a pure function
//! over bytes, tolerant of a tcp_info shorter or longer than ours; docs/traffic.md says what is done with it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::checked;
use crate::core::traffic::{Info, Row, State};

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER: usize = 16;
/// struct inet_diag_msg
const MESSAGE: usize = 72;
const INET_DIAG_INFO: u16 = 2;
const INET_DIAG_CGROUP_ID: u16 = 21;
/// SKNLGRP_INET_TCP_DESTROY and SKNLGRP_INET6_TCP_DESTROY
const DESTROY_GROUPS: u32 = 1 << 0 | 1 << 2;
/// What one classic BPF program can tell apart with room to spare.
const MOST_FILTERED_PORTS: usize = 64;

/// States as bits of a request.
pub const LISTENERS: u32 = 1 << 10;
/// FIN_WAIT1, LAST_ACK, CLOSING.
pub const CLOSING: u32 = 1 << 4 | 1 << 9 | 1 << 11;
/// Those with work, and listeners: neither TIME_WAIT nor handshakes.
pub const ALL: u32 = 1 << 1 | 1 << 8 | CLOSING | LISTENERS;

/// The kernel's number of a TCP state.
pub fn state(number: u8) -> State {
    match number {
        1 => State::Established,
        4 | 9 | 11 => State::Closing,
        8 => State::CloseWait,
        10 => State::Listen,
        _ => State::Gone,
    }
}

/// A row and the port of its peer.
pub type Entry = (Row, u16);

/// How a buffer of messages ends.
#[derive(Debug, Eq, PartialEq)]
pub enum End {
    Done,
    /// The kernel's errno.
    Error(i32),
    More,
}

/// Reads netlink messages as the kernel writes them. Never panics, whatever the bytes; stops at what makes no sense.
pub fn decode(mut bytes: &[u8], mut found: impl FnMut(Entry)) -> End {
    while let (Some(length), Some(kind)) = (u32_at(bytes, 0), u16_at(bytes, 4)) {
        let length = length as usize;
        let Some(message) = bytes.get(HEADER..length) else { return End::More };
        match kind {
            NLMSG_DONE => return End::Done,
            NLMSG_ERROR => return End::Error(u32_at(message, 0).map_or(0, |errno| (errno as i32).wrapping_neg())),
            SOCK_DIAG_BY_FAMILY => {
                if let Some(entry) = decode_socket(message) {
                    found(entry);
                }
            }
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    End::More
}

fn decode_socket(message: &[u8]) -> Option<Entry> {
    let family = *message.first()?;
    let mut attributes = message.get(MESSAGE..)?;
    let mut row = Row {
        cookie: u64::from(u32_at(message, 44)?) | u64::from(u32_at(message, 48)?) << 32,
        state: state(message[1]),
        port: be16_at(message, 4)?,
        peer: address(family, message.get(24..40)?)?,
        rqueue: u32_at(message, 56)?,
        wqueue: u32_at(message, 60)?,
        inode: u32_at(message, 68)?,
        cgroup: None,
        retransmits: message[3],
        info: None,
        ping_pong: None,
    };
    while let (Some(length), Some(kind)) = (u16_at(attributes, 0), u16_at(attributes, 2)) {
        let length = length as usize;
        let Some(value) = attributes.get(4..length) else { break };
        match kind {
            INET_DIAG_INFO => row.info = decode_info(value, row.wqueue),
            INET_DIAG_CGROUP_ID => row.cgroup = u64_at(value, 0),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some((row, be16_at(message, 6)?))
}

/// struct tcp_info. Ages are older than any kernel that runs containers, bytes_received came with 4.1, bytes_sent with 4.19.
fn decode_info(info: &[u8], wqueue: u32) -> Option<Info> {
    let bytes_acked = u64_at(info, 120)?;
    Some(Info {
        last_data_sent: u32_at(info, 44)?,
        last_data_recv: u32_at(info, 52)?,
        last_ack_recv: u32_at(info, 56)?,
        bytes_acked,
        bytes_received: u64_at(info, 128)?,
        bytes_sent: u64_at(info, 200).unwrap_or(bytes_acked + u64::from(wqueue)),
        // segs_out - data_segs_out, 4.6; counters wrap.
        bare_acks: u32_at(info, 136)?.wrapping_sub(u32_at(info, 156).unwrap_or(0)),
        min_rtt: u32_at(info, 148).filter(|micros| *micros != 0 && *micros != u32::MAX),
    })
}

fn address(family: u8, bytes: &[u8]) -> Option<IpAddr> {
    match i32::from(family) {
        libc::AF_INET => Some(Ipv4Addr::new(bytes[0], bytes[1], bytes[2], bytes[3]).into()),
        libc::AF_INET6 => Some(IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)).to_canonical()),
        _ => None,
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn be16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A request for all TCP sockets of a family in these states.
fn request(family: i32, states: u32) -> [u8; HEADER + 56] {
    let mut bytes = [0; HEADER + 56];
    let length = bytes.len() as u32;
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
    bytes[16] = family as u8;
    bytes[17] = libc::IPPROTO_TCP as u8;
    bytes[18] = 1 << (INET_DIAG_INFO - 1);
    bytes[20..24].copy_from_slice(&states.to_ne_bytes());
    bytes
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: a new descriptor that is nobody else's; the address is plain memory of the size that is passed.
    unsafe {
        let fd = OwnedFd::from_raw_fd(checked(libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG).into())? as i32);
        let mut local: libc::sockaddr_nl = std::mem::zeroed();
        local.nl_family = libc::AF_NETLINK as u16;
        local.nl_groups = groups;
        checked(libc::bind(fd.as_raw_fd(), (&raw const local).cast(), size_of_val(&local) as u32).into())?;
        Ok(fd)
    }
}

fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is plain memory of the size that is passed.
    checked(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) } as i64)
        .map(|length| length as usize)
}

/// Asks for all sockets of this network namespace.
#[derive(Debug)]
pub struct Dump {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Dump {
    pub fn open() -> io::Result<Dump> {
        Ok(Dump { fd: open(0)?, buffer: vec![0; 32 * 1024] })
    }

    /// IPv4 and IPv6 sockets in `states`. The kernel answers inside the calls: nothing is waited for.
    pub fn sockets(&mut self, states: u32, mut found: impl FnMut(Entry)) -> io::Result<()> {
        self.family(libc::AF_INET, states, &mut found)?;
        match self.family(libc::AF_INET6, states, &mut found) {
            // A kernel without IPv6.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            result => result,
        }
    }

    fn family(&mut self, family: i32, states: u32, found: &mut impl FnMut(Entry)) -> io::Result<()> {
        let request = request(family, states);
        // What an earlier dump that failed may have left.
        while receive(&self.fd, &mut self.buffer).is_ok() {}
        // SAFETY: the request outlives the call.
        checked(unsafe { libc::send(self.fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } as i64)?;
        loop {
            let length = match receive(&self.fd, &mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            match decode(&self.buffer[..length], &mut *found) {
                End::Done => return Ok(()),
                End::Error(errno) => return Err(io::Error::from_raw_os_error(errno)),
                End::More => {}
            }
        }
    }
}

/// The id of our own cgroup (version 2), read off a socket of our own. None: unknown, as on a version 1 node, where all are in the root.
pub fn own_cgroup(dump: &mut Dump) -> Option<u64> {
    const ROOT: u64 = 1;
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))
        .ok()?;
    let port = socket.local_addr().ok()?.port();
    let mut cgroup = None;
    dump.sockets(LISTENERS, |(row, _)| {
        if row.port == port {
            cgroup = row.cgroup;
        }
    })
    .ok()?;
    cgroup.filter(|id| *id != ROOT)
}

/// The kernel's word on every TCP connection that ends.
#[derive(Debug)]
pub struct Ends {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Ends {
    /// Of these local ports only, filtered in the kernel: both ends of a loopback connection make events.
    pub fn join(ports: &[u16]) -> io::Result<Ends> {
        let fd = open(DESTROY_GROUPS)?;
        if ports.len() <= MOST_FILTERED_PORTS {
            // Without the filter there are more events to read, and that is all.
            let _ = filter(&fd, ports);
        }
        // SAFETY: the descriptor is owned by the AsyncFd and closed after it is deregistered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)?;
        Ok(Ends { fd, buffer: vec![0; 8 * 1024] })
    }

    /// Waits until some have ended. Cancel-safe.
    pub async fn readable(&self) {
        if self.fd.readable().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Reads those that are there; true: some were lost because we did not read in time. Bounded, so that a storm of ends holds up nothing.
    pub fn read(&mut self, mut found: impl FnMut(Entry)) -> bool {
        let mut lost = false;
        for _ in 0..1024 {
            match receive(self.fd.get_ref(), &mut self.buffer) {
                Ok(length) => {
                    decode(&self.buffer[..length], &mut found);
                }
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    use std::task::{Context, Waker};
                    // Nothing left: arm the next wake-up.
                    if let std::task::Poll::Ready(Ok(mut ready)) =
                        self.fd.poll_read_ready(&mut Context::from_waker(Waker::noop()))
                    {
                        ready.clear_ready();
                    }
                    return lost;
                }
            }
        }
        lost
    }
}

/// Classic BPF: keep a message whose source port, at offset 20, is one of these.
fn filter(fd: &OwnedFd, ports: &[u16]) -> io::Result<()> {
    let step = |code: u32, jt: usize, jf: usize, k: u32| libc::sock_filter { code: code as u16, jt: jt as u8, jf: jf as u8, k };
    let mut program = vec![step(libc::BPF_LD | libc::BPF_H | libc::BPF_ABS, 0, 0, 20)];
    for (index, port) in ports.iter().enumerate() {
        program.push(step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, ports.len() - index, 0, u32::from(*port)));
    }
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, 0));
    program.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX));
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let length = size_of_val(&program) as u32;
    // SAFETY: the program outlives the call, which copies it.
    checked(
        unsafe {
            libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), length)
        }
        .into(),
    )
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
        body[24..28].copy_from_slice(&[10, 0, 0, 7]);
        body[44..48].copy_from_slice(&5u32.to_ne_bytes());
        body[56..60].copy_from_slice(&3u32.to_ne_bytes());
        body[60..64].copy_from_slice(&9u32.to_ne_bytes());
        body[68..72].copy_from_slice(&99u32.to_ne_bytes());
        let mut info = vec![0u8; 300];
        for (at, value) in [(44, 11u32), (52, 22), (56, 33), (136, 40), (148, 700), (156, 30)] {
            info[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        for (at, value) in [(120, 1000u64), (128, 2000), (200, 3000)] {
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
        let mut bytes = vec![0u8; HEADER];
        bytes[0..4].copy_from_slice(&((HEADER + body.len()) as u32).to_ne_bytes());
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes.extend(body);
        bytes
    }

    fn decode_one(bytes: &[u8]) -> Entry {
        let mut entries = Vec::new();
        assert_eq!(decode(bytes, |entry| entries.push(entry)), End::More);
        assert_eq!(entries.len(), 1);
        entries.remove(0)
    }

    #[test]
    fn today_s_tcp_info_and_a_longer_one() {
        for length in [232, 280, 300] {
            let (row, peer_port) = decode_one(&message(length));
            assert_eq!((row.port, row.peer, peer_port), (8080, "10.0.0.7".parse().unwrap(), 4711));
            assert_eq!((row.cookie, row.rqueue, row.wqueue, row.inode, row.cgroup), (5, 3, 9, 99, Some(77)));
            let info = row.info.unwrap();
            assert_eq!((info.last_data_sent, info.last_data_recv, info.last_ack_recv), (11, 22, 33));
            assert_eq!((info.bytes_sent, info.bytes_acked, info.bytes_received), (3000, 1000, 2000));
            assert_eq!((info.bare_acks, info.min_rtt), (10, Some(700)));
        }
    }

    #[test]
    fn an_older_kernel_s_shorter_tcp_info() {
        let info = decode_one(&message(160)).0.info.unwrap();
        assert_eq!(info.bytes_sent, 1009, "acknowledged and still queued");
        assert_eq!(decode_one(&message(104)).0.info, None, "before 4.1: no counters, no verdict by them");
    }

    #[test]
    fn ends_and_errors() {
        let control = |kind: u16, payload: &[u8]| {
            let mut bytes = vec![0u8; HEADER];
            bytes[0..4].copy_from_slice(&((HEADER + payload.len()) as u32).to_ne_bytes());
            bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
            bytes.extend(payload);
            bytes
        };
        assert_eq!(decode(&control(NLMSG_DONE, &[0; 4]), |_| {}), End::Done);
        assert_eq!(decode(&control(NLMSG_ERROR, &(-libc::ENOENT).to_ne_bytes()), |_| {}), End::Error(libc::ENOENT));
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = message(232);
        for length in 0..whole.len() {
            decode(&whole[..length], |_| {});
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
            decode(&bytes, |_| {});
        }
    }

    #[test]
    fn the_kernel_answers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut states = Vec::new();
        Dump::open()
            .unwrap()
            .sockets(ALL, |(row, peer)| {
                if row.port == port {
                    states.push((row.state, row.inode, peer));
                }
            })
            .unwrap();
        assert_eq!(states.len(), 2, "{states:?}");
        assert!(states.contains(&(State::Established, 0, client.local_addr().unwrap().port())), "queued: {states:?}");
        assert!(states.iter().any(|(state, inode, _)| *state == State::Listen && *inode != 0));
    }
}
