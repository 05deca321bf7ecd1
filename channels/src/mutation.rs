//! Protections that tests can remove, to see that a checker notices.
//!
//! In an ordinary build there is nothing here but a constant `false`.

/// One protection, taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// RELID_RELEASED goes out twice.
    DoubleRelease,
    /// A rescinded channel is released although somebody holds a reference.
    ReleaseBeforeUnreferenced,
    /// A rescinded channel is released although its dispatcher may still touch it.
    ReleaseBeforeRetired,
    /// An offer whose handling failed is not given back.
    ForgetFailedOffer,
    /// A channel that could not be made visible is unlinked and forgotten.
    ForgetFailedAnnouncement,
    /// A rescind leaves the waits for the host's answers as they are.
    RescindKeepsWaits,
    /// A rescind while a channel closes is taken for the end of the close.
    RescindForgetsClosing,
    /// A slot is used again under the same name.
    ReuseGeneration,
    /// A channel is announced before it is built.
    VisibleBeforeBuilt,
    /// What was built of an offer that failed stays.
    KeepHalfBuilt,
    /// Memory is freed when a wait for the host times out.
    FreeOnTimeout,
    /// A late answer is matched by the channel's number alone.
    MatchByRelidOnly,
    /// Messages are posted although the connection is lost.
    PostAfterLost,
    /// A ticket that timed out is answered again by the late answer.
    AnswerTwice,
    /// The slot of a released channel is never used again.
    LeakSlot,
    /// A timer that is cancelled stays in the wheel.
    LeakTimer,
    /// Offers wait in a queue of their own, apart from rescinds.
    OffersApart,
}

/// A step of offer handling at which a test can make it fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum OfferStep {
    /// Nothing is done yet.
    Begin,
    /// The slot is taken.
    Slot,
    /// The relid index names the slot.
    Relid,
    /// The device index names the channel.
    Device,
    /// All is built; the announcement is next.
    Built,
}

impl OfferStep {
    /// All steps, in order.
    pub const ALL: [Self; 5] = [Self::Begin, Self::Slot, Self::Relid, Self::Device, Self::Built];
}

#[cfg(any(test, feature = "mutations"))]
mod set {
    use std::cell::Cell;

    use super::{Mutation, OfferStep};

    /// What is broken on a thread. Threads start sound; [`adopt`] hands the set on.
    #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
    pub struct Set {
        mutations: u64,
        step: Option<OfferStep>,
    }

    thread_local! {
        static SET: Cell<Set> = const { Cell::new(Set { mutations: 0, step: None }) };
    }

    /// Whether the protection is taken away on this thread.
    #[must_use]
    pub fn is(mutation: Mutation) -> bool {
        SET.get().mutations & (1 << mutation as u64) != 0
    }

    /// Whether offer handling is to fail at this step on this thread.
    #[must_use]
    pub fn fails(step: OfferStep) -> bool {
        SET.get().step == Some(step)
    }

    /// What is broken on this thread, for [`adopt`] on another.
    #[must_use]
    pub fn current() -> Set {
        SET.get()
    }

    /// Breaks the same on this thread.
    pub fn adopt(set: Set) {
        SET.set(set);
    }

    /// Runs `body` with the protection taken away on this thread; restored afterwards, also after a panic.
    pub fn with<R>(mutation: Mutation, body: impl FnOnce() -> R) -> R {
        let before = SET.get();
        let _restore = Restore(before);
        SET.set(Set { mutations: before.mutations | 1 << mutation as u64, ..before });
        body()
    }

    /// Runs `body` with offer handling failing at a step on this thread.
    pub fn failing<R>(step: OfferStep, body: impl FnOnce() -> R) -> R {
        let before = SET.get();
        let _restore = Restore(before);
        SET.set(Set { step: Some(step), ..before });
        body()
    }

    struct Restore(Set);

    impl Drop for Restore {
        fn drop(&mut self) {
            SET.set(self.0);
        }
    }
}

#[cfg(any(test, feature = "mutations"))]
pub use set::{Set, adopt, current, failing, fails, is, with};

/// Whether the protection is taken away: never, in this build.
#[cfg(not(any(test, feature = "mutations")))]
#[must_use]
pub const fn is(_mutation: Mutation) -> bool {
    false
}

/// Whether offer handling is to fail at this step: never, in this build.
#[cfg(not(any(test, feature = "mutations")))]
#[must_use]
pub const fn fails(_step: OfferStep) -> bool {
    false
}
