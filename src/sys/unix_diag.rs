//! Unix sockets by NETLINK_SOCK_DIAG, or by /proc/net/unix where the kernel has no unix_diag. They have queues and a peer, but
//! neither ages nor counters.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use super::modules;
use super::netlink::{self, Dump, attributes, u32_at};

/// struct unix_diag_msg
const MESSAGE: usize = 16;
const UNIX_DIAG_NAME: u16 = 0;
const UNIX_DIAG_PEER: u16 = 2;
const UNIX_DIAG_ICONS: u16 = 3;
const UNIX_DIAG_RQLEN: u16 = 4;
/// What is asked for: name, peer, connections that wait to be accepted, queues.
const SHOW: u32 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;
const ESTABLISHED: u8 = 1;
const LISTEN: u8 = 10;

#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UnixSocket {
    pub cookie: u64,
    pub listens: bool,
    pub inode: u32,
    /// The inode of the other end.
    pub peer: Option<u32>,
    /// Of a listener: the inodes of the connections that wait to be accepted, at their clients' ends.
    pub waiting: Vec<u32>,
    /// A path, or an abstract name behind a NUL. An accepted connection has its listener's name.
    pub name: Vec<u8>,
    pub rqueue: u32,
    pub wqueue: u32,
}

/// Decodes one socket from the body of its message. None: it is none. Never panics, whatever the bytes.
pub fn decode(message: &[u8]) -> Option<UnixSocket> {
    let mut socket = UnixSocket {
        cookie: u64::from(u32_at(message, 8)?) | u64::from(u32_at(message, 12)?) << 32,
        listens: message[2] == LISTEN,
        inode: u32_at(message, 4)?,
        ..UnixSocket::default()
    };
    attributes(message.get(MESSAGE..)?, |kind, value| match kind {
        UNIX_DIAG_NAME => socket.name = value.strip_suffix(b"\0").unwrap_or(value).to_vec(),
        UNIX_DIAG_ICONS => socket.waiting = value.chunks_exact(4).filter_map(|inode| u32_at(inode, 0)).collect(),
        UNIX_DIAG_PEER => socket.peer = u32_at(value, 0),
        UNIX_DIAG_RQLEN => {
            (socket.rqueue, socket.wqueue) = (u32_at(value, 0).unwrap_or(0), u32_at(value, 4).unwrap_or(0));
        }
        _ => {}
    });
    Some(socket)
}

/// Calls `found` for listeners and connections that have a name. True: some may be missing.
pub fn sockets(dump: &mut Dump, mut found: impl FnMut(UnixSocket)) -> io::Result<bool> {
    modules::UNIX.load(netlink::ask)?;
    let mut body = [0; 24];
    body[0] = libc::AF_UNIX as u8;
    body[4..8].copy_from_slice(&(1u32 << ESTABLISHED | 1 << LISTEN).to_ne_bytes());
    body[12..16].copy_from_slice(&SHOW.to_ne_bytes());
    dump.all(&netlink::request(&body), |message| {
        decode(message).filter(|socket| !socket.name.is_empty()).into_iter().for_each(&mut found);
    })
}

/// The same from /proc/net/unix: no queues, no peers.
pub fn sockets_of_proc(mut found: impl FnMut(UnixSocket)) -> io::Result<()> {
    let mut table = BufReader::new(File::open("/proc/net/unix")?);
    let mut line = Vec::new();
    while table.read_until(b'\n', &mut line)? > 0 {
        parse(line.trim_ascii_end()).into_iter().for_each(&mut found);
        line.clear();
    }
    Ok(())
}

/// Decodes a line such as `0000000000000000: 00000002 00000000 00010000 0001 01 20734 /run/php/php-fpm.sock`. None: it is no such line.
pub fn parse(line: &[u8]) -> Option<UnixSocket> {
    // __SO_ACCEPTCON
    const LISTENS: u32 = 0x10000;
    const CONNECTED: &str = "03";
    let mut fields = line.splitn(8, |byte| *byte == b' ').filter(|field| !field.is_empty());
    let mut text = || str::from_utf8(fields.next()?).ok();
    let (_, _, _, flags, _, state) = (text()?, text()?, text()?, text()?, text()?, text()?);
    let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
    // The inode is padded to five places, and the name follows it.
    let rest = fields.next()?.trim_ascii_start();
    let (inode, name) = match rest.iter().position(|byte| *byte == b' ') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => match fields.next() {
            Some(name) => (rest, name),
            None => return None,
        },
    };
    if !listens && state != CONNECTED {
        return None;
    }
    let inode: u32 = str::from_utf8(inode).ok()?.parse().ok()?;
    // An abstract name is shown with an @ for its NUL.
    let name = match name.strip_prefix(b"@") {
        Some(abstract_name) => [b"\0", abstract_name].concat(),
        None => name.to_vec(),
    };
    Some(UnixSocket { cookie: u64::from(inode), listens, inode, name, ..UnixSocket::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn lines_of_proc() {
        let line = b"0000000000000000: 00000002 00000000 00010000 0001 01 20734 /run/php/a b.sock";
        let socket = parse(line).unwrap();
        assert_eq!((socket.listens, socket.inode, &socket.name[..]), (true, 20734, &b"/run/php/a b.sock"[..]));
        let padded = b"0000000000000000: 00000003 00000000 00000000 0001 03   734 @x";
        let socket = parse(padded).unwrap();
        assert_eq!((socket.listens, socket.inode, &socket.name[..]), (false, 734, &b"\0x"[..]));
        for other in
            [&b"0000000000000000: 00000003 00000000 00000000 0001 03 21000"[..], b"Num       RefCount Protocol Flags", b""]
        {
            assert_eq!(parse(other), None);
        }
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let whole = [
            1u8, 1, 10, 0, 9, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, b'a', b'b', 0, 0, 12, 0, 4, 0, 3, 0, 0, 0, 1, 0, 0, 0,
        ];
        let socket = decode(&whole).unwrap();
        assert_eq!((socket.inode, socket.rqueue, socket.wqueue, &socket.name[..]), (9, 3, 1, &b"ab"[..]));
        for length in 0..whole.len() {
            decode(&whole[..length]);
        }
    }

    /// One accepted connection and one in the queue, seen both ways.
    #[test]
    fn the_kernel_answers() {
        let path = std::env::temp_dir().join(format!("lameduck-unix-diag-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut first = UnixStream::connect(&path).unwrap();
        let accepted = listener.accept().unwrap();
        let second = UnixStream::connect(&path).unwrap();
        let second_inode = std::fs::metadata(format!("/proc/self/fd/{}", second.as_raw_fd())).unwrap().ino() as u32;
        std::io::Write::write_all(&mut first, b"abc").unwrap();
        let name = path.as_os_str().as_encoded_bytes();
        let mut seen = Vec::new();
        let mut keep = |socket: UnixSocket| {
            if socket.name == name {
                seen.push(socket);
            }
        };
        sockets(&mut Dump::open().unwrap(), &mut keep).unwrap();
        sockets_of_proc(&mut keep).unwrap();
        drop((accepted, second));
        let _ = std::fs::remove_file(&path);
        // The one in the queue is no socket of that name yet.
        let (by_netlink, by_proc) = seen.split_at(2);
        let waits = |socket: &UnixSocket| socket.listens && socket.rqueue == 1 && socket.waiting == [second_inode];
        assert!(by_netlink.iter().any(waits), "{seen:?}");
        assert!(by_netlink.iter().any(|socket| socket.inode != 0 && socket.rqueue == 3 && socket.peer.is_some()), "{seen:?}");
        assert_eq!(by_proc.len(), 2, "{seen:?}");
        assert_eq!(by_proc.iter().filter(|socket| socket.listens).count(), 1);
    }
}
