//! NETLINK_SOCK_DIAG: the socket, its messages, and dumps taken piece by piece.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{checked, modules};

pub const SOCK_DIAG_BY_FAMILY: u16 = 20;
pub const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_DUMP_INTR: u16 = 0x10;

/// How a buffer of messages ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Done,
    /// The kernel's errno.
    Error(i32),
    More,
}

/// What a buffer of messages has held besides sockets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Read {
    pub end: End,
    /// The table changed while it was read, or bytes could not be decoded: sockets may be missing.
    pub partial: bool,
}

/// Decodes netlink messages, and calls `found` with the body of each that is about a socket. Never panics, whatever the bytes; stops at the
/// first that cannot be decoded.
pub fn decode(mut bytes: &[u8], mut found: impl FnMut(&[u8])) -> Read {
    let mut partial = false;
    while !bytes.is_empty() {
        let (Some(length), Some(kind), Some(flags)) = (u32_at(bytes, 0), u16_at(bytes, 4), u16_at(bytes, 6)) else {
            return Read { end: End::More, partial: true };
        };
        let length = length as usize;
        let Some(body) = bytes.get(HEADER..length) else { return Read { end: End::More, partial: true } };
        partial |= flags & NLM_F_DUMP_INTR != 0;
        match kind {
            NLMSG_DONE | NLMSG_ERROR => {
                // A dump may also fail at its end, as it does where tcp_diag is missing.
                let errno = u32_at(body, 0).map_or(0, |errno| (errno as i32).wrapping_neg());
                let done = kind == NLMSG_DONE && errno <= 0;
                return Read { end: if done { End::Done } else { End::Error(errno) }, partial };
            }
            SOCK_DIAG_BY_FAMILY => found(body),
            _ => {}
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Read { end: End::More, partial }
}

/// Calls `found` with the kind and the value of each attribute.
pub fn attributes(mut bytes: &[u8], mut found: impl FnMut(u16, &[u8])) {
    while let (Some(length), Some(kind)) = (u16_at(bytes, 0), u16_at(bytes, 2)) {
        let length = length as usize;
        let Some(value) = bytes.get(4..length) else { return };
        found(kind, value);
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn be16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// A request for a dump; `body` is the family's own.
pub fn request(body: &[u8]) -> Vec<u8> {
    message(libc::NLM_F_REQUEST | libc::NLM_F_DUMP, body)
}

/// A request for one socket.
pub fn query(body: &[u8]) -> Vec<u8> {
    message(libc::NLM_F_REQUEST, body)
}

fn message(flags: i32, body: &[u8]) -> Vec<u8> {
    let length = (HEADER + body.len()) as u32;
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

pub fn open(groups: u32) -> io::Result<OwnedFd> {
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

/// Makes a request that no socket of this family fits, so that the kernel loads its module. The answer is not read.
pub fn ask(family: i32) {
    let mut body = [0; 56];
    body[0] = family as u8;
    body[1] = if family == libc::AF_UNIX { 0 } else { libc::IPPROTO_TCP as u8 };
    let request = request(&body);
    if let Ok(socket) = open(0) {
        // SAFETY: the request outlives the call.
        unsafe { libc::send(socket.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) };
    }
}

/// The number by which the kernel knows this socket.
pub fn address(fd: &OwnedFd) -> io::Result<u32> {
    // SAFETY: the address is plain memory of the size that is passed.
    unsafe {
        let mut local: libc::sockaddr_nl = std::mem::zeroed();
        let mut length = size_of_val(&local) as u32;
        checked(libc::getsockname(fd.as_raw_fd(), (&raw mut local).cast(), &mut length).into())?;
        Ok(local.nl_pid)
    }
}

/// Reads into the buffer and returns the length of the message. If it is more than the buffer's, the message was cut.
pub fn receive(fd: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the buffer is plain memory of the size that is passed.
        let length =
            checked(unsafe { libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_TRUNC) } as i64);
        match length {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map(|length| length as usize),
        }
    }
}

/// Asks for tables of sockets. The kernel writes each piece when it is read, inside the call: so nothing is waited for, and a dump may
/// pause between two pieces.
#[derive(Debug)]
pub struct Dump {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Dump {
    /// The error TimedOut: the kernel is still loading its module for TCP.
    pub fn open() -> io::Result<Dump> {
        modules::TCP.load(ask)?;
        Ok(Dump { fd: open(0)?, buffer: vec![0; 32 * 1024] })
    }

    pub fn begin(&mut self, request: &[u8]) -> io::Result<()> {
        // Removes what is left of an earlier dump that was given up.
        while receive(&self.fd, &mut self.buffer).is_ok() {}
        // SAFETY: the request outlives the call.
        checked(unsafe { libc::send(self.fd.as_raw_fd(), request.as_ptr().cast(), request.len(), 0) } as i64).map(drop)
    }

    /// Reads one piece.
    pub fn piece(&mut self, found: impl FnMut(&[u8])) -> io::Result<Read> {
        let length = receive(&self.fd, &mut self.buffer)?;
        let mut read = decode(&self.buffer[..length.min(self.buffer.len())], found);
        read.partial |= length > self.buffer.len();
        match read.end {
            End::Error(errno) => Err(io::Error::from_raw_os_error(errno)),
            End::Done | End::More => Ok(read),
        }
    }

    /// Asks for one socket. The error ENOENT: there is no such socket.
    pub fn one(&mut self, query: &[u8], found: impl FnMut(&[u8])) -> io::Result<()> {
        self.begin(query)?;
        self.piece(found).map(drop)
    }

    /// Reads a whole dump at once. True: sockets may be missing.
    pub fn all(&mut self, request: &[u8], mut found: impl FnMut(&[u8])) -> io::Result<bool> {
        self.begin(request)?;
        let mut partial = false;
        loop {
            let read = self.piece(&mut found)?;
            partial |= read.partial;
            if read.end == End::Done {
                return Ok(partial);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, flags: u16, body: &[u8]) -> Vec<u8> {
        let mut bytes = request(body);
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> (Read, Vec<Vec<u8>>) {
        let mut bodies = Vec::new();
        let read = decode(bytes, |body| bodies.push(body.to_vec()));
        (read, bodies)
    }

    #[test]
    fn messages_follow_each_other_until_the_end() {
        let socket = message(SOCK_DIAG_BY_FAMILY, 0, &[1, 2, 3, 4]);
        let done = message(NLMSG_DONE, 0, &[0; 4]);
        let (end, bodies) = read(&[&socket[..], &socket, &done, &socket].concat());
        assert_eq!((end, bodies.len()), (Read { end: End::Done, partial: false }, 2));
        assert_eq!(read(&socket).0, Read { end: End::More, partial: false });
        assert_eq!(read(&[]).0, Read { end: End::More, partial: false });
        let error = message(NLMSG_ERROR, 0, &(-13i32).to_ne_bytes());
        assert_eq!(read(&error).0.end, End::Error(13));
        let failed = message(NLMSG_DONE, 0, &(-2i32).to_ne_bytes());
        assert_eq!(read(&failed).0.end, End::Error(2), "no tcp_diag");
    }

    #[test]
    fn what_is_interrupted_or_cut_is_partial() {
        let torn = message(NLMSG_DONE, NLM_F_DUMP_INTR, &[0; 4]);
        assert_eq!(read(&torn).0, Read { end: End::Done, partial: true });
        let socket = message(SOCK_DIAG_BY_FAMILY, 0, &[1, 2, 3, 4]);
        for length in 1..socket.len() {
            assert_eq!(read(&socket[..length]).0, Read { end: End::More, partial: true }, "{length}");
        }
        // Wrong lengths.
        for length in [0u32, 3, 15, u32::MAX] {
            let mut lie = socket.clone();
            lie[0..4].copy_from_slice(&length.to_ne_bytes());
            assert_eq!(read(&lie).0, Read { end: End::More, partial: true }, "{length}");
        }
    }

    #[test]
    fn attributes_are_padded() {
        let mut found = Vec::new();
        attributes(&[5, 0, 1, 0, 9, 0, 0, 0, 6, 0, 2, 0, 8, 7], |kind, value| found.push((kind, value.to_vec())));
        assert_eq!(found, [(1, vec![9]), (2, vec![8, 7])]);
        for lie in [&[3u8, 0, 1, 0][..], &[9, 0, 1, 0, 1], &[4, 0], &[]] {
            attributes(lie, |_, value| assert!(value.is_empty()));
        }
    }
}
