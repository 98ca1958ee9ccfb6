//! What the kernel still delivers when every process of the app has ended.

use std::collections::BTreeSet;

use crate::core::traffic::row::State;
use crate::sys::netlink::Dump;
use crate::sys::{proc, sock_diag};

/// Whether answers may still be undelivered. False: none are. A socket that still delivers has no owner any more, and this host has no such
/// socket.
pub fn may_answers_be_left() -> bool {
    proc::tcp_orphans() != Some(0)
}

/// How many connections of this container still have bytes of an answer to be delivered. None: this cannot be known.
pub fn answers_left() -> Option<usize> {
    let mut dump = Dump::open().ok()?;
    let mut rows = Vec::new();
    for family in sock_diag::FAMILIES {
        let request = sock_diag::request(family, sock_diag::CLOSING, &BTreeSet::new());
        let partial = match dump.all(&request, |message| rows.extend(sock_diag::decode(message))) {
            Err(error) if sock_diag::is_absent(family, &error) => false,
            result => result.ok()?,
        };
        if partial {
            return None;
        }
    }
    // More than the FIN is still to be sent.
    rows.retain(|row| row.state == State::Closing && row.wqueue > 1);
    if rows.is_empty() {
        return Some(0);
    }
    let own = sock_diag::own_cgroup(&mut dump);
    Some(rows.iter().filter(|row| own.is_none() || row.cgroup == own).count())
}
