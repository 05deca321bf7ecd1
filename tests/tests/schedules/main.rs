//! Deterministic schedules: the control core and the simulated host in one thread, under a seeded scheduler.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-tests --test schedules` plays that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-tests --test schedules -- --nocapture` plays one, and prints every message, input and
//! action. Even seeds are without faults: then the host's checker judges, too.

mod end;
#[path = "../../../channels/tests/control_model/ghost.rs"]
mod ghost;
mod pages;
mod plan;
#[path = "../../../channels/tests/control_model/posts.rs"]
mod posts;
#[path = "../../../channels/tests/control_model/random.rs"]
mod random;
#[path = "../../../channels/tests/control_model/settle.rs"]
mod settle;
mod transit;
mod turns;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use vmbus_channels::mutation::{self, Mutation};

use world::{Judge, World};

/// Turns of one seed's life.
const TURNS: usize = 250;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Plays one seed. An error is what went wrong, behind the story if that is wanted.
fn play(seed: u64, judge: Judge, traced: bool) -> Result<World, String> {
    let mut world = World::new(seed, judge, traced);
    let played = catch_unwind(AssertUnwindSafe(|| world.run(TURNS)));
    let verdict = played.unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(format!("a panic: {}", words.unwrap_or_default()))
    });
    verdict.map_err(|what| format!("{}\nseed {seed}: {what}", world.story()))?;
    Ok(world)
}

/// The seed of a failure is in its message. What makes it fail is in `taken_away` below.
#[test]
fn no_schedule_breaks_a_rule() {
    if let Some(seed) = number("VMBUS_SEED") {
        let mut world = play(seed, Judge::Both, true).unwrap_or_else(|what| panic!("{what}"));
        println!("{}", world.story());
        return;
    }
    let seeds = number("VMBUS_SEEDS").unwrap_or(400);
    let first = number("VMBUS_FIRST_SEED").unwrap_or(0);
    let sums = play_all(first..first + seeds).unwrap_or_else(|what| panic!("{what}"));
    println!("{seeds} seeds: {sums:?}");
    assert_eq!(sums["offers"], sums["released"] + sums["severed"], "every offer ended once");
    // A world in which something never happens proves nothing about it.
    let never: Vec<_> = sums.iter().filter(|(_, count)| **count == 0).map(|(name, _)| *name).collect();
    assert!(seeds < 1000 || never == ["failed_offers", "suppressed_lines"], "never happened: {never:?}");
}

/// Plays all these seeds, on every processor there is; the sums of what was counted. An error is the story of one.
fn play_all(seeds: Range<u64>) -> Result<BTreeMap<&'static str, u64>, String> {
    let next = AtomicU64::new(seeds.start);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let some = || {
        let mut sums = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return Ok(sums);
            }
            let world = play(seed, Judge::Both, false).map_err(|_| {
                next.store(seeds.end, Ordering::Relaxed);
                seed
            })?;
            for (name, count) in world.core.counters().each() {
                *sums.entry(name).or_insert(0) += count;
            }
        }
    };
    let ends: Vec<Result<_, u64>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(some)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(u64::MAX))).collect()
    });
    if let Some(seed) = ends.iter().filter_map(|end| end.as_ref().err()).min() {
        let what = play(*seed, Judge::Both, true).err().unwrap_or_default();
        let again = "cargo test -p vmbus-tests --test schedules -- --nocapture";
        return Err(format!("{what}\nplay it again: VMBUS_SEED={seed} {again}"));
    }
    let mut sums = BTreeMap::new();
    for (name, count) in ends.into_iter().flatten().flatten() {
        *sums.entry(name).or_insert(0) += count;
    }
    Ok(sums)
}

#[test]
fn a_seed_is_the_same_each_time() {
    for seed in 0..20 {
        let digests = [(), ()].map(|()| play(seed, Judge::Both, false).map(|world| world.digest()));
        let [first, second] = digests;
        assert!(first.is_ok() && first == second, "seed {seed}: {first:?}, then {second:?}");
    }
}

/// How the first of so many seeds notices that the protection is taken away.
fn caught(mutation: Mutation, judge: Judge, seeds: u64) -> Option<String> {
    mutation::with(mutation, || (0..seeds).find_map(|seed| play(seed, judge, false).err()))
}

macro_rules! taken_away {
    ($($name:ident: $mutation:ident, $judge:ident, $seeds:literal;)*) => {
        $(#[test]
        fn $name() {
            let what = caught(Mutation::$mutation, Judge::$judge, $seeds);
            println!("{}", what.expect(concat!(stringify!($mutation), " goes unnoticed")));
        })*
    };
}

taken_away! {
    released_twice: DoubleRelease, Both, 100;
    released_twice_as_the_host_sees_it: DoubleRelease, Host, 100;
    released_in_use: ReleaseBeforeUnreferenced, Both, 100;
    rescind_keeps_waits: RescindKeepsWaits, Both, 200;
    memory_is_freed_on_a_timeout: FreeOnTimeout, Both, 200;
    memory_is_freed_on_a_timeout_as_the_host_sees_it: FreeOnTimeout, Host, 400;
    answered_twice: AnswerTwice, Both, 400;
    failed_announcement_is_forgotten_as_the_host_sees_it: ForgetFailedAnnouncement, Host, 400;
}
