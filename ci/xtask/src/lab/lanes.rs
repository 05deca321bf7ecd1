//! Plays rounds side by side: each lane takes the next round that nobody has begun, and has one guest at a time.

use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use anyhow::Result;

use super::Options;
use super::boot::Nursery;
use super::choose::Chosen;
use super::guest::Guest;
use super::report::Report;
use super::runner::{self, Outcome, Round};

/// More lanes are of no use: the longest scenario takes a quarter of the whole time.
const LANES_AT_MOST: usize = 4;

/// Plays all rounds; gives back the last guest if it is to be kept.
///
/// # Errors
/// This process was interrupted, or something around the guests failed. What was played is in the report all the same.
pub(super) fn play(
    options: &Options,
    nursery: &Nursery,
    chosen: &[Chosen],
    report: &mut Report,
) -> Result<Option<Guest>> {
    let mut there = Vec::new();
    for (scenario, kernel) in chosen {
        match nursery.software.kernel(*kernel) {
            Ok(_) => there.push((*scenario, *kernel)),
            Err(why) => report.outcomes.push(Outcome::skipped(scenario, *kernel, why)),
        }
    }
    for time in 1..=options.repeat {
        let mut rounds = runner::rounds(&there);
        if options.repeat > 1 {
            rounds.iter_mut().for_each(|round| round.name = format!("{time}-{}", round.name));
        }
        if options.keep {
            // The guests of a lane end with its thread.
            let last = one_by_one(nursery, &rounds, report)?;
            if last.is_some() && (time == options.repeat || !report.passed()) {
                return Ok(last);
            }
            last.map_or(Ok(()), |mut guest| power_off(nursery, &mut guest))?;
        } else {
            side_by_side(nursery, &rounds, lanes(options, rounds.len()), report)?;
        }
        if !report.passed() {
            break;
        }
    }
    Ok(None)
}

/// Plays all rounds on this thread; the guest of the last one.
fn one_by_one(nursery: &Nursery, rounds: &[Round], report: &mut Report) -> Result<Option<Guest>> {
    let mut last: Option<Guest> = None;
    for round in rounds {
        if let Some(mut guest) = last.take() {
            power_off(nursery, &mut guest)?;
        }
        last = runner::play(nursery, round, &mut report.outcomes)?;
    }
    Ok(last)
}

fn lanes(options: &Options, rounds: usize) -> usize {
    let processors = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(LANES_AT_MOST);
    options.lanes.map_or_else(processors, NonZeroUsize::get).min(rounds)
}

/// What is played how: the rounds that nobody has begun, and the outcomes of the others by the place of their round.
struct Board {
    left: Range<usize>,
    played: Vec<(usize, Vec<Outcome>)>,
}

fn side_by_side(nursery: &Nursery, rounds: &[Round], lanes: usize, report: &mut Report) -> Result<()> {
    let board = Mutex::new(Board { left: 0..rounds.len(), played: Vec::new() });
    let lock = || board.lock().unwrap_or_else(PoisonError::into_inner);
    let lane = |number: usize| -> Result<()> {
        loop {
            // From both ends, as the long ones stand together.
            let next = if number.is_multiple_of(2) { lock().left.next() } else { lock().left.next_back() };
            let Some((place, round)) = next.and_then(|place| Some((place, rounds.get(place)?))) else { return Ok(()) };
            let mut outcomes = Vec::new();
            let guest = runner::play(nursery, round, &mut outcomes);
            lock().played.push((place, outcomes));
            let ended = guest.and_then(|guest| guest.map_or(Ok(()), |mut guest| power_off(nursery, &mut guest)));
            if ended.is_err() {
                // Nothing new is begun.
                lock().left = 0..0;
                return ended;
            }
        }
    };
    let results: Vec<Result<()>> = std::thread::scope(|scope| {
        let lane = &lane;
        let lanes: Vec<_> = (0..lanes).map(|number| scope.spawn(move || lane(number))).collect();
        let ended = |lane: std::thread::ScopedJoinHandle<'_, _>| lane.join().unwrap_or_else(|_| Err(odd()));
        lanes.into_iter().map(ended).collect()
    });
    let mut played = board.into_inner().unwrap_or_else(PoisonError::into_inner).played;
    played.sort_by_key(|(place, _)| *place);
    report.outcomes.extend(played.into_iter().flat_map(|(_, outcomes)| outcomes));
    results.into_iter().collect()
}

fn odd() -> anyhow::Error {
    anyhow::anyhow!("a lane ended oddly")
}

/// Ends a guest whose scenarios are over.
fn power_off(nursery: &Nursery, guest: &mut Guest) -> Result<()> {
    if guest.resent() > 0 {
        nursery
            .progress
            .say(format!("the serial line lost {} requests or replies; they were repeated", guest.resent()));
    }
    if !guest.power_off()? {
        nursery.progress.say("the guest did not power off and was killed");
    }
    Ok(())
}
