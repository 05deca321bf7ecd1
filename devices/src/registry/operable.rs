//! The operable lifetime of an instance: who may use it now, and when the last user has left.
//!
//! Not a reference count: references keep memory, and holding one entitles nobody to use what it points to.

use super::sync::{AtomicU64, Ordering};

/// Set once the removal has begun; the rest of the word counts active users.
const CLOSED: u64 = 1 << 63;

/// A state and the number of active users in one word. Open at first; closed once, for good.
///
/// Exactly one call says that it is drained: the [`close`](Self::close) that found nobody inside, or the
/// [`leave`](Self::leave) of the last one behind it. After that nobody is inside, ever, and everything that users did
/// happened before. Nobody waits here; who is told that it is drained goes on with the removal.
#[derive(Debug, Default)]
pub struct Operable {
    word: AtomicU64,
}

impl Operable {
    /// Open, and unused.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a use; `false` once it is closed. Each `true` needs one [`leave`](Self::leave).
    #[must_use]
    pub fn enter(&self) -> bool {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            if word & CLOSED != 0 {
                return false;
            }
            // In one step with the check: a count that is raised first and looked at second would be seen by `close`
            // as a user that never was, and nobody would say that it is drained.
            match self.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(changed) => word = changed,
            }
        }
    }

    /// Ends a use. `true`: it is closed, and this was the last user.
    #[must_use = "who hears that it is drained has to go on with the removal"]
    pub fn leave(&self) -> bool {
        // Release: what this user did comes before the removal. Acquire: so does what earlier ones did, for the one
        // that goes on.
        self.word.fetch_sub(1, Ordering::AcqRel) == CLOSED | 1
    }

    /// Lets nobody in any more. `true`: nobody was inside. Later calls say `false`.
    #[must_use = "who hears that it is drained has to go on with the removal"]
    pub fn close(&self) -> bool {
        self.word.fetch_or(CLOSED, Ordering::AcqRel) == 0
    }

    /// Whether it is open, as of now: it may close any time. For loops that end early.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.word.load(Ordering::Acquire) & CLOSED == 0
    }
}
