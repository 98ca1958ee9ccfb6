//! One connection of a simulated kernel: requests one after the other, answers, delayed ACKs, the ping-pong bit told when asked for, looks at
//! any moment. However these fall, a request that has no answer yet is never idle. What docs/traffic.md says nobody can see is left out:
//! pipelining, several segments in the tick of the last answer, `100 Continue`.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lameduck::core::time::Uptime;
use lameduck::core::traffic::row::{Info, Row, Seen, State};
use lameduck::core::traffic::tracker::Tracker;
use lameduck::core::traffic::verdict::{Class, Rules};
use libfuzzer_sys::fuzz_target;

/// All times in ms.
struct Kernel {
    now: u32,
    rtt: u32,
    tick: u32,
    sent_at: u32,
    received_at: u32,
    ack_at: u32,
    sent: u64,
    received: u64,
    bare_acks: u32,
    segments: u32,
    /// The smoothed round trip, which bounds what an acknowledgement is delayed.
    smoothed: u32,
    /// When an input without an answer will be acknowledged.
    delayed_ack: Option<u32>,
    /// Sent, and acknowledged then.
    unacked: Option<u32>,
    unread: u32,
    /// The last event was an output.
    ping_pong: bool,
    /// A request has come, and nothing was sent since.
    asked: bool,
}

impl Kernel {
    fn pass(&mut self, ms: u32) {
        self.now += ms;
        if self.delayed_ack.is_some_and(|at| at <= self.now) {
            self.delayed_ack = None;
            self.bare_acks += 1;
        }
        if let Some(at) = self.unacked.filter(|at| *at <= self.now) {
            self.unacked = None;
            self.ack_at = at;
        }
    }

    /// One segment; it acknowledges what was sent.
    fn ask(&mut self, bytes: u64, delay: u32) {
        self.received += bytes;
        self.segments += 1;
        self.received_at = self.now;
        self.ack_at = self.now;
        self.unacked = None;
        self.unread = bytes as u32;
        self.delayed_ack = Some(self.now + delay);
        self.ping_pong = false;
        self.asked = true;
    }

    fn answer(&mut self, bytes: u64) {
        self.sent += bytes;
        self.sent_at = self.now;
        self.unread = 0;
        // It carries the acknowledgement.
        self.delayed_ack = None;
        self.unacked = Some(self.now + self.rtt);
        self.ping_pong = true;
        self.asked = false;
    }

    fn row(&self) -> Row {
        // Stamps are ticks.
        let age = |at: u32| self.now / self.tick * self.tick - at / self.tick * self.tick;
        let acked = if self.unacked.is_some() { self.sent.saturating_sub(1) } else { self.sent };
        Row {
            cookie: 1,
            state: State::Established,
            local: Ipv4Addr::LOCALHOST.into(),
            port: 80,
            peer: Ipv4Addr::LOCALHOST.into(),
            peer_port: 4711,
            rqueue: self.unread,
            wqueue: (self.sent - acked) as u32,
            inode: 7,
            cgroup: None,
            retransmits: 0,
            full: false,
            seen: Seen::Info(Info {
                last_data_sent: age(self.sent_at),
                last_data_recv: age(self.received_at),
                last_ack_recv: age(self.ack_at),
                bytes_sent: self.sent,
                bytes_acked: acked,
                bytes_received: self.received,
                bare_acks: self.bare_acks,
                rtt: self.smoothed * 1000,
                segments_in: self.segments,
                min_rtt: Some(self.rtt * 1000).filter(|micros| *micros > 0),
            }),
        }
    }
}

fn play(u: &mut Unstructured) -> Result<()> {
    let tick = *u.choose(&[1, 4, 10])?;
    let rtt = *u.choose(&[0, 0, 1, 5, 21, 80])?;
    let idle_after = Duration::from_millis(u.int_in_range(100..=3000)?);
    let mut kernel = Kernel {
        now: 100_000,
        rtt,
        tick,
        sent_at: 100_000,
        received_at: 100_000,
        ack_at: 100_000,
        sent: 0,
        received: 0,
        bare_acks: 0,
        segments: 0,
        smoothed: u.int_in_range(rtt.max(1)..=200)?,
        delayed_ack: None,
        unacked: None,
        unread: 0,
        ping_pong: false,
        asked: false,
    };
    let mut tracker = Tracker::new(Rules { idle_after, max_silence: None, ignored: Vec::new() });
    let mut story = Vec::new();
    let (mut turns, mut taken) = (0, false);
    while !u.is_empty() {
        match u.int_in_range(0..=8)? {
            0 | 1 => kernel.pass(u.int_in_range(0..=50)?),
            2 => kernel.pass(u.int_in_range(0..=5000)?),
            3 | 4 if !kernel.asked => {
                // The client has the answer first.
                kernel.pass(kernel.rtt);
                kernel.ask(u.int_in_range(16..=1400)?, u.int_in_range(40..=kernel.smoothed.max(40))?);
                story.push(format!("{} asked", kernel.now));
            }
            5 if kernel.asked => {
                kernel.unread = 0;
                story.push(format!("{} read", kernel.now));
            }
            6 if kernel.asked => {
                // Longer than an interim answer.
                kernel.answer(u.int_in_range(30..=3000)?);
                turns += 1;
                story.push(format!("{} answered", kernel.now));
            }
            _ => {
                let at = Uptime(Duration::from_millis(kernel.now.into()));
                tracker.row(at, &kernel.row());
                tracker.end(at);
                // As /proc/net/tcp tells, asked in the same look.
                for tie in tracker.ties() {
                    tracker.ping_pong(tie.cookie, Some(kernel.ping_pong));
                }
                for chosen in tracker.take_chosen() {
                    assert!(
                        !taken && turns >= 2 && !kernel.asked,
                        "rtt {rtt}, tick {tick}: {chosen:?}: {story:#?}, {:?}",
                        kernel.row()
                    );
                    taken = true;
                }
                tracker.begin_closing(at, false);
                let verdict = tracker.verdict(1).expect("a verdict");
                story.push(format!("{} {verdict:?}", kernel.now));
                let held = matches!(verdict.class(), Class::Busy | Class::Cooling);
                assert!(
                    held || !kernel.asked,
                    "rtt {rtt}, tick {tick}, idle after {idle_after:?}: {story:#?}, {:?}",
                    kernel.row()
                );
            }
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are over end the play.
    let _ = play(&mut Unstructured::new(bytes));
});
