//! Memory that the host reaches by page numbers, as packets with GPA ranges name it: without a GPADL, of no channel.
//!
//! Nothing takes it away from the host again: whoever told a page's number keeps the memory until the host can't use it
//! any more (it has completed the request, or the channel is closed or taken back).

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use crate::Error;
use crate::memory::Mapping;

/// Bytes of a page of the hypervisor, in which page numbers count, whatever the system's page is.
pub const PAGE_BYTES: usize = 4096;

/// What gives out memory that the host reaches. From any thread.
pub trait DirectSource: Send + Sync + fmt::Debug {
    /// Takes `bytes`, rounded up to whole pages; all zeroes.
    ///
    /// # Errors
    /// No memory; the link can't have memory that the host reaches.
    fn allocate(&self, bytes: usize) -> Result<DirectMemory, Error>;
}

/// Memory that the host reaches by page numbers. Dropping it gives it back: only once the host is done with it.
pub struct DirectMemory {
    // In this order: unmapped first.
    mapping: Mapping,
    frames: Vec<u64>,
    /// What keeps the pages where they are.
    _keeper: Box<dyn Send + Sync>,
}

impl DirectMemory {
    /// A mapping of pages with these numbers (in units of [`PAGE_BYTES`]), which stay as long as `keeper` does.
    ///
    /// # Errors
    /// `EINVAL` when there are not as many numbers as pages.
    pub fn new(mapping: Mapping, frames: Vec<u64>, keeper: impl Send + Sync + 'static) -> Result<Self, Errno> {
        if frames.len().checked_mul(PAGE_BYTES) != Some(mapping.bytes()) {
            return Err(Errno::INVAL);
        }
        Ok(Self { mapping, frames, _keeper: Box::new(keeper) })
    }

    /// The number of each page, in units of [`PAGE_BYTES`].
    #[must_use]
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }

    /// Bytes, in whole pages.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.mapping.bytes()
    }

    /// Copies bytes out, from `offset` (a multiple of 8) on. Whether all of them are there. The host may write them
    /// meanwhile: check the copy.
    pub fn read(&self, offset: usize, destination: &mut [u8]) -> bool {
        let Some(words) = self.words(offset, destination.len()) else { return false };
        for (piece, word) in destination.chunks_mut(8).zip(words) {
            let bytes = word.load(Ordering::Relaxed).to_ne_bytes();
            piece.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
        }
        true
    }

    /// Copies bytes in, from `offset` (a multiple of 8) on; the rest of the last word is zeroed. Whether all of them have
    /// a place; otherwise none is written.
    pub fn write(&self, offset: usize, source: &[u8]) -> bool {
        let Some(words) = self.words(offset, source.len()) else { return false };
        for (piece, word) in source.chunks(8).zip(words) {
            let mut bytes = [0; 8];
            bytes.iter_mut().zip(piece).for_each(|(to, from)| *to = *from);
            word.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
        true
    }

    fn words(&self, offset: usize, bytes: usize) -> Option<&[AtomicU64]> {
        self.mapping.words(offset, bytes.div_ceil(8))
    }
}

impl fmt::Debug for DirectMemory {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DirectMemory").field("bytes", &self.bytes()).finish_non_exhaustive()
    }
}
