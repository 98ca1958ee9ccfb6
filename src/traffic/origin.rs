//! Which of the connections on the app's ports are its traffic. Left out are those that its own processes make to each other, and those of
//! other processes that listen on the same port.

use std::collections::HashMap;

use super::ports::Ports;
use super::tables::Tables;
use crate::core::traffic::origin::{Whose, Within, Writers};
use crate::core::traffic::row::{Row, State};
use crate::sys::proc;

/// How many connections within this host may wait to be looked up; any more count as clients'.
const MOST_PENDING: usize = 16_384;

#[derive(Debug, Default)]
pub struct Origins {
    /// The connections that were looked up, by cookie: whose each one is, and whether the present look has shown it.
    known: HashMap<u64, (Whose, bool)>,
    /// Rows of the present look whose two ends are on this host, and whose client's end was not looked up yet.
    pending: Vec<Row>,
    /// What was found out about connections within this host, by port.
    within: HashMap<u16, Within>,
    /// The app's processes that are known to connect to their own server.
    writers: Writers,
    /// How many connections that are not traffic have ended.
    pub left_out: u64,
}

/// How to count a connection that has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    Traffic,
    NotTraffic,
    /// It may have belonged to another process that listens on the same port.
    Perhaps,
}

impl Origins {
    /// Begins: from now on, connections that no look has shown may end.
    pub fn begin(ports: &Ports) -> Origins {
        let mut writers = Writers::new(ports.self_connecting());
        writers.begin(proc::written);
        Origins { writers, ..Origins::default() }
    }

    /// Whether this row is the app's traffic. A row that cannot be judged yet is kept for `settle`, and is not shown now.
    pub fn is_traffic(&mut self, row: &Row, ports: &Ports, tables_tell: bool) -> bool {
        if ports.is_neighbours(row) {
            if row.state != State::Listen {
                self.known.insert(row.cookie, (Whose::Neighbour, true));
            }
            return false;
        }
        if let Some((whose, seen)) = self.known.get_mut(&row.cookie) {
            *seen = true;
            return *whose == Whose::Client;
        }
        let within = row.state != State::Listen && row.is_local();
        if within && tables_tell && self.pending.len() < MOST_PENDING {
            self.pending.push(row.clone());
            return false;
        }
        true
    }

    /// All rows of the look are there: finds out whose those are that have both ends on this host, and calls `show` for each that is
    /// traffic.
    pub fn settle(&mut self, ports: &mut Ports, tables: &mut Tables, mut show: impl FnMut(&Row)) {
        let rows = std::mem::take(&mut self.pending);
        if rows.is_empty() {
            return;
        }
        if ports.holders().hidden {
            ports.know_cgroup(tables);
        }
        let mut held_now = false;
        for row in rows {
            let mut whose = ports.holders().whose(tables.client_end(&row));
            if whose == Some(Whose::Client) && !std::mem::replace(&mut held_now, true) {
                // The socket that holds it may be new: the app's descriptors are read once more.
                ports.holders_now();
            }
            if whose == Some(Whose::Client) {
                // Asked once more after that: it may have been closed before.
                whose = ports.holders().whose(tables.client_end(&row));
            }
            if let Some(whose) = whose {
                self.within.entry(row.port).or_default().saw(whose);
            }
            let mut by_rest = || if self.was_internal(&row, ports) { Whose::Internal } else { Whose::Client };
            let whose = whose.unwrap_or_else(&mut by_rest);
            self.known.insert(row.cookie, (whose, true));
            if whose == Whose::Client {
                show(&row);
            }
        }
    }

    /// A connection has ended. One that no look has shown is judged by what else is known.
    pub fn ended(&mut self, row: &Row, ports: &mut Ports, tables_tell: bool) -> Ended {
        let ended = match self.known.remove(&row.cookie) {
            Some((Whose::Client, _)) => Ended::Traffic,
            Some((Whose::Internal | Whose::Neighbour, _)) => Ended::NotTraffic,
            None if row.is_local() && tables_tell && self.was_internal(row, ports) => Ended::NotTraffic,
            None if ports.is_shared(row.port) => Ended::Perhaps,
            None => Ended::Traffic,
        };
        self.left_out += u64::from(ended == Ended::NotTraffic);
        ended
    }

    /// Whether a connection within this host was the app's own, when no process holds the client's end any more.
    fn was_internal(&mut self, row: &Row, ports: &mut Ports) -> bool {
        if self.within.get(&row.port).is_some_and(Within::is_internal) && ports.is_alone() {
            return true;
        }
        let Some(info) = row.info() else { return false };
        self.writers.wrote(info.bytes_received, proc::written)
    }

    /// The look is over: forgets connections that it did not show. `torn`: it may have missed some, so none is forgotten.
    pub fn looked(&mut self, torn: bool) {
        self.known.retain(|_, (_, seen)| torn || std::mem::take(seen));
    }

    /// The look begins again.
    pub fn begin_again(&mut self) {
        self.pending.clear();
    }
}
