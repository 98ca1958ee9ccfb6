//! Looks, ends and losses in any order, rows that no kernel would show included: the counts are never more than what was shown.
#![no_main]

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lameduck::core::time::Uptime;
use lameduck::core::traffic::network::Network;
use lameduck::core::traffic::row::{Info, Row, Seen, State};
use lameduck::core::traffic::tracker::Tracker;
use lameduck::core::traffic::verdict::{Class, Rules};
use libfuzzer_sys::fuzz_target;

/// Whose traffic does not count.
const IGNORED: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 9));

/// Mostly small, so that values meet.
fn number(u: &mut Unstructured) -> Result<u64> {
    Ok(match u.int_in_range(0..=9)? {
        0 => u.arbitrary()?,
        1 => u32::MAX.into(),
        2 => u.arbitrary::<u16>()?.into(),
        3 => u64::from(u.arbitrary::<u8>()?) * 100,
        _ => u.arbitrary::<u8>()?.into(),
    })
}

fn row(u: &mut Unstructured) -> Result<Row> {
    let state =
        *u.choose(&[State::Established, State::Established, State::CloseWait, State::Closing, State::Listen, State::Gone])?;
    let seen = match u.int_in_range(0..=5)? {
        0 => Seen::Queues { ping_pong: u.arbitrary()? },
        1 => Seen::Unix,
        _ => Seen::Info(Info {
            last_data_sent: number(u)? as u32,
            last_data_recv: number(u)? as u32,
            last_ack_recv: number(u)? as u32,
            bytes_sent: number(u)?,
            bytes_acked: number(u)?,
            bytes_received: number(u)?,
            bare_acks: number(u)? as u32,
            rtt: number(u)? as u32,
            segments_in: number(u)? as u32,
            min_rtt: if u.arbitrary()? { Some(number(u)? as u32) } else { None },
        }),
    };
    let peer = if u.ratio(1, 8)? { IGNORED } else { Ipv4Addr::new(10, 0, 0, u.int_in_range(0..=2)?).into() };
    Ok(Row {
        cookie: u.int_in_range(0..=7)?,
        state,
        local: Ipv4Addr::new(10, 0, 1, 1).into(),
        port: u.int_in_range(0..=3)?,
        peer,
        peer_port: u.int_in_range(0..=3)?,
        rqueue: number(u)? as u32,
        wqueue: number(u)? as u32,
        inode: u.int_in_range(0..=2)?,
        cgroup: None,
        retransmits: u.arbitrary()?,
        full: u.arbitrary()?,
        seen,
    })
}

/// Its request is there for everybody to see, and has no answer.
fn is_plainly_asked(row: &Row) -> bool {
    let asked = |info: &Info| info.bytes_received > 0 && (info.bytes_sent == 0 || info.last_data_recv < info.last_data_sent);
    row.state == State::Established && row.wqueue == 0 && row.info().is_some_and(asked)
}

#[derive(Default)]
struct Shown {
    connections: usize,
    backlog: usize,
    asked: HashSet<u64>,
}

fn play(u: &mut Unstructured) -> Result<()> {
    let rules = Rules {
        idle_after: Duration::from_millis(number(u)?),
        max_silence: if u.ratio(1, 4)? { Some(Duration::from_millis(number(u)?)) } else { None },
        ignored: vec![Network::parse("10.0.0.9").expect("an address")],
    };
    let patient = rules.max_silence.is_none();
    let mut tracker = Tracker::new(rules);
    let mut now = Uptime::default();
    // So many connections there may have been, at most.
    let mut lives = 0;
    let (mut accepted, mut uncertain) = (0, 0);
    let mut shown = Shown::default();
    while !u.is_empty() {
        now = now + Duration::from_millis(number(u)? % 100_000_000);
        match u.int_in_range(0..=11)? {
            0..=5 => {
                let row = row(u)?;
                lives += u64::from(tracker.verdict(row.cookie).is_none());
                match row.state {
                    State::Listen => shown.backlog += row.rqueue as usize,
                    _ if row.peer == IGNORED => {}
                    _ => shown.connections += 1,
                }
                tracker.row(now, &row);
                // In a look that is being taken over again the earlier row no longer counts.
                if is_plainly_asked(&row) && row.peer != IGNORED && patient && tracker.verdict(row.cookie).is_some() {
                    shown.asked.insert(row.cookie);
                } else {
                    shown.asked.remove(&row.cookie);
                }
            }
            6 | 7 => {
                let sample = tracker.end(now);
                let Shown { connections, backlog, asked } = std::mem::take(&mut shown);
                assert!(sample.busy + sample.cooling + sample.idle <= connections, "{sample:?} of {connections}");
                assert!(sample.in_flight() + sample.idle <= connections + backlog, "{sample:?} of {connections} and {backlog}");
                assert!(sample.flushing <= sample.busy);
                assert!(sample.last_arrival.is_none_or(|at| at <= now), "{sample:?} at {now:?}");
                let sum =
                    |count: fn(&lameduck::core::traffic::PortSample) -> usize| sample.ports.iter().map(count).sum::<usize>();
                let sums = (sum(|p| p.busy), sum(|p| p.cooling), sum(|p| p.idle), sum(|p| p.queued));
                assert_eq!(sums, (sample.busy, sample.cooling, sample.idle, sample.queued));
                assert_eq!(sample.ports.iter().map(|port| port.accepted).sum::<u64>(), sample.accepted);
                assert!(sample.accepted >= accepted, "an arrival is not taken back");
                accepted = sample.accepted;
                for cookie in asked {
                    // It may have ended since.
                    let verdict = tracker.verdict(cookie);
                    let held = verdict.is_none_or(|verdict| matches!(verdict.class(), Class::Busy | Class::Queued));
                    assert!(held, "{cookie} is {verdict:?}");
                }
            }
            8 => {
                let row = row(u)?;
                lives += 1;
                tracker.ended(now, &row);
                shown.asked.remove(&row.cookie);
            }
            9 => {
                for tie in tracker.ties() {
                    tracker.ping_pong(tie.cookie, u.arbitrary()?);
                }
            }
            10 => {
                let most = u64::from(u.arbitrary::<u16>()?);
                uncertain += most;
                tracker.missed(now, most);
            }
            _ => match u.int_in_range(0..=3)? {
                0 => {
                    tracker.begin_look_again();
                    shown = Shown::default();
                }
                1 => {
                    tracker.begin_again();
                    shown = Shown::default();
                }
                // The app is told at most twice.
                _ => tracker.stopping(),
            },
        }
        let tally = tracker.tally();
        assert!(tally.accepted <= lives && tally.uncertain == uncertain, "{tally:?} of {lives}");
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are over end the play.
    let _ = play(&mut Unstructured::new(bytes));
});
