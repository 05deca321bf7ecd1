//! Copies between shared and private memory that are opaque to the compiler: x86-64's, by the widest registers there are.
//!
//! Unsafe because they are assembly over addresses. Assembly is no access of Rust's, so that a writer on the other side is no
//! data race; what bounds an access is its caller's to check, and `mod.rs` does.

use core::arch::asm;
use core::arch::x86_64::__m128i;

/// Which copies this machine can do, and does well.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    /// Bytes of the widest registers that are there and enabled by the operating system: 16, 32 or 64.
    pub(super) register_bytes: usize,
    /// From this length on (behind the first register) `rep movsb` is best: it does not read the destination
    /// first. Not where it has a cliff: on some processors it is 27 times slower if source and destination differ
    /// by 8 bytes modulo the page size.
    pub(super) strings_from: usize,
}

impl Machine {
    pub(super) const PLAIN: Self = Self { register_bytes: 16, strings_from: usize::MAX };

    pub(super) fn ask() -> Self {
        const OSXSAVE_AND_AVX: u32 = 1 << 27 | 1 << 28;
        const INTEL: u32 = u32::from_le_bytes(*b"Genu");
        let [most, vendor, ..] = cpuid(0);
        let [_, _, registers, _] = cpuid(1);
        if most < 7 || registers & OSXSAVE_AND_AVX != OSXSAVE_AND_AVX {
            return Self::PLAIN;
        }
        let [_, features, _, more_features] = cpuid(7);
        // Processors with fast short strings also use 64-byte registers without slowing down.
        let (fast_strings, avx512) = (more_features & 1 << 4 != 0, features & 1 << 16 != 0);
        let enabled: u32;
        // SAFETY: xgetbv exists where OSXSAVE is set, and only reads register XCR0.
        unsafe { asm!("xgetbv", in("ecx") 0, out("eax") enabled, out("edx") _, options(nomem, nostack)) };
        let register_bytes = match enabled & 0xe6 {
            0xe6 if avx512 && fast_strings => 64,
            state if state & 6 == 6 => 32,
            _ => 16,
        };
        Self { register_bytes, strings_from: if fast_strings && vendor == INTEL { 4032 } else { usize::MAX } }
    }
}

/// The registers eax, ebx, ecx and edx of this leaf, first subleaf. (The one in `core` changed its safety.)
fn cpuid(leaf: u32) -> [u32; 4] {
    let (a, b, c, d): (u32, u64, u32, u32);
    // SAFETY: every x86-64 processor has cpuid, which only writes these registers; rbx, which the compiler keeps
    // for itself, is put back.
    unsafe {
        asm!("mov {b}, rbx", "cpuid", "xchg {b}, rbx", b = out(reg) b, inout("eax") leaf => a,
            inout("ecx") 0 => c, out("edx") d, options(nomem, nostack, preserves_flags));
    }
    [a, u32::try_from(b).unwrap_or(0), c, d]
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
            33..=64 => asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + {n} - 32]",
                "movdqu {y}, [{f} + {n} - 16]", "movdqu [{t}], {v}", "movdqu [{t} + 16], {w}",
                "movdqu [{t} + {n} - 32], {x}", "movdqu [{t} + {n} - 16], {y}", f = in(reg) from, t = in(reg) to,
                n = in(reg) bytes, v = out(xmm_reg) _, w = out(xmm_reg) _, x = out(xmm_reg) _,
                y = out(xmm_reg) _, options(nostack, preserves_flags)),
            8..=15 => asm!("mov {v}, [{f}]", "mov {w}, [{f} + {n} - 8]", "mov [{t}], {v}",
                "mov [{t} + {n} - 8], {w}", f = in(reg) from, t = in(reg) to, n = in(reg) bytes,
                v = out(reg) _, w = out(reg) _, options(nostack, preserves_flags)),
            0..=7 => (0..bytes).for_each(|offset| {
                asm!("mov {v}, [{f} + {n}]", "mov [{t} + {n}], {v}",
                f = in(reg) from, t = in(reg) to, n = in(reg) offset, v = out(reg_byte) _,
                options(nostack, preserves_flags))
            }),
            256.. if machine.register_bytes == 64 => long_64(from, to, bytes, machine.strings_from),
            128.. if machine.register_bytes >= 32 => long_32(from, to, bytes, machine.strings_from),
            _ => long_16(from, to, bytes, machine.strings_from),
        }
    }
}

/// # Safety
/// `from` is valid for reads of 64 bytes.
#[inline(always)]
pub(super) unsafe fn load_block(from: *const u8) -> [u64; 8] {
    let (v, w, x, y): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: four loads of 16 bytes each, into registers; see `copy` for other writers.
    unsafe {
        asm!("movdqu {v}, [{f}]", "movdqu {w}, [{f} + 16]", "movdqu {x}, [{f} + 32]", "movdqu {y}, [{f} + 48]",
            f = in(reg) from, v = out(xmm_reg) v, w = out(xmm_reg) w, x = out(xmm_reg) x, y = out(xmm_reg) y,
            options(nostack, preserves_flags, readonly));
    }
    zerocopy::transmute!([v, w, x, y])
}

/// A copy of at least four registers, by registers of this width.
macro_rules! long {
    ($name:ident, $feature:literal, $class:ident, $width:literal, $mov:literal, $end:literal) => {
        /// # Safety
        /// As for [`copy`], `bytes` being at least four times the register.
        #[inline(never)]
        #[target_feature(enable = $feature)]
        unsafe fn $name(from: *const u8, to: *mut u8, bytes: usize, strings_from: usize) {
            // Stores that cross cache lines cost a long copy more than a detour to an aligned destination.
            let skip = if bytes > 8 * $width { $width - to.addr() % $width } else { 0 };
            // SAFETY: as in `copy`. First one register, then on from `skip`, which is no more: all that is left as
            // a string; or four registers while more than that is left, and the last four of the whole.
            unsafe {
                asm!(
                    concat!($mov, " {v}, [rsi]"), concat!($mov, " [rdi], {v}"),
                    "add rsi, {s}", "add rdi, {s}", "sub rcx, {s}",
                    "cmp rcx, {strings}", "jb 2f", "rep movsb", "jmp 4f",
                    "2:", "cmp rcx, 4*{W}", "jbe 3f",
                    concat!($mov, " {v}, [rsi]"), concat!($mov, " {w}, [rsi + {W}]"),
                    concat!($mov, " {x}, [rsi + 2*{W}]"), concat!($mov, " {y}, [rsi + 3*{W}]"),
                    concat!($mov, " [rdi], {v}"), concat!($mov, " [rdi + {W}], {w}"),
                    concat!($mov, " [rdi + 2*{W}], {x}"), concat!($mov, " [rdi + 3*{W}], {y}"),
                    "add rsi, 4*{W}", "add rdi, 4*{W}", "sub rcx, 4*{W}", "jmp 2b",
                    "3:",
                    concat!($mov, " {v}, [rsi + rcx - 4*{W}]"), concat!($mov, " {w}, [rsi + rcx - 3*{W}]"),
                    concat!($mov, " {x}, [rsi + rcx - 2*{W}]"), concat!($mov, " {y}, [rsi + rcx - {W}]"),
                    concat!($mov, " [rdi + rcx - 4*{W}], {v}"), concat!($mov, " [rdi + rcx - 3*{W}], {w}"),
                    concat!($mov, " [rdi + rcx - 2*{W}], {x}"), concat!($mov, " [rdi + rcx - {W}], {y}"),
                    "4:", $end,
                    inout("rsi") from => _, inout("rdi") to => _, inout("rcx") bytes => _, s = in(reg) skip,
                    strings = in(reg) strings_from, W = const $width, v = out($class) _, w = out($class) _,
                    x = out($class) _, y = out($class) _, options(nostack)
                );
            }
        }
    };
}

long!(long_16, "sse2", xmm_reg, 16, "movups", "");
long!(long_32, "avx", ymm_reg, 32, "vmovups", "vzeroupper");
long!(long_64, "avx512f", zmm_reg, 64, "vmovups", "vzeroupper");
