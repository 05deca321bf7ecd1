//! All copies, at every length and alignment: what must be copied is, and nothing beside it is touched.
#![cfg(all(target_arch = "x86_64", not(miri)))]

use core::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

use super::{portable, vector};

/// Calls `copy` with a source, an offset in it, a target, an offset in that, and a length.
fn check(name: &str, copy: impl Fn(&[u8], usize, &mut [u8], usize, usize)) {
    let source: Vec<u8> = (0..5400_u32).map(|index| (index % 255).to_le_bytes()[0]).collect();
    for length in (0..300).chain([511, 512, 513, 1023, 1024, 1025, 1200, 2047, 2048, 2049, 2100, 4096, 5000]) {
        for (from, to) in [(0, 0), (8, 0), (0, 8), (1, 0), (0, 1), (7, 9), (16, 32), (33, 17)] {
            let mut target = std::vec![0xff; 5400];
            copy(&source, from, &mut target, to, length);
            assert_eq!(target[to..to + length], source[from..from + length], "{name}: {length} bytes, {from} to {to}");
            let beside = target[..to].iter().chain(&target[to + length..]);
            assert!(beside.copied().all(|byte| byte == 0xff), "{name}: {length} bytes, {from} to {to}, spilled");
        }
    }
}

#[test]
fn vector_copies_are_exact() {
    for machine in [vector::Machine::PLAIN, vector::Machine::this()] {
        check("vector", |source, from, target, to, length| {
            // SAFETY: `check` passes offsets and lengths inside of two separate vectors; `machine` is no more than this one.
            unsafe { vector::copy(source[from..].as_ptr(), target[to..].as_mut_ptr(), length, machine) }
        });
    }
}

fn shared(bytes: &[u8]) -> Vec<AtomicU64> {
    bytes.as_chunks::<8>().0.iter().map(|word| AtomicU64::new(u64::from_ne_bytes(*word))).collect()
}

#[test]
fn portable_copies_are_exact() {
    check("portable read", |source, from, target, to, length| {
        let words = shared(source);
        portable::read(|at| &words[at / 8], from, &mut target[to..to + length]);
    });
    check("portable write", |source, from, target, to, length| {
        let words = shared(target);
        portable::write(|at| &words[at / 8], to, &source[from..from + length]);
        for (bytes, word) in target.as_chunks_mut::<8>().0.iter_mut().zip(&words) {
            *bytes = word.load(Ordering::Relaxed).to_ne_bytes();
        }
    });
}
