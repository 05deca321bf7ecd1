//! Each protection taken away once: the ghost has to notice within a bounded number of random lives.

use super::control_model::world::World;
use crate::mutation::{self, Mutation};

const STEPS: usize = 300;

/// Whether some seed's life breaks a rule; which, and how. Blind: by what shows outside.
fn caught(seeds: u64, blind: bool) -> Option<String> {
    (0..seeds).find_map(|seed| {
        let mut world = World::new(seed, false);
        world.ghost.blind = blind;
        world.run(STEPS).err()
    })
}

fn assert_caught(mutation: Mutation, by: &str) {
    // A timer that is left over does nothing but take room until it expires.
    let blind = mutation != Mutation::LeakTimer;
    let what =
        mutation::with(mutation, || caught(2000, blind)).unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
    assert!(what.contains(by), "{mutation:?} is noticed as {what:?}, not as {by:?}");
}

#[test]
fn sound_lives_break_no_rule() {
    assert_eq!(caught(200, false), None);
}

macro_rules! mutants {
    ($($name:ident: $mutation:ident, $by:literal;)*) => {
        $(#[test]
        fn $name() {
            assert_caught(Mutation::$mutation, $by);
        })*
    };
}

mutants! {
    double_release: DoubleRelease, "released, and not the guest's";
    release_before_the_last_reference: ReleaseBeforeUnreferenced, "torn down wrongly";
    release_before_the_dispatcher_let_go: ReleaseBeforeRetired, "torn down wrongly";
    failed_offer_is_not_given_back: ForgetFailedOffer, "neither there nor released";
    failed_announcement_is_forgotten: ForgetFailedAnnouncement, "not released";
    rescind_keeps_waits: RescindKeepsWaits, "wait";
    rescind_while_closing_is_forgotten: RescindForgetsClosing, "gone";
    name_is_used_again: ReuseGeneration, "a name is used again";
    memory_is_freed_on_a_timeout: FreeOnTimeout, "memory freed that the host reaches";
    answer_is_matched_by_relid_alone: MatchByRelidOnly, "that the host has not opened";
    posts_after_the_loss: PostAfterLost, "posted";
    answered_twice: AnswerTwice, "answered twice";
    slot_is_leaked: LeakSlot, "relid";
    timer_is_leaked: LeakTimer, "timers run";
}
