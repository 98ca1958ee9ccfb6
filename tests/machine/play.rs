//! What must hold of the shutdown whatever happens, and when: for the random pods and events of tests/machine.rs and for the fuzzer's.

use std::time::Duration;

use lameduck::core::shutdown::pod::{Action, Event, Pod};
use lameduck::core::shutdown::service::ServiceId;
use lameduck::core::shutdown::{Drain, Ended, Phase, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::time::Uptime;
use lameduck::core::traffic::Sample;
use lameduck::core::traffic::keepalive::Way;

/// A pod before anything happens.
#[derive(Clone, Debug)]
pub struct Setup {
    pub timing: Timing,
    /// Of each companion, whether it is expendable.
    pub companions: Vec<bool>,
    /// The main command is not started yet.
    pub starting: bool,
    pub on_stop: bool,
}

impl Setup {
    fn pod(&self) -> Pod {
        let mut pod = Pod::new(self.timing.clone(), vec![], &self.companions, self.on_stop);
        let first = usize::from(self.starting && !self.companions.is_empty());
        (first..=self.companions.len()).for_each(|place| pod.started(ServiceId(place)));
        pod
    }

    fn services(&self) -> usize {
        self.companions.len() + 1
    }
}

#[derive(Clone, Debug)]
pub enum Happening {
    /// A service, its code, and whether no process is left.
    Ended(usize, u8, bool),
    Flushed,
    Gone,
    Interrupt,
    KeepAlive(Way),
    Leftovers(usize, bool),
    OnStopEnded,
    Reaped,
    Refused,
    Stop,
    /// Whether its server has a second stop signal.
    StopSent(usize, bool),
    Traffic(Option<(Sample, Option<u64>)>),
}

fn event(setup: &Setup, now: Uptime, happening: &Happening) -> Event {
    let service = |place: &usize| ServiceId(place % setup.services());
    match happening {
        Happening::Ended(place, code, alone) => {
            Event::Ended { service: service(place), ended: Ended::Code(*code), alone: *alone }
        }
        Happening::Flushed => Event::Flushed,
        Happening::Gone => Event::Gone,
        Happening::Interrupt => Event::Interrupt,
        Happening::KeepAlive(way) => Event::KeepAlive(*way),
        Happening::Leftovers(place, are_left) => Event::Leftovers(service(place), *are_left),
        Happening::OnStopEnded => Event::OnStopEnded,
        Happening::Reaped => Event::Reaped,
        Happening::Refused => Event::Refused,
        Happening::Stop => Event::Stop,
        Happening::StopSent(place, more) => {
            Event::StopSent { service: service(place), signal: Signal::QUIT, second: more.then_some(Signal::TERM) }
        }
        Happening::Traffic(look) => Event::Traffic(look.clone().map(|(mut sample, arrival)| {
            sample.last_arrival = arrival.map(|ago| Uptime(now.0.saturating_sub(Duration::from_millis(ago))));
            sample
        })),
    }
}

/// What a run did, for the properties to look at.
#[derive(Default)]
pub struct Run {
    pub sent: Vec<(ServiceId, Uptime)>,
    pub seconds: Vec<ServiceId>,
    /// Which services had ended, in this order.
    pub ended: Vec<ServiceId>,
    pub exits: Vec<u8>,
    pub ended_at: Option<Uptime>,
}

/// Plays the events, each so many ms after the one before, waking the pod at its deadlines as the loop does, `late` by as much, until nothing
/// is left to come but deadlines.
pub fn play(
    setup: &Setup,
    happenings: &[(u64, Happening)],
    late: Duration,
    mut check: impl FnMut(&Pod, Uptime, &Event, &Pod, &[Action]),
) -> (Pod, Run) {
    let mut pod = setup.pod();
    let mut run = Run::default();
    let mut now = Uptime::default();
    let mut feed = |pod: &mut Pod, now: Uptime, event: Event| {
        let before = pod.clone();
        let actions = pod.on(now, event.clone());
        check(&before, now, &event, pod, &actions);
        let ended = |pod: &Pod| pod.services().iter().map(|service| service.ended().is_some()).collect::<Vec<_>>();
        let changed = ended(&before).into_iter().zip(ended(pod)).enumerate().filter(|(_, (before, after))| before != after);
        run.ended.extend(changed.map(|(place, _)| ServiceId(place)));
        for action in &actions {
            match action {
                Action::SendStop(service) => run.sent.push((*service, now)),
                Action::SendSecond(service, _) => run.seconds.push(*service),
                Action::Exit(code) => {
                    run.exits.push(*code);
                    run.ended_at = Some(now);
                }
                _ => {}
            }
        }
    };
    for (pause, happening) in happenings {
        let next = now + Duration::from_millis(*pause);
        while let Some(deadline) = pod.deadline().filter(|deadline| *deadline <= next) {
            now = (deadline + late).max(now);
            feed(&mut pod, now, Event::Wake);
        }
        now = next.max(now);
        // Nobody ends who does not run; but the main command may fail to start.
        let may_end = |place: usize| {
            pod.services()[place].is_running() || place == 0 && pod.phase() == Phase::Serving && !pod.services()[0].was_started()
        };
        if !matches!(happening, Happening::Ended(place, ..) if !may_end(place % setup.services())) {
            feed(&mut pod, now, event(setup, now, happening));
        }
    }
    for _ in 0..10 + 4 * setup.services() {
        let Some(deadline) = pod.deadline() else { break };
        now = (deadline + late).max(now);
        feed(&mut pod, now, Event::Wake);
    }
    (pod, run)
}

/// After the stop signal there is always a deadline, and following the deadlines ends it inside the budget, however many services there are;
/// nor does it stay when the main command has ended by itself.
pub fn it_always_ends_in_time(setup: &Setup, happenings: &[(u64, Happening)], late: Duration) {
    let timing = &setup.timing;
    let half_margin = Timing::margin(timing.grace) / 2;
    let (pod, run) = play(setup, happenings, late, |_, _, _, after, _| {
        if (after.stopped_at().is_some() || after.ended().is_some()) && after.phase() != Phase::Done {
            assert!(after.deadline().is_some(), "no deadline in {:?}", after.phase());
        }
    });
    assert!(run.exits.len() <= 1);
    let (began, most) = match (pod.stopped_at(), pod.entered().get(1)) {
        (Some(stop), _) => (stop, timing.until_kill() + half_margin),
        // What is left has a stop signal, then KILL; or the kernel delivers the last answers.
        (None, Some((_, ended))) => {
            (*ended, timing.stop_timeout.min(timing.until_kill()) + half_margin.max(Duration::from_secs(2)))
        }
        (None, None) => return,
    };
    assert_eq!(pod.phase(), Phase::Done);
    let took = run.ended_at.expect("an exit").since(began);
    // Two wakes may be late: the one that kills, and the last.
    assert!(took <= most + late * 2, "took {took:?} of {most:?}, late by {late:?}");
}

/// Each stop signal is sent at most once to one service; to the main command not before the delay, not while anything is in flight or new,
/// nor while an `--on-stop` command runs, unless time is up, somebody hurries, nobody listens or nothing can be seen.
pub fn stop_signals_are_sent_once_and_not_too_soon(setup: &Setup, happenings: &[(u64, Happening)], late: Duration) {
    let timing = &setup.timing;
    let mut blind = false;
    let mut way = Way::Wait;
    let mut on_stop_runs = false;
    let (_, run) = play(setup, happenings, late, |before, now, event, _, actions| {
        if let Event::KeepAlive(new) = event {
            way = *new;
        }
        on_stop_runs |= actions.contains(&Action::RunOnStop);
        on_stop_runs &= *event != Event::OnStopEnded;
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
            assert!(now.since(stop) >= timing.delay && now.since(stop) < timing.until_sent(), "closed too soon or too late");
            assert!(
                sample.last_arrival.filter(|_| sample.watched).is_none_or(|at| now.since(at.max(stop)) >= timing.quiet),
                "closed while new ones come"
            );
        }
        if !actions.contains(&Action::SendStop(ServiceId::MAIN)) {
            return;
        }
        assert!(waiting, "sent in {:?}", before.phase());
        let stop = before.stopped_at().expect("a stop");
        let waited = now.since(stop);
        if *event == Event::Interrupt || waited >= timing.until_sent() {
            return;
        }
        assert!(!on_stop_runs, "sent while an --on-stop command runs");
        if let Event::Traffic(Some(sample)) = event
            && sample.listening == Some(false)
            && !timing.delay_given
        {
            return;
        }
        assert!(waited >= timing.delay, "sent {waited:?} after the stop, the delay is {:?}", timing.delay);
        if blind || timing.drain == Drain::Off {
            return;
        }
        let Event::Traffic(Some(sample)) = event else { panic!("sent at {event:?} without having looked") };
        match way {
            Way::Wait => assert_eq!(sample.in_flight(), 0, "sent while busy"),
            Way::Close | Way::Fewest | Way::OwnStop => {
                assert_eq!(sample.in_flight_besides_kept(), 0, "sent while others are busy")
            }
        }
        assert!(!sample.partial, "sent though connections may be missing");
        if timing.drain == Drain::Connections {
            assert_eq!(sample.in_flight() + sample.idle, 0);
        }
        if let Some(arrival) = sample.last_arrival.filter(|_| sample.watched) {
            assert!(now.since(arrival) >= timing.quiet, "sent {:?} after an arrival", now.since(arrival));
        }
    });
    for service in (0..setup.services()).map(ServiceId) {
        assert!(run.sent.iter().filter(|(sent, _)| *sent == service).count() <= 1, "{service:?}");
        assert!(run.seconds.iter().filter(|sent| **sent == service).count() <= 1, "{service:?}");
        assert!(!run.seconds.contains(&service) || run.sent.iter().any(|(sent, _)| *sent == service), "{service:?}");
    }
}

/// The main command first, then its companions, the last one first; each when the one before has ended, or its share of the time is up.
pub fn services_are_stopped_in_order(setup: &Setup, happenings: &[(u64, Happening)], late: Duration) {
    let rank = |service: ServiceId| if service == ServiceId::MAIN { 0 } else { setup.services() - service.0 };
    let mut last: Option<(ServiceId, Uptime)> = None;
    play(setup, happenings, late, |before, now, event, after, actions| {
        for action in actions {
            let Action::SendStop(service) = action else { continue };
            assert!(after.services()[service.0].is_running(), "{service:?} does not run");
            if let Some((sooner, sent_at)) = last.filter(|_| after.stopped_at().is_some()) {
                assert!(rank(sooner) < rank(*service), "{service:?} after {sooner:?}");
                let has_ended = after.services()[sooner.0].ended().is_some();
                // Its share is at least this; less where the main command has ended by itself, and the stop timeout holds.
                let kill_at = after.stopped_at().expect("a stop or an end") + setup.timing.until_kill();
                let share = kill_at.since(sent_at) / setup.services() as u32;
                let by_itself = !after.services()[0].was_stopped();
                assert!(has_ended || by_itself || now.since(sent_at) >= share, "{sooner:?} runs, {event:?}");
            }
            last = Some((*service, now));
        }
        if before.phase() != Phase::Killing && after.phase() == Phase::Killing {
            assert!(actions.contains(&Action::KillAll));
        }
    });
}

/// The main command's code; that of the companion whose end began the shutdown, never 0; nothing else has a say.
pub fn the_exit_code_is_the_first_cause_s(setup: &Setup, happenings: &[(u64, Happening)], late: Duration) {
    let (pod, run) = play(setup, happenings, late, |_, _, _, _, _| {});
    let [code] = run.exits[..] else { return };
    match pod.began_by() {
        Some(companion) => {
            assert!(!setup.companions[companion.0 - 1], "an expendable one");
            assert_eq!(
                run.ended.iter().find(|ended| !setup.companions.get(ended.0.wrapping_sub(1)).is_some_and(|own| *own)),
                Some(&companion)
            );
            assert_eq!(code, pod.services()[companion.0].code().max(1));
        }
        None if !pod.services()[0].was_started() => assert!(matches!(code, 0 | 130), "{code}"),
        None => assert_eq!(code, pod.services()[0].code()),
    }
}

/// An early wake, a repeated stop signal and whatever follows the exit change nothing.
pub fn these_change_nothing(setup: &Setup, happenings: &[(u64, Happening)], late: Duration) {
    let mut done = None;
    play(setup, happenings, late, |before, now, event, after, actions| {
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

/// After the first INT the stop signal is sent at once, after the second SIGKILL.
pub fn int_hurries(setup: &Setup, happenings: &[(u64, Happening)]) {
    let calm: Vec<_> =
        happenings.iter().filter(|(_, happening)| matches!(happening, Happening::Traffic(_) | Happening::Stop)).collect();
    let setup = Setup { starting: false, ..setup.clone() };
    let mut pod = setup.pod();
    let mut now = Uptime::default();
    let _ = pod.on(now, Event::Stop);
    for (pause, happening) in calm {
        now = now + Duration::from_millis(*pause);
        if pod.deadline().is_some_and(|deadline| deadline <= now) || pod.phase() == Phase::Stopping {
            break;
        }
        let _ = pod.on(now, event(&setup, now, happening));
    }
    let waiting = pod.phase() != Phase::Stopping;
    let first = pod.on(now, Event::Interrupt);
    assert_eq!(first, if waiting { vec![Action::SendStop(ServiceId::MAIN)] } else { vec![] });
    assert_eq!(pod.on(now, Event::Interrupt), vec![Action::KillAll]);
}
