//! The guest's pages: what was freed last is given out first, so that memory given up too early is soon another's.

use std::collections::BTreeMap;

use vmbus::link::Share;
use vmbus::message::GpadlId;
use vmbus_simhost::{Memory, PAGE_BYTES, PlainMemory};

/// Pages of guest memory, the first ones of which are the connection's.
pub(crate) const PAGES: usize = 160;
const FIRST: u64 = 4;
/// Bytes at the beginning of a control page that mean anything.
const CONTROL_BYTES: usize = 128;

/// The allocator.
#[derive(Debug)]
pub(crate) struct Pages {
    memory: PlainMemory,
    free: Vec<u64>,
    /// The relid and the pages of each GPADL.
    shared: BTreeMap<GpadlId, (u32, Vec<u64>)>,
}

impl Pages {
    pub(crate) fn new(memory: PlainMemory) -> Self {
        let free = (FIRST..memory.pages()).rev().collect();
        Self { memory, free, shared: BTreeMap::new() }
    }

    /// Pages for a GPADL, or none if there are not enough.
    pub(crate) fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Option<Vec<u64>> {
        let pages_of = |bytes: u32| usize::try_from(u64::from(bytes) / PAGE_BYTES).unwrap_or(usize::MAX);
        let (count, second) = match what {
            Share::Ring { outgoing_bytes, incoming_bytes } => {
                (pages_of(outgoing_bytes) + pages_of(incoming_bytes), Some(pages_of(outgoing_bytes)))
            }
            Share::Buffer { bytes } => (pages_of(bytes), None),
        };
        let pages = self.free.split_off(self.free.len().checked_sub(count)?);
        for control in second.into_iter().flat_map(|second| [pages.first(), pages.get(second)]).flatten() {
            self.memory.write(control * PAGE_BYTES, &[0; CONTROL_BYTES]);
        }
        self.shared.insert(gpadl, (relid, pages.clone()));
        Some(pages)
    }

    /// The relid whose pages are free again.
    pub(crate) fn unshare(&mut self, gpadl: GpadlId) -> Option<u32> {
        let (relid, pages) = self.shared.remove(&gpadl)?;
        self.free.extend(pages);
        Some(relid)
    }

    pub(crate) fn all_free(&self) -> bool {
        self.shared.is_empty() && self.free.len() as u64 == self.memory.pages() - FIRST
    }
}
