//! The guest's memory: a memfd that can't be cut short any more, and who has which of its pages.

use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    FallocateFlags, MemfdFlags, SealFlags, fallocate, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create,
};
use rustix::io::{Errno, pwrite};

use super::allocator::Allocator;
use super::layout::{Layout, PAGE_BYTES};
use crate::Error;
use crate::direct::{DirectMemory, DirectSource};
use crate::memory::{Mapping, map_pages};

/// What must be sealed before the other side relies on the size: a file that shrinks under a mapping is a bus error.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// Pages that are given back are overwritten with zeroes up to here, and from there on dropped, so that their room goes
/// back to the system. A hole costs both sides' processors a flush, and each page a fault when it is used again: that
/// is more than a ring of a few pages costs to overwrite.
const OVERWRITTEN_PAGES: usize = 16;
static ZEROES: [u8; OVERWRITTEN_PAGES * PAGE_BYTES] = [0; OVERWRITTEN_PAGES * PAGE_BYTES];

/// The guest's memory.
#[derive(Debug)]
pub struct GuestMemory {
    file: OwnedFd,
    layout: Layout,
    allocator: Mutex<Allocator>,
}

impl GuestMemory {
    /// New memory, all zeroes.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel has no descriptors or no memory.
    pub fn new(layout: Layout) -> Result<Arc<Self>, Error> {
        let make = || -> Result<OwnedFd, Errno> {
            let file = memfd_create("vmbus-guest", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
            ftruncate(&file, layout.bytes())?;
            fcntl_add_seals(&file, SEALS)?;
            Ok(file)
        };
        let file = make().map_err(|error| Error::io("create", "guest memory", error))?;
        let allocator = Mutex::new(Allocator::new(layout.first_free_page()..layout.pages()));
        Ok(Arc::new(Self { file, layout, allocator }))
    }

    /// Where what lies in it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Pages that are free.
    #[must_use]
    pub fn free_pages(&self) -> u64 {
        self.lock().free_pages()
    }

    /// Takes pages: zeroes, one behind the other where there is such a run, scattered otherwise. Dropping them gives
    /// them back.
    ///
    /// # Errors
    /// [`Error::Io`] with `ENOMEM` when there are not so many left, or none are asked for.
    pub fn allocate(self: &Arc<Self>, pages: u64) -> Result<Pages, Error> {
        let runs = self.lock().take(pages);
        let runs = runs.ok_or_else(|| Error::io("allocate pages of", "guest memory", Errno::NOMEM))?;
        Ok(Pages { memory: Arc::clone(self), runs })
    }

    /// Maps one page.
    pub(super) fn map_page(&self, page: u64) -> Result<Arc<Mapping>, Error> {
        let mapping = map_pages(self.file.as_fd(), &[page]);
        Ok(Arc::new(mapping.map_err(|error| Error::io("map", "guest memory", error))?))
    }

    /// Makes zeroes of a run of pages.
    fn clear(&self, run: &Range<u64>) -> Result<(), Errno> {
        let (start, bytes) = (Layout::address(run.start), (run.end - run.start) * PAGE_BYTES as u64);
        if let Some(zeroes) = usize::try_from(bytes).ok().and_then(|bytes| ZEROES.get(..bytes))
            && pwrite(&self.file, zeroes, start) == Ok(zeroes.len())
        {
            return Ok(());
        }
        fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, start, bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Allocator> {
        self.allocator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for GuestMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Guest memory as it is given out for packets with GPA ranges.
#[derive(Debug)]
pub(super) struct GuestPages(pub(super) Arc<GuestMemory>);

impl DirectSource for GuestPages {
    fn allocate(&self, bytes: usize) -> Result<DirectMemory, Error> {
        let failed = |error| Error::io("map", "guest memory", error);
        let pages = self.0.allocate(u64::try_from(bytes.div_ceil(PAGE_BYTES)).unwrap_or(u64::MAX))?;
        let numbers: Vec<u64> = pages.numbers().collect();
        let mapping = map_pages(self.0.as_fd(), &numbers).map_err(failed)?;
        DirectMemory::new(mapping, numbers, pages).map_err(failed)
    }
}

/// Pages that are in use, until they are dropped. Whoever maps them must have unmapped them by then.
#[derive(Debug)]
pub struct Pages {
    memory: Arc<GuestMemory>,
    runs: Vec<Range<u64>>,
}

impl Pages {
    /// Their numbers, in the order in which they are to be mapped and shared.
    pub fn numbers(&self) -> impl Iterator<Item = u64> + '_ {
        self.runs.iter().flat_map(Clone::clone)
    }

    /// The memory that they belong to.
    #[must_use]
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }
}

impl Drop for Pages {
    /// What was in them goes first, so that they are zeroes when they are taken again.
    fn drop(&mut self) {
        for run in self.runs.drain(..) {
            if let Err(error) = self.memory.clear(&run) {
                // Not zeroes: they must not be handed out again.
                log::warn!(target: "vmbus::wire", "pages {run:?} of guest memory stay taken: {error}");
                continue;
            }
            let taken_back = self.memory.lock().give(run);
            debug_assert!(taken_back, "these pages were taken by this value");
        }
    }
}

/// The size of a memfd that was received, if it is one whose size can't change any more.
pub(super) fn sealed_bytes(file: BorrowedFd<'_>) -> Result<u64, String> {
    // Only a memfd has seals.
    let seals =
        fcntl_get_seals(file).map_err(|error| format!("guest memory is no memfd that can be sealed ({error})"))?;
    if !seals.contains(SEALS) || seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(format!("guest memory must be sealed against changes of its size and nothing else, not {seals:?}"));
    }
    let bytes = fstat(file).map_err(|error| format!("guest memory has no size ({error})"))?.st_size;
    u64::try_from(bytes).map_err(|_| format!("guest memory has {bytes} bytes"))
}
