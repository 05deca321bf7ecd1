//! Pages of a mapping that stay where they are, for who reads and writes them through it.

use rustix::io::Errno;

use super::uring::Slot;
use super::{Mapping, Pinner};
use crate::Error;

/// The pages that a [`Mapping`] showed when they were pinned; they stay where they are until this is dropped, whatever
/// becomes of the mapping.
#[derive(Debug)]
pub struct PinnedPages {
    frames: Vec<u64>,
    _slot: Slot,
    /// Its tables.
    _pinner: Pinner,
}

impl PinnedPages {
    /// The page frame number of each page, in units of this system's pages.
    #[must_use]
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }
}

impl Pinner {
    /// Pins all pages of a mapping of memory (not of a device). `None` when the kernel has none to give, or this process
    /// may not lock so many.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Permission`] for what isn't a lack of memory.
    pub fn pin(&self, mapping: &Mapping) -> Result<Option<PinnedPages>, Error> {
        let address = mapping.base().as_ptr().expose_provenance();
        match self.shared.pin(address, mapping.bytes()) {
            Ok(slot) => {
                let frames = self.shared.pagemap.frames(address, mapping.bytes() / self.page_bytes())?;
                Ok(Some(PinnedPages { frames, _slot: slot, _pinner: self.clone() }))
            }
            Err(Errno::NOMEM | Errno::AGAIN) => Ok(None),
            Err(source) => Err(Error::io("pin memory through", "io_uring", source)),
        }
    }
}
