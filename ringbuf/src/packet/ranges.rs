//! The ranges of a received packet: transfer pages and GPA-direct, read in place.
//!
//! The other side chose every number here. Counts are bounded by the packet's own header, so no loop is longer than
//! that; whether a range is *meant* (its pages, its set) is for the caller to check.

use crate::error::Malformed;
use crate::layout::{DESCRIPTOR_BYTES, Geometry};
use crate::memory::Memory;
use crate::packet::outgoing::{TransferPageRange, pages_of};

/// The words between descriptor and payload, a bounded window on the ring.
pub(crate) struct Window<'a, M> {
    memory: &'a M,
    ring: Geometry,
    start: u32,
    words: u32,
}

impl<M> Clone for Window<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Window<'_, M> {}

impl<'a, M: Memory> Window<'a, M> {
    /// `start` is the ring offset of the first word behind the descriptor.
    #[inline]
    pub(crate) const fn new(memory: &'a M, ring: Geometry, start: u32, words: u32) -> Self {
        Self { memory, ring, start, words }
    }

    fn word(&self, index: u32) -> Option<u64> {
        if index >= self.words {
            return None;
        }
        let [word] = self.memory.load_words(self.ring.advance(self.start, index * 8));
        Some(word)
    }

    /// Words behind the first `index`.
    const fn left(&self, index: u32) -> u32 {
        self.words.saturating_sub(index)
    }

    pub(crate) const fn malformed(&self) -> Malformed {
        Malformed::Ranges { header_bytes: DESCRIPTOR_BYTES + self.words * 8 }
    }
}

/// Lower and upper half of a word.
const fn halves(word: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// The ranges of a transfer-page packet (`vmtransfer_page_packet_header`). Iterates over them.
pub struct TransferPages<'a, M> {
    window: Window<'a, M>,
    pageset: u16,
    sender_owns_set: bool,
    next: u32,
    end: u32,
}

impl<'a, M: Memory> TransferPages<'a, M> {
    pub(crate) fn parse(window: Window<'a, M>) -> Result<Self, Malformed> {
        let head = window.word(0).ok_or(window.malformed())?;
        let (_, count) = halves(head);
        if count > window.left(1) {
            return Err(window.malformed());
        }
        let [low, high, owns, ..] = head.to_le_bytes();
        let pageset = u16::from_le_bytes([low, high]);
        Ok(Self { window, pageset, sender_owns_set: owns != 0, next: 1, end: count + 1 })
    }

    /// Which set of pages.
    #[must_use]
    pub const fn pageset(&self) -> u16 {
        self.pageset
    }

    /// Whether the sender keeps the set.
    #[must_use]
    pub const fn sender_owns_set(&self) -> bool {
        self.sender_owns_set
    }
}

impl<M: Memory> Iterator for TransferPages<'_, M> {
    type Item = TransferPageRange;

    fn next(&mut self) -> Option<TransferPageRange> {
        if self.next >= self.end {
            return None;
        }
        let (byte_count, byte_offset) = halves(self.window.word(self.next)?);
        self.next += 1;
        Some(TransferPageRange { byte_count, byte_offset })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.end.saturating_sub(self.next) as usize;
        (left, Some(left))
    }
}

/// The ranges of a GPA-direct packet (`vmdata_gpa_direct`), of either form. Iterates over them; ends after an error.
pub struct GpaRanges<'a, M> {
    window: Window<'a, M>,
    next: u32,
    left: u32,
}

impl<'a, M: Memory> GpaRanges<'a, M> {
    pub(crate) fn parse(window: Window<'a, M>) -> Result<Self, Malformed> {
        let (_, count) = halves(window.word(0).ok_or(window.malformed())?);
        // The smallest range has one page frame: two words.
        if count > window.left(1) / 2 {
            return Err(window.malformed());
        }
        Ok(Self { window, next: 1, left: count })
    }
}

impl<'a, M: Memory> Iterator for GpaRanges<'a, M> {
    type Item = Result<GpaRange<'a, M>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let range = self.window.word(self.next).and_then(|word| {
            let (byte_count, byte_offset) = halves(word);
            let pages = u32::try_from(pages_of(byte_offset, byte_count)?).ok()?;
            let first = self.next + 1;
            (pages <= self.window.left(first)).then_some(GpaRange {
                window: self.window,
                first,
                pages,
                byte_count,
                byte_offset,
            })
        });
        match range {
            Some(range) => {
                self.next = range.first + range.pages;
                Some(Ok(range))
            }
            None => {
                self.left = 0;
                Some(Err(self.window.malformed()))
            }
        }
    }
}

/// One range of guest memory.
pub struct GpaRange<'a, M> {
    window: Window<'a, M>,
    first: u32,
    pages: u32,
    /// Bytes of data.
    pub byte_count: u32,
    /// Where the data begins in the first page, below 4096. Bytes.
    pub byte_offset: u32,
}

impl<'a, M: Memory> GpaRange<'a, M> {
    /// Numbers of the guest pages that the range touches, in units of 4096 bytes.
    pub fn page_frames(&self) -> impl Iterator<Item = u64> + use<'a, M> {
        let (window, first) = (self.window, self.first);
        (0..self.pages).filter_map(move |index| window.word(first + index))
    }

    /// How many there are.
    #[must_use]
    pub const fn pages(&self) -> u32 {
        self.pages
    }
}
