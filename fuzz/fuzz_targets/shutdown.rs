//! The shutdown machine: any events at any time, a loop that is late. It ends inside its budget, always.
#![no_main]

use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lameduck::core::shutdown::{Drain, Timing};
use lameduck::core::traffic::keepalive::Way;
use lameduck::core::traffic::{KeptAlive, Sample};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/machine/play.rs"]
mod play;

use play::Happening;

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
    Ok(match u.int_in_range(0..=15)? {
        0 => Happening::Flushed,
        1 => Happening::Gone,
        2 => Happening::Interrupt,
        3 => Happening::MainEnded(u.arbitrary()?),
        4 | 5 => Happening::Stop,
        6 => Happening::Told(u.arbitrary()?),
        7 => Happening::Traffic(None),
        8 => Happening::Refused,
        9 => Happening::KeepAlive(*u.choose(&[Way::Close, Way::Fewest, Way::OwnStop, Way::Wait])?),
        _ => Happening::Traffic(Some(sample(u)?)),
    })
}

fn play(u: &mut Unstructured) -> Result<()> {
    let timing = timing(u)?;
    let latest = *u.choose(&[0, 0, 10, 5000])?;
    let late = millis(u, latest)?;
    let mut happenings = Vec::new();
    while !u.is_empty() && happenings.len() < 200 {
        let pause = *u.choose(&[0, 1, 100, 4000, timing.grace.as_millis() as u64])?;
        happenings.push((u.int_in_range(0..=pause)?, happening(u)?));
    }
    play::it_always_ends_in_time(&timing, &happenings, late);
    play::the_app_is_told_once_and_not_too_soon(&timing, &happenings, late);
    play::these_change_nothing(&timing, &happenings, late);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are over end the play.
    let _ = play(&mut Unstructured::new(bytes));
});
