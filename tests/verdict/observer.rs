//! The judge: what `src/traffic.rs` does at each look, with the rows and the verdict of every connection kept.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lameduck::core::time::Uptime;
use lameduck::core::traffic::{Row, Rules, State, Tracker, Verdict};
use lameduck::sys::sock_diag::{self, Dump};
use lameduck::sys::{kernel_release, proc};

use crate::client::now;
use crate::network::{H2_PORT, Network, PORT, TLS_PORT};

const INTERVAL: Duration = Duration::from_millis(100);
/// In life the first look comes with the stop signal, in the middle of everything: so often another judge begins...
const NEXT_LATE: Duration = Duration::from_millis(700);
/// ...and gives up after this.
const LATE_FOR: Duration = Duration::from_millis(4200);

pub const IDLE_AFTER: Duration = Duration::from_secs(1);

/// One look: somewhere between two moments.
pub struct Look {
    pub before: Duration,
    pub after: Duration,
    pub seen: Vec<Seen>,
}

#[derive(Clone)]
pub struct Seen {
    pub peer_port: u16,
    pub row: Row,
    pub verdict: Verdict,
    /// Of those that have not watched it from its start.
    pub late: Vec<Verdict>,
}

struct Observer {
    dump: Dump,
    ping_pong_tells: bool,
    tracker: Tracker,
    late: Vec<(Duration, Tracker)>,
}

pub fn rules() -> Rules {
    Rules { idle_after: IDLE_AFTER, max_silence: None, ignored: Vec::new() }
}

impl Observer {
    fn new() -> Observer {
        let ping_pong_tells = kernel_release().is_some_and(|release| proc::ping_pong_tells(&release));
        Observer { dump: Dump::open().expect("sock_diag"), ping_pong_tells, tracker: Tracker::new(rules()), late: Vec::new() }
    }

    fn look(&mut self) -> Look {
        let before = now();
        self.late.retain(|(begun, _)| before - *begun < LATE_FOR);
        if self.late.last().is_none_or(|(begun, _)| before - *begun >= NEXT_LATE) {
            self.late.push((before, Tracker::new(rules())));
        }
        let (mut rows, mut peers) = (Vec::new(), Vec::new());
        let dumped = self.dump.sockets(sock_diag::ALL, |(row, peer)| {
            if [PORT, TLS_PORT, H2_PORT].contains(&row.port) && row.state != State::Listen {
                rows.push(row);
                peers.push(peer);
            }
        });
        dumped.expect("a dump");
        let mut trackers: Vec<&mut Tracker> =
            std::iter::once(&mut self.tracker).chain(self.late.iter_mut().map(|(_, one)| one)).collect();
        let wanted: Vec<bool> = trackers.iter().map(|tracker| self.ping_pong_tells && tracker.wants_ping_pong(&rows)).collect();
        let mut told = rows.clone();
        if wanted.contains(&true) {
            let bits = ping_pong_bits();
            for (row, peer) in told.iter_mut().zip(&peers) {
                row.ping_pong = bits.get(&(row.port, row.peer, *peer)).copied();
            }
        }
        let after = now();
        let mut verdicts =
            trackers.iter_mut().zip(&wanted).map(|(tracker, wanted)| judge(tracker, before, if *wanted { &told } else { &rows }));
        let first = verdicts.next().expect("the one from the start");
        let late: Vec<Vec<Verdict>> = verdicts.collect();
        let seen = (0..rows.len()).map(|index| Seen {
            peer_port: peers[index],
            row: if wanted[0] { told[index].clone() } else { rows[index].clone() },
            verdict: first[index],
            late: late.iter().map(|verdicts| verdicts[index]).collect(),
        });
        Look { before, after, seen: seen.collect() }
    }
}

/// `proc::ping_pong_bits`, of the thread's network namespace: /proc/net is that of the process.
fn ping_pong_bits() -> HashMap<(u16, IpAddr, u16), bool> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc/thread-self/net/tcp");
    let mapped = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
    let rows = table.lines().chain(mapped.lines()).filter_map(proc::parse_tcp_line);
    rows.filter_map(|(row, peer_port)| Some(((row.port, row.peer, peer_port), row.ping_pong?))).collect()
}

/// One look of one judge: its verdict on each row.
fn judge(tracker: &mut Tracker, now: Duration, rows: &[Row]) -> Vec<Verdict> {
    tracker.look(Uptime(now), rows);
    rows.iter().map(|row| tracker.verdict(row.cookie).expect("a verdict on every connection")).collect()
}

/// Looks every 100 ms among the servers until told to stop, and returns all looks.
pub fn watch(network: &Network, stop: Arc<AtomicBool>) -> JoinHandle<Vec<Look>> {
    network.at_server(move || {
        let mut observer = Observer::new();
        let mut looks = Vec::new();
        while !stop.load(Ordering::SeqCst) {
            let look = observer.look();
            let next = look.before + INTERVAL;
            looks.push(look);
            thread::sleep(next.saturating_sub(now()));
        }
        looks
    })
}
