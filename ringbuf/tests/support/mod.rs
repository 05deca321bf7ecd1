//! A mirrored ring over an anonymous file: control page, then the data mapped twice.
#![expect(clippy::unwrap_used, reason = "a test that can't map memory can't go on")]

use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

use rustix::fd::OwnedFd;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use rustix::param::page_size;
use vmbus_ringbuf::Mapped;

/// The address range of one mirrored ring; unmapped on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address range; whoever accesses it is `Mapped`, by means that tolerate other threads.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing is done through a shared reference.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `mirrored` and belongs to this value; `Mapped` owns it, so nobody uses it.
        unsafe { munmap(self.base.as_ptr().cast::<c_void>(), self.bytes) }.unwrap();
    }
}

/// Two handles to one mirrored ring with `pages` system pages of data, each with its own mapping of them.
pub(crate) fn mirrored_pair(pages: u32) -> (Mapped<Mapping>, Mapped<Mapping>) {
    let bytes = page_size() as u64 * (u64::from(pages) + 1);
    let file = memfd_create("ring", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, bytes).unwrap();
    (map_ring(&file, pages), map_ring(&file, pages))
}

fn map_ring(file: &OwnedFd, pages: u32) -> Mapped<Mapping> {
    let page = page_size();
    let data = page * pages as usize;
    let bytes = page + 2 * data;
    // SAFETY: a new private range at an address that the kernel chooses.
    let base =
        unsafe { mmap_anonymous(null_mut(), bytes, ProtFlags::empty(), MapFlags::PRIVATE) }.unwrap().cast::<u8>();
    let map = |at: usize, length: usize, offset: usize| {
        let (read_write, flags) =
            (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED | MapFlags::FIXED | MapFlags::POPULATE);
        // SAFETY: replaces a part of the range that was reserved above, which nobody uses yet.
        unsafe { mmap(base.wrapping_add(at).cast(), length, read_write, flags, file, offset as u64) }.unwrap();
    };
    map(0, page + data, 0);
    map(page + data, data, page);
    let owner = Mapping { base: NonNull::new(base).unwrap(), bytes };
    let (control, start) = (owner.base, NonNull::new(base.wrapping_add(page)).unwrap());
    // SAFETY: control page and twice the data are mapped until `owner` is dropped; no references to them exist; the
    // two halves are the same pages of the file. Other writers are the other handle, and users of this one.
    unsafe { Mapped::mirrored(control, start, u32::try_from(data).unwrap(), owner) }.unwrap()
}
