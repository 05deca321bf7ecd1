//! One message slot, which guest and bus hand to each other by its type: zero is empty, and the bus's.

use std::sync::atomic::{AtomicU64, Ordering, fence};

use vmbus::message::Message;

use crate::bus_memory::BusMemory;

/// Words of a slot; two of them are the header.
const WORDS: usize = 32;
const SLOT_BYTES: u64 = 256;
/// The type of a channel message.
const CHANNEL_MESSAGE: u64 = 1;
/// The type, in the first word.
const TYPE: u64 = 0xffff_ffff;
/// The flag that more messages wait, in the first word.
const PENDING: u64 = 1 << 40;

/// One message slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Slot<'a> {
    header: &'a AtomicU64,
    origin: &'a AtomicU64,
    payload: &'a [AtomicU64],
}

impl<'a> Slot<'a> {
    /// The slot of a SINT in a message page; `None` where the page is not inside memory.
    pub(super) fn of(memory: &'a BusMemory, page: u64, sint: u8) -> Option<Self> {
        match memory.words(page.checked_add(u64::from(sint) * SLOT_BYTES)?, WORDS)? {
            [header, origin, payload @ ..] => Some(Self { header, origin, payload }),
            _ => None,
        }
    }

    /// Fills the slot if it is empty. Otherwise the guest is told that something waits, so that it says when it has
    /// emptied the slot.
    pub(super) fn put(&self, message: &Message) -> bool {
        if !self.is_empty() {
            #[cfg(test)]
            super::tests::in_between();
            self.header.fetch_or(PENDING, Ordering::SeqCst);
            // The guest empties the slot and then looks at the flag, each with a full barrier behind; we set the flag and
            // then look at the slot. So one of us sees the other: nobody waits for a word that is not coming.
            fence(Ordering::SeqCst);
            if !self.is_empty() {
                return false;
            }
        }
        let bytes = message.as_ref();
        for (word, chunk) in self.payload.iter().zip(bytes.chunks(8)) {
            let mut padded = [0; 8];
            padded.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            word.store(u64::from_le_bytes(padded), Ordering::Relaxed);
        }
        self.origin.store(0, Ordering::Relaxed);
        let size = u64::try_from(bytes.len()).unwrap_or(0) << 32;
        // The type goes last: with it the slot is the guest's.
        self.header.store(CHANNEL_MESSAGE | size, Ordering::SeqCst);
        true
    }

    fn is_empty(&self) -> bool {
        self.header.load(Ordering::SeqCst) & TYPE == 0
    }
}
