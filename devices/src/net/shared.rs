//! What all queues of an adapter share: the two buffers, and which queue the host wants to be sent on.

use super::bytes;
use super::pages::LongFrames;
use super::sections::Sections;
use super::wire::nvsp::{SEND_TABLE_ENTRIES, Version};
use core::sync::atomic::{AtomicU32, Ordering};
use vmbus::memory::Mapping;
use vmbus::uio::KernelBuffer;
use vmbus_channels::Buffer;

/// Memory shared with the host: made here, or by the kernel when the device was bound.
#[derive(Debug)]
pub(super) enum Region {
    /// Given back by who drops it.
    Made(Buffer),
    /// The kernel's.
    Kernel(KernelBuffer),
}

impl Region {
    pub(super) fn gpadl(&self) -> u32 {
        match self {
            Self::Made(buffer) => buffer.gpadl().0,
            Self::Kernel(buffer) => buffer.gpadl.0,
        }
    }

    pub(super) fn memory(&self) -> &Mapping {
        match self {
            Self::Made(buffer) => buffer.memory(),
            Self::Kernel(buffer) => &buffer.memory,
        }
    }

    /// Gives it back to the host, and waits for that.
    pub(super) fn close(self) -> Result<(), vmbus_channels::Error> {
        match self {
            Self::Made(buffer) => buffer.close(),
            Self::Kernel(_) => Ok(()),
        }
    }
}

/// What all queues of an adapter share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) version: Version,
    pub(super) receive: Region,
    /// Bytes of the receive buffer, as the host was told.
    pub(super) receive_bytes: usize,
    /// Parts of the receive buffer: also how many packets of the host may wait for their completion.
    pub(super) parts: u32,
    pub(super) send: Region,
    /// Bytes of a section of the send buffer: a multiple of eight.
    pub(super) section_bytes: usize,
    pub(super) sections: Sections,
    pub(super) long: Option<LongFrames>,
    /// Which queue the host wants to be sent on.
    table: [AtomicU32; SEND_TABLE_ENTRIES],
}

impl Shared {
    pub(super) fn new(
        version: Version,
        (receive, receive_bytes, parts): (Region, usize, u32),
        (send, section_bytes, sections): (Region, usize, u32),
        long: Option<LongFrames>,
    ) -> Self {
        let sections = Sections::new(sections);
        let table = Default::default();
        Self { version, receive, receive_bytes, parts, send, section_bytes, sections, long, table }
    }

    /// Puts `parts` into a section. Whether they fit.
    pub(super) fn fill_section(&self, section: u32, parts: &[&[u8]]) -> bool {
        let fits = parts.iter().map(|part| part.len()).sum::<usize>() <= self.section_bytes;
        let offset = usize::try_from(section).ok().and_then(|section| section.checked_mul(self.section_bytes));
        fits && offset.is_some_and(|offset| bytes::write(self.send.memory(), offset, parts))
    }

    /// Takes note of the host's table.
    pub(super) fn set_table(&self, table: &[u32; SEND_TABLE_ENTRIES]) {
        self.table.iter().zip(table).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
    }

    /// Which queue the host wants a frame with this hash on, of `queues`.
    pub(super) fn queue_of(&self, hash: u32, queues: u32) -> u32 {
        let entry = usize::try_from(hash).map_or(0, |hash| hash % SEND_TABLE_ENTRIES);
        let queue = self.table.get(entry).map_or(0, |entry| entry.load(Ordering::Relaxed));
        if queue < queues { queue } else { 0 }
    }
}
