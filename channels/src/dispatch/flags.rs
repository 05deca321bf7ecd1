//! The event flags of one processor: a bit per relid, set by the host, taken by the dispatcher.

use std::sync::Arc;

use vmbus::memory::Mapping;

use super::RELIDS;
use super::sync::{AtomicU64, Ordering};

/// Event flags, in words of 64.
pub trait Flags {
    /// How many words there are.
    fn words(&self) -> usize;

    /// Takes all flags of a word: one load where there are none, and only otherwise an exchange. What the host did
    /// before it set a flag is seen by who takes it.
    fn take(&self, word: usize) -> u64;

    /// Takes one flag. Whether it was set.
    fn take_one(&self, relid: usize) -> bool;
}

/// No flags: the interrupts of such a link come through descriptors.
#[derive(Debug)]
pub struct NoFlags;

impl Flags for NoFlags {
    fn words(&self) -> usize {
        0
    }

    fn take(&self, _word: usize) -> u64 {
        0
    }

    fn take_one(&self, _relid: usize) -> bool {
        false
    }
}

/// Flags in ordinary memory: for tests, models and benches.
#[derive(Debug, Clone)]
pub struct OwnFlags(Arc<Vec<AtomicU64>>);

impl OwnFlags {
    /// So many words of flags, none set.
    #[must_use]
    pub fn new(words: usize) -> Self {
        Self(Arc::new((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Sets a flag, as a host does.
    pub fn set(&self, relid: usize) {
        if let Some(word) = self.0.get(relid / 64) {
            word.fetch_or(1 << (relid % 64), Ordering::SeqCst);
        }
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn is_set(&self, relid: usize) -> bool {
        self.0.get(relid / 64).is_some_and(|word| word.load(Ordering::Acquire) & (1 << (relid % 64)) != 0)
    }
}

impl Flags for OwnFlags {
    #[inline(always)]
    fn words(&self) -> usize {
        self.0.len()
    }

    #[inline(always)]
    fn take(&self, word: usize) -> u64 {
        let Some(word) = self.0.get(word) else { return 0 };
        if word.load(Ordering::Relaxed) == 0 { 0 } else { word.swap(0, Ordering::SeqCst) }
    }

    fn take_one(&self, relid: usize) -> bool {
        let bit = 1 << (relid % 64);
        self.0.get(relid / 64).is_some_and(|word| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
    }
}

/// The flags in an event-flag page that is shared with the host.
#[derive(Debug)]
pub struct PageFlags {
    page: Arc<Mapping>,
    /// Where the flags of the bus's interrupt source begin, in bytes.
    offset: usize,
}

impl PageFlags {
    /// The flags that begin at `offset` bytes of a page.
    #[must_use]
    pub fn new(page: Arc<Mapping>, offset: usize) -> Self {
        Self { page, offset }
    }
}

impl Flags for PageFlags {
    #[inline(always)]
    fn words(&self) -> usize {
        RELIDS / 64
    }

    #[inline(always)]
    fn take(&self, word: usize) -> u64 {
        // A page that is too short has no flags there.
        u64::from_le(self.page.take_word(self.offset + word * 8).unwrap_or_default())
    }

    fn take_one(&self, relid: usize) -> bool {
        let bit = 1_u32 << (relid % 32);
        let old = self.page.clear_bits(self.offset + relid / 32 * 4, bit.to_le());
        u32::from_le(old.unwrap_or_default()) & bit != 0
    }
}
