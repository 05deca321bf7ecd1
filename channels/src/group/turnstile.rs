//! One at a time, and nobody waits: who finds it taken leaves a note, and whoever is in goes round once more.

use super::mutation::{Mutant, Mutation};
use super::sync::{AtomicU32, Ordering};

/// Nobody is in.
const IDLE: u32 = 0;
/// Somebody is in.
const TAKEN: u32 = 1;
/// Somebody is in, and is to go round once more.
const AGAIN: u32 = 2;

/// Lets one in at a time. What somebody did before [`pass`](Self::pass) is seen by a round of work that begins behind it,
/// on this thread or on the one that is in: so a sender that many share needs no thread, and nobody who has something for
/// it waits for it.
#[derive(Debug)]
pub struct Turnstile {
    state: AtomicU32,
    mutant: Mutant,
}

impl Default for Turnstile {
    fn default() -> Self {
        Self::with(Mutant::default())
    }
}

impl Turnstile {
    fn with(mutant: Mutant) -> Self {
        Self { state: AtomicU32::new(IDLE), mutant }
    }

    /// The same without a protection, for models.
    #[cfg(any(test, loom, shuttle))]
    #[must_use]
    pub fn without(mutation: Option<Mutation>) -> Self {
        Self::with(Mutant::without(mutation))
    }

    /// Has a round of `work` done, here or by who is in.
    pub fn pass(&self, mut work: impl FnMut()) {
        // A read-modify-write in any case: what it is about goes along, to whoever reads it next.
        if self.state.swap(AGAIN, Ordering::AcqRel) != IDLE {
            return;
        }
        loop {
            self.state.swap(TAKEN, Ordering::AcqRel);
            work();
            if self.mutant.lacks(Mutation::TurnMissed) {
                self.state.store(IDLE, Ordering::Release);
                return;
            }
            if self.state.compare_exchange(TAKEN, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return;
            }
        }
    }
}
