//! The shutdown machine and the decoders under random events, in simulated time.

use std::collections::BTreeSet;
use std::time::Duration;

use lameduck::core::question::Question;
use lameduck::core::shutdown::{Action, Drain, Ended, Event, Machine, Phase, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::time::Uptime;
use lameduck::core::traffic::Sample;
use lameduck::core::{cpu, network, time};
use lameduck::sys::{netlink, proc, sock_diag, unix_diag};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

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
    (few.clone(), few.clone(), few.clone(), few, prop::option::of(0u64..6000), 0..4, 0..8).prop_map(
        |(busy, cooling, idle, queued, arrival, listening, torn)| {
            let listening = [Some(true), Some(true), None, Some(false)][listening as usize];
            let partial = torn == 0;
            (
                Sample {
                    busy,
                    cooling,
                    idle,
                    queued,
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

#[derive(Clone, Debug)]
enum Happening {
    Flushed,
    Gone,
    Interrupt,
    MainEnded(bool),
    Stop,
    Traffic(Option<(Sample, Option<u64>)>),
    Told(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        1 => Just(Happening::Flushed),
        1 => Just(Happening::Gone),
        1 => Just(Happening::Interrupt),
        1 => any::<bool>().prop_map(Happening::MainEnded),
        3 => Just(Happening::Stop),
        20 => prop::option::weighted(0.95, sample()).prop_map(Happening::Traffic),
        2 => any::<bool>().prop_map(Happening::Told),
    ]
}

fn event(now: Uptime, happening: &Happening) -> Event {
    match happening {
        Happening::Flushed => Event::Flushed,
        Happening::Gone => Event::Gone,
        Happening::Interrupt => Event::Interrupt,
        Happening::MainEnded(alone) => Event::MainEnded { ended: Ended::Code(3), alone: *alone },
        Happening::Stop => Event::Stop,
        Happening::Traffic(look) => Event::Traffic(look.clone().map(|(mut sample, arrival)| {
            sample.last_arrival = arrival.map(|ago| Uptime(now.0.saturating_sub(Duration::from_millis(ago))));
            sample
        })),
        Happening::Told(more) => Event::Told { signal: Signal::TERM, more: *more },
    }
}

/// What a run did, for the properties to look at.
#[derive(Default)]
struct Run {
    told: Vec<(bool, Uptime)>,
    exits: u32,
    ended_at: Option<Uptime>,
}

/// Plays the events, waking the machine at its deadlines as the loop does, until nothing is left to come but deadlines.
fn play(
    timing: &Timing,
    happenings: &[(u64, Happening)],
    mut check: impl FnMut(&Machine, Uptime, &Event, &Machine, &[Action]),
) -> (Machine, Run) {
    let mut machine = Machine::new(timing.clone(), vec![]);
    let mut run = Run::default();
    let mut now = Uptime::default();
    let mut feed = |machine: &mut Machine, now: Uptime, event: Event| {
        let before = machine.clone();
        let actions = machine.on(now, event.clone());
        check(&before, now, &event, machine, &actions);
        for action in &actions {
            match action {
                Action::Tell { second } => run.told.push((*second, now)),
                Action::Exit(_) => {
                    run.exits += 1;
                    run.ended_at = Some(now);
                }
                _ => {}
            }
        }
    };
    for (pause, happening) in happenings {
        let next = now + Duration::from_millis(*pause);
        while let Some(deadline) = machine.deadline().filter(|deadline| *deadline <= next) {
            now = deadline.max(now);
            feed(&mut machine, now, Event::Wake);
        }
        now = next;
        feed(&mut machine, now, event(now, happening));
    }
    for _ in 0..10 {
        let Some(deadline) = machine.deadline() else { break };
        now = deadline.max(now);
        feed(&mut machine, now, Event::Wake);
    }
    (machine, run)
}

fn happenings() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    prop::collection::vec((0u64..4000, happening()), 0..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// After the stop signal there is always a deadline, and following the deadlines ends it inside the budget.
    #[test]
    fn it_always_ends_in_time(timing in timing(), happenings in happenings()) {
        let end = timing.until_kill() + Timing::margin(timing.grace) / 2;
        let (machine, run) = play(&timing, &happenings, |_, _, _, after, _| {
            if after.stopped_at().is_some() && after.phase() != Phase::Done {
                assert!(after.deadline().is_some(), "no deadline in {:?}", after.phase());
            }
        });
        if let Some(stop) = machine.stopped_at() {
            prop_assert_eq!(machine.phase(), Phase::Done);
            let ended = run.ended_at.expect("an exit");
            prop_assert!(ended.since(stop) <= end, "took {:?} of {:?}", ended.since(stop), end);
        }
        prop_assert!(run.exits <= 1);
    }

    /// Each stop signal is sent at most once; not before the delay, not while anything is in flight or new, unless time is up,
    /// somebody hurries, nobody listens or nothing can be seen.
    #[test]
    fn the_app_is_told_once_and_not_too_soon(timing in timing(), happenings in happenings()) {
        let mut blind = false;
        let (_, run) = play(&timing, &happenings, |before, now, event, _, actions| {
            let waiting = matches!(before.phase(), Phase::LameDuck | Phase::Draining);
            if let Event::Traffic(sample) = event && waiting {
                blind = sample.is_none();
            }
            if !actions.contains(&Action::Tell { second: false }) {
                return;
            }
            assert!(waiting, "told in {:?}", before.phase());
            let stop = before.stopped_at().expect("a stop");
            let waited = now.since(stop);
            if *event == Event::Interrupt || waited >= timing.until_told() {
                return;
            }
            if let Event::Traffic(Some(sample)) = event && sample.listening == Some(false) && !timing.delay_given {
                return;
            }
            assert!(waited >= timing.delay, "told {waited:?} after the stop, the delay is {:?}", timing.delay);
            if blind || timing.drain == Drain::Off {
                return;
            }
            let Event::Traffic(Some(sample)) = event else { panic!("told at {event:?} without having looked") };
            assert_eq!(sample.in_flight(), 0, "told while busy");
            assert!(!sample.partial, "told though connections may be missing");
            if timing.drain == Drain::Connections {
                assert_eq!(sample.idle, 0);
            }
            if let Some(arrival) = sample.last_arrival.filter(|_| sample.watched) {
                assert!(now.since(arrival) >= timing.quiet, "told {:?} after an arrival", now.since(arrival));
            }
        });
        prop_assert!(run.told.iter().filter(|(second, _)| !second).count() <= 1);
        prop_assert!(run.told.iter().filter(|(second, _)| *second).count() <= 1);
        prop_assert!(run.told.first().is_none_or(|(second, _)| !second));
    }

    /// An early wake, a repeated stop signal and whatever follows the exit change nothing.
    #[test]
    fn these_change_nothing(timing in timing(), happenings in happenings()) {
        let mut done = None;
        play(&timing, &happenings, |before, now, event, after, actions| {
            if let Some(last) = &done {
                assert!(actions.is_empty(), "{actions:?} after the exit");
                assert_eq!(&format!("{after:?}"), last);
            }
            if after.phase() == Phase::Done {
                done = Some(format!("{after:?}"));
            }
            let early = before.deadline().is_none_or(|deadline| now < deadline);
            if early {
                let mut woken = before.clone();
                assert_eq!(woken.on(now, Event::Wake), [], "an early wake");
                assert_eq!(format!("{woken:?}"), format!("{before:?}"), "an early wake");
            }
            if before.stopped_at().is_some() && *event == Event::Stop {
                assert_eq!(actions, [], "a repeated stop");
                assert_eq!(format!("{after:?}"), format!("{before:?}"), "a repeated stop");
            }
        });
    }

    /// The first INT after the stop signal ends the wait, the second the patience.
    #[test]
    fn int_hurries(timing in timing(), before in happenings()) {
        let calm: Vec<_> = before.into_iter().filter(|(_, happening)| matches!(happening, Happening::Traffic(_) | Happening::Stop)).collect();
        let (machine, _) = play(&timing, &[], |_, _, _, _, _| {});
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
        let (machine, _) = play(&timing, &happenings, |_, _, _, _, _| {});
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
