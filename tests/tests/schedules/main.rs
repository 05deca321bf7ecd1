//! Deterministic schedules: the control core and the simulated host in one thread, under a seeded scheduler.
//!
//! `VMBUS_SEEDS=100000 cargo test --release -p vmbus-tests --test schedules` plays that many seeds;
//! `VMBUS_SEED=7 cargo test -p vmbus-tests --test schedules -- --nocapture` plays one, and prints every message, input and
//! action. Even seeds are without faults: then the host's checker judges, too.

#[path = "../../../channels/tests/control_model/applications.rs"]
mod applications;
mod end;
#[path = "../../../channels/tests/control_model/ghost.rs"]
mod ghost;
mod pages;
mod plan;
#[path = "../../../channels/tests/control_model/posts.rs"]
mod posts;
#[path = "../../../channels/tests/control_model/random.rs"]
mod random;
#[path = "../../../channels/tests/control_model/seeds.rs"]
mod seeds;
#[path = "../../../channels/tests/control_model/settle.rs"]
mod settle;
mod transit;
mod turns;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use vmbus_channels::mutation::{self, Mutation};

use world::{Judge, World};

/// Turns of one seed's life.
const TURNS: usize = 250;

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
    let played = seeds::test(400, &["failed_offers", "suppressed_lines"], |seed, traced| {
        let mut world = play(seed, Judge::Both, traced)?;
        Ok((world.core.counters(), world.story()))
    });
    println!("{}", played.unwrap_or_else(|what| panic!("{what}")));
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
    released_before_the_dispatcher_let_go: ReleaseBeforeRetired, Both, 200;
    failed_offer_is_not_given_back: ForgetFailedOffer, Both, 200;
    rescind_while_closing_is_forgotten: RescindForgetsClosing, Both, 200;
    name_is_used_again: ReuseGeneration, Both, 200;
    answer_is_matched_by_relid_alone: MatchByRelidOnly, Both, 1000;
    posts_after_the_loss: PostAfterLost, Both, 400;
    slot_is_leaked: LeakSlot, Both, 200;
    timer_is_leaked: LeakTimer, Both, 200;
    failed_announcement_is_forgotten_as_the_host_sees_it: ForgetFailedAnnouncement, Host, 400;
}
