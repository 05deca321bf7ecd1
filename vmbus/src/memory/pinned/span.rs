//! Anonymous memory that belongs to one owner, and is unmapped when that goes.
//!
//! Nothing ever makes a reference to its bytes: they are addresses only. The owner writes them once, before
//! anybody else could know them; afterwards a device may.

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::ptr;

/// Whole pages of anonymous private memory, owned: no other value covers any of them.
#[derive(Debug)]
pub(super) struct Span {
    address: usize,
    bytes: usize,
}

impl Span {
    /// Maps `bytes`, a multiple of the page size, at a multiple of `alignment`, a power of two.
    pub(super) fn map(bytes: usize, alignment: usize) -> Result<Self, Errno> {
        let page_bytes = rustix::param::page_size();
        let slack = alignment.saturating_sub(page_bytes);
        let whole = bytes.checked_add(slack).ok_or(Errno::NOMEM)?;
        // SAFETY: no address is asked for, so the kernel picks a free range and no existing mapping changes.
        let start =
            unsafe { mmap_anonymous(ptr::null_mut(), whole, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)? };
        let whole = Self { address: start.expose_provenance(), bytes: whole };
        let before = whole.address.next_multiple_of(alignment) - whole.address;
        // The parts before and behind are dropped at once.
        let (_, rest) = whole.split_at(before);
        let (span, _) = rest.split_at(bytes);
        span.advise(Advice::LinuxDontFork)?; // a child must not keep pages alive, or copy them
        span.advise(Advice::LinuxDontDump)?; // nobody may read them for a core dump
        Ok(span)
    }

    pub(super) fn address(&self) -> usize {
        self.address
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first `bytes`, and the rest; either may be empty.
    pub(super) fn split_at(self, bytes: usize) -> (Self, Self) {
        let bytes = bytes.min(self.bytes);
        let front = Self { address: self.address, bytes };
        let back = Self { address: self.address + bytes, bytes: self.bytes - bytes };
        std::mem::forget(self); // the halves own it now
        (front, back)
    }

    /// Asks for a huge page; a kernel without them says no, which is seen by the frames.
    pub(super) fn want_huge_page(&self) {
        let _ = self.advise(Advice::LinuxHugepage);
    }

    /// Asks for small pages from now on; a kernel without huge ones says no, and means yes.
    pub(super) fn keep_small_pages(&self) {
        let _ = self.advise(Advice::LinuxNoHugepage);
    }

    /// Has all pages allocated now.
    pub(super) fn populate(&self) -> Result<(), Errno> {
        self.advise(Advice::LinuxPopulateWrite)
    }

    /// Has a huge page cut into small ones that stay where they are.
    ///
    /// The kernel cuts a huge page when only a part of it is declared cold. It would replace small pages that
    /// hold nothing but zeroes by the shared zero page, so each one gets a mark first.
    pub(super) fn split_huge_page(&self, page_bytes: usize) {
        for offset in (0..self.bytes).step_by(page_bytes) {
            let page = ptr::with_exposed_provenance_mut::<u8>(self.address + offset);
            // SAFETY: `offset` is below `bytes`, so the byte is in memory that this value owns and has mapped for
            // writing. Nobody else knows the address or the frame yet, so nobody else writes or reads it.
            unsafe { page.write_volatile(1) };
        }
        let first = Self { address: self.address, bytes: page_bytes.min(self.bytes) };
        let _ = first.advise(Advice::LinuxCold);
        std::mem::forget(first); // only a name for a part of `self`
    }

    fn advise(&self, advice: Advice) -> Result<(), Errno> {
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is owned by this value and mapped. No advice given in this file drops contents that
        // somebody relies on: nothing is ever stored here, and no reference to these bytes exists.
        unsafe { madvise(self.pointer(), self.bytes, advice) }
    }

    fn pointer(&self) -> *mut c_void {
        ptr::with_exposed_provenance_mut(self.address)
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        // SAFETY: the range is owned by this value alone and goes with it. No reference to its bytes was ever made.
        // A device that knows the frames doesn't lose them here: a pin, if one is left, keeps the pages.
        let unmapped = unsafe { munmap(self.pointer(), self.bytes) };
        if let Err(error) = unmapped {
            // Too many mappings to cut one in two: the pages can go all the same, only the addresses stay.
            let _ = self.advise(Advice::LinuxDontNeed);
            log::warn!(target: "vmbus::memory", "cannot unmap {} bytes: {error}; their pages are free", self.bytes);
        }
    }
}
