//! Pages of this process that stay where they are: taken, pinned, and given back page by page.
//!
//! `mlock` keeps a page in memory but lets the kernel move it. A buffer registered with io_uring is pinned for
//! long-term access by a device, so the page frame numbers, read after that, stay true until it is unregistered.

mod mapped;
mod pagemap;
mod span;
mod uring;

use crate::Error;
use crate::memory::Mapping;
use pagemap::Pagemap;
use span::Span;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uring::{Slot, Tables};

use rustix::io::Errno;

/// Bytes of a transparent huge page where pages are 4 KiB.
const HUGE_BYTES: usize = 2 << 20;
/// Chunks taken page by page, after the kernel had no huge page, before one is tried again.
const HUGE_PAUSE: u32 = 64;

/// Takes pages and pins them; clones share one table of pins.
#[derive(Debug, Clone)]
pub struct Pinner {
    shared: Arc<Shared>,
}

/// What a [`Pinner`] and its [`Pinned`] chunks hold together.
#[derive(Debug)]
struct Shared {
    pagemap: Pagemap,
    tables: Mutex<Tables>,
    page_bytes: usize,
    /// Chunks to go before a huge page is tried again.
    huge_pause: AtomicU32,
}

impl Pinner {
    /// Opens what pinning needs, and pins one page to see that all of it works.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where io_uring is missing, switched off or older than Linux 5.19, or may not lock a
    /// single page; [`Error::Permission`] where page frame numbers are hidden (they need `CAP_SYS_ADMIN`).
    pub fn open() -> Result<Self, Error> {
        let shared = Shared {
            pagemap: Pagemap::open()?,
            tables: Mutex::new(Tables::open()?),
            page_bytes: rustix::param::page_size(),
            huge_pause: AtomicU32::new(0),
        };
        let pinner = Self { shared: Arc::new(shared) };
        match pinner.take(1)? {
            Some(_) => Ok(pinner),
            None => Err(unsupported(
                "the kernel lets this process pin no memory at all",
                "raise the limit of locked memory (`ulimit -l`), or run with the capability CAP_IPC_LOCK",
            )),
        }
    }

    /// Bytes of one page of this system.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.shared.page_bytes
    }

    /// Takes `pages` pages out of the kernel's hands; `None` when it has none to give.
    ///
    /// 2 MiB come as one physically contiguous run if the kernel has such a run and allows huge pages on request
    /// (`/sys/kernel/mm/transparent_hugepage/enabled`; a guest with less than 512 MiB doesn't by itself). In a control
    /// group with a memory limit, ask for less than what is left of it: the limit is kept by killing the process.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Permission`] for what isn't a lack of memory.
    pub fn take(&self, pages: usize) -> Result<Option<Pinned>, Error> {
        let Some(bytes) = pages.checked_mul(self.shared.page_bytes).filter(|bytes| *bytes > 0) else {
            return Ok(None);
        };
        match self.shared.take(bytes) {
            Ok((span, slot)) => {
                let frames = self.shared.pagemap.frames(span.address(), pages)?;
                let piece = Piece { slot, span, first: 0 };
                Ok(Some(Pinned { shared: Arc::clone(&self.shared), frames, pieces: vec![piece] }))
            }
            // Also what the limit of locked memory answers, and a page that could not be moved out of the way.
            Err(Errno::NOMEM | Errno::AGAIN) => Ok(None),
            Err(source) => Err(Error::io("pin memory through", "io_uring", source)),
        }
    }
}

impl Shared {
    /// Maps, populates and pins `bytes`.
    fn take(&self, bytes: usize) -> Result<(Span, Slot), Errno> {
        if let Some(span) = self.contiguous(bytes)? {
            let slot = self.pin(span.address(), span.bytes())?;
            return Ok((span, slot));
        }
        let span = Span::map(bytes, self.page_bytes)?;
        span.keep_small_pages();
        span.populate()?;
        let slot = self.pin(span.address(), bytes)?;
        Ok((span, slot))
    }

    /// One huge page, cut into small ones that lie side by side, so that each can be given back alone.
    ///
    /// Giving back a part of a whole huge page would free nothing while the rest is pinned.
    fn contiguous(&self, bytes: usize) -> Result<Option<Span>, Errno> {
        if bytes != HUGE_BYTES || self.page_bytes != 4096 {
            return Ok(None);
        }
        let pause = self.huge_pause.load(Ordering::Relaxed);
        if pause > 0 {
            self.huge_pause.store(pause - 1, Ordering::Relaxed);
            return Ok(None);
        }
        let span = Span::map(bytes, HUGE_BYTES)?;
        span.want_huge_page();
        span.populate()?;
        span.keep_small_pages();
        span.split_huge_page(self.page_bytes);
        let frames = self.pagemap.frames(span.address(), bytes / self.page_bytes).unwrap_or_default();
        if frames.is_sorted_by(|frame, next| frame.checked_add(1) == Some(*next)) {
            return Ok(Some(span));
        }
        self.huge_pause.store(HUGE_PAUSE, Ordering::Relaxed);
        Ok(None)
    }

    /// Pins the pages at `address`, which must be a [`Span`]'s.
    fn pin(&self, address: usize, bytes: usize) -> Result<Slot, Errno> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).pin(address, bytes)
    }
}

/// Pages that stay where they are until they are given back, at the latest when this is dropped.
///
/// Nobody reads or writes them: to whom their frames are told, they belong. They are left out of core dumps and
/// are not inherited by child processes.
#[derive(Debug)]
pub struct Pinned {
    shared: Arc<Shared>,
    frames: Vec<u64>,
    /// What is still held, in no order.
    pieces: Vec<Piece>,
}

/// A part of a [`Pinned`] with one pin over it; dropped in this order: the pin first.
#[derive(Debug)]
struct Piece {
    slot: Slot,
    span: Span,
    /// Index of its first page in the whole.
    first: usize,
}

impl Pinned {
    /// The page frame number of each page, in units of this system's pages, given back ones included.
    #[must_use]
    pub fn frames(&self) -> &[u64] {
        &self.frames
    }

    /// Pages that are still held.
    #[must_use]
    pub fn held_pages(&self) -> usize {
        self.pieces.iter().map(|piece| piece.span.bytes() / self.shared.page_bytes).sum()
    }

    /// Gives the pages with these indices back to the kernel; those given back before don't matter.
    ///
    /// What stays is pinned a second time before the old pin goes, so that it never moves. Kernels before 6.4 free
    /// the pages up to a second later, later ones before this returns.
    ///
    /// # Errors
    /// [`Error::Io`] when the kernel can't pin the rest again: then a piece stays held as a whole. To repeat the
    /// call is safe.
    pub fn give_back(&mut self, pages: Range<usize>) -> Result<(), Error> {
        let page_bytes = self.shared.page_bytes;
        let mut kept = Vec::with_capacity(self.pieces.len().saturating_add(1));
        let mut failed = None;
        for piece in self.pieces.drain(..) {
            let end = piece.first.saturating_add(piece.span.bytes() / page_bytes);
            let (from, to) = (pages.start.max(piece.first), pages.end.min(end));
            if from >= to || failed.is_some() {
                kept.push(piece);
                continue;
            }
            match piece.cut(&self.shared, from, to) {
                Ok(rest) => kept.extend(rest.into_iter().flatten()),
                Err((piece, source)) => {
                    kept.push(piece);
                    failed = Some(source);
                }
            }
        }
        self.pieces = kept;
        failed.map_or(Ok(()), |source| Err(Error::io("pin memory again through", "io_uring", source)))
    }
}

impl Piece {
    /// Frees pages `from..to`, which it holds, and gives what is left on either side.
    fn cut(self, shared: &Shared, from: usize, to: usize) -> Result<[Option<Self>; 2], (Self, Errno)> {
        let page_bytes = shared.page_bytes;
        let (left_bytes, cut_bytes) = ((from - self.first) * page_bytes, (to - from) * page_bytes);
        let right_bytes = self.span.bytes() - left_bytes - cut_bytes;
        let pin = |offset: usize, bytes: usize| match bytes {
            0 => Ok(None),
            _ => shared.pin(self.span.address() + offset, bytes).map(Some),
        };
        let slots = pin(0, left_bytes).and_then(|left| Ok((left, pin(left_bytes + cut_bytes, right_bytes)?)));
        let (left, right) = match slots {
            Ok(slots) => slots,
            Err(source) => return Err((self, source)),
        };
        let Self { slot, span, first } = self;
        drop(slot);
        let (left_span, rest) = span.split_at(left_bytes);
        let (cut_span, right_span) = rest.split_at(cut_bytes);
        drop(cut_span);
        Ok([
            left.map(|slot| Self { slot, span: left_span, first }),
            right.map(|slot| Self { slot, span: right_span, first: to }),
        ])
    }
}

/// An error about what the kernel lacks.
fn unsupported(what: impl Into<String>, hint: impl Into<String>) -> Error {
    Error::Unsupported { device: "memory".to_owned(), what: what.into(), hint: hint.into() }
}

/// An error of the operating system about io_uring itself.
fn refused(source: Errno) -> Error {
    match source {
        Errno::NOSYS => unsupported(
            "this kernel has no io_uring, or a filter hides it, so memory can't be pinned",
            "use a kernel with CONFIG_IO_URING, or allow the system calls in the service's filter",
        ),
        Errno::PERM | Errno::ACCESS => unsupported(
            "io_uring is switched off, so memory can't be pinned",
            "set the sysctl kernel.io_uring_disabled to 0, or to 1 and run as root",
        ),
        Errno::INVAL => unsupported(
            "this kernel's io_uring has no sparse table of buffers, so memory can't be pinned",
            "use Linux 5.19 or later",
        ),
        other => Error::io("set up", "io_uring", io::Error::from(other)),
    }
}

pub use mapped::PinnedPages;

#[cfg(test)]
mod tests;
