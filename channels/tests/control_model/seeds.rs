//! Many seeds on every processor there is, or one seed with its story.
//!
//! `VMBUS_SEED` plays that one and prints what happened; `VMBUS_SEEDS` says how many, `VMBUS_FIRST_SEED` from where.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use vmbus_channels::control::Counters;

/// How often each thing happened, by its name.
pub(crate) type Sums = BTreeMap<&'static str, u64>;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays what the environment asks for, `seeds` lives if it says nothing, and gives what is to be printed; or says what
/// went wrong. `play` gets a seed and whether its story is wanted. Things named in `rare` need never happen.
pub(crate) fn test<P>(seeds: u64, rare: &[&str], play: P) -> Result<String, String>
where
    P: Fn(u64, bool) -> Result<(Counters, String), String> + Sync,
{
    if let Some(seed) = number("VMBUS_SEED") {
        return play(seed, true).map(|(_, story)| story);
    }
    let seeds = number("VMBUS_SEEDS").unwrap_or(seeds);
    let first = number("VMBUS_FIRST_SEED").unwrap_or(0);
    let sums = play_all(first..first + seeds, play)?;
    let [offers, released, severed] =
        ["offers", "released", "severed"].map(|name| sums.get(name).copied().unwrap_or_default());
    if offers == 0 || offers != released + severed {
        return Err(format!("not every offer ended once: {sums:?}"));
    }
    // A world in which something never happens proves nothing about it.
    let never: Vec<_> = sums.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    if seeds >= 1000 && never != rare {
        return Err(format!("never happened: {never:?}"));
    }
    Ok(format!("{seeds} seeds: {sums:?}"))
}

/// The sums over all these seeds. An error is the story of the first that breaks a rule, of those that were played.
fn play_all<P>(seeds: Range<u64>, play: P) -> Result<Sums, String>
where
    P: Fn(u64, bool) -> Result<(Counters, String), String> + Sync,
{
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let some = || {
        let mut sums = Sums::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return Ok(sums);
            }
            let (counters, _) = play(seed, false).map_err(|_| {
                next.store(seeds.end, Ordering::Relaxed);
                seed
            })?;
            add(&mut sums, counters.each());
        }
    };
    let ends: Vec<Result<Sums, u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(u64::MAX))).collect()
    });
    if let Some(seed) = ends.iter().filter_map(|end| end.as_ref().err()).min() {
        let what = play(*seed, true).err().unwrap_or_default();
        return Err(format!("{what}\nplay it again with VMBUS_SEED={seed} and --nocapture"));
    }
    let mut sums = Sums::new();
    ends.into_iter().flatten().for_each(|end| add(&mut sums, end.into_iter()));
    Ok(sums)
}

fn add(sums: &mut Sums, counted: impl Iterator<Item = (&'static str, u64)>) {
    for (name, count) in counted {
        *sums.entry(name).or_insert(0) += count;
    }
}
