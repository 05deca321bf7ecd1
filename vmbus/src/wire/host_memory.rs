//! A guest's memory as its host sees it: reached by page numbers, each checked, whatever the guest says.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::{Errno, pread, pwrite};

use super::guest_memory::sealed_bytes;
use super::layout::{Layout, PAGE_BYTES};
use super::transport::Hello;
use crate::Error;
use crate::memory::{Mapping, Ring, map_pages, map_ring_pages};

/// A guest's memory as its host sees it. The guest writes it at the same time; it can't take it away or cut it short.
#[derive(Debug)]
pub struct HostMemory {
    file: OwnedFd,
    layout: Layout,
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
        Ok(Self { file, layout })
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
