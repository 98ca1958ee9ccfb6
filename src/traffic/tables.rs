//! Where the rows come from: the kernel's tables of TCP sockets, read piece by piece.

use std::collections::BTreeSet;
use std::io;

use crate::core::traffic::origin::ClientEnd;
use crate::core::traffic::row::{Row, State};
use crate::core::traffic::tracker::{Tie, Tracker};
use crate::sys;
use crate::sys::netlink::{Dump, End};
use crate::sys::proc::{self, TcpTables};
use crate::sys::sock_diag::{self, DestroyEvents};

/// Ties are broken by /proc/net/tcp as long as it has no more lines than this: it lists every socket. If it is longer, it is read only for
/// ties that have no other chance.
const MOST_LISTED: usize = 5000;

#[derive(Debug)]
enum Source {
    /// Netlink: queues, ages, counters, and the ends of connections as events.
    SockDiag {
        dump: Dump,
        events: Option<DestroyEvents>,
    },
    /// /proc/net/tcp: queues.
    ProcNet,
    Off,
}

/// How far the present look has come.
#[derive(Debug)]
enum Reading {
    /// The families that are left; the first one is being read.
    SockDiag(usize),
    ProcNet(TcpTables),
}

/// All rows of the present look are there; this table is being read to break its ties.
#[derive(Debug)]
struct Breaking {
    table: TcpTables,
    /// Sorted by their ends.
    ties: Vec<Tie>,
}

#[derive(Debug)]
pub struct Tables {
    source: Source,
    reading: Option<Reading>,
    breaking: Option<Breaking>,
    /// The kernel's ping-pong bit has the meaning that is needed here.
    ping_pong_tells: bool,
    /// The source has failed since the last complete look.
    failed: bool,
    /// Rows may be missing from the present look.
    torn: bool,
    /// Of the present look: how many rows were asked for, and how many lines /proc/net/tcp has.
    rows: usize,
    lines: usize,
}

impl Tables {
    pub fn open(warnings: &mut Vec<String>) -> Tables {
        let source = match Dump::open() {
            Ok(dump) => Source::SockDiag { dump, events: None },
            Err(error) => {
                warnings.push(without_sock_diag(&error));
                Source::ProcNet
            }
        };
        Tables {
            source,
            reading: None,
            breaking: None,
            ping_pong_tells: sys::kernel_release().is_some_and(|release| proc::ping_pong_tells(&release)),
            failed: false,
            torn: false,
            rows: 0,
            lines: 0,
        }
    }

    pub fn name(&self) -> &'static str {
        match self.source {
            Source::SockDiag { .. } => "sock_diag",
            Source::ProcNet => "proc_net",
            Source::Off => "none",
        }
    }

    pub fn are_off(&self) -> bool {
        matches!(self.source, Source::Off)
    }

    pub fn are_proc_net(&self) -> bool {
        matches!(self.source, Source::ProcNet)
    }

    /// Whether a look has begun and is not complete.
    pub fn are_being_read(&self) -> bool {
        self.reading.is_some() || self.breaking.is_some()
    }

    /// Uses no source from now on.
    pub fn give_up(&mut self) {
        self.source = Source::Off;
    }

    pub fn dump(&mut self) -> Option<&mut Dump> {
        match &mut self.source {
            Source::SockDiag { dump, .. } => Some(dump),
            Source::ProcNet | Source::Off => None,
        }
    }

    /// The events of sockets that the kernel destroys. None: they are not followed.
    pub fn events(&self) -> Option<&DestroyEvents> {
        match &self.source {
            Source::SockDiag { events, .. } => events.as_ref(),
            Source::ProcNet | Source::Off => None,
        }
    }

    pub fn events_mut(&mut self) -> Option<&mut DestroyEvents> {
        match &mut self.source {
            Source::SockDiag { events, .. } => events.as_mut(),
            Source::ProcNet | Source::Off => None,
        }
    }

    /// Begins to follow the ends of connections; to be called before the first look, so that no end is missed.
    pub fn follow_ends(&mut self, ports: &BTreeSet<u16>, warnings: &mut Vec<String>) {
        let Source::SockDiag { events, .. } = &mut self.source else { return };
        if ports.is_empty() {
            return;
        }
        match DestroyEvents::join(ports) {
            Ok(joined) => *events = Some(joined),
            Err(error) => {
                warnings.push(format!(
                    "cannot follow the ends of connections: {error}; short ones between two looks are only counted"
                ));
            }
        }
    }

    /// All listeners of this network namespace. None: they cannot be seen.
    pub fn listeners(&mut self, warnings: &mut Vec<String>) -> Option<Vec<Row>> {
        if let Source::SockDiag { dump, .. } = &mut self.source {
            let rows = sock_diag::listeners(dump).or_else(|_| {
                *dump = Dump::open()?;
                sock_diag::listeners(dump)
            });
            match rows {
                Ok(rows) => return Some(rows),
                Err(error) => {
                    warnings.push(without_sock_diag(&error));
                    self.source = Source::ProcNet;
                }
            }
        }
        let mut rows = Vec::new();
        let listens = |row: Row| {
            if row.state == State::Listen {
                rows.push(row);
            }
        };
        TcpTables::rows(listens).ok()?;
        Some(rows)
    }

    pub fn own_cgroup(&mut self) -> Option<u64> {
        sock_diag::own_cgroup(self.dump()?)
    }

    /// The client's end of a connection within this host. None: it is gone, or cannot be asked for.
    pub fn client_end(&mut self, row: &Row) -> Option<ClientEnd> {
        sock_diag::client_end(self.dump()?, row).ok().flatten()
    }

    /// Whether the client's end of a connection can be asked for.
    pub fn tell_client_ends(&self) -> bool {
        matches!(self.source, Source::SockDiag { .. })
    }

    /// Goes on with the look, or begins one: calls `found` for the rows of these ports, until all are there (true) or the time is up
    /// (false). `baseline`: it is the first look.
    pub fn read(
        &mut self,
        ports: &BTreeSet<u16>,
        baseline: bool,
        in_time: &impl Fn() -> bool,
        mut found: impl FnMut(&Row),
    ) -> io::Result<bool> {
        if self.breaking.is_some() {
            return Ok(true);
        }
        // Connections that wait for the client's FIN would look new when they end.
        let states = if baseline { sock_diag::ALL | sock_diag::FIN_WAIT2 } else { sock_diag::ALL };
        let (ping_pong_tells, rows) = (self.ping_pong_tells, &mut self.rows);
        let mut show = |mut row: Row| {
            if ports.contains(&row.port) {
                if !ping_pong_tells {
                    row.distrust_ping_pong();
                }
                *rows += 1;
                found(&row);
            }
        };
        loop {
            match (&mut self.source, &mut self.reading) {
                (Source::Off, _) => return Err(io::ErrorKind::NotFound.into()),
                (Source::SockDiag { dump, .. }, reading @ (None | Some(Reading::ProcNet(_)))) => {
                    dump.begin(&sock_diag::request(sock_diag::FAMILIES[0], states, ports))?;
                    *reading = Some(Reading::SockDiag(0));
                }
                (Source::ProcNet, reading @ (None | Some(Reading::SockDiag(_)))) => {
                    *reading = Some(Reading::ProcNet(TcpTables::open()?));
                }
                (Source::SockDiag { dump, .. }, Some(Reading::SockDiag(family))) => {
                    let done = match dump.piece(|message| sock_diag::decode(message).into_iter().for_each(&mut show)) {
                        Err(error) if sock_diag::is_absent(sock_diag::FAMILIES[*family], &error) => true,
                        Err(error) => return Err(error),
                        Ok(read) => {
                            self.torn |= read.partial;
                            read.end == End::Done
                        }
                    };
                    if done {
                        *family += 1;
                        match sock_diag::FAMILIES.get(*family) {
                            Some(next) => dump.begin(&sock_diag::request(*next, states, ports))?,
                            None => break,
                        }
                    }
                }
                (Source::ProcNet, Some(Reading::ProcNet(table))) => {
                    if table.piece(&mut show)? {
                        break;
                    }
                }
            }
            if !in_time() {
                return Ok(false);
            }
        }
        self.reading = None;
        Ok(true)
    }

    /// The look is complete. True: rows may still be missing.
    pub fn end(&mut self) -> bool {
        (self.rows, self.failed) = (0, false);
        std::mem::take(&mut self.torn)
    }

    fn begin_again(&mut self) {
        (self.reading, self.breaking, self.torn, self.rows) = (None, None, false, 0);
    }

    /// The source has failed: it is tried once more, and after that the next best is used. True: another source names the connections from
    /// now on.
    pub fn degrade(&mut self, error: &io::Error, warnings: &mut Vec<String>) -> bool {
        self.begin_again();
        match (&mut self.source, std::mem::replace(&mut self.failed, true)) {
            (Source::SockDiag { dump, .. }, false) if let Ok(again) = Dump::open() => *dump = again,
            (Source::SockDiag { .. }, _) => {
                warnings.push(without_sock_diag(error));
                self.source = Source::ProcNet;
                return true;
            }
            (Source::ProcNet, _) => {
                warnings.push(format!("cannot see the traffic: {error}; {BLIND}"));
                self.source = Source::Off;
            }
            (Source::Off, _) => {}
        }
        false
    }

    /// Breaks ties by the kernel's ping-pong bit, which only /proc/net/tcp shows. True: no tie is left that it could break.
    pub fn break_ties(&mut self, tracker: &mut Tracker, in_time: &impl Fn() -> bool) -> bool {
        if self.breaking.is_none() {
            let worth_it = tracker.is_last_chance() || self.rows.max(self.lines) <= MOST_LISTED;
            let mut ties = tracker.ties();
            if ties.is_empty() || !worth_it {
                return true;
            }
            match TcpTables::open() {
                Ok(table) if self.ping_pong_tells && matches!(self.source, Source::SockDiag { .. }) => {
                    ties.sort_unstable_by_key(|tie| tie.ends);
                    self.breaking = Some(Breaking { table, ties });
                    self.lines = 0;
                }
                // Where the table is missing, time breaks the ties.
                _ => {
                    ties.iter().for_each(|tie| tracker.ping_pong(tie.cookie, None));
                    return true;
                }
            }
        }
        let Some(Breaking { table, ties }) = &mut self.breaking else { return true };
        loop {
            let piece = table.piece(|row| {
                self.lines += 1;
                if let Some(bit) = row.ping_pong()
                    && let Ok(index) = ties.binary_search_by_key(&row.ends(), |tie| tie.ends)
                {
                    tracker.ping_pong(ties[index].cookie, Some(bit));
                }
            });
            match piece {
                Ok(false) if in_time() => {}
                Ok(false) => return false,
                Ok(true) | Err(_) => break,
            }
        }
        // Ties that were not listed get no bit; the others keep theirs.
        ties.iter().for_each(|tie| tracker.ping_pong(tie.cookie, None));
        self.breaking = None;
        true
    }
}

/// The warning that sock_diag has failed with this error. Where the kernel has no module for TCP, it says how to load it.
fn without_sock_diag(error: &io::Error) -> String {
    let cure = if sock_diag::lacks_module(error) {
        "; the kernel has not loaded its modules inet_diag and tcp_diag: `modprobe tcp_diag` on the node loads both"
    } else {
        ""
    };
    format!(
        "cannot ask sock_diag for the traffic: {error}; /proc/net/tcp serves instead: queues are seen, but a request the app is silently working on only for 5 s{cure}"
    )
}

pub const BLIND: &str = "the delay alone is kept";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cure_is_named_where_the_module_is_missing_and_nowhere_else() {
        let warning = |errno| without_sock_diag(&io::Error::from_raw_os_error(errno));
        let (missing, refused) = (warning(2), warning(1));
        assert!(
            missing.contains("only for 5 s; ") && missing.ends_with("`modprobe tcp_diag` on the node loads both"),
            "{missing}"
        );
        assert!(refused.ends_with("only for 5 s"), "{refused}");
    }
}
