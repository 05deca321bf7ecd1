//! The whole registry under shuttle: random orders of up to three devices that come and go, two drivers that are
//! registered and unregistered, and somebody who uses what a driver left lying about.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p vmbus-devices --test registry_shuttle`. A failure prints its
//! seed; `VMBUS_SEED=N` replays that one alone. Each mutant must be caught within the seeds that pass without it.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, reason = "tests")]

mod oracle;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use oracle::Oracle;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use vmbus_devices::registry::mutation::Mutation;

/// Seeds that must pass, and among which each mutant must be caught.
const SEEDS: u64 = 1500;

fn scenario(without: Option<Mutation>) {
    let watched = Arc::new(Oracle::default());
    oracle::run(&watched, without);
    let violations = watched.violations();
    assert!(violations.is_empty(), "{violations:?}");
}

fn config() -> Config {
    let mut config = Config::new();
    config.failure_persistence = shuttle::FailurePersistence::None;
    config.stack_size = 0x20000;
    config
}

/// One schedule and one course of events, both made from the seed.
fn run(seed: u64, without: Option<Mutation>) {
    // Every other seed has few changes of thread, at the worst moments; the others have many.
    if seed % 2 == 0 {
        Runner::new(RandomScheduler::new_from_seed(seed, 1), config()).run(move || scenario(without));
    } else {
        Runner::new(PctScheduler::new_from_seed(seed, 3, 1), config()).run(move || scenario(without));
    }
}

fn is_caught(mutation: Mutation) -> bool {
    let seed = (0..SEEDS).find(|seed| catch_unwind(AssertUnwindSafe(|| run(*seed, Some(mutation)))).is_err());
    println!("{mutation:?} is caught by seed {seed:?}");
    seed.is_some()
}

#[test]
fn r4_1_to_r4_5_in_random_orders() {
    let only = std::env::var("VMBUS_SEED").ok().map(|seed| seed.parse::<u64>().unwrap());
    let fresh = u64::from(std::process::id()) << 32;
    let seeds = only.map_or_else(|| (0..SEEDS).chain(fresh..fresh + SEEDS / 3).collect(), |seed| vec![seed]);
    for seed in seeds {
        if let Err(panic) = catch_unwind(|| run(seed, None)) {
            println!("VMBUS_SEED={seed} shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! mutants {
    ($($name:ident: $mutation:ident,)*) => {
        $(#[test]
        fn $name() {
            assert!(is_caught(Mutation::$mutation));
        })*
    };
}

mutants! {
    r4_1_mutant_skip_drain_is_caught: SkipDrain,
    r4_1_mutant_remove_while_working_is_caught: RemoveWhileWorking,
    r4_1_mutant_run_discarded_is_caught: RunDiscarded,
    r4_2_mutant_reference_keeps_operable_is_caught: ReferenceKeepsOperable,
    r4_3_mutant_call_on_executor_is_caught: CallOnExecutor,
    r4_4_mutant_claim_twice_is_caught: ClaimTwice,
    r4_5_mutant_wait_in_callback_is_caught: WaitInCallback,
    mutant_probe_before_removed_is_caught: ProbeBeforeRemoved,
    mutant_probe_departed_is_caught: ProbeDeparted,
    mutant_clear_wake_up_late_is_caught: ClearWakeUpLate,
}
