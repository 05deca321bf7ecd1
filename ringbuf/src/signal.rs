//! Publication of the two indices, and when the other side must be told.
//!
//! Each function is one half of a pair of "store, full fence, load" sequences; the other half runs in the other side
//! (for a Linux peer: drivers/hv/ring_buffer.c). A full fence on both sides means that at least one of them sees the
//! other's store. Both halves are modelled in tests/loom.rs.

use crate::layout::{ControlField, FEATURE_PENDING_SEND_SIZE, Geometry};
use crate::memory::Memory;

/// Whether the other side must be signalled (interrupted) now. Dropping [`Signal::Needed`] loses a wake-up; signalling
/// without need makes a Windows host throttle the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a signal that is needed and not sent leaves the other side asleep"]
pub enum Signal {
    /// Signal the other side.
    Needed,
    /// Do not signal.
    NotNeeded,
}

impl Signal {
    /// Whether it is [`Signal::Needed`].
    #[inline]
    pub const fn is_needed(self) -> bool {
        matches!(self, Self::Needed)
    }

    #[inline]
    pub(crate) const fn when(needed: bool) -> Self {
        if needed { Self::Needed } else { Self::NotNeeded }
    }
}

/// Makes packets from `old_write` to `new_write` visible; says whether the reader sleeps on an empty ring.
///
/// Fence, between our store of the write index and our loads of mask and read index. The reader's half is its way to
/// sleep: store read index, store mask = 0, full fence, load write index. If its load misses our store, then our
/// loads see both of its stores, and we signal. Without our fence both could miss each other, and it sleeps on data.
///
/// Exact: the reader is told only if it was unmasked while the ring was empty up to this publication. That takes the
/// read index twice, with the mask in between: a reader masks, releases, and unmasks, so one look at each could pair
/// the mask of its last sleep with the index of its next (or the other way round) and signal a reader that is awake.
#[inline]
pub(crate) fn publish_write<M: Memory>(memory: &M, old_write: u32, new_write: u32) -> Signal {
    memory.store_then_fence(ControlField::WriteIndex, new_write);
    let was_empty = || memory.load(ControlField::ReadIndex) == old_write;
    Signal::when(was_empty() && memory.load(ControlField::InterruptMask) == 0 && was_empty())
}

/// Gives `released` bytes up to `new_read` back to the writer; says whether the writer sleeps on a full ring.
///
/// Fence, between our store of the read index and our load of the pending size. The writer's half is its way to sleep:
/// store pending size, full fence, load read index. If its load misses our store, then our load sees its pending size,
/// and we signal. Without our fence both could miss each other, and it sleeps on a ring with room.
///
/// Exact: the writer is told only by the one release that takes the free space from "not enough" to "enough"; exactly
/// `pending` bytes are not enough, since a ring is never filled completely. The write index is loaded after the
/// pending size: a blocked writer stored it before. Then the pending size again: a writer that went on by itself took
/// its request back before it moved the write index.
#[inline]
pub(crate) fn publish_read<M: Memory>(memory: &M, ring: Geometry, new_read: u32, released: u32) -> Signal {
    if memory.load(ControlField::FeatureBits) & FEATURE_PENDING_SEND_SIZE == 0 {
        // A writer without this feature polls, and expects no signal.
        memory.store(ControlField::ReadIndex, new_read);
        return Signal::NotNeeded;
    }
    memory.store_then_fence(ControlField::ReadIndex, new_read);
    let pending = memory.load(ControlField::PendingSendSize);
    if pending == 0 {
        return Signal::NotNeeded;
    }
    let write = memory.load(ControlField::WriteIndex);
    if !ring.is_index(write) {
        // The next refresh of the reader reports it.
        return Signal::NotNeeded;
    }
    let free_after = ring.data_bytes().saturating_sub(ring.distance(new_read, write));
    let free_before = free_after.saturating_sub(released);
    let enough_now = free_before <= pending && free_after > pending;
    Signal::when(enough_now && memory.load(ControlField::PendingSendSize) == pending)
}
