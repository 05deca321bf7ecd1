//! Memory of this process that a host reaches by page numbers: a file without a name, mapped, and pinned.

use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::Errno;
use rustix::param::page_size;

use crate::Error;
use crate::direct::{DirectMemory, DirectSource, PAGE_BYTES};
use crate::memory::{Mapping, Piece, Pinner};

/// Gives out memory of this process, pinned. Whoever allocates before a device is opened has its pages outlive the
/// channel also when the process is killed: the kernel closes the device first.
#[derive(Debug, Default)]
pub(crate) struct ProcessMemory {
    /// Opened when it is first needed: most devices need none.
    pinner: Mutex<Option<Pinner>>,
}

impl ProcessMemory {
    fn pinner(&self) -> Result<Pinner, Error> {
        let mut pinner = self.pinner.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pinner {
            Some(pinner) => Ok(pinner.clone()),
            None => Ok(pinner.insert(Pinner::open()?).clone()),
        }
    }
}

impl DirectSource for ProcessMemory {
    fn allocate(&self, bytes: usize) -> Result<DirectMemory, Error> {
        let failed = |error| Error::io("allocate", "memory that the host reaches", error);
        let pinner = self.pinner()?;
        let bytes = bytes.max(1).checked_next_multiple_of(page_size()).ok_or_else(|| failed(Errno::NOMEM))?;
        let map = || -> Result<Mapping, Errno> {
            let file = memfd_create("vmbus-direct", MemfdFlags::CLOEXEC)?;
            ftruncate(&file, u64::try_from(bytes).map_err(|_| Errno::FBIG)?)?;
            Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes }])
        };
        let mapping = map().map_err(failed)?;
        let pages = pinner.pin(&mapping)?.ok_or_else(|| failed(Errno::NOMEM))?;
        let parts = u64::try_from(page_size() / PAGE_BYTES).map_err(|_| failed(Errno::NOTSUP))?;
        let frames = pages.frames().iter().flat_map(|frame| (0..parts).map(move |part| frame * parts + part)).collect();
        DirectMemory::new(mapping, frames, pages).map_err(failed)
    }
}
