//! Tables of pinned ranges: the registered buffers of io_uring instances that never do any I/O.
//!
//! A registered buffer is pinned until its entry is cleared or the instance's file is closed. A kernel takes at
//! most 16,384 entries an instance; one has `ENTRIES`, and another is opened when they are used up.

use crate::Error;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::io_uring::{
    IoringRegisterOp, IoringRsrcFlags, io_uring_params, io_uring_ptr, io_uring_register, io_uring_rsrc_register,
    io_uring_rsrc_update2, io_uring_setup, iovec,
};
use std::ffi::c_void;
use std::ptr;
use std::sync::{Arc, Mutex, PoisonError};

/// Entries of one table: 32 GiB in chunks of 2 MiB.
const ENTRIES: u32 = 16_384;

/// All tables, oldest first.
#[derive(Debug)]
pub(super) struct Tables(Vec<Arc<Table>>);

/// One io_uring instance.
#[derive(Debug)]
struct Table {
    ring: OwnedFd,
    free: Mutex<Vec<u32>>,
}

/// An entry that pins a range; dropping it lets go.
#[derive(Debug)]
pub(super) struct Slot {
    table: Arc<Table>,
    index: u32,
}

impl Tables {
    pub(super) fn open() -> Result<Self, Error> {
        Ok(Self(vec![Table::open().map_err(super::refused)?]))
    }

    /// Pins the memory at `address`, `bytes` long; fails with what the kernel says, first of all `NOMEM`.
    pub(super) fn pin(&mut self, address: usize, bytes: usize) -> Result<Slot, Errno> {
        let slot = match self.0.iter().rev().find_map(Table::reserve) {
            Some(slot) => slot,
            None => {
                let table = Table::open()?;
                let slot = Table::reserve(&table).ok_or(Errno::NOMEM)?;
                self.0.push(table);
                slot
            }
        };
        // If this fails the slot is dropped, which clears an entry that is empty already, and frees it.
        let range = iovec { iov_base: ptr::with_exposed_provenance_mut(address), iov_len: bytes };
        slot.table.update(slot.index, &range)?;
        Ok(slot)
    }
}

impl Table {
    fn open() -> Result<Arc<Self>, Errno> {
        let mut parameters = io_uring_params::default();
        // SAFETY: the parameters live across the call and name no other file. The rings are never mapped and
        // nothing is ever submitted, so the kernel touches no memory of this process through this instance.
        let ring = unsafe { io_uring_setup(1, &mut parameters)? };
        let mut table = io_uring_rsrc_register::default();
        table.nr = ENTRIES;
        table.flags = IoringRsrcFlags::REGISTER_SPARSE;
        register(&ring, IoringRegisterOp::RegisterBuffers2, &table)?;
        Ok(Arc::new(Self { ring, free: Mutex::new((0..ENTRIES).rev().collect()) }))
    }

    fn reserve(self: &Arc<Self>) -> Option<Slot> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Slot { table: Arc::clone(self), index })
    }

    /// Puts `range` into entry `index`; an empty range clears it.
    fn update(&self, index: u32, range: &iovec) -> Result<(), Errno> {
        let mut update = io_uring_rsrc_update2::default();
        update.offset = index;
        update.data = io_uring_ptr::new(ptr::from_ref(range).cast_mut().cast());
        update.nr = 1;
        register(&self.ring, IoringRegisterOp::RegisterBuffersUpdate, &update)
    }
}

/// Registers what `argument` describes: the second form of these calls, which wants its size.
fn register<T>(ring: &OwnedFd, operation: IoringRegisterOp, argument: &T) -> Result<(), Errno> {
    let bytes = u32::try_from(size_of::<T>()).map_err(|_| Errno::INVAL)?;
    let argument: *const c_void = ptr::from_ref(argument).cast();
    // SAFETY: `argument`, and the one range that it may point to, live across the call, in which the kernel only
    // reads them. The memory that the range names is pinned, neither read nor written: nothing is ever submitted.
    unsafe { io_uring_register(ring, operation, argument, bytes)? };
    Ok(())
}

impl Drop for Slot {
    fn drop(&mut self) {
        match self.table.update(self.index, &iovec { iov_base: ptr::null_mut(), iov_len: 0 }) {
            Ok(()) => self.table.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index),
            // The entry is not used again, so no range is ever taken for another.
            Err(error) => log::warn!(target: "vmbus::memory", "cannot let go of a pinned range: {error}"),
        }
    }
}
