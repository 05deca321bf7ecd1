//! A range of addresses made of file pieces, which can be taken back in one step while others still use it.
//!
//! rustix does the mapping calls: of `mmap-rs` only the pointer could be used (its slices over shared pages are
//! unsound), and it can't place several pieces in one range nor replace a live range, which is all that matters here.

use core::ffi::c_void;
use core::fmt;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;

use super::fault::Registration;

/// A part of a file that a [`Mapping`] shows, shared and writable.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// The file; it may be closed after the mapping is made (the mapping keeps it open inside the kernel).
    pub file: BorrowedFd<'a>,
    /// Where the piece starts, in bytes, a multiple of the page size. A `/dev/uioN` reads it as *map number times
    /// page size* (Documentation/driver-api/uio-howto.rst).
    pub file_offset: u64,
    /// Length in bytes, a multiple of the page size, not zero.
    pub bytes: usize,
}

/// Pieces of files mapped one behind the other, readable and writable, shared with whoever else maps them.
///
/// [`revoke`](Self::revoke) replaces all of it by private zeroes, without moving it and without a moment in which an
/// address is unmapped. From then on the kernel's pages can't be reached through it, and the files that were mapped
/// are no longer held open by it. The addresses stay valid until the mapping is dropped.
///
/// A bus error inside the range (the kernel took the pages away first) does the same as `revoke`: the first mapping of
/// a process installs a SIGBUS handler for that, which passes every other fault on to the handler it found. A program
/// that installs its own handler later must pass faults on likewise, and no thread that uses a mapping may block
/// SIGBUS: the kernel would end the process. A forked child does not inherit the range.
pub struct Mapping {
    /// Ends before the range is unmapped: see `Drop`.
    registration: Option<Registration>,
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the range belongs to the mapping, not to a thread; `munmap` may run on any thread.
unsafe impl Send for Mapping {}
// SAFETY: through `&self` the bytes are reached by atomics only, and `revoke` is atomic for concurrent accesses.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `pieces` one behind the other at an address that the kernel chooses.
    ///
    /// The same piece may appear twice; that makes a ring whose data continue behind its end.
    ///
    /// # Errors
    /// `EINVAL` when a piece is empty or not made of whole pages; otherwise what the kernel says: `ENODEV` from a
    /// `ring` file whose channel is not open, `EINVAL` from a map that does not exist or is smaller.
    pub fn new(pieces: &[Piece<'_>]) -> Result<Self, Errno> {
        let mut total = 0_usize;
        for piece in pieces {
            let page = u64::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
            if piece.bytes == 0 || !piece.bytes.is_multiple_of(page_size()) || !piece.file_offset.is_multiple_of(page) {
                return Err(Errno::INVAL);
            }
            total = total.checked_add(piece.bytes).ok_or(Errno::OVERFLOW)?;
        }
        let mut mapping = Self::reserve(total)?;
        let mut at = 0_usize;
        for piece in pieces {
            let flags = MapFlags::SHARED | MapFlags::FIXED;
            let rights = ProtFlags::READ | ProtFlags::WRITE;
            let place = mapping.base.as_ptr().wrapping_add(at).cast::<c_void>();
            // SAFETY: `at + piece.bytes <= total`, so the call replaces only a part of the range that was reserved
            // above and that nobody else knows yet. The host and the kernel write the pages that appear there.
            unsafe { mmap(place, piece.bytes, rights, flags, piece.file, piece.file_offset) }?;
            at = at.checked_add(piece.bytes).ok_or(Errno::OVERFLOW)?;
        }
        // A child between fork and exec would hold the pages, and the device open, behind our back.
        // SAFETY: advice about our own range; it changes nothing in this process.
        if let Err(error) = unsafe { madvise(mapping.base.as_ptr().cast(), total, Advice::LinuxDontFork) } {
            log::debug!(target: "vmbus::memory", "a mapping will be inherited by children: {error}");
        }
        mapping.registration = Some(Registration::new(mapping.base.as_ptr().expose_provenance(), total)?);
        Ok(mapping)
    }

    /// Takes a range of addresses without rights and without memory.
    fn reserve(bytes: usize) -> Result<Self, Errno> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new range at an address of the kernel's choice; nothing that exists is touched.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), bytes, ProtFlags::empty(), flags) }?;
        let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::NOMEM)?;
        Ok(Self { registration: None, base, bytes })
    }

    /// First address of the range, page-aligned. Valid until the mapping is dropped, also after a revocation.
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Length of the range in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Replaces the whole range by private pages of zeroes. Idempotent; any thread may call it at any time, also
    /// while others read and write the range: each of their accesses hits either the old pages or the new ones.
    ///
    /// When it returns, no access can reach the old pages and the mapping no longer holds a file open.
    ///
    /// # Errors
    /// What the kernel says, practically only `ENOMEM`. The old pages may then still be there.
    pub fn revoke(&self) -> Result<(), Errno> {
        if !crate::mutation::revokes() {
            return Ok(());
        }
        self.registration.as_ref().map_or(Ok(()), Registration::revoke)
    }

    /// Whether the range was revoked, by [`revoke`](Self::revoke) or by a bus error in it, or is about to be. Ask *behind* a
    /// read: whoever has read a zero of the new pages is told so here; who asks before may read one all the same.
    #[must_use]
    pub fn is_revoked(&self) -> bool {
        self.registration.as_ref().is_some_and(Registration::is_revoked)
    }

    /// Reads the 32-bit word at `offset` bytes, with acquire ordering; `None` when it is not inside or not aligned to
    /// four.
    #[must_use]
    pub fn load(&self, offset: usize) -> Option<u32> {
        self.word(offset).map(|word| word.load(Ordering::Acquire))
    }

    /// Sets bits in the 32-bit word at `offset` bytes with one sequentially consistent read-modify-write, and returns
    /// the word as it was; `None` when the word is not inside or not aligned to four.
    pub fn set_bits(&self, offset: usize, bits: u32) -> Option<u32> {
        self.word(offset).map(|word| word.fetch_or(bits, Ordering::SeqCst))
    }

    /// Clears bits in the 32-bit word at `offset` bytes with one sequentially consistent read-modify-write, and returns
    /// the word as it was; `None` when the word is not inside or not aligned to four.
    pub fn clear_bits(&self, offset: usize, bits: u32) -> Option<u32> {
        self.word(offset).map(|word| word.fetch_and(!bits, Ordering::SeqCst))
    }

    /// Reads the 64-bit word at `offset` bytes, with acquire ordering; `None` when it is not inside or not aligned to
    /// eight.
    #[must_use]
    pub fn load64(&self, offset: usize) -> Option<u64> {
        self.double_word(offset).map(|word| word.load(Ordering::Acquire))
    }

    /// Takes the bits of the 64-bit word at `offset` bytes: one plain load where there are none, and only otherwise a
    /// swap with zero. Whoever set a bit before is seen to have done all that it did before that; a bit that is set
    /// after the swap stays for the next call. `None` when the word is not inside or not aligned to eight.
    ///
    /// Threads that race for a word in the *same* mapping must agree on its size: who takes whole words here leaves the
    /// 32-bit calls to its own thread. (Other mappings of the page may do as they like; the processor orders those.)
    pub fn take_word(&self, offset: usize) -> Option<u64> {
        let word = self.double_word(offset)?;
        if word.load(Ordering::Relaxed) == 0 {
            return Some(0);
        }
        // Sequentially consistent, as `set_bits`: what the taker looks at next (a ring's index) is not read earlier
        // than the bits are gone, or a signal between the two would be lost.
        Some(word.swap(0, Ordering::SeqCst))
    }

    /// `count` words of 64 bits that begin at `offset` bytes, for who looks at many of them again and again; `None` when
    /// they are not all inside or not aligned to eight. What is said of [`take_word`](Self::take_word) holds for them.
    #[inline]
    #[must_use]
    pub fn words(&self, offset: usize, count: usize) -> Option<&[AtomicU64]> {
        let end = count.checked_mul(size_of::<u64>()).and_then(|bytes| offset.checked_add(bytes))?;
        if end > self.bytes || !offset.is_multiple_of(align_of::<AtomicU64>()) {
            return None;
        }
        let first = self.base.as_ptr().wrapping_add(offset).cast::<AtomicU64>();
        // SAFETY: inside the range and aligned (checked above; the base is page-aligned); the range is readable and
        // writable from the end of `new` until the drop, which `&self` excludes. Host, kernel and other processes
        // write the words too; none of them is part of this program, and an atomic takes any value of 64 bits. A
        // half of one is reached through `word` by the same thread, or through another mapping, see `take_word`.
        Some(unsafe { core::slice::from_raw_parts(first, count) })
    }

    fn double_word(&self, offset: usize) -> Option<&AtomicU64> {
        self.words(offset, 1)?.first()
    }

    fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let end = offset.checked_add(size_of::<u32>())?;
        if end > self.bytes || !offset.is_multiple_of(align_of::<AtomicU32>()) {
            return None;
        }
        let word = self.base.as_ptr().wrapping_add(offset).cast::<u32>();
        // SAFETY: inside the range and aligned (checked above; the base is page-aligned); the range is readable and
        // writable from the end of `new` until the drop, which `&self` excludes. Host, kernel and other processes
        // write the word too; none of them is part of this program, and an atomic takes any value of 32 bits.
        Some(unsafe { AtomicU32::from_ptr(word) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // First, so that the handler never replaces a range that is somebody else's by then.
        self.registration = None;
        // SAFETY: the range is ours since `reserve`; `&mut self` says that nobody uses it any more.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.bytes) } {
            log::warn!(target: "vmbus::memory", "{} bytes of address space stay taken: {error}", self.bytes);
        }
    }
}

impl fmt::Debug for Mapping {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Mapping")
            .field("base", &self.base)
            .field("bytes", &self.bytes)
            .field("revoked", &self.is_revoked())
            .finish()
    }
}
