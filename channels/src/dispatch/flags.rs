//! The event flags of one processor: a bit per relid, set by the host, taken by the dispatcher.

use core::sync::atomic::AtomicU64 as PageWord;
use std::sync::Arc;

use vmbus::memory::Mapping;

use super::RELIDS;
use super::sync::{AtomicU64, Ordering};

/// Event flags, in words of 64.
pub trait Flags {
    /// Takes all flags of the next word that has any, from this word on, and says which word it was: a load for each
    /// word without, and an exchange for the one that is taken. What the host did before it set a flag is seen by who
    /// takes it.
    fn take_next(&self, from: usize) -> Option<(usize, u64)>;

    /// Takes one flag. Whether it was set.
    fn take_one(&self, relid: usize) -> bool;
}

/// No flags: the interrupts of such a link come through descriptors.
#[derive(Debug)]
pub struct NoFlags;

impl Flags for NoFlags {
    fn take_next(&self, _from: usize) -> Option<(usize, u64)> {
        None
    }

    fn take_one(&self, _relid: usize) -> bool {
        false
    }
}

/// Flags in ordinary memory: for tests and models.
#[derive(Debug, Clone)]
pub struct OwnFlags(Arc<Vec<AtomicU64>>);

impl OwnFlags {
    /// So many words of flags, none set.
    #[must_use]
    pub fn new(words: usize) -> Self {
        Self(Arc::new((0..words).map(|_| AtomicU64::new(0)).collect()))
    }

    /// Sets a flag, as a host does. Whether it was clear, and so an interrupt is due.
    pub fn set(&self, relid: usize) -> bool {
        let bit = 1 << (relid % 64);
        self.0.get(relid / 64).is_some_and(|word| word.fetch_or(bit, Ordering::SeqCst) & bit == 0)
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn is_set(&self, relid: usize) -> bool {
        self.0.get(relid / 64).is_some_and(|word| word.load(Ordering::Acquire) & (1 << (relid % 64)) != 0)
    }
}

impl Flags for OwnFlags {
    fn take_next(&self, from: usize) -> Option<(usize, u64)> {
        let (at, word) = self.0.iter().enumerate().skip(from).find(|(_, word)| word.load(Ordering::Relaxed) != 0)?;
        Some((at, word.swap(0, Ordering::SeqCst)))
    }

    fn take_one(&self, relid: usize) -> bool {
        let bit = 1 << (relid % 64);
        self.0.get(relid / 64).is_some_and(|word| word.fetch_and(!bit, Ordering::SeqCst) & bit != 0)
    }
}

/// Words of a cache line, which are looked at in one go.
const LINE: usize = 8;

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

    /// A page that is too short has no flags.
    #[inline(always)]
    fn words(&self) -> &[PageWord] {
        self.page.words(self.offset, RELIDS / 64).unwrap_or_default()
    }
}

impl Flags for PageFlags {
    #[inline(always)]
    fn take_next(&self, from: usize) -> Option<(usize, u64)> {
        let mut at = from;
        loop {
            // The rest of a line, or a whole one: mostly there is nothing in it, which one branch tells.
            let line = self.words().get(at..)?;
            let line = line.get(..LINE - at % LINE).unwrap_or(line);
            if line.is_empty() {
                return None;
            }
            if line.iter().fold(0, |any, word| any | word.load(Ordering::Relaxed)) != 0 {
                let (inside, word) = line.iter().enumerate().find(|(_, word)| word.load(Ordering::Relaxed) != 0)?;
                return Some((at + inside, u64::from_le(word.swap(0, Ordering::SeqCst))));
            }
            at += line.len();
        }
    }

    fn take_one(&self, relid: usize) -> bool {
        let bit = 1_u64 << (relid % 64);
        let word = self.words().get(relid / 64);
        word.is_some_and(|word| u64::from_le(word.fetch_and(!bit.to_le(), Ordering::SeqCst)) & bit != 0)
    }
}
