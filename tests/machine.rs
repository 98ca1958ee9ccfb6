//! The shutdown of random pods under random events, in simulated time; and the decoders.

use std::collections::BTreeSet;
use std::time::Duration;

use lameduck::core::shutdown::{Drain, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::size::cpu;
use lameduck::core::time;
use lameduck::core::traffic::keepalive::Way;
use lameduck::core::traffic::network;
use lameduck::core::traffic::question::Question;
use lameduck::core::traffic::{KeptAlive, Sample};
use lameduck::sys::{netlink, proc, sock_diag, unix_diag};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

#[path = "machine/play.rs"]
mod play;

use play::{Happening, Setup, play};

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

/// Mostly one service, up to five.
fn setup() -> impl Strategy<Value = Setup> {
    let companions = prop_oneof![1 => Just(Vec::new()), 2 => prop::collection::vec(any::<bool>(), 1..5)];
    (timing(), companions, prop::bool::weighted(0.2), prop::bool::weighted(0.3))
        .prop_map(|(timing, companions, starting, on_stop)| Setup { timing, companions, starting, on_stop })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        3 => (0usize..5, prop::sample::select(&[0u8, 3, 143]), prop::bool::weighted(0.2)).prop_map(|(place, code, alone)| Happening::Ended(place, code, alone)),
        1 => Just(Happening::Flushed),
        1 => Just(Happening::Gone),
        1 => Just(Happening::Interrupt),
        1 => prop::sample::select(&[Way::Close, Way::Fewest, Way::OwnStop, Way::Wait]).prop_map(Happening::KeepAlive),
        2 => (0usize..5, any::<bool>()).prop_map(|(place, are_left)| Happening::Leftovers(place, are_left)),
        1 => Just(Happening::OnStopEnded),
        1 => Just(Happening::Reaped),
        1 => Just(Happening::Refused),
        3 => Just(Happening::Stop),
        20 => prop::option::weighted(0.95, sample()).prop_map(Happening::Traffic),
        2 => (0usize..5, any::<bool>()).prop_map(|(place, more)| Happening::StopSent(place, more)),
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
    fn it_always_ends_in_time(setup in setup(), happenings in happenings(), late in late()) {
        play::it_always_ends_in_time(&setup, &happenings, late);
    }

    #[test]
    fn stop_signals_are_sent_once_and_not_too_soon(setup in setup(), happenings in happenings(), late in late()) {
        play::stop_signals_are_sent_once_and_not_too_soon(&setup, &happenings, late);
    }

    #[test]
    fn services_are_stopped_in_order(setup in setup(), happenings in happenings(), late in late()) {
        play::services_are_stopped_in_order(&setup, &happenings, late);
    }

    #[test]
    fn the_exit_code_is_the_first_cause_s(setup in setup(), happenings in happenings(), late in late()) {
        play::the_exit_code_is_the_first_cause_s(&setup, &happenings, late);
    }

    #[test]
    fn these_change_nothing(setup in setup(), happenings in happenings(), late in late()) {
        play::these_change_nothing(&setup, &happenings, late);
    }

    #[test]
    fn int_hurries(setup in setup(), happenings in happenings()) {
        play::int_hurries(&setup, &happenings);
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

/// The picture in docs/shutdown.md has exactly the edges of the code.
#[test]
fn the_diagram_has_the_code_s_edges() {
    let mut edges = BTreeSet::new();
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let strategy = (setup(), happenings());
    for _ in 0..3000 {
        let (setup, happenings) = strategy.new_tree(&mut runner).expect("a value").current();
        let (pod, _) = play(&setup, &happenings, Duration::ZERO, |_, _, _, _, _| {});
        for pair in pod.entered().windows(2) {
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
