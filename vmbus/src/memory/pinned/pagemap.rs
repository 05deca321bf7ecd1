//! Page frame numbers of this process's memory, from `/proc/self/pagemap`.
//!
//! One little-endian word a page: bit 63 says that the page is present, bits 0-54 are its frame number, which
//! reads as 0 without the capability CAP_SYS_ADMIN (Documentation/admin-guide/mm/pagemap.rst).

use crate::Error;
use std::fs::File;
use std::os::unix::fs::FileExt;

const PATH: &str = "/proc/self/pagemap";
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// The open file.
#[derive(Debug)]
pub(super) struct Pagemap {
    file: File,
    page_bytes: usize,
}

impl Pagemap {
    pub(super) fn open() -> Result<Self, Error> {
        let file = File::open(PATH).map_err(|source| Error::io("open", PATH, source))?;
        Ok(Self { file, page_bytes: rustix::param::page_size() })
    }

    /// The frame of each of the `pages` pages from `address`.
    pub(super) fn frames(&self, address: usize, pages: usize) -> Result<Vec<u64>, Error> {
        let mut words = vec![0; pages.saturating_mul(8)];
        let offset = u64::try_from(address / self.page_bytes).unwrap_or(u64::MAX).saturating_mul(8);
        self.file.read_exact_at(&mut words, offset).map_err(|source| Error::io("read", PATH, source))?;
        words.chunks_exact(8).map(|word| frame(u64::from_ne_bytes(word.try_into().unwrap_or_default()))).collect()
    }
}

/// The frame number in one word.
fn frame(word: u64) -> Result<u64, Error> {
    match (word & PRESENT != 0, word & FRAME) {
        (true, 0) => Err(Error::Permission { action: "read page frame numbers from", path: PATH.into() }),
        (true, frame) => Ok(frame),
        (false, _) => Err(Error::malformed(PATH, "a page that is present", format_args!("{word:#x}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_a_frame_or_a_named_error() {
        assert_eq!(frame(PRESENT | 0x1234).unwrap(), 0x1234);
        assert_eq!(frame(u64::MAX).unwrap(), FRAME);
        assert_eq!(frame(PRESENT).unwrap_err().kind(), crate::ErrorKind::Permission);
        assert!(matches!(frame(0x1234).unwrap_err(), Error::Malformed { .. }));
    }
}
