//! Seeded schedules: model host, dispatchers and applications around the core, in one thread, with faults.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-channels --test schedule` runs that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-channels --test schedule -- --nocapture` runs one and prints all that happened.

mod control_model;
#[path = "control_model/seeds.rs"]
mod seeds;

use control_model::world::World;
use vmbus_channels::control::Counters;

/// Things that happen in one seed's life.
const STEPS: usize = 300;

/// Runs one seed. An error has the trace in it if wanted.
fn run(seed: u64, traced: bool) -> Result<(Counters, String), String> {
    let mut world = World::new(seed, traced);
    let lived = world.run(STEPS);
    let trace = world.trace.take().unwrap_or_default().join("\n");
    match lived {
        Ok(()) => Ok((world.core.counters(), trace)),
        Err(what) => Err(format!("{trace}\nseed {seed}: {what}")),
    }
}

/// Breaks under each of the mutations in `control::tests::mutants`; the seed of a failure is in its message. No line is
/// logged here, and no class refused.
#[test]
fn random_lives_break_no_rule() {
    let played = seeds::test(3000, &["failed_offers", "suppressed_lines", "unwanted_offers"], run);
    println!("{}", played.unwrap_or_else(|what| panic!("{what}")));
}
