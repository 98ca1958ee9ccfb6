//! The judge: what `src/traffic.rs` does at each look, with the rows and the verdict of every connection kept.

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use lameduck::core::time::Uptime;
use lameduck::core::traffic::row::{Row, State};
use lameduck::core::traffic::tracker::{Tie, Tracker};
use lameduck::core::traffic::verdict::{Rules, Verdict};
use lameduck::sys::netlink::Dump;
use lameduck::sys::{kernel_release, proc, sock_diag};

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
    /// The kernel's ping-pong bit, if it was asked for.
    pub ping_pong: Option<bool>,
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
        let mut rows = Vec::new();
        for family in sock_diag::FAMILIES {
            let request = sock_diag::request(family, sock_diag::ALL, &[PORT, TLS_PORT, H2_PORT].into());
            let partial = self.dump.all(&request, |message| rows.extend(sock_diag::decode(message))).expect("a dump");
            assert!(!partial);
        }
        rows.retain(|row| row.state != State::Listen);
        let mut trackers: Vec<&mut Tracker> =
            std::iter::once(&mut self.tracker).chain(self.late.iter_mut().map(|(_, one)| one)).collect();
        let after = now();
        let mut verdicts: Vec<Vec<Verdict>> = trackers.iter_mut().map(|tracker| judge(tracker, before, &rows)).collect();
        let ties: Vec<Vec<Tie>> = trackers.iter_mut().map(|tracker| tracker.ties()).collect();
        let mut bits = HashMap::new();
        if self.ping_pong_tells && ties.iter().any(|ties| !ties.is_empty()) {
            bits = ping_pong_bits();
        }
        let bit = |ends| bits.get(&ends).copied();
        for (tracker, ties) in trackers.iter_mut().zip(&ties) {
            ties.iter().for_each(|tie| tracker.ping_pong(tie.cookie, bit(tie.ends)));
        }
        let late = verdicts.split_off(1);
        let seen = rows.into_iter().enumerate().map(|(index, row)| Seen {
            peer_port: row.peer_port,
            ping_pong: bit(row.ends()),
            row,
            verdict: verdicts[0][index],
            late: late.iter().map(|verdicts| verdicts[index]).collect(),
        });
        Look { before, after, seen: seen.collect() }
    }
}

/// As `src/traffic` does, but of the thread's network namespace: /proc/net is that of the process.
fn ping_pong_bits() -> HashMap<u64, bool> {
    let table = fs::read_to_string("/proc/thread-self/net/tcp").expect("/proc/thread-self/net/tcp");
    let mapped = fs::read_to_string("/proc/thread-self/net/tcp6").unwrap_or_default();
    let rows = table.lines().chain(mapped.lines()).filter_map(proc::parse_tcp);
    rows.filter_map(|row| Some((row.ends(), row.ping_pong()?))).collect()
}

/// One look of one judge: its verdict on each row.
fn judge(tracker: &mut Tracker, now: Duration, rows: &[Row]) -> Vec<Verdict> {
    rows.iter().for_each(|row| tracker.row(Uptime(now), row));
    tracker.end(Uptime(now));
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
