//! Seeded schedules: model host, dispatchers and applications around the core, in one thread, with faults.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-channels --test schedule` runs that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-channels --test schedule -- --nocapture` runs one and prints all that happened.

#[expect(dead_code, reason = "other tests use the rest of the model")]
mod control_model;

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
    let (mut offers, mut released, mut opened, mut severed) = (0, 0, 0, 0);
    for seed in first..first + seeds {
        match world::run(seed, STEPS, false) {
            Ok(world) => {
                let counters = world.core.counters();
                offers += counters.offers;
                released += counters.released;
                severed += counters.severed;
                opened += counters.opened;
            }
            Err(_) => {
                let what = world::run(seed, STEPS, true).err().unwrap_or_default();
                panic!("{what}\nreplay with VMBUS_SEED={seed}");
            }
        }
    }
    println!("{seeds} seeds: {offers} offers, {released} released, {severed} with their connection, {opened} opened");
    assert_eq!(offers, released + severed, "every offer ended once");
    assert!(opened > seeds, "the schedules open channels at all: {opened}");
}
