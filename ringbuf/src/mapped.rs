//! Ring memory that is shared with the other side: the only unsafe file of this crate.
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
use crate::memory::Memory;
#[cfg(any(not(target_arch = "x86_64"), miri))]
use portable::{copy, wide};
#[cfg(all(target_arch = "x86_64", not(miri)))]
use vector::{copy, wide};

#[cfg(test)]
mod tests;

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
    /// Whether copies may use 32-byte registers.
    wide: bool,
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
        Ok(Self { control, data, data_bytes, reach, wide: wide(), owner })
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

    #[inline]
    fn field(&self, field: ControlField) -> &AtomicU32 {
        // SAFETY: every field's offset is a multiple of 4 below CONTROL_BYTES, for which `control` is valid and
        // aligned while `owner`, and so `self`, lives. Both sides access the fields as aligned 32-bit words, which
        // atomics allow; the reference does not leave this file.
        unsafe { AtomicU32::from_ptr(self.control.as_ptr().wrapping_add(field.offset()).cast()) }
    }

    /// The word at `offset`, if it lies inside of the mapping.
    #[inline]
    fn word(&self, offset: usize) -> Option<&AtomicU64> {
        if offset + 8 > self.reach {
            return None;
        }
        // SAFETY: the eight bytes are within `reach`, for which `data` is valid while `self` lives; callers round
        // `offset` down to a multiple of 8 and `data` is aligned. The other side may write the word at any time, which
        // an atomic tolerates; the reference does not leave this file.
        Some(unsafe { AtomicU64::from_ptr(self.data.as_ptr().wrapping_add(offset).cast()) })
    }

    /// The address of a byte of data, for a copy that checked its offset.
    #[inline]
    const fn at(&self, offset: u32) -> *mut u8 {
        self.data.as_ptr().wrapping_add(offset as usize)
    }

    /// Splits an access that leaves the mapping: bytes up to the end, if it is an access at all.
    #[cold]
    fn split(&self, offset: u32, bytes: usize) -> Option<usize> {
        let sound = offset < self.data_bytes && bytes <= self.data_bytes as usize;
        sound.then(|| (self.data_bytes - offset) as usize)
    }
}

impl<O> Memory for Mapped<O> {
    #[inline]
    fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    #[inline]
    fn load(&self, field: ControlField) -> u32 {
        u32::from_le(self.field(field).load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, field: ControlField, value: u32) {
        self.field(field).store(value.to_le(), Ordering::Release);
    }

    #[inline]
    fn store_then_fence(&self, field: ControlField, value: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            // One xchg: store and full fence. An acquiring read-modify-write keeps later loads behind it in the
            // compiler, a locked instruction does in the processor; cheaper than mov and mfence.
            self.field(field).swap(value.to_le(), Ordering::SeqCst);
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            // A swap would not do here: on aarch64 later loads may pass its store half.
            self.field(field).store(value.to_le(), Ordering::Release);
            core::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    #[inline]
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        let mut at = (offset & !7) as usize;
        let whole = at + N * 8 <= self.reach;
        let mut words = [0; N];
        for word in &mut words {
            if !whole && at >= self.data_bytes as usize {
                at -= self.data_bytes as usize;
            }
            *word = self.word(at).map_or(0, |shared| u64::from_le(shared.load(Ordering::Relaxed)));
            at += 8;
        }
        words
    }

    #[inline]
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        let mut at = (offset & !7) as usize;
        let whole = at + N * 8 <= self.reach;
        for word in words {
            if !whole && at >= self.data_bytes as usize {
                at -= self.data_bytes as usize;
            }
            if let Some(shared) = self.word(at) {
                shared.store(word.to_le(), Ordering::Relaxed);
            }
            at += 8;
        }
    }

    #[inline]
    fn read(&self, offset: u32, destination: &mut [u8]) {
        let bytes = destination.len();
        if (offset as usize).saturating_add(bytes) <= self.reach {
            // SAFETY: the source is within `reach`, for which `data` is valid; the other side may write it meanwhile,
            // which `copy` tolerates. The destination is ours alone, and apart from shared memory.
            unsafe { copy(self.at(offset), destination.as_mut_ptr(), bytes, self.wide) }
        } else if let Some((first, second)) =
            self.split(offset, bytes).and_then(|head| destination.split_at_mut_checked(head))
        {
            // SAFETY: `first` is as long as from `offset` to the end of the data.
            unsafe { copy(self.at(offset), first.as_mut_ptr(), first.len(), self.wide) };
            // SAFETY: `second` is no longer than the data (`split` checked the whole), read from its start.
            unsafe { copy(self.at(0), second.as_mut_ptr(), second.len(), self.wide) };
        } else {
            destination.fill(0);
        }
    }

    #[inline]
    fn write(&self, offset: u32, source: &[u8]) {
        let bytes = source.len();
        if (offset as usize).saturating_add(bytes) <= self.reach {
            // SAFETY: the destination is within `reach`, for which `data` is valid; the other side may read or write
            // it meanwhile, which `copy` tolerates. The source is private memory.
            unsafe { copy(source.as_ptr(), self.at(offset), bytes, self.wide) }
        } else if let Some((first, second)) = self.split(offset, bytes).and_then(|head| source.split_at_checked(head)) {
            // SAFETY: `first` is as long as from `offset` to the end of the data.
            unsafe { copy(first.as_ptr(), self.at(offset), first.len(), self.wide) };
            // SAFETY: `second` is no longer than the data (`split` checked the whole), written to its start.
            unsafe { copy(second.as_ptr(), self.at(0), second.len(), self.wide) };
        }
    }
}

/// Copies between shared and private memory that are opaque to the compiler. Vector moves, not `rep movsb`, which is
/// many times slower when the destination lies a few bytes past the source's page offset; packets do.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod vector {
    use core::arch::asm;

    /// Whether 32-byte registers are there and enabled by the operating system.
    pub(super) fn wide() -> bool {
        const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
        if core::arch::x86_64::__cpuid(1).ecx & OSXSAVE_AND_AVX != OSXSAVE_AND_AVX {
            return false;
        }
        let enabled: u32;
        // SAFETY: xgetbv exists where OSXSAVE is set, and only reads register XCR0.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack)) };
        enabled & 6 == 6
    }

    /// # Safety
    /// `from` is valid for reads of `bytes`, `to` for writes; they don't overlap; `wide` as found by [`wide`].
    #[inline]
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof: each access stays within `bytes`")]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, wide: bool) {
        // SAFETY: each instruction moves bytes within [0, bytes) of both, where the caller vouches for validity: the
        // size classes load head and tail of at most `bytes`, overlapping. Assembly is no Rust access, so another
        // writer is no data race, only stale or torn bytes, which every caller expects.
        unsafe {
            match bytes {
                16 => asm!("movdqu {v}, [{f}]", "movdqu [{t}], {v}",
                    f = in(reg) from, t = in(reg) to, v = out(xmm_reg) _, options(nostack, preserves_flags)),
                8 => asm!("mov {v}, [{f}]", "mov [{t}], {v}",
                    f = in(reg) from, t = in(reg) to, v = out(reg) _, options(nostack, preserves_flags)),
                17..=32 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + {n} - 16]",
                    "movdqu [{t}], {v}", "movdqu [{t} + {n} - 16], {w}", f = in(reg) from, t = in(reg) to,
                    n = in(reg) bytes, v = out(xmm_reg) _, w = out(xmm_reg) _, options(nostack, preserves_flags)),
                33..=64 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + {n} - 32]",
                    "movdqu {y}, [{f} + {n} - 16]", "movdqu [{t}], {v}", "movdqu [{t} + 16], {w}",
                    "movdqu [{t} + {n} - 32], {x}", "movdqu [{t} + {n} - 16], {y}", f = in(reg) from, t = in(reg) to,
                    n = in(reg) bytes, v = out(xmm_reg) _, w = out(xmm_reg) _, x = out(xmm_reg) _,
                    y = out(xmm_reg) _, options(nostack, preserves_flags)),
                9..=15 => asm!("mov {v}, [{f}]", "mov {w}, [{f} + {n} - 8]", "mov [{t}], {v}",
                    "mov [{t} + {n} - 8], {w}", f = in(reg) from, t = in(reg) to, n = in(reg) bytes,
                    v = out(reg) _, w = out(reg) _, options(nostack, preserves_flags)),
                0..=7 => bytewise(from, to, bytes),
                _ if wide && bytes >= 128 => long_wide(from, to, bytes),
                _ => long(from, to, bytes),
            }
        }
    }

    /// # Safety
    /// As for [`copy`].
    #[inline]
    unsafe fn bytewise(from: *const u8, to: *mut u8, bytes: usize) {
        for offset in 0..bytes {
            // SAFETY: as in `copy`, one byte at `offset`.
            unsafe {
                asm!("mov {v}, [{f} + {n}]", "mov [{t} + {n}], {v}", f = in(reg) from, t = in(reg) to,
                    n = in(reg) offset, v = out(reg_byte) _, options(nostack, preserves_flags));
            }
        }
    }

    /// # Safety
    /// As for [`copy`], `bytes` being at least 64.
    unsafe fn long(from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: as in `copy`: the loop runs while more than 64 bytes are left, the tail is the last 64.
        unsafe {
            asm!(
                "2:", "cmp {n}, 64", "jbe 3f",
                "movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + 32]", "movdqu {y}, [{f} + 48]",
                "movdqu [{t}], {v}", "movdqu [{t} + 16], {w}", "movdqu [{t} + 32], {x}", "movdqu [{t} + 48], {y}",
                "add {f}, 64", "add {t}, 64", "sub {n}, 64", "jmp 2b",
                "3:",
                "movdqu {v}, [{f} + {n} - 64]", "movdqu {w}, [{f} + {n} - 48]", "movdqu {x}, [{f} + {n} - 32]",
                "movdqu {y}, [{f} + {n} - 16]", "movdqu [{t} + {n} - 64], {v}", "movdqu [{t} + {n} - 48], {w}",
                "movdqu [{t} + {n} - 32], {x}", "movdqu [{t} + {n} - 16], {y}",
                f = inout(reg) from => _, t = inout(reg) to => _, n = inout(reg) bytes => _,
                v = out(xmm_reg) _, w = out(xmm_reg) _, x = out(xmm_reg) _, y = out(xmm_reg) _, options(nostack)
            );
        }
    }

    /// # Safety
    /// As for [`copy`], `bytes` being at least 128, on a machine for which [`wide`] is true.
    #[inline(never)]
    #[target_feature(enable = "avx")]
    unsafe fn long_wide(from: *const u8, to: *mut u8, bytes: usize) {
        // SAFETY: as in `copy`: the loop runs while more than 128 bytes are left, the tail is the last 128.
        unsafe {
            asm!(
                "2:", "cmp {n}, 128", "jbe 3f",
                "vmovdqu {v}, [{f}]", "vmovdqu {w}, [{f} + 32]", "vmovdqu {x}, [{f} + 64]", "vmovdqu {y}, [{f} + 96]",
                "vmovdqu [{t}], {v}", "vmovdqu [{t} + 32], {w}", "vmovdqu [{t} + 64], {x}", "vmovdqu [{t} + 96], {y}",
                "sub {f}, -128", "sub {t}, -128", "add {n}, -128", "jmp 2b",
                "3:",
                "vmovdqu {v}, [{f} + {n} - 128]", "vmovdqu {w}, [{f} + {n} - 96]", "vmovdqu {x}, [{f} + {n} - 64]",
                "vmovdqu {y}, [{f} + {n} - 32]", "vmovdqu [{t} + {n} - 128], {v}", "vmovdqu [{t} + {n} - 96], {w}",
                "vmovdqu [{t} + {n} - 64], {x}", "vmovdqu [{t} + {n} - 32], {y}",
                "vzeroupper",
                f = inout(reg) from => _, t = inout(reg) to => _, n = inout(reg) bytes => _,
                v = out(ymm_reg) _, w = out(ymm_reg) _, x = out(ymm_reg) _, y = out(ymm_reg) _, options(nostack)
            );
        }
    }
}

/// Copies elsewhere: volatile words where both sides are aligned, bytes otherwise.
#[cfg(any(test, not(target_arch = "x86_64"), miri))]
mod portable {
    /// No vector registers are used.
    pub(super) const fn wide() -> bool {
        false
    }

    /// # Safety
    /// `from` is valid for reads of `bytes`, `to` for writes; they don't overlap.
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, _wide: bool) {
        let words = if (from.addr() | to.addr()) & 7 == 0 { bytes / 8 } else { 0 };
        for index in 0..words {
            // SAFETY: word `index` ends within `bytes`, and both sides are aligned. Volatile, since the other side may
            // write the shared one meanwhile: it yields stale or torn bytes, which every caller expects.
            let word = unsafe { from.cast::<u64>().wrapping_add(index).read_volatile() };
            // SAFETY: as above, for the other side of the copy.
            unsafe { to.cast::<u64>().wrapping_add(index).write_volatile(word) };
        }
        for index in words * 8..bytes {
            // SAFETY: as above, one byte.
            let byte = unsafe { from.wrapping_add(index).read_volatile() };
            // SAFETY: as above, for the other side of the copy.
            unsafe { to.wrapping_add(index).write_volatile(byte) };
        }
    }
}
