//! The shutdown of any pod: any events at any time, a loop that is late. It ends inside its budget, always.
#![no_main]

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lameduck::core::shutdown::{Drain, Timing};
use lameduck::core::traffic::keepalive::Way;
use lameduck::core::traffic::{KeptAlive, Sample};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/machine/play.rs"]
mod play;

use play::{Happening, Setup};

fn millis(u: &mut Unstructured, most: u64) -> Result<Duration> {
    u.int_in_range(0..=most).map(Duration::from_millis)
}

/// What `plan` lets through: it fits, whatever was asked for; up to a year.
fn timing(u: &mut Unstructured) -> Result<Timing> {
    let most = *u.choose(&[2000, 30_000, 120_000, 365 * 86_400_000])?;
    let grace = Duration::from_millis(u.int_in_range(1000..=most)?);
    let room = grace.saturating_sub(Timing::margin(grace));
    let stop_timeout = millis(u, room.as_millis() as u64)?;
    let delay = millis(u, room.saturating_sub(stop_timeout).as_millis() as u64)?;
    Ok(Timing {
        grace,
        delay,
        delay_given: u.arbitrary()?,
        quiet: millis(u, most)?,
        stop_timeout,
        idle_after: millis(u, most)?,
        drain: *u.choose(&[Drain::Requests, Drain::Connections, Drain::Off])?,
    })
}

fn sample(u: &mut Unstructured) -> Result<(Sample, Option<u64>)> {
    let mut count = || u.int_in_range(0..=3usize).map(|count| count.saturating_sub(1));
    let (busy, cooling, idle, queued) = (count()?, count()?, count()?, count()?);
    let listening = *u.choose(&[Some(true), Some(true), None, Some(false)])?;
    let (kept_busy, kept_cooling) = (u.int_in_range(0..=busy)?, u.int_in_range(0..=cooling)?);
    let kept = KeptAlive {
        open: kept_busy + kept_cooling + u.int_in_range(0..=2usize)?,
        busy: kept_busy,
        cooling: kept_cooling,
        closed_at: None,
    };
    let sample = Sample {
        busy,
        cooling,
        idle,
        queued,
        kept,
        listening,
        watched: u.arbitrary()?,
        partial: u.ratio(1, 8)?,
        ..Sample::default()
    };
    Ok((sample, if u.arbitrary()? { Some(u.int_in_range(0..=6000)?) } else { None }))
}

fn happening(u: &mut Unstructured) -> Result<Happening> {
    let service = u.int_in_range(0..=4usize)?;
    Ok(match u.int_in_range(0..=18)? {
        0 => Happening::Flushed,
        1 => Happening::Gone,
        2 => Happening::Interrupt,
        3 | 4 => Happening::Ended(service, *u.choose(&[0, 3, 143])?, u.ratio(1, 4)?),
        5 | 6 => Happening::Stop,
        7 => Happening::StopSent(service, u.arbitrary()?),
        8 => Happening::Traffic(None),
        9 => Happening::Refused,
        10 => Happening::KeepAlive(*u.choose(&[Way::Close, Way::Fewest, Way::OwnStop, Way::Wait])?),
        11 => Happening::Leftovers(service, u.arbitrary()?),
        12 => Happening::Reaped,
        13 => Happening::OnStopEnded,
        _ => Happening::Traffic(Some(sample(u)?)),
    })
}

fn play(u: &mut Unstructured) -> Result<()> {
    let setup = Setup {
        timing: timing(u)?,
        companions: (0..u.int_in_range(0..=4)?).map(|_| u.arbitrary()).collect::<Result<_>>()?,
        starting: u.ratio(1, 4)?,
        on_stop: u.arbitrary()?,
    };
    let latest = *u.choose(&[0, 0, 10, 5000])?;
    let late = millis(u, latest)?;
    let mut happenings = Vec::new();
    while !u.is_empty() && happenings.len() < 200 {
        let pause = *u.choose(&[0, 1, 100, 4000, setup.timing.grace.as_millis() as u64])?;
        happenings.push((u.int_in_range(0..=pause)?, happening(u)?));
    }
    play::it_always_ends_in_time(&setup, &happenings, late);
    play::stop_signals_are_sent_once_and_not_too_soon(&setup, &happenings, late);
    play::services_are_stopped_in_order(&setup, &happenings, late);
    play::the_exit_code_is_the_first_cause_s(&setup, &happenings, late);
    play::these_change_nothing(&setup, &happenings, late);
    play::int_hurries(&setup, &happenings);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are over end the play.
    let _ = play(&mut Unstructured::new(bytes));
});
