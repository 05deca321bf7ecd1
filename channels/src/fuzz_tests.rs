//! What the fuzz targets run, over random scripts; and that it notices when a protection is taken away.

#[expect(unreachable_pub, reason = "it is public where the fuzz targets have it")]
#[path = "../fuzz/src/completions.rs"]
mod completions;
#[expect(unreachable_pub, reason = "it is public where the fuzz targets have it")]
#[path = "../fuzz/src/executor/mod.rs"]
mod executor;

use std::panic::catch_unwind;

use crate::mutation::{self, Mutation, OfferStep};

/// Scripts of a sound run.
const SCRIPTS: u64 = 1_000;
/// Scripts after which a mutant that is still alive has not been noticed.
const MUTANT_SCRIPTS: u64 = 20_000;

/// A script that one number decides (splitmix64).
fn script(seed: u64) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31).to_le_bytes()
    };
    // Every other one begins connected, with a version that varies.
    let length = 40 + seed % 150;
    std::iter::once((seed % 64).to_le_bytes()).chain((0..length).map(|_| next())).flatten().collect()
}

/// What broke with this seed, if something did.
fn finding(seed: u64) -> Option<String> {
    let caught = catch_unwind(|| executor::drive(&script(seed))).err()?;
    let text = caught.downcast_ref::<String>().cloned();
    Some(text.or_else(|| caught.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
}

#[test]
fn nothing_breaks_whatever_everybody_says() {
    for seed in 0..SCRIPTS {
        executor::drive(&script(seed));
    }
}

/// (Leave the generation out of the look-up, and a late completion is taken for a new request's.)
#[test]
fn completions_name_what_waits_or_nothing() {
    (0..SCRIPTS).for_each(|seed| completions::drive(&script(seed)));
}

/// A step of offer handling that always fails leaves nothing behind either.
#[test]
fn nothing_breaks_while_offers_fail() {
    for step in OfferStep::ALL {
        mutation::failing(step, || (0..SCRIPTS / 10).for_each(|seed| executor::drive(&script(seed))));
    }
}

/// Each protection that is taken away is noticed, by the first of so many scripts. Where offers must fail for it, they do.
#[test]
fn each_protection_is_missed() {
    let at = Some(OfferStep::Relid);
    for (mutation, failing) in [
        (Mutation::DoubleRelease, None),
        (Mutation::ReleaseBeforeUnreferenced, None),
        (Mutation::ReleaseBeforeRetired, None),
        (Mutation::ForgetFailedOffer, at),
        (Mutation::ForgetFailedAnnouncement, None),
        (Mutation::RescindKeepsWaits, None),
        (Mutation::RescindForgetsClosing, None),
        (Mutation::ReuseGeneration, None),
        (Mutation::VisibleBeforeBuilt, at),
        (Mutation::KeepHalfBuilt, at),
        (Mutation::FreeOnTimeout, None),
        (Mutation::MatchByRelidOnly, None),
        (Mutation::PostAfterLost, None),
        (Mutation::AnswerTwice, None),
        (Mutation::LeakSlot, None),
        (Mutation::LeakTimer, None),
    ] {
        let drive = |seed| match failing {
            Some(step) => mutation::failing(step, || finding(seed)),
            None => finding(seed),
        };
        // Noticed is what breaks with the mutation, and not without.
        let noticed = |seed: &u64| mutation::with(mutation, || drive(*seed)).is_some() && drive(*seed).is_none();
        assert!((0..MUTANT_SCRIPTS).any(|seed| noticed(&seed)), "{mutation:?}: alive after {MUTANT_SCRIPTS} scripts");
    }
}
