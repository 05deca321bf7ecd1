//! GPADLs on the wire: ranges of guest memory, cut into a header and bodies by the guest and put together by the host.
//!
//! Format: include/linux/hyperv.h and drivers/hv/channel.c. A range is one word (byte count in the lower half, offset
//! into its first page in the upper), then a word for each page that it touches; ranges follow each other without gaps
//! and are cut anywhere. What to know about lengths stands at [`ANY_HOST_WORDS`].

mod assemble;
mod split;

#[cfg(test)]
mod tests;

pub use assemble::{Assembler, Gpadl, Limits, Progress};
pub use split::split;

use super::value::GpadlId;

/// Bytes of a page, for the host, whatever the guest's own pages are.
pub const PAGE_BYTES: u32 = 4096;
/// Words that fit into a header.
pub const HEADER_WORDS: usize = 27;
/// Words that fit into a body.
pub const BODY_WORDS: usize = 28;
/// Bytes that the ranges of a GPADL cover at most, here.
pub const MAX_BYTES: u32 = 64 << 20;
/// Words that every host takes.
///
/// The header states the length of all words in 16 bits: 8191 words are the most that it can state, which is one range
/// of 8190 pages, 32 MiB less 8 KiB. (That is why network adapters stop at 31 MiB, and why some guests refuse more.)
/// Linux does not check and lets the length wrap. Hosts go by that length: with a wrapped one OpenVMM answers with a
/// failure, and QEMU with nothing at all, so that the guest waits for ever. [`split`] lets it wrap as Linux does, and
/// [`Assembler`] goes by what the ranges themselves need (that is never ambiguous) and takes the stated length as a
/// check of its lower 16 bits. A guest that faces a host of somebody else's keeps below this and shares large buffers
/// as several GPADLs.
pub const ANY_HOST_WORDS: usize = 8191;

/// Some contiguous bytes of a buffer, as the pages that hold them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Range {
    /// Where the bytes begin in the first page; less than [`PAGE_BYTES`].
    pub byte_offset: u32,
    /// How many bytes; not zero.
    pub byte_count: u32,
    /// Page numbers (addresses divided by [`PAGE_BYTES`]), one for each page that the bytes touch.
    pub pages: Vec<u64>,
}

impl Range {
    /// Whole pages.
    ///
    /// # Errors
    /// No pages, or so many that their bytes don't fit into 32 bits.
    pub fn of_pages(pages: Vec<u64>) -> Result<Self, GpadlError> {
        let bytes = u32::try_from(pages.len()).ok().and_then(|pages| pages.checked_mul(PAGE_BYTES));
        let range = Self { byte_offset: 0, byte_count: bytes.unwrap_or_default(), pages };
        range.check()?;
        Ok(range)
    }

    /// Words that the range takes: its head, and its pages.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.pages.len().saturating_add(1)
    }

    fn check(&self) -> Result<(), GpadlError> {
        let Self { byte_offset, byte_count, ref pages } = *self;
        if pages_of(byte_offset, byte_count) == u64::try_from(pages.len()).ok() {
            Ok(())
        } else {
            Err(GpadlError::Range { byte_offset, byte_count, pages: pages.len() })
        }
    }
}

/// Pages that so many bytes touch when they begin there; `None` where they make no range.
fn pages_of(byte_offset: u32, byte_count: u32) -> Option<u64> {
    let page_bytes = u64::from(PAGE_BYTES);
    let bytes = u64::from(byte_offset).checked_add(u64::from(byte_count))?;
    (byte_count != 0 && byte_offset < PAGE_BYTES).then(|| bytes.div_ceil(page_bytes))
}

/// Why ranges are no GPADL, or messages don't make one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpadlError {
    /// The number of ranges is zero, or more than is allowed.
    #[error("a GPADL of {ranges} ranges; from 1 to {most} are allowed")]
    Ranges {
        /// How many.
        ranges: usize,
        /// How many there may be.
        most: u16,
    },
    /// A range of no bytes, one that begins beyond its first page, or one with too few or too many pages.
    #[error("a range of {byte_count} bytes from offset {byte_offset} does not take {pages} pages")]
    Range {
        /// Where it begins in its first page.
        byte_offset: u32,
        /// Its bytes.
        byte_count: u32,
        /// Its pages, as far as they are known.
        pages: usize,
    },
    /// More bytes than are allowed.
    #[error("a GPADL of {bytes} bytes or more; {most} are the most")]
    Bytes {
        /// How many so far.
        bytes: u64,
        /// How many there may be.
        most: u32,
    },
    /// A body that is another GPADL's.
    #[error("a body of GPADL {got:?} where one of {expected:?} was due")]
    Other {
        /// Whose body it is.
        got: GpadlId,
        /// Whose it should be.
        expected: GpadlId,
    },
    /// A body without words, which leads nowhere.
    #[error("a body of GPADL {gpadl:?} without words")]
    Empty {
        /// Whose.
        gpadl: GpadlId,
    },
    /// The ranges take another number of bytes than the header says (in its 16 bits).
    #[error("the ranges take {needed} bytes of words where the header says {stated}")]
    Length {
        /// What the header says.
        stated: u16,
        /// What the ranges take.
        needed: usize,
    },
}
