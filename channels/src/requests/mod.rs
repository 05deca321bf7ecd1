//! Requests that wait for the host's completion, named by the 64-bit transaction id of their packet.
//!
//! An id is a slot and a generation, never zero, and looked up, never trusted: a completion that names nothing (no such
//! slot, an older request's generation, done already) is dropped and counted.

use slab::Slab;

/// Bits of the slot in an id; the rest are the generation's, which at a million requests a second come round after
/// twelve days.
const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const LAST_GENERATION: u64 = u64::MAX >> SLOT_BITS;

/// Requests that wait for completion. One owner; at most as many as it was made for.
#[derive(Debug)]
pub struct RequestTable<T> {
    slots: Slab<(u64, T)>,
    capacity: usize,
    /// Of the next request; never zero.
    generation: u64,
    unknown: u64,
}

/// No more requests fit; the one that was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many requests wait for the host as the table takes; wait for completions first")]
pub struct TableFull<T>(pub T);

impl<T> RequestTable<T> {
    /// The most requests that a table takes.
    pub const MOST: usize = 1 << SLOT_BITS;

    /// A table for at most `capacity` requests at a time (at most [`MOST`](Self::MOST)). It grows as it is used.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { slots: Slab::new(), capacity: capacity.min(Self::MOST), generation: 1, unknown: 0 }
    }

    /// Keeps a request until it is completed. Returns its transaction id, which is never zero.
    ///
    /// # Errors
    /// [`TableFull`], with the request.
    pub fn insert(&mut self, request: T) -> Result<u64, TableFull<T>> {
        if self.slots.len() >= self.capacity {
            return Err(TableFull(request));
        }
        let generation = self.generation;
        self.generation = if generation == LAST_GENERATION { 1 } else { generation + 1 };
        let slot = self.slots.insert((generation, request));
        // A slot is below the capacity, which fits.
        Ok(generation << SLOT_BITS | (slot as u64 & SLOT_MASK))
    }

    /// Takes a request that the host has completed. `None`, and counted: the id names nothing that waits.
    pub fn complete(&mut self, id: u64) -> Option<T> {
        let slot = Self::slot(id);
        if self.get(id).is_none() {
            self.unknown = self.unknown.saturating_add(1);
            return None;
        }
        self.slots.try_remove(slot).map(|(_, request)| request)
    }

    /// A request that waits, for completions in several parts. Does not count.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&T> {
        let (generation, request) = self.slots.get(Self::slot(id))?;
        (*generation == id >> SLOT_BITS).then_some(request)
    }

    /// As [`get`](Self::get), to change it.
    pub fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        let (generation, request) = self.slots.get_mut(Self::slot(id))?;
        (*generation == id >> SLOT_BITS).then_some(request)
    }

    /// Takes a request back that was never sent, or is not waited for any more. Does not count.
    pub fn cancel(&mut self, id: u64) -> Option<T> {
        self.get(id)?;
        self.slots.try_remove(Self::slot(id)).map(|(_, request)| request)
    }

    /// Takes all requests, as when the channel ends. Their completions, should they come, name nothing.
    pub fn cancel_all(&mut self) -> impl Iterator<Item = T> + use<'_, T> {
        self.slots.drain().map(|(_, request)| request)
    }

    /// Requests that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// How many may wait at a time.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Completions that named nothing.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    fn slot(id: u64) -> usize {
        // 24 bits.
        usize::try_from(id & SLOT_MASK).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests;
