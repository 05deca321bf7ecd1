//! Model checks of dispatchers: every order of few threads, up to a bound of preemptions, and every value that a load may
//! see. A lost wake-up is a deadlock, which loom reports.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p vmbus-channels --release --test loom`. Each property has its mutants,
//! which take one protection away (`Mutation`) and must be found.
#![cfg(loom)]
#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "models/loom_halves.rs"]
mod halves;
#[path = "models/loom_queue.rs"]
mod queue;
#[path = "models/loom_relid.rs"]
mod relid;
#[path = "models/loom_team.rs"]
mod team;
#[path = "models/loom_timers.rs"]
mod timers;

use std::panic::{AssertUnwindSafe, catch_unwind};

use loom::model::Builder;
use vmbus_channels::dispatch::parts::{Mutant, Mutation};

/// Checks a model in all its orders.
fn check(preemptions: usize, mutation: Option<Mutation>, model: impl Fn(Mutant) + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    builder.check(move || model(Mutant::without(mutation)));
}

/// Checks that a model fails in at least one order when the protection is gone, and says so in these words.
fn finds(preemptions: usize, mutation: Mutation, words: &str, model: impl Fn(Mutant) + Send + Sync + 'static) {
    let outcome = catch_unwind(AssertUnwindSafe(|| check(preemptions, Some(mutation), model)));
    let finding = outcome.expect_err("the mutant was not noticed");
    let said = finding.downcast_ref::<String>().map(String::as_str).or(finding.downcast_ref::<&str>().copied());
    assert!(said.is_some_and(|said| said.contains(words)), "{mutation:?} ended with {said:?}");
}
