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
use crate::memory::{Memory, padded_word, store_packet_in_parts};
#[cfg(any(test, not(target_arch = "x86_64"), miri))]
mod portable;
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

    #[inline]
    fn field(&self, field: ControlField) -> &AtomicU32 {
        // SAFETY: every field's offset is a multiple of 4 below CONTROL_BYTES, for which `control` is valid and
        // aligned while `owner`, and so `self`, lives. Both sides access the fields as aligned 32-bit words, which
        // atomics allow; the reference does not leave this file.
        unsafe { AtomicU32::from_ptr(self.control.as_ptr().wrapping_add(field.offset()).cast()) }
    }

    /// The word at `offset`, which must be a multiple of 8.
    ///
    /// # Safety
    /// `offset + 8` is at most `reach`.
    #[inline]
    unsafe fn word(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: the eight bytes are within `reach` (caller), for which `data` is valid while `self` lives, and both
        // `data` and `offset` are aligned. The other side may write the word at any time, which an atomic tolerates;
        // the reference does not leave this file.
        unsafe { AtomicU64::from_ptr(self.data.as_ptr().wrapping_add(offset).cast()) }
    }

    /// `offset` plus the words before the `index`th, both wrapped; always a word of the data.
    #[cold]
    fn wrapped(&self, offset: u32, index: usize) -> usize {
        (offset as usize & !7).wrapping_add(index.wrapping_mul(8)) % self.data_bytes as usize
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

    /// Where an access that leaves the mapping is to be split, if it is an access at all.
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

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        let start = offset as usize & !7;
        let mut words = [0; N];
        if start + N * 8 <= self.reach {
            for (index, word) in words.iter_mut().enumerate() {
                // SAFETY: word `index` ends at `start + N * 8` at most, which is within `reach`.
                *word = u64::from_le(unsafe { self.word(start + index * 8) }.load(Ordering::Relaxed));
            }
        } else {
            for (index, word) in words.iter_mut().enumerate() {
                // SAFETY: `wrapped` is below the size, and both are multiples of 8.
                *word = u64::from_le(unsafe { self.word(self.wrapped(offset, index)) }.load(Ordering::Relaxed));
            }
        }
        words
    }

    #[inline]
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        let start = offset as usize & !7;
        let whole = start + N * 8 <= self.reach;
        for (index, word) in words.into_iter().enumerate() {
            let at = if whole { start + index * 8 } else { self.wrapped(offset, index) };
            // SAFETY: either the last word ends within `reach`, or `wrapped` is below the size, a multiple of 8.
            unsafe { self.word(at) }.store(word.to_le(), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn store_packet(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) {
        let (start, bytes) = (offset as usize & !7, payload.len());
        // No overflow: a slice has at most isize::MAX bytes, and `start` 32 bits; 64 bits hold the sum on any machine.
        let end = start as u64 + ((bytes as u64 + 7) & !7) + 24;
        if end > self.reach as u64 {
            return store_packet_in_parts(self, offset, head, payload, trailer);
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
    }

    #[inline(always)]
    fn read(&self, offset: u32, destination: &mut [u8]) {
        if self.copy_out(offset as usize, destination) {
            return;
        }
        let head = self.split(offset, destination.len()).unwrap_or(usize::MAX);
        if let Some((first, second)) = destination.split_at_mut_checked(head) {
            let _ = self.copy_out(offset as usize, first) && self.copy_out(0, second);
        } else {
            destination.fill(0);
        }
    }

    #[inline]
    fn write(&self, offset: u32, source: &[u8]) {
        if self.copy_in(offset as usize, source) {
            return;
        }
        let head = self.split(offset, source.len()).unwrap_or(usize::MAX);
        if let Some((first, second)) = source.split_at_checked(head) {
            let _ = self.copy_in(offset as usize, first) && self.copy_in(0, second);
        }
    }
}

/// Copies between shared and private memory that are opaque to the compiler. Vector moves, not `rep movsb`, which is
/// many times slower when the destination lies a few bytes past the source's page offset; packets do.
#[cfg(all(target_arch = "x86_64", not(miri)))]
mod vector {
    use core::arch::asm;
    use core::arch::x86_64::{__cpuid, __cpuid_count};

    /// Which copies this machine can do, and does well.
    #[derive(Debug, Clone, Copy)]
    pub(super) struct Machine {
        /// 32-byte registers are there and enabled by the operating system.
        wide: bool,
        /// From this length on `rep movsb` is best: it does not read the destination first. Only where it has no cliff.
        strings_from: usize,
    }

    impl Machine {
        pub(super) const PLAIN: Self = Self { wide: false, strings_from: usize::MAX };

        pub(super) fn this() -> Self {
            const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
            const INTEL: u32 = u32::from_le_bytes(*b"Genu");
            let basic = __cpuid(0);
            if basic.eax < 7 || __cpuid(1).ecx & OSXSAVE_AND_AVX != OSXSAVE_AND_AVX {
                return Self::PLAIN;
            }
            let features = __cpuid_count(7, 0);
            let strings = basic.ebx == INTEL && features.ebx & 1 << 9 != 0 && features.edx & 1 << 4 != 0;
            let enabled: u32;
            // SAFETY: xgetbv exists where OSXSAVE is set, and only reads register XCR0.
            unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack)) };
            Self { wide: enabled & 6 == 6, strings_from: if strings { 2048 } else { usize::MAX } }
        }
    }

    /// # Safety
    /// `from` is valid for reads of `bytes`, `to` for writes; they don't overlap; `machine` can do no more than
    /// [`Machine::this`].
    #[inline(always)]
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one proof: each access stays within `bytes`")]
    pub(super) unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize, machine: Machine) {
        // SAFETY: each instruction moves bytes within [0, bytes) of both, where the caller vouches for validity: the
        // size classes load head and tail of at most `bytes`, overlapping. Assembly is no Rust access, so another
        // writer is no data race, only stale or torn bytes, which every caller expects.
        unsafe {
            match bytes {
                16 => asm!("movdqu {v}, [{f}]", "movdqu [{t}], {v}",
                    f = in(reg) from, t = in(reg) to, v = out(xmm_reg) _, options(nostack, preserves_flags)),
                17..=32 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + {n} - 16]",
                    "movdqu [{t}], {v}", "movdqu [{t} + {n} - 16], {w}", f = in(reg) from, t = in(reg) to,
                    n = in(reg) bytes, v = out(xmm_reg) _, w = out(xmm_reg) _, options(nostack, preserves_flags)),
                64 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + 32]",
                    "movdqu {y}, [{f} + 48]", "movdqu [{t}], {v}", "movdqu [{t} + 16], {w}", "movdqu [{t} + 32], {x}",
                    "movdqu [{t} + 48], {y}", f = in(reg) from, t = in(reg) to, v = out(xmm_reg) _,
                    w = out(xmm_reg) _, x = out(xmm_reg) _, y = out(xmm_reg) _, options(nostack, preserves_flags)),
                33..=63 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + {n} - 32]",
                    "movdqu {y}, [{f} + {n} - 16]", "movdqu [{t}], {v}", "movdqu [{t} + 16], {w}",
                    "movdqu [{t} + {n} - 32], {x}", "movdqu [{t} + {n} - 16], {y}", f = in(reg) from, t = in(reg) to,
                    n = in(reg) bytes, v = out(xmm_reg) _, w = out(xmm_reg) _, x = out(xmm_reg) _,
                    y = out(xmm_reg) _, options(nostack, preserves_flags)),
                8..=15 => asm!("mov {v}, [{f}]", "mov {w}, [{f} + {n} - 8]", "mov [{t}], {v}",
                    "mov [{t} + {n} - 8], {w}", f = in(reg) from, t = in(reg) to, n = in(reg) bytes,
                    v = out(reg) _, w = out(reg) _, options(nostack, preserves_flags)),
                0..=7 => bytewise(from, to, bytes),
                _ if machine.wide && bytes >= 128 => long_wide(from, to, bytes, machine.strings_from),
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
    /// As for [`copy`], `bytes` being at least 128, on a machine that is wide.
    #[inline(never)]
    #[target_feature(enable = "avx")]
    unsafe fn long_wide(from: *const u8, to: *mut u8, bytes: usize, strings_from: usize) {
        // Stores that cross cache lines cost a copy of this length more than the detour to an aligned destination.
        let skip = if bytes > 256 { 32 - (to.addr() & 31) } else { 0 };
        // SAFETY: as in `copy`: first 32 bytes, then on from `skip`, which is at most 32; either all that is left as a
        // string, or 128 bytes while more than that are left, and the last 128, loaded before, in the end.
        unsafe {
            asm!(
                "vmovdqu {z}, [rsi]", "vmovdqu [rdi], {z}", "add rsi, {s}", "add rdi, {s}", "sub rcx, {s}",
                "cmp rcx, {strings}", "jb 2f", "rep movsb", "jmp 4f",
                "2:", "cmp rcx, 128", "jbe 3f",
                "vmovdqu {v}, [rsi]", "vmovdqu {w}, [rsi + 32]", "vmovdqu {x}, [rsi + 64]", "vmovdqu {y}, [rsi + 96]",
                "vmovdqu [rdi], {v}", "vmovdqu [rdi + 32], {w}", "vmovdqu [rdi + 64], {x}", "vmovdqu [rdi + 96], {y}",
                "sub rsi, -128", "sub rdi, -128", "add rcx, -128", "jmp 2b",
                "3:",
                "vmovdqu {v}, [rsi + rcx - 128]", "vmovdqu {w}, [rsi + rcx - 96]", "vmovdqu {x}, [rsi + rcx - 64]",
                "vmovdqu {y}, [rsi + rcx - 32]", "vmovdqu [rdi + rcx - 128], {v}", "vmovdqu [rdi + rcx - 96], {w}",
                "vmovdqu [rdi + rcx - 64], {x}", "vmovdqu [rdi + rcx - 32], {y}",
                "4:", "vzeroupper",
                inout("rsi") from => _, inout("rdi") to => _, inout("rcx") bytes => _, s = in(reg) skip,
                strings = in(reg) strings_from, v = out(ymm_reg) _, w = out(ymm_reg) _, x = out(ymm_reg) _,
                y = out(ymm_reg) _, z = out(ymm_reg) _, options(nostack)
            );
        }
    }
}
