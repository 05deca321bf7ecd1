//! Seeded schedules: model host, dispatchers and applications around the core, in one thread, with faults.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-channels --test schedule` runs that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-channels --test schedule -- --nocapture` runs one and prints all that happened.

mod control_model;

use std::collections::BTreeMap;

use control_model::world;

/// Things that happen in one seed's life.
const STEPS: usize = 300;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Breaks under each of the mutations in `control::tests::mutants`; the seed of a failure is in its message.
#[test]
fn random_lives_break_no_rule() {
    if let Some(seed) = number("VMBUS_SEED") {
        let world = world::run(seed, STEPS, true).unwrap_or_else(|what| panic!("{what}"));
        println!("{}", world.trace.unwrap_or_default().join("\n"));
        return;
    }
    let seeds = number("VMBUS_SEEDS").unwrap_or(3000);
    let first = number("VMBUS_FIRST_SEED").unwrap_or(0);
    let mut sums = BTreeMap::new();
    for seed in first..first + seeds {
        match world::run(seed, STEPS, false) {
            Ok(world) => {
                for (name, count) in world.core.counters().each() {
                    *sums.entry(name).or_insert(0) += count;
                }
            }
            Err(_) => {
                let what = world::run(seed, STEPS, true).err().unwrap_or_default();
                panic!("{what}\nreplay with VMBUS_SEED={seed}");
            }
        }
    }
    println!("{seeds} seeds: {sums:?}");
    assert_eq!(sums["offers"], sums["released"] + sums["severed"], "every offer ended once");
    // A world in which something never happens proves nothing about it. No line is logged here, and no class refused.
    let never: Vec<_> = sums.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert!(
        seeds < 1000 || never == ["failed_offers", "suppressed_lines", "unwanted_offers"],
        "never happened: {never:?}"
    );
}
