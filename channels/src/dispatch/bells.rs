//! Who is told of a channel's events: whoever receives and whoever waits for room, who may be two threads.
//!
//! Each has a notifier of its own, so that none takes note of what was meant for the other. Where both sleep on one
//! descriptor, the one who reads it passes on what it took.

use std::sync::OnceLock;

use super::Notifier;
use super::mutation::{Mutant, Mutation};
use super::sync::{AtomicBool, Ordering};
use crate::Error;

/// Which half of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// The one that receives; the owner of a channel that is whole.
    Receiver,
    /// The one that sends.
    Sender,
}

/// Who is told of a channel's events.
pub struct Bells {
    receiver: Notifier,
    /// Of its own once the channel is split.
    sender: OnceLock<Notifier>,
    /// Whether somebody sleeps until there is room.
    wants_room: AtomicBool,
    mutant: Mutant,
}

impl Bells {
    /// One for both halves.
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
        let receiver = Notifier::with(mutant)?;
        Ok(Self { receiver, sender: OnceLock::new(), wants_room: AtomicBool::new(false), mutant })
    }

    /// From now on the sender has one of its own. Before either half sleeps.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn split(&self) -> Result<(), Error> {
        let _ = self.sender.set(Notifier::with(self.mutant)?);
        Ok(())
    }

    /// Whether each half has one of its own.
    #[must_use]
    pub fn is_split(&self) -> bool {
        self.sender.get().is_some()
    }

    /// What this half sleeps on.
    #[must_use]
    pub fn of(&self, half: Half) -> &Notifier {
        match half {
            Half::Receiver => &self.receiver,
            Half::Sender => self.sender.get().unwrap_or(&self.receiver),
        }
    }

    /// Something has happened, of which nobody knows for whom.
    pub fn ring(&self) {
        self.receiver.raise();
        self.maybe_room();
    }

    /// Something has happened, and if it was for anybody, then for the sender. Whether one waits for room.
    pub fn maybe_room(&self) -> bool {
        let wanted = self.wants_room.load(Ordering::SeqCst) && !self.mutant.lacks(Mutation::RoomNotTold);
        if wanted {
            self.of(Half::Sender).raise();
        }
        wanted
    }

    /// Both are to look, whatever they wait for.
    pub fn ring_all(&self) {
        self.receiver.raise();
        self.of(Half::Sender).raise();
    }

    /// Says that a sender sleeps until there is room, or no longer. Before the host is asked for it.
    pub fn want_room(&self, wanted: bool) {
        self.wants_room.store(wanted, Ordering::SeqCst);
    }

    /// `half` has taken an event from the descriptor that both sleep on, and the other can't find it there any more.
    pub fn pass_on(&self, half: Half) {
        if self.is_split() && !self.mutant.lacks(Mutation::NotPassedOn) {
            match half {
                Half::Receiver => self.of(Half::Sender).raise(),
                Half::Sender => self.receiver.raise(),
            }
        }
    }
}

impl std::fmt::Debug for Bells {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Bells").field("split", &self.is_split()).finish_non_exhaustive()
    }
}
