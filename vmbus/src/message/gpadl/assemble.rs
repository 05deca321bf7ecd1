//! The host's side: messages into ranges. What the guest says is never believed before it is there.

use super::super::{GpadlBody, GpadlHeader};
use super::split::stated;
use super::{GpadlError, GpadlId, MAX_BYTES, Range, pages_of};

/// What a host takes in one GPADL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Ranges.
    pub ranges: u16,
    /// Bytes that all ranges cover. It bounds the words, too: a page each, and three for each range.
    pub bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { ranges: 256, bytes: MAX_BYTES }
    }
}

/// A GPADL that is complete and makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpadl {
    /// The channel that it was made for.
    pub relid: u32,
    /// Its number.
    pub gpadl: GpadlId,
    /// What it covers, in order; there is at least one.
    pub ranges: Vec<Range>,
}

/// How far a GPADL has come.
#[derive(Debug)]
pub enum Progress {
    /// Bodies are still due.
    More(Assembler),
    /// Everything is there.
    Done(Gpadl),
}

/// A GPADL some of whose bodies are still due. An error ends it: the host answers with a failure.
///
/// Bodies have no usable order: Linux numbers none of them, and hosts ignore the number, so they count as they come.
/// Words beyond the last range are padding, since some guests (UEFI) send each message as long as there can be.
/// Memory grows with the words that came, never with a number that the guest states.
#[derive(Debug)]
pub struct Assembler {
    relid: u32,
    gpadl: GpadlId,
    stated: u16,
    limits: Limits,
    /// Ranges whose head is still due.
    heads_due: u16,
    /// Pages of the last range that are still due.
    pages_due: u64,
    bytes: u64,
    words: usize,
    ranges: Vec<Range>,
}

impl Assembler {
    /// Begins with a header, which is all there is to a small GPADL.
    ///
    /// # Errors
    /// No or too many ranges; a range that makes no sense; too many bytes; a wrong length.
    pub fn start(header: &GpadlHeader, limits: Limits) -> Result<Progress, GpadlError> {
        if header.ranges == 0 || header.ranges > limits.ranges {
            return Err(GpadlError::Ranges { ranges: header.ranges.into(), most: limits.ranges });
        }
        let this = Self {
            relid: header.relid,
            gpadl: header.gpadl,
            stated: header.range_bytes,
            limits,
            heads_due: header.ranges,
            pages_due: 0,
            bytes: 0,
            words: 0,
            ranges: Vec::new(),
        };
        this.take(&header.words)
    }

    /// Goes on with a body.
    ///
    /// # Errors
    /// It is another GPADL's, or empty; a range that makes no sense; too many bytes; a wrong length.
    pub fn push(self, body: &GpadlBody) -> Result<Progress, GpadlError> {
        if body.gpadl != self.gpadl {
            return Err(GpadlError::Other { got: body.gpadl, expected: self.gpadl });
        }
        if body.words.is_empty() {
            return Err(GpadlError::Empty { gpadl: self.gpadl });
        }
        self.take(&body.words)
    }

    /// The channel that it is being made for: the answer needs it, and bodies don't say it.
    #[must_use]
    pub const fn relid(&self) -> u32 {
        self.relid
    }

    /// Words that have come so far, padding not counted: what a host may want to bound over all its GPADLs.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }

    /// Words that there is memory for.
    #[cfg(any(test, feature = "doubles"))]
    pub(in crate::message) fn capacity_words(&self) -> usize {
        let heads = self.ranges.capacity() * (size_of::<Range>() / size_of::<u64>());
        heads + self.ranges.iter().map(|range| range.pages.capacity()).sum::<usize>()
    }

    fn take(mut self, words: &[u64]) -> Result<Progress, GpadlError> {
        for &word in words {
            if self.pages_due != 0 {
                self.page(word);
            } else if self.heads_due != 0 {
                self.head(word)?;
            } else {
                break;
            }
            self.words = self.words.saturating_add(1);
        }
        if self.heads_due != 0 || self.pages_due != 0 {
            return Ok(Progress::More(self));
        }
        if self.stated != stated(self.words) {
            let needed = self.words.saturating_mul(size_of::<u64>());
            return Err(GpadlError::Length { stated: self.stated, needed });
        }
        Ok(Progress::Done(Gpadl { relid: self.relid, gpadl: self.gpadl, ranges: self.ranges }))
    }

    fn page(&mut self, page: u64) {
        self.pages_due = self.pages_due.saturating_sub(1);
        if let Some(range) = self.ranges.last_mut() {
            range.pages.push(page);
        }
    }

    fn head(&mut self, word: u64) -> Result<(), GpadlError> {
        let [a, b, c, d, e, f, g, h] = word.to_le_bytes();
        let byte_count = u32::from_le_bytes([a, b, c, d]);
        let byte_offset = u32::from_le_bytes([e, f, g, h]);
        let pages = pages_of(byte_offset, byte_count).ok_or(GpadlError::Range { byte_offset, byte_count, pages: 0 })?;
        self.bytes = self.bytes.saturating_add(byte_count.into());
        if self.bytes > self.limits.bytes.into() {
            return Err(GpadlError::Bytes { bytes: self.bytes, most: self.limits.bytes });
        }
        self.heads_due = self.heads_due.saturating_sub(1);
        self.pages_due = pages;
        self.ranges.push(Range { byte_offset, byte_count, pages: Vec::new() });
        Ok(())
    }
}
