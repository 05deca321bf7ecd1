//! Each protection taken away once: the ghost has to notice within a bounded number of random lives.

use super::control_model::world;
use crate::mutation::{self, Mutation};

const STEPS: usize = 300;

/// Whether some seed's life breaks a rule; which, and how.
fn caught(seeds: u64) -> Option<String> {
    (0..seeds).find_map(|seed| world::run(seed, STEPS, false).err())
}

fn assert_caught(mutation: Mutation, by: &str) {
    let what = mutation::with(mutation, || caught(2000)).unwrap_or_else(|| panic!("{mutation:?} goes unnoticed"));
    assert!(what.contains(by), "{mutation:?} is noticed as {what:?}, not as {by:?}");
}

#[test]
fn sound_lives_break_no_rule() {
    assert_eq!(caught(200), None);
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
    release_before_the_last_reference: ReleaseBeforeUnreferenced, "";
    release_before_the_dispatcher_let_go: ReleaseBeforeRetired, "";
    failed_offer_is_not_given_back: ForgetFailedOffer, "neither there nor released";
    failed_announcement_is_forgotten: ForgetFailedAnnouncement, "not released";
    rescind_keeps_waits: RescindKeepsWaits, "";
    rescind_while_closing_is_forgotten: RescindForgetsClosing, "gone";
    name_is_used_again: ReuseGeneration, "a name is used again";
    memory_is_freed_on_a_timeout: FreeOnTimeout, "";
    answer_is_matched_by_relid_alone: MatchByRelidOnly, "";
    posts_after_the_loss: PostAfterLost, "posted";
    answered_twice: AnswerTwice, "answered twice";
    slot_is_leaked: LeakSlot, "";
    timer_is_leaked: LeakTimer, "timers run";
}
