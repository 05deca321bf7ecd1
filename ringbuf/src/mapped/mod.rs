//! Ring memory that is shared with the other side. Unsafe code of this crate is here and in `vector`, nowhere else.
//!
//! Unsafe because the other side (host, process, thread) writes these bytes while they are read here. So there are no
//! references to them, only atomic words and copies that the compiler can't see into; and every access is checked
//! here, whatever its safe callers passed.
#![expect(unsafe_code, reason = "the one place where shared ring memory is touched")]

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::error::LayoutError;
use crate::layout::{CONTROL_BYTES, ControlField, check_data_bytes};
use crate::memory::padded_word;

mod access;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod machine;
#[cfg(any(test, not(target_arch = "x86_64"), miri))]
mod portable;
#[cfg(test)]
mod tests;
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod vector;

/// One ring in mapped memory. `O` owns the mapping and keeps it alive as long as this value lives.
///
/// *Contiguous* memory has the data once, and an access that reaches its end is made in two parts. *Mirrored* memory
/// has the same data mapped twice, back to back, and every access is one part; the sysfs `ring` file of a channel can
/// be mapped like that.
#[derive(Debug)]
pub struct Mapped<O> {
    control: NonNull<u8>,
    data: NonNull<u8>,
    data_bytes: u32,
    /// Bytes addressable from `data`: the size, or twice the size if mirrored.
    reach: usize,
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    machine: vector::Machine,
    owner: O,
}

// SAFETY: the pointers are valid on every thread while `owner` lives (contract of the constructors), and all accesses
// through them tolerate concurrent writers: atomics, or copies in assembly. Only `owner` limits where this may go.
unsafe impl<O: Send> Send for Mapped<O> {}
// SAFETY: as for `Send`; `&Mapped` gives access to the bytes by those accesses only, and to `&O`.
unsafe impl<O: Sync> Sync for Mapped<O> {}

impl<'a> Mapped<PhantomData<&'a [AtomicU64]>> {
    /// A contiguous ring in this process's own memory: two threads, a test, a simulated host.
    ///
    /// # Errors
    /// [`LayoutError`] if `data` has a size that a ring can't have, or `control` is too short for its fields.
    pub fn in_memory(control: &'a [AtomicU64], data: &'a [AtomicU64]) -> Result<Self, LayoutError> {
        let control_bytes = size_of_val(control);
        if control_bytes < CONTROL_BYTES as usize {
            return Err(LayoutError::Control { control_bytes });
        }
        let bytes = size_of_val(data);
        let data_bytes = u32::try_from(bytes).map_err(|_| LayoutError::DataBytes { data_bytes: u32::MAX })?;
        let (control, data) = (NonNull::from(control).cast(), NonNull::from(data).cast());
        // SAFETY: both slices are borrowed for 'a, which the owner type carries, so they stay valid. Atomics may be
        // written through shared references. Other writers are other threads that hold the same slices.
        unsafe { Self::contiguous(control, data, data_bytes, PhantomData) }
    }
}

impl<O> Mapped<O> {
    /// A ring whose data is mapped once.
    ///
    /// # Safety
    /// As long as `owner` lives, on any thread: `control` is valid for reads and writes of [`CONTROL_BYTES`] rounded
    /// up to 8, and `data` of `data_bytes`; or, if the mapping is replaced meanwhile (revoked), other readable and
    /// writable memory is there at every moment. No reference to these bytes exists. Other writers (the host, the
    /// kernel, other mappings of the same pages) may write any of them at any time.
    ///
    /// # Errors
    /// [`LayoutError`] if the size is not that of a ring, or a pointer is not aligned to 8.
    pub unsafe fn contiguous(
        control: NonNull<u8>,
        data: NonNull<u8>,
        data_bytes: u32,
        owner: O,
    ) -> Result<Self, LayoutError> {
        // SAFETY: the caller's contract, with a reach of one copy of the data.
        unsafe { Self::with_reach(control, data, data_bytes, 1, owner) }
    }

    /// A ring whose data is mapped twice, back to back.
    ///
    /// # Safety
    /// As for [`Mapped::contiguous`], with `data` valid for twice `data_bytes`, and both halves the same pages.
    ///
    /// # Errors
    /// [`LayoutError`] if the size is not that of a ring, or a pointer is not aligned to 8.
    pub unsafe fn mirrored(
        control: NonNull<u8>,
        data: NonNull<u8>,
        data_bytes: u32,
        owner: O,
    ) -> Result<Self, LayoutError> {
        // SAFETY: the caller's contract, with a reach of two copies of the data.
        unsafe { Self::with_reach(control, data, data_bytes, 2, owner) }
    }

    /// # Safety
    /// As for the public constructors, `data` being valid for `copies * data_bytes`.
    unsafe fn with_reach(
        control: NonNull<u8>,
        data: NonNull<u8>,
        data_bytes: u32,
        copies: usize,
        owner: O,
    ) -> Result<Self, LayoutError> {
        check_data_bytes(data_bytes)?;
        if !control.cast::<u64>().is_aligned() || !data.cast::<u64>().is_aligned() {
            return Err(LayoutError::Alignment);
        }
        let reach = copies * data_bytes as usize;
        Ok(Self {
            control,
            data,
            data_bytes,
            reach,
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            machine: vector::Machine::this(),
            owner,
        })
    }

    /// Whether the data is mapped twice.
    #[must_use]
    pub const fn is_mirrored(&self) -> bool {
        self.reach != self.data_bytes as usize
    }

    /// What keeps the mapping alive.
    #[must_use]
    pub const fn owner(&self) -> &O {
        &self.owner
    }

    /// One field of the control page.
    #[inline]
    fn field(&self, field: ControlField) -> &AtomicU32 {
        // SAFETY: every field's offset is a multiple of 4 below CONTROL_BYTES, for which `control` is valid and
        // aligned while `owner`, and so `self`, lives. Both sides access the fields as aligned 32-bit words, which
        // atomics allow; the reference does not leave this crate.
        unsafe { AtomicU32::from_ptr(self.control.as_ptr().wrapping_add(field.offset()).cast()) }
    }

    /// The word at `offset`, which must be a multiple of 8.
    ///
    /// # Safety
    /// `offset + 8` is at most `reach`.
    #[inline(always)]
    unsafe fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the eight bytes are within `reach` (caller), for which `data` is valid while `self` lives, and both
        // `data` and `offset` are aligned. The other side may write the word at any time, which an atomic tolerates.
        unsafe { AtomicU64::from_ptr(self.data.as_ptr().wrapping_add(offset).cast()) }
    }

    /// The word at `offset`, rounded down to a multiple of 8 and wrapped.
    #[cold]
    fn wrapped(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the remainder is below the size and, as the size is, a multiple of 8.
        unsafe { self.word((offset & !7) % self.data_bytes as usize) }
    }

    /// The words from `offset` (rounded down) on, if they stay within the mapping.
    #[inline(always)]
    fn words<const N: usize>(&self, offset: u32) -> Option<[&AtomicU64; N]> {
        let start = offset as usize & !7;
        // SAFETY: the last word ends at `start + N * 8`, which was compared with `reach`.
        (start + N * 8 <= self.reach).then(|| core::array::from_fn(|index| unsafe { self.word(start + index * 8) }))
    }

    /// Copies out of the ring, if that stays within the mapping.
    #[inline(always)]
    fn copy_out(&self, offset: usize, destination: &mut [u8]) -> bool {
        let inside = offset.saturating_add(destination.len()) <= self.reach;
        if inside {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the source is within `reach`, for which `data` is valid; the other side may write it meanwhile,
            // which `copy` tolerates. The destination is ours alone, and apart from shared memory.
            unsafe {
                let from = self.data.as_ptr().wrapping_add(offset);
                vector::copy(from, destination.as_mut_ptr(), destination.len(), self.machine);
            }
            #[cfg(any(not(target_arch = "x86_64"), miri))]
            // SAFETY: `read` passes multiples of 8 whose words hold bytes of the range that was checked.
            portable::read(|at| unsafe { self.word(at) }, offset, destination);
        }
        inside
    }

    /// Copies into the ring, if that stays within the mapping.
    #[inline(always)]
    fn copy_in(&self, offset: usize, source: &[u8]) -> bool {
        let inside = offset.saturating_add(source.len()) <= self.reach;
        if inside {
            #[cfg(all(target_arch = "x86_64", not(miri)))]
            // SAFETY: the destination is within `reach`, for which `data` is valid; the other side may access it
            // meanwhile, which `copy` tolerates. The source is private memory.
            unsafe {
                let to = self.data.as_ptr().wrapping_add(offset);
                vector::copy(source.as_ptr(), to, source.len(), self.machine);
            }
            #[cfg(any(not(target_arch = "x86_64"), miri))]
            // SAFETY: `write` passes multiples of 8 whose words hold bytes of the range that was checked.
            portable::write(|at| unsafe { self.word(at) }, offset, source);
        }
        inside
    }

    /// Stores a packet, if that stays within the mapping: one check for all of it.
    #[inline(always)]
    fn packet_in(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) -> bool {
        let (start, bytes) = (offset as usize & !7, payload.len());
        // No overflow: a slice has at most isize::MAX bytes, and `start` 32 bits; 64 bits hold the sum on any machine.
        if start as u64 + ((bytes as u64 + 7) & !7) + 24 > self.reach as u64 {
            return false;
        }
        let padded = (bytes + 7) & !7;
        let put = |at: usize, word: u64| {
            // SAFETY: called below with the first, second and last word of the packet, and with the last word of its
            // payload; the packet ends at `start + padded + 24`, which is within `reach`.
            unsafe { self.word(start + at) }.store(word.to_le(), Ordering::Relaxed);
        };
        let [first, second] = head;
        put(0, first);
        put(8, second);
        let (words, tail) = payload.split_at(bytes & !7);
        self.copy_in(start + 16, words);
        if !tail.is_empty() {
            put(8 + padded, padded_word(tail));
        }
        put(16 + padded, trailer);
        true
    }

    /// Folds over blocks of 64 bytes, if they stay within the mapping; or gives everything back.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn fold<B, F: FnMut(B, [u64; 8]) -> B>(&self, at: u32, blocks: u32, init: B, mut each: F) -> Result<B, (B, F)> {
        if u64::from(at) + u64::from(blocks) * 64 > self.reach as u64 {
            return Err((init, each));
        }
        let start = self.data.as_ptr().wrapping_add(at as usize);
        // SAFETY: `blocks` times 64 bytes from `start` are within `reach`, for which `data` is valid while `self`
        // lives; another writer is tolerated as in `vector::copy`.
        let load = |block: usize| unsafe { vector::load_block(start.wrapping_add(block * 64)) };
        Ok((0..blocks as usize).fold(init, |all, block| each(all, load(block))))
    }
}
