//! Three channels, two dispatchers, a host and an executor in random orders: offer, open, event, move, close, rescind.
//!
//! Run with `RUSTFLAGS="--cfg shuttle" cargo test -p vmbus-channels --release --test shuttle`. A failure prints its seed;
//! `SHUTTLE_RANDOM_SEED=<seed>` replays it. Each protection taken away (`Mutation`) must be found.
#![cfg(shuttle)]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

#[path = "models/shuttle_host.rs"]
mod host;

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::scheduler::PctScheduler;
use shuttle::{Config, Runner};
use vmbus_channels::dispatch::parts::Mutation;

/// Schedules of each kind per run; a new seed each time, which is printed.
const SCHEDULES: usize = 10_000;

/// Preemptions in each schedule of the second kind.
const PREEMPTIONS: usize = 4;

fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

fn check(seed: u64, schedules: usize, mutation: Option<Mutation>, timed: bool) {
    shuttle::check_random_with_seed(move || host::run(mutation, timed), seed, schedules);
    // Few preemptions at random points, and otherwise by priority: finds what needs one thread to be very late.
    let scheduler = PctScheduler::new_from_seed(seed, PREEMPTIONS, schedules);
    Runner::new(scheduler, Config::default()).run(move || host::run(mutation, timed));
}

#[test]
fn r1_channels_come_and_go_and_move_in_random_orders() {
    let seed = fresh_seed();
    println!("seed {seed}, {SCHEDULES} schedules");
    check(seed, SCHEDULES, None, false);
}

/// The same while time passes: nobody is called early or behind its retirement, and nobody is forgotten, wherever it is.
#[test]
fn r5_2_timers_go_where_their_channels_go() {
    let (seed, schedules) = (fresh_seed(), SCHEDULES / 4);
    println!("seed {seed}, {schedules} schedules");
    check(seed, schedules, None, true);
}

/// The mutants are found with a fixed seed, so that a run says the same each time.
fn finds(mutation: Mutation, words: &str) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(1, SCHEDULES, Some(mutation), false)));
    let finding = outcome.expect_err("the mutant was not noticed");
    let said = finding.downcast_ref::<String>().map(String::as_str).or(finding.downcast_ref::<&str>().copied());
    assert!(said.is_some_and(|said| said.contains(words)), "{mutation:?} ended with {said:?}");
}

#[test]
fn r1_6_flags_must_be_taken_at_retirement() {
    finds(Mutation::FlagKept, "more events than");
}

#[test]
fn r1_6_events_under_way_must_carry_the_generation() {
    finds(Mutation::GenerationIgnored, "more events than");
}

#[test]
fn r1_5_the_answer_must_come_last() {
    finds(Mutation::AnsweredEarly, "although its retirement was answered");
}

#[test]
fn r1_8_the_marker_is_needed() {
    finds(Mutation::NoMarker, "deadlock");
}

#[test]
fn r1_8_the_look_at_the_end_of_the_marker_is_needed() {
    finds(Mutation::MarkerDropsFlag, "deadlock");
}

#[test]
fn r1_8_the_look_on_arrival_is_needed() {
    finds(Mutation::NoLook, "deadlock");
}
