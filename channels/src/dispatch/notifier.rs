//! Tells a thread that its channel needs it: a flag, and an eventfd to sleep on, written once for any number of raises.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use super::mutation::{Mutant, Mutation};
use super::sync::{AtomicBool, Event, Ordering, fence};
use crate::Error;

/// Tells a thread that its channel needs it. Clones are the same notifier; any thread may raise it, one clears it.
#[derive(Clone)]
pub struct Notifier {
    shared: Arc<Shared>,
}

struct Shared {
    raised: AtomicBool,
    event: Event,
    mutant: Mutant,
}

impl Notifier {
    /// A notifier that is not raised.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new() -> Result<Self, Error> {
        Self::with(Mutant::default())
    }

    /// As [`new`](Self::new), for models.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with(mutant: Mutant) -> Result<Self, Error> {
        Ok(Self { shared: Arc::new(Shared { raised: AtomicBool::new(false), event: Event::new()?, mutant }) })
    }

    /// Raises it. Everything that this thread has done or seen before is seen by whoever clears it next.
    pub fn raise(&self) {
        let shared = &self.shared;
        if !shared.mutant.lacks(Mutation::RaiseUnfenced) {
            // Between what happened and the look at the flag; the other half is in `clear`. Either we see the flag
            // down, or they see what happened.
            fence(Ordering::SeqCst);
        }
        if shared.raised.load(Ordering::Relaxed) {
            return;
        }
        shared.raised.store(true, Ordering::Release);
        shared.event.set();
    }

    /// Takes note of all raises so far. Look at what they were about *behind* it; what comes later raises it again.
    pub fn clear(&self) {
        let shared = &self.shared;
        if shared.mutant.lacks(Mutation::ClearedInWrongOrder) {
            shared.raised.store(false, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            shared.event.clear();
            return;
        }
        // The event first: a raise between the two sees the flag up and leaves it at that, and is part of what we look
        // at. The other way round its event would be eaten, its flag would stay up, and no later raise would wake us.
        shared.event.clear();
        shared.raised.store(false, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Whether it is raised, without a system call.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.shared.raised.load(Ordering::Acquire)
    }

    /// Sleeps until it is raised, or for so long; whether it is. Does not clear it. A signal may end it early.
    ///
    /// # Errors
    /// The system call failed.
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        Ok(self.shared.event.wait(timeout)?)
    }
}

impl AsFd for Notifier {
    /// Readable while it is raised. For event loops: [`clear`](Notifier::clear) after each wake-up, and look behind it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

impl fmt::Debug for Notifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Notifier").finish_non_exhaustive()
    }
}
