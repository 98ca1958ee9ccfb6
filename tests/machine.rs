//! The shutdown machine and the decoders under random events, in simulated time.

use std::collections::BTreeSet;
use std::time::Duration;

use lameduck::core::question::Question;
use lameduck::core::shutdown::{Action, Drain, Event, Phase, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::time::Uptime;
use lameduck::core::traffic::keepalive::Way;
use lameduck::core::traffic::{KeptAlive, Sample};
use lameduck::core::{cpu, network, time};
use lameduck::sys::{netlink, proc, sock_diag, unix_diag};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

#[path = "machine/play.rs"]
mod play;

use play::{Happening, event, play};

fn timing() -> impl Strategy<Value = Timing> {
    (1000u64..120_000, 0.0..1.0, 0.0..1.0, 0u64..5000, any::<bool>(), 0..3).prop_map(
        |(grace, stop, delay, quiet, delay_given, drain)| {
            let grace = Duration::from_millis(grace);
            let room = grace.saturating_sub(Timing::margin(grace));
            let stop_timeout = room.mul_f64(stop);
            Timing {
                grace,
                delay: room.saturating_sub(stop_timeout).mul_f64(delay),
                delay_given,
                quiet: Duration::from_millis(quiet),
                stop_timeout,
                idle_after: Duration::from_secs(1),
                drain: [Drain::Requests, Drain::Connections, Drain::Off][drain as usize],
            }
        },
    )
}

/// A sample whose last arrival lies so many milliseconds back.
fn sample() -> impl Strategy<Value = (Sample, Option<u64>)> {
    let few = 0usize..3;
    let kept = (0usize..3, 0usize..3, 0usize..3);
    (few.clone(), few.clone(), few.clone(), few, kept, prop::option::of(0u64..6000), 0..4, 0..8).prop_map(
        |(busy, cooling, idle, queued, kept, arrival, listening, torn)| {
            let (kept_busy, kept_cooling) = (kept.1.min(busy), kept.2.min(cooling));
            let kept =
                KeptAlive { open: kept.0 + kept_busy + kept_cooling, busy: kept_busy, cooling: kept_cooling, closed_at: None };
            let listening = [Some(true), Some(true), None, Some(false)][listening as usize];
            let partial = torn == 0;
            (
                Sample {
                    busy,
                    cooling,
                    idle,
                    queued,
                    kept,
                    watched: listening != Some(false),
                    listening,
                    partial,
                    ..Sample::default()
                },
                arrival,
            )
        },
    )
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => Just(Happening::Flushed),
        1 => Just(Happening::Gone),
        1 => Just(Happening::Interrupt),
        1 => prop::sample::select(&[Way::Close, Way::Fewest, Way::OwnStop, Way::Wait]).prop_map(Happening::KeepAlive),
        1 => any::<bool>().prop_map(Happening::MainEnded),
        1 => Just(Happening::Refused),
        3 => Just(Happening::Stop),
        20 => prop::option::weighted(0.95, sample()).prop_map(Happening::Traffic),
        2 => any::<bool>().prop_map(Happening::Told),
    ]
}

fn happenings() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    prop::collection::vec((0u64..4000, happening()), 0..60)
}

/// The loop wakes a little late, mostly not at all.
fn late() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(0), 0u64..3000].prop_map(Duration::from_millis)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_always_ends_in_time(timing in timing(), happenings in happenings(), late in late()) {
        play::it_always_ends_in_time(&timing, &happenings, late);
    }

    #[test]
    fn the_app_is_told_once_and_not_too_soon(timing in timing(), happenings in happenings(), late in late()) {
        play::the_app_is_told_once_and_not_too_soon(&timing, &happenings, late);
    }

    #[test]
    fn these_change_nothing(timing in timing(), happenings in happenings(), late in late()) {
        play::these_change_nothing(&timing, &happenings, late);
    }

    /// The first INT after the stop signal ends the wait, the second the patience.
    #[test]
    fn int_hurries(timing in timing(), before in happenings()) {
        let calm: Vec<_> = before.into_iter().filter(|(_, happening)| matches!(happening, Happening::Traffic(_) | Happening::Stop)).collect();
        let (machine, _) = play(&timing, &[], Duration::ZERO, |_, _, _, _, _| {});
        let mut machine = machine;
        let mut now = Uptime::default();
        let _ = machine.on(now, Event::Stop);
        for (pause, happening) in calm {
            now = now + Duration::from_millis(pause);
            if machine.deadline().is_some_and(|deadline| deadline <= now) || machine.phase() == Phase::Stopping {
                break;
            }
            let _ = machine.on(now, event(now, &happening));
        }
        let waiting = machine.phase() != Phase::Stopping;
        let first = machine.on(now, Event::Interrupt);
        prop_assert_eq!(first, if waiting { vec![Action::Tell { second: false }] } else { vec![] });
        prop_assert_eq!(machine.on(now, Event::Interrupt), vec![Action::KillAll]);
    }

    /// Whatever bytes and texts come, nothing panics.
    #[test]
    fn no_input_makes_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), text in "\\PC{0,60}", numbers in "[0-9a-zA-Z:./+-]{0,30}") {
        netlink::decode(&bytes, |_| {});
        sock_diag::decode(&bytes);
        unix_diag::decode(&bytes);
        unix_diag::parse(&bytes);
        for text in [&text, &numbers] {
            let _ = proc::parse_tcp(text);
            let _ = Question::parse(text);
            let _ = cpu::parse_quantity(text);
            let _ = time::parse_duration(text);
            let _ = Signal::parse(text);
            let _ = network::Network::parse(text);
        }
    }

    /// Quantities against exact arithmetic.
    #[test]
    fn quantities(whole in 0u64..100_000, fraction in 0u32..1_000_000) {
        let millis = (u128::from(whole) * 1_000_000 + u128::from(fraction)).div_ceil(1000);
        let expected = cpu::Millicores(millis as u64);
        prop_assert_eq!(cpu::parse_quantity(&format!("{whole}.{fraction:06}")), Ok(expected));
        prop_assert_eq!(cpu::parse_quantity(&format!("{whole}{fraction:06}u")), Ok(expected));
        prop_assert_eq!(cpu::parse_quantity(&format!("{whole}.{fraction:06}e3")), Ok(cpu::Millicores((whole * 1_000_000) + u64::from(fraction))));
    }
}

/// The picture in docs/shutdown.md has exactly the machine's edges.
#[test]
fn the_diagram_has_the_machine_s_edges() {
    let mut edges = BTreeSet::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (timing(), happenings());
    for _ in 0..3000 {
        let (timing, happenings) = strategy.new_tree(&mut runner).expect("a value").current();
        let (machine, _) = play(&timing, &happenings, Duration::ZERO, |_, _, _, _, _| {});
        for pair in machine.entered().windows(2) {
            edges.insert(format!("{:?} --> {:?}", pair[0].0, pair[1].0));
        }
    }
    let text = include_str!("../docs/shutdown.md");
    let drawn: BTreeSet<String> = text
        .lines()
        .filter(|line| line.contains("-->") && !line.contains("[*]"))
        .map(|line| line.split(':').next().unwrap_or_default().trim().to_owned())
        .collect();
    assert_eq!(drawn, edges);
}
