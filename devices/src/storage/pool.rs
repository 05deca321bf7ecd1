//! Pages for data on their way: taken for a request, and given back when the host can't use them any more.
//!
//! Pages of a request need not be neighbours: the ranges of a packet name each one. So any free ones will do, and
//! nothing is ever too scattered.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use vmbus::direct::{DirectMemory, PAGE_BYTES};

/// Pages that the host reaches, and which of them are free.
#[derive(Debug)]
pub(super) struct Pool {
    memory: DirectMemory,
    free: Mutex<Vec<u32>>,
    /// Pages were given back.
    given: Condvar,
}

impl Pool {
    pub(super) fn new(memory: DirectMemory) -> Arc<Self> {
        let pages = u32::try_from(memory.frames().len()).unwrap_or(u32::MAX);
        Arc::new(Self { memory, free: Mutex::new((0..pages).rev().collect()), given: Condvar::new() })
    }

    /// Bytes of all pages.
    pub(super) fn bytes(&self) -> usize {
        self.memory.bytes()
    }

    /// Takes pages for so many bytes, waiting for them until `deadline`. `None`: there were none in time.
    pub(super) fn take(self: &Arc<Self>, bytes: usize, deadline: Instant) -> Option<Segment> {
        let wanted = bytes.div_ceil(PAGE_BYTES);
        if bytes > self.bytes() {
            return None;
        }
        let mut free = self.lock();
        while free.len() < wanted {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            (free, _) = self.given.wait_timeout(free, left).unwrap_or_else(PoisonError::into_inner);
        }
        let at = free.len() - wanted;
        let pages = free.split_off(at);
        Some(Segment { pool: Arc::clone(self), pages, bytes })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u32>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Pages of one request. Dropping them gives them back: not while the host may use them.
#[derive(Debug)]
pub(super) struct Segment {
    pool: Arc<Pool>,
    pages: Vec<u32>,
    bytes: usize,
}

impl Segment {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The numbers that the host knows the pages by.
    pub(super) fn frames(&self) -> Vec<u64> {
        let frames = self.pool.memory.frames();
        self.pages.iter().filter_map(|page| frames.get(usize::try_from(*page).ok()?).copied()).collect()
    }

    /// Copies bytes in, from the start on; those that have no place are left out.
    pub(super) fn fill(&self, source: &[u8]) {
        let source = source.get(..source.len().min(self.bytes)).unwrap_or_default();
        for (piece, place) in source.chunks(PAGE_BYTES).zip(self.places()) {
            let fits = self.pool.memory.write(place, piece);
            debug_assert!(fits, "pages of the pool");
        }
    }

    /// Copies bytes out, from the start on.
    pub(super) fn copy_to(&self, destination: &mut [u8]) {
        let end = destination.len().min(self.bytes);
        let destination = destination.get_mut(..end).unwrap_or_default();
        for (piece, place) in destination.chunks_mut(PAGE_BYTES).zip(self.places()) {
            let fits = self.pool.memory.read(place, piece);
            debug_assert!(fits, "pages of the pool");
        }
    }

    fn places(&self) -> impl Iterator<Item = usize> + '_ {
        self.pages.iter().filter_map(|page| usize::try_from(*page).ok()?.checked_mul(PAGE_BYTES))
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.pool.lock().append(&mut self.pages);
        self.pool.given.notify_all();
    }
}
