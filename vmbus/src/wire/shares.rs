//! What the guest has shared with the host: the pages of each GPADL, and what of them is mapped here.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use vmbus_ringbuf::{ControlField, FEATURE_PENDING_SEND_SIZE, Memory};

use super::guest_memory::{GuestMemory, Pages};
use super::layout::PAGE_BYTES;
use crate::Error;
use crate::link::Share;
use crate::memory::{Mapping, Ring, map_pages, map_ring_pair};
use crate::message::GpadlId;
use crate::message::gpadl::MAX_BYTES;

/// What the guest has shared with the host.
#[derive(Debug, Default)]
pub(super) struct Shares {
    shares: BTreeMap<GpadlId, Shared>,
}

#[derive(Debug)]
struct Shared {
    /// In order: outgoing ring, incoming ring; or the buffer.
    pages: Pages,
    what: Share,
    /// Mappings that may still be in use.
    mappings: Vec<Weak<Mapping>>,
}

/// The rings of a channel.
pub(super) struct Rings {
    pub(super) outgoing: Ring,
    pub(super) incoming: Ring,
}

impl Shares {
    /// Takes pages for a GPADL, and returns their numbers.
    pub(super) fn add(&mut self, memory: &Arc<GuestMemory>, gpadl: GpadlId, what: Share) -> Result<Vec<u64>, Error> {
        let refused = |error| Error::io("share", format!("GPADL {}", gpadl.0), error);
        if self.shares.contains_key(&gpadl) {
            return Err(refused(Errno::EXIST));
        }
        let pages = memory.allocate(pages_of(what).ok_or_else(|| refused(Errno::INVAL))?)?;
        let numbers = pages.numbers().collect();
        self.shares.insert(gpadl, Shared { pages, what, mappings: Vec::new() });
        Ok(numbers)
    }

    /// Gives the pages of a GPADL back. Whoever still has them mapped loses them: somebody else may get them next.
    pub(super) fn remove(&mut self, gpadl: GpadlId) {
        if let Some(shared) = self.shares.remove(&gpadl) {
            shared.end(gpadl);
        }
    }

    /// As [`remove`](Self::remove), for all.
    pub(super) fn clear(&mut self) {
        for (gpadl, shared) in std::mem::take(&mut self.shares) {
            shared.end(gpadl);
        }
    }

    /// Maps the two rings of a channel. Whoever makes a ring says that its writer asks for a signal when it waits for room
    /// (a guest with a kernel does so for both of a channel): a reader that does not find the bit gives none.
    pub(super) fn rings(&mut self, gpadl: GpadlId) -> Result<Rings, Error> {
        let failed = |error| Error::io("map", format!("the rings of GPADL {}", gpadl.0), error);
        let shared = self.shares.get_mut(&gpadl).ok_or_else(|| failed(Errno::NOENT))?;
        let Share::Ring { outgoing_bytes, .. } = shared.what else { return Err(failed(Errno::INVAL)) };
        let outgoing_pages = usize::try_from(outgoing_bytes).unwrap_or(usize::MAX) / PAGE_BYTES;
        let numbers: Vec<u64> = shared.pages.numbers().collect();
        let (first, second) = numbers.split_at_checked(outgoing_pages).ok_or_else(|| failed(Errno::INVAL))?;
        let file = shared.pages.memory().as_fd();
        let ([outgoing, incoming], mapping) = map_ring_pair(file, [first, second]).map_err(failed)?;
        for ring in [&outgoing, &incoming] {
            ring.store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
        }
        shared.mappings.retain(|mapping| mapping.strong_count() > 0);
        shared.mappings.push(Arc::downgrade(&mapping));
        Ok(Rings { outgoing, incoming })
    }

    /// Maps a buffer, or finds it mapped.
    pub(super) fn buffer(&mut self, gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        let failed = |error| Error::io("map", format!("the buffer of GPADL {}", gpadl.0), error);
        let shared = self.shares.get_mut(&gpadl).ok_or_else(|| failed(Errno::NOENT))?;
        if !matches!(shared.what, Share::Buffer { .. }) {
            return Err(failed(Errno::INVAL));
        }
        if let Some(mapping) = shared.mappings.iter().find_map(Weak::upgrade) {
            return Ok(mapping);
        }
        let numbers: Vec<u64> = shared.pages.numbers().collect();
        let mapping = Arc::new(map_pages(shared.pages.memory().as_fd(), &numbers).map_err(failed)?);
        shared.mappings = vec![Arc::downgrade(&mapping)];
        Ok(mapping)
    }
}

impl Shared {
    fn end(self, gpadl: GpadlId) {
        for mapping in self.mappings.iter().filter_map(Weak::upgrade) {
            let outcome = mapping.revoke();
            log::debug!(target: "vmbus::wire", "GPADL {} was still mapped; it is taken away: {outcome:?}", gpadl.0);
        }
    }
}

/// Pages that something takes; `None` where it is not made of whole pages, lacks data, or is larger than a GPADL.
fn pages_of(what: Share) -> Option<u64> {
    let whole = |bytes: u32, least: u32| {
        let page = u32::try_from(PAGE_BYTES).ok()?;
        (bytes.is_multiple_of(page) && bytes >= least * page).then_some(u64::from(bytes))
    };
    let bytes = match what {
        Share::Ring { outgoing_bytes, incoming_bytes } => whole(outgoing_bytes, 2)? + whole(incoming_bytes, 2)?,
        Share::Buffer { bytes } => whole(bytes, 1)?,
    };
    (bytes <= u64::from(MAX_BYTES)).then_some(bytes / PAGE_BYTES as u64)
}
