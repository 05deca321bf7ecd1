//! Processors without a dispatcher: whoever waits for the one channel that is there sleeps on the processor's interrupts.
//!
//! Each sleeper watches the interrupt's eventfd by an edge-triggered epoll of its own and never reads it: so each hears
//! of every interrupt, and none takes another's. The channel's flag must be taken behind the wake-up and before the
//! look at the rings: the host does not interrupt again for a flag that is set. A late interrupt of a channel that was
//! here before makes its successor look once for nothing; a flag that it left is taken when a
//! channel of that relid comes here again.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use vmbus::link::Interrupts;

use super::flags::{Flags, PageFlags};
use super::mutation::{Mutant, Mutation};

/// The interrupts of a processor without a dispatcher.
#[derive(Debug)]
pub(crate) struct DirectProcessor {
    flags: PageFlags,
    event: OwnedFd,
}

impl DirectProcessor {
    /// From what the link has for it.
    #[must_use]
    pub(crate) fn new(interrupts: Interrupts) -> Self {
        Self { flags: PageFlags::new(interrupts.flags, interrupts.flags_offset), event: interrupts.event }
    }
}

/// The event flag of the channel that has a processor for itself.
pub struct OneFlag<F> {
    flags: F,
    relid: usize,
    mutant: Mutant,
}

impl<F: Flags> OneFlag<F> {
    /// The flag of this relid.
    pub fn new(flags: F, relid: usize, mutant: Mutant) -> Self {
        Self { flags, relid, mutant }
    }

    /// A half begins to watch the interrupts, and has not looked yet. Whoever had the relid here before may have left the
    /// flag set, and what came for this channel until now may have been before anybody watched: it is taken.
    pub fn begin(&self) {
        if !self.mutant.lacks(Mutation::FlagKept) {
            self.flags.take_one(self.relid);
        }
    }

    /// Takes note of the interrupts so far, behind a wake-up and before the rings are looked at.
    pub fn take(&self) {
        if !self.mutant.lacks(Mutation::FlagLeft) {
            self.flags.take_one(self.relid);
        }
    }
}

/// A channel's place on a processor of its own.
pub(crate) struct Direct {
    flag: OneFlag<Arc<DirectProcessor>>,
}

impl Direct {
    /// Places a channel there.
    #[must_use]
    pub(crate) fn new(processor: Arc<DirectProcessor>, relid: usize) -> Self {
        Self { flag: OneFlag::new(processor, relid, Mutant::default()) }
    }

    /// As [`OneFlag::begin`].
    pub(crate) fn begin(&self) {
        self.flag.begin();
    }

    /// As [`OneFlag::take`].
    pub(crate) fn take(&self) {
        self.flag.take();
    }

    /// What tells of each interrupt, to an edge-triggered epoll. Not to be read.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.flag.flags.event.as_fd()
    }
}

impl Flags for Arc<DirectProcessor> {
    fn take_next(&self, from: usize) -> Option<(usize, u64)> {
        self.flags.take_next(from)
    }

    fn take_one(&self, relid: usize) -> bool {
        self.flags.take_one(relid)
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Direct").field("relid", &self.flag.relid).finish_non_exhaustive()
    }
}
