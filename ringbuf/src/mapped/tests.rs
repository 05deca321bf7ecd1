//! Both copies, at every length and alignment: what must be copied is, and nothing beside it is touched.
#![cfg(all(target_arch = "x86_64", not(miri)))]

use std::vec::Vec;

use super::{portable, vector};

fn check(name: &str, copy: impl Fn(*const u8, *mut u8, usize)) {
    let source: Vec<u8> = (0..1400_u32).map(|index| (index % 255).to_le_bytes()[0]).collect();
    for length in (0..300).chain([511, 512, 513, 1023, 1024, 1025, 1200]) {
        for (from, to) in [(0, 0), (8, 0), (0, 8), (1, 0), (0, 1), (7, 9), (16, 32), (33, 17)] {
            let mut target = std::vec![0xff; 1400];
            copy(source[from..].as_ptr(), target[to..].as_mut_ptr(), length);
            assert_eq!(target[to..to + length], source[from..from + length], "{name}: {length} bytes, {from} to {to}");
            let beside = target[..to].iter().chain(&target[to + length..]);
            assert!(beside.copied().all(|byte| byte == 0xff), "{name}: {length} bytes, {from} to {to}, spilled");
        }
    }
}

#[test]
fn copies_are_exact() {
    // SAFETY: `check` passes ranges inside of two separate vectors.
    check("portable", |from, to, bytes| unsafe { portable::copy(from, to, bytes, portable::wide()) });
    // SAFETY: as above; no wide registers.
    check("narrow", |from, to, bytes| unsafe { vector::copy(from, to, bytes, false) });
    if vector::wide() {
        // SAFETY: as above; the machine has wide registers.
        check("wide", |from, to, bytes| unsafe { vector::copy(from, to, bytes, true) });
    }
}
