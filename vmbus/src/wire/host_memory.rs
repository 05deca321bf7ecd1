//! A guest's memory as its host sees it: reached by page numbers, each checked, whatever the guest says.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use rustix::io::{Errno, pread, pwrite};

use super::guest_memory::sealed_bytes;
use super::layout::{Layout, PAGE_BYTES};
use super::transport::Hello;
use crate::Error;
use crate::memory::{Mapping, Piece, Ring, contiguous, map_pages, map_ring_pages};

/// Memory of more bytes is not mapped as a whole: many guests' would use up the addresses.
const WHOLE_AT_MOST: usize = 4 << 30;

/// A guest's memory as its host sees it. The guest writes it at the same time; it can't take it away or cut it short.
#[derive(Debug)]
pub struct HostMemory {
    file: OwnedFd,
    layout: Layout,
    /// All of it, once somebody looks at a ring; `None` where that can't be.
    whole: OnceLock<Option<Arc<Mapping>>>,
}

impl HostMemory {
    /// The memory that a guest has sent, if it is what the hello says.
    pub(super) fn new(file: OwnedFd, hello: Hello) -> Result<Self, Error> {
        let refused = |why| Error::Handshake { why };
        let processors = usize::try_from(hello.processors).unwrap_or(usize::MAX);
        let layout = Layout::new(processors, hello.memory_bytes)?;
        let bytes = sealed_bytes(file.as_fd()).map_err(refused)?;
        if bytes != layout.bytes() {
            return Err(refused(format!("guest memory has {bytes} bytes, and the hello says {}", layout.bytes())));
        }
        Ok(Self { file, layout, whole: OnceLock::new() })
    }

    /// Where what lies in it.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Whether there are such pages. Page 0 is none.
    #[must_use]
    pub fn has(&self, pages: &[u64]) -> bool {
        pages.iter().all(|page| (1..self.layout.pages()).contains(page))
    }

    /// Reads what lies `offset` bytes into these pages, taken one behind the other.
    ///
    /// # Errors
    /// [`Error::Io`] with `EFAULT` when there are no such pages, or not so many; what the kernel says.
    pub fn read(&self, pages: &[u64], offset: usize, into: &mut [u8]) -> Result<(), Error> {
        let mut rest = into;
        for part in self.parts(pages, offset, rest.len())? {
            let (this, next) = rest.split_at_mut_checked(part.bytes).ok_or_else(outside)?;
            let read = pread(&self.file, &mut *this, part.address).map_err(|error| failed("read", error))?;
            if read != part.bytes {
                return Err(outside());
            }
            rest = next;
        }
        Ok(())
    }

    /// Writes `offset` bytes into these pages, taken one behind the other.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn write(&self, pages: &[u64], offset: usize, from: &[u8]) -> Result<(), Error> {
        let mut rest = from;
        for part in self.parts(pages, offset, rest.len())? {
            let (this, next) = rest.split_at_checked(part.bytes).ok_or_else(outside)?;
            let written = pwrite(&self.file, this, part.address).map_err(|error| failed("write", error))?;
            if written != part.bytes {
                return Err(outside());
            }
            rest = next;
        }
        Ok(())
    }

    /// Maps a ring that lies in these pages, control page first, and its mapping for who may have to let go of it.
    ///
    /// # Errors
    /// As [`read`](Self::read); `EINVAL` for a list that makes no ring.
    pub fn ring(&self, pages: &[u64]) -> Result<(Ring, Arc<Mapping>), Error> {
        if !self.has(pages) {
            return Err(outside());
        }
        map_ring_pages(self.file.as_fd(), pages).map_err(|error| failed("map a ring of", error))
    }

    /// A ring that lies in these pages, control page first, without a system call where they are neighbours: it is
    /// looked at in a mapping of all memory, which lives as long as anybody looks. For a host that has no more to do
    /// than to let go of a ring when the guest takes it back; otherwise see [`ring`](Self::ring).
    ///
    /// # Errors
    /// As [`ring`](Self::ring).
    pub fn view(&self, pages: &[u64]) -> Result<Ring, Error> {
        if !self.has(pages) {
            return Err(outside());
        }
        let neighbours = pages.iter().zip(pages.iter().skip(1)).all(|(page, next)| page + 1 == *next);
        let at = pages.first().and_then(|page| usize::try_from(Layout::address(*page)).ok());
        match (at, self.whole().filter(|_| neighbours)) {
            (Some(at), Some(whole)) => {
                let ring = contiguous(whole, at, pages.len() * PAGE_BYTES);
                ring.map_err(|error| failed("look at a ring of", error))
            }
            _ => self.ring(pages).map(|(ring, _)| ring),
        }
    }

    /// All of the memory, if it is not too much.
    fn whole(&self) -> Option<Arc<Mapping>> {
        let whole = self.whole.get_or_init(|| {
            let bytes = usize::try_from(self.layout.bytes()).ok().filter(|bytes| *bytes <= WHOLE_AT_MOST)?;
            let mapping = Mapping::new(&[Piece { file: self.file.as_fd(), file_offset: 0, bytes }]);
            mapping.map(Arc::new).ok()
        });
        // Where the kernel had no page to give, all of it went; rings of their own may still be had.
        whole.as_ref().filter(|whole| !whole.is_revoked()).cloned()
    }

    /// Maps pages one behind the other.
    ///
    /// # Errors
    /// As [`read`](Self::read); `EINVAL` for an empty list.
    pub fn map(&self, pages: &[u64]) -> Result<Arc<Mapping>, Error> {
        if !self.has(pages) {
            return Err(outside());
        }
        Ok(Arc::new(map_pages(self.file.as_fd(), pages).map_err(|error| failed("map", error))?))
    }

    /// The places in the file that make up `bytes` bytes at `offset`, neighbours joined.
    fn parts(&self, pages: &[u64], offset: usize, bytes: usize) -> Result<Vec<Part>, Error> {
        let end = offset.checked_add(bytes).ok_or_else(outside)?;
        let first = offset / PAGE_BYTES;
        let pages = pages.get(first..end.div_ceil(PAGE_BYTES)).ok_or_else(outside)?;
        if !self.has(pages) {
            return Err(outside());
        }
        let mut parts: Vec<Part> = Vec::new();
        let (mut inside, mut missing) = (offset % PAGE_BYTES, bytes);
        for &page in pages {
            let here = missing.min(PAGE_BYTES - inside);
            let address = Layout::address(page) + inside as u64;
            match parts.last_mut() {
                Some(last) if last.address + last.bytes as u64 == address => last.bytes += here,
                _ => parts.push(Part { address, bytes: here }),
            }
            (inside, missing) = (0, missing - here);
        }
        Ok(parts)
    }
}

struct Part {
    address: u64,
    bytes: usize,
}

fn failed(action: &'static str, error: Errno) -> Error {
    Error::io(action, "guest memory", error)
}

fn outside() -> Error {
    failed("reach outside of", Errno::FAULT)
}
