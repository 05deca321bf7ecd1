//! Seeded schedules: model host, dispatchers and applications around the core, in one thread, with faults.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-channels --test schedule` runs that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-channels --test schedule -- --nocapture` runs one and prints all that happened.

mod control_model;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use control_model::world::World;

/// Things that happen in one seed's life.
const STEPS: usize = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs one seed. An error has the trace in it if wanted.
fn run(seed: u64, traced: bool) -> Result<World, String> {
    let mut world = World::new(seed, traced);
    match world.run(STEPS) {
        Ok(()) => Ok(world),
        Err(what) => {
            let trace = world.trace.take().unwrap_or_default().join("\n");
            Err(format!("{trace}\nseed {seed}: {what}"))
        }
    }
}

/// Breaks under each of the mutations in `control::tests::mutants`; the seed of a failure is in its message.
#[test]
fn random_lives_break_no_rule() {
    if let Some(seed) = number("VMBUS_SEED") {
        let world = run(seed, true).unwrap_or_else(|what| panic!("{what}"));
        println!("{}", world.trace.unwrap_or_default().join("\n"));
        return;
    }
    let seeds = number("VMBUS_SEEDS").unwrap_or(3000);
    let first = number("VMBUS_FIRST_SEED").unwrap_or(0);
    let sums = live(first..first + seeds).unwrap_or_else(|what| panic!("{what}"));
    println!("{seeds} seeds: {sums:?}");
    assert_eq!(sums["offers"], sums["released"] + sums["severed"], "every offer ended once");
    // A world in which something never happens proves nothing about it. No line is logged here, and no class refused.
    let never: Vec<_> = sums.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert!(
        seeds < 1000 || never == ["failed_offers", "suppressed_lines", "unwanted_offers"],
        "never happened: {never:?}"
    );
}

/// Lives through all these seeds, on every processor there is; the sums of what was counted. An error is the trace
/// of one that breaks a rule.
fn live(seeds: Range<u64>) -> Result<BTreeMap<&'static str, u64>, String> {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let one = || {
        let mut sums = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return Ok(sums);
            }
            let world = run(seed, false).map_err(|_| seed)?;
            for (name, count) in world.core.counters().each() {
                *sums.entry(name).or_insert(0) += count;
            }
        }
    };
    let ends: Vec<Result<_, u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(u64::MAX))).collect()
    });
    if let Some(seed) = ends.iter().filter_map(|end| end.as_ref().err()).min() {
        let what = run(*seed, true).err().unwrap_or_default();
        return Err(format!("{what}\nreplay with VMBUS_SEED={seed}"));
    }
    let mut sums = BTreeMap::new();
    for (name, count) in ends.into_iter().flatten().flatten() {
        *sums.entry(name).or_insert(0) += count;
    }
    Ok(sums)
}
