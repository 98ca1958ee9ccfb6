//! What NETLINK_SOCK_DIAG sends: messages, TCP and unix sockets, tcp_info.
#![no_main]

use lameduck::sys::netlink::{self, End, Read};
use lameduck::sys::{sock_diag, unix_diag};
use libfuzzer_sys::fuzz_target;

fn bodies(bytes: &[u8]) -> (Vec<&[u8]>, Read) {
    let mut bodies = Vec::new();
    let start = bytes.as_ptr() as usize;
    let read = netlink::decode(bytes, |body| {
        let at = body.as_ptr() as usize - start;
        bodies.push(&bytes[at..at + body.len()]);
    });
    (bodies, read)
}

fn socket(body: &[u8]) {
    if let Some(row) = sock_diag::decode(body) {
        assert_eq!(row.port, u16::from_be_bytes([body[4], body[5]]));
        assert!(row.info().is_none_or(|info| info.min_rtt != Some(0) && info.min_rtt != Some(u32::MAX)));
        // The message alone, without attributes, is the same socket.
        let bare = sock_diag::decode(&body[..72]).expect("a socket");
        assert_eq!((bare.cookie, bare.state, bare.peer, bare.info()), (row.cookie, row.state, row.peer, None));
    }
    if let Some(socket) = unix_diag::decode(body) {
        assert!(socket.name.len() < body.len());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let (whole, read) = bodies(bytes);
    whole.iter().copied().for_each(socket);
    // As the body of a message, too.
    socket(bytes);
    // A buffer that was cut shows no socket that is not in the whole one, and does not say that it is the end.
    for cut in (0..bytes.len()).rev().take(80) {
        let (part, cut_read) = bodies(&bytes[..cut]);
        assert!(whole.starts_with(&part));
        assert!(part.len() == whole.len() || matches!(cut_read.end, End::More));
        assert!(cut_read.end == End::More || cut_read == read);
    }
});
