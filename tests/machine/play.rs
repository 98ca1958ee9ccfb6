//! What must hold of the shutdown machine whatever happens, and when: for the random events of tests/machine.rs and for the fuzzer's.

use std::time::Duration;

use lameduck::core::shutdown::{Action, Drain, Ended, Event, Machine, Phase, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::time::Uptime;
use lameduck::core::traffic::Sample;
use lameduck::core::traffic::keepalive::Way;

#[derive(Clone, Debug)]
pub enum Happening {
    Flushed,
    Gone,
    Interrupt,
    KeepAlive(Way),
    MainEnded(bool),
    Refused,
    Stop,
    Traffic(Option<(Sample, Option<u64>)>),
    Told(bool),
}

pub fn event(now: Uptime, happening: &Happening) -> Event {
    match happening {
        Happening::Flushed => Event::Flushed,
        Happening::Gone => Event::Gone,
        Happening::Interrupt => Event::Interrupt,
        Happening::KeepAlive(way) => Event::KeepAlive(*way),
        Happening::MainEnded(alone) => Event::MainEnded { ended: Ended::Code(3), alone: *alone },
        Happening::Refused => Event::Refused,
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
pub struct Run {
    pub told: Vec<(bool, Uptime)>,
    pub exits: u32,
    pub ended_at: Option<Uptime>,
}

/// Plays the events, each so many ms after the one before, waking the machine at its deadlines as the loop does, `late` by as much, until
/// nothing is left to come but deadlines.
pub fn play(
    timing: &Timing,
    happenings: &[(u64, Happening)],
    late: Duration,
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
            now = (deadline + late).max(now);
            feed(&mut machine, now, Event::Wake);
        }
        now = next.max(now);
        feed(&mut machine, now, event(now, happening));
    }
    for _ in 0..10 {
        let Some(deadline) = machine.deadline() else { break };
        now = (deadline + late).max(now);
        feed(&mut machine, now, Event::Wake);
    }
    (machine, run)
}

/// After the stop signal there is always a deadline, and following the deadlines ends it inside the budget; nor does it stay when the main
/// process has ended by itself.
pub fn it_always_ends_in_time(timing: &Timing, happenings: &[(u64, Happening)], late: Duration) {
    let half_margin = Timing::margin(timing.grace) / 2;
    let (machine, run) = play(timing, happenings, late, |_, _, _, after, _| {
        if (after.stopped_at().is_some() || after.ended().is_some()) && after.phase() != Phase::Done {
            assert!(after.deadline().is_some(), "no deadline in {:?}", after.phase());
        }
    });
    assert!(run.exits <= 1);
    // Two wakes may be late: the one that kills, and the last.
    let (began, most) = match (machine.stopped_at(), machine.entered().get(1)) {
        (Some(stop), _) => (stop, timing.until_kill() + half_margin),
        // What is left has TERM, then KILL; or the kernel delivers the last answers.
        (None, Some((_, ended))) => {
            (*ended, timing.stop_timeout.min(timing.until_kill()) + half_margin.max(Duration::from_secs(2)))
        }
        (None, None) => return,
    };
    assert_eq!(machine.phase(), Phase::Done);
    let took = run.ended_at.expect("an exit").since(began);
    assert!(took <= most + late * 2, "took {took:?} of {most:?}, late by {late:?}");
}

/// Each stop signal is sent at most once; not before the delay, not while anything is in flight or new, unless time is up, somebody
/// hurries, nobody listens or nothing can be seen.
pub fn the_app_is_told_once_and_not_too_soon(timing: &Timing, happenings: &[(u64, Happening)], late: Duration) {
    let mut blind = false;
    let mut way = Way::Wait;
    let (_, run) = play(timing, happenings, late, |before, now, event, _, actions| {
        if let Event::KeepAlive(new) = event {
            way = *new;
        }
        let waiting = matches!(before.phase(), Phase::LameDuck | Phase::Draining);
        if let Event::Traffic(sample) = event
            && waiting
        {
            blind = sample.is_none();
        }
        if actions.contains(&Action::CloseKept) {
            let Event::Traffic(Some(sample)) = event else { panic!("closed at {event:?} without having looked") };
            assert!(way == Way::Close && sample.kept.open > 0 && waiting, "closed without a cause");
            let stop = before.stopped_at().expect("a stop");
            assert!(now.since(stop) >= timing.delay && now.since(stop) < timing.until_told(), "closed too soon or too late");
            assert!(
                sample.last_arrival.filter(|_| sample.watched).is_none_or(|at| now.since(at.max(stop)) >= timing.quiet),
                "closed while new ones come"
            );
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
        if let Event::Traffic(Some(sample)) = event
            && sample.listening == Some(false)
            && !timing.delay_given
        {
            return;
        }
        assert!(waited >= timing.delay, "told {waited:?} after the stop, the delay is {:?}", timing.delay);
        if blind || timing.drain == Drain::Off {
            return;
        }
        let Event::Traffic(Some(sample)) = event else { panic!("told at {event:?} without having looked") };
        match way {
            Way::Wait => assert_eq!(sample.in_flight(), 0, "told while busy"),
            Way::Close | Way::Fewest | Way::OwnStop => {
                assert_eq!(sample.in_flight_besides_kept(), 0, "told while others are busy")
            }
        }
        assert!(!sample.partial, "told though connections may be missing");
        if timing.drain == Drain::Connections {
            assert_eq!(sample.in_flight() + sample.idle, 0);
        }
        if let Some(arrival) = sample.last_arrival.filter(|_| sample.watched) {
            assert!(now.since(arrival) >= timing.quiet, "told {:?} after an arrival", now.since(arrival));
        }
    });
    assert!(run.told.iter().filter(|(second, _)| !second).count() <= 1);
    assert!(run.told.iter().filter(|(second, _)| *second).count() <= 1);
    assert!(run.told.first().is_none_or(|(second, _)| !second));
}

/// An early wake, a repeated stop signal and whatever follows the exit change nothing.
pub fn these_change_nothing(timing: &Timing, happenings: &[(u64, Happening)], late: Duration) {
    let mut done = None;
    play(timing, happenings, late, |before, now, event, after, actions| {
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
