//! Rows as lines of text, for people and for `recorded.txt`.
#![allow(dead_code)] // one test writes them, the other reads

use std::time::Duration;

use lameduck::core::time::Uptime;
use lameduck::core::traffic::row::{Info, Row, Seen, State};
use lameduck::core::traffic::verdict::{Class, Verdict};

/// Times and ages in ms, min_rtt in µs; accepted: 0 waits in the accept queue; pp: the ping-pong bit, if it was asked.
pub const COLUMNS: &str =
    "    at       state rqueue  wqueue accepted  sent  recv   ack   bytes:sent    acked received bare min_rtt pp";

pub fn line(since: Duration, at: Duration, row: &Row, ping_pong: Option<bool>) -> String {
    let state = match row.state {
        State::Established => "established",
        State::CloseWait => "close-wait",
        State::Closing => "closing",
        State::Listen => "listen",
        State::Gone => "gone",
    };
    let info = row.info().expect("tcp_info");
    format!(
        "{:>6} {:>11} {:>6} {:>7} {:>8} {:>5} {:>5} {:>5} {:>12} {:>8} {:>8} {:>4} {:>7} {:>2}",
        (at - since).as_millis(),
        state,
        row.rqueue,
        row.wqueue,
        u8::from(row.inode != 0),
        info.last_data_sent,
        info.last_data_recv,
        info.last_ack_recv,
        info.bytes_sent,
        info.bytes_acked,
        info.bytes_received,
        info.bare_acks,
        info.min_rtt.map_or("-".to_owned(), |micros| micros.to_string()),
        ping_pong.map_or("-", |bit| if bit { "1" } else { "0" }),
    )
}

/// One look at one connection, and the verdicts that the truth allows.
pub struct Recorded<'a> {
    pub at: Uptime,
    pub row: Row,
    pub ping_pong: Option<bool>,
    pub expected: &'a str,
}

/// Reads `line`, and what stands behind it.
pub fn parse(line: &str) -> Option<Recorded<'_>> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let &[at, state, rqueue, wqueue, accepted, sent, recv, ack, bytes_sent, bytes_acked, received, bare, min_rtt, pp, expected] =
        words.as_slice()
    else {
        return None;
    };
    let state = match state {
        "established" => State::Established,
        "close-wait" => State::CloseWait,
        "closing" => State::Closing,
        _ => return None,
    };
    let number = |text: &str| text.parse::<u32>().ok();
    let info = Info {
        last_data_sent: number(sent)?,
        last_data_recv: number(recv)?,
        last_ack_recv: number(ack)?,
        bytes_sent: bytes_sent.parse().ok()?,
        bytes_acked: bytes_acked.parse().ok()?,
        bytes_received: received.parse().ok()?,
        bare_acks: number(bare)?,
        rtt: 0,
        segments_in: 0,
        min_rtt: if min_rtt == "-" { None } else { Some(number(min_rtt)?) },
    };
    let row = Row {
        cookie: 1,
        state,
        local: std::net::Ipv4Addr::LOCALHOST.into(),
        port: 8080,
        peer: std::net::Ipv4Addr::LOCALHOST.into(),
        peer_port: 4711,
        rqueue: number(rqueue)?,
        wqueue: number(wqueue)?,
        inode: number(accepted)?,
        cgroup: None,
        retransmits: 0,
        full: false,
        seen: Seen::Info(info),
    };
    let ping_pong = if pp == "-" { None } else { Some(pp == "1") };
    Some(Recorded { at: Uptime(Duration::from_millis(at.parse().ok()?)), row, ping_pong, expected })
}

/// What is done about it.
pub fn class(verdict: Verdict) -> &'static str {
    match verdict.class() {
        Class::Busy => "busy",
        Class::Cooling => "cooling",
        Class::Idle => "idle",
        Class::Queued => "queued",
        Class::Gone => "gone",
    }
}
