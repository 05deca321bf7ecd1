//! A file that shrinks under its mapping faults just as a ring that the kernel takes back.

use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::*;

const BYTES: usize = 1 << 16;

/// A shared mapping of `BYTES` bytes, each 0xa5, and the file behind it.
fn mapped_file() -> (rustix::fd::OwnedFd, NonNull<u8>) {
    let file = memfd_create("fault-test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, BYTES as u64).unwrap();
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap(ptr::null_mut(), BYTES, protection, MapFlags::SHARED, &file, 0) }.unwrap().cast::<u8>();
    // SAFETY: the mapping is BYTES long, writable and ours alone.
    unsafe { start.write_bytes(0xa5, BYTES) };
    start.expose_provenance();
    (file, NonNull::new(start).unwrap())
}

fn unmap(start: NonNull<u8>) {
    // SAFETY: the range was mapped by `mapped_file`, and nothing uses it any more.
    unsafe { munmap(start.as_ptr().cast(), BYTES) }.unwrap();
}

fn load(start: NonNull<u8>, offset: usize) -> u8 {
    assert!(offset < BYTES);
    // SAFETY: inside the mapping. Volatile: the file may shrink meanwhile.
    unsafe { start.as_ptr().add(offset).read_volatile() }
}

/// Red without the handler: the process dies of SIGBUS.
#[test]
fn pages_taken_back_read_as_zeroes_and_nobody_dies() {
    let (file, start) = mapped_file();
    let guard = guard(start, BYTES).unwrap();
    assert_eq!((load(start, 0), guard.faulted()), (0xa5, false));
    ftruncate(&file, 0).unwrap();
    assert_eq!(load(start, BYTES / 2), 0);
    assert!(guard.faulted());
    assert_eq!((load(start, 0), load(start, BYTES - 1)), (0, 0), "the whole range was replaced");
    drop(guard);
    unmap(start);
}

/// Threads in the middle of the range when it goes see old bytes, then zeroes, and old bytes never again.
#[test]
fn threads_that_hammer_the_range_live_through_it() {
    let (file, start) = mapped_file();
    let guard = guard(start, BYTES).unwrap();
    let address = start.as_ptr().expose_provenance();
    let rounds = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..2_usize {
            let rounds = &rounds;
            scope.spawn(move || {
                let start = NonNull::new(ptr::with_exposed_provenance_mut::<u8>(address)).unwrap();
                let mut zeroes = 0;
                for step in 0_usize.. {
                    match load(start, (step * 4099 + thread * 97) % BYTES) {
                        0xa5 => assert_eq!(zeroes, 0, "an old byte after a zero"),
                        0 => zeroes += 1,
                        other => panic!("read {other:#x}"),
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                    if zeroes > 1000 {
                        break;
                    }
                }
            });
        }
        while rounds.load(Ordering::Relaxed) < 1000 {
            std::hint::spin_loop();
        }
        ftruncate(&file, 0).unwrap();
    });
    assert!(guard.faulted());
    drop(guard);
    unmap(start);
}

/// The table is left as it was found, and a slot is used again.
#[test]
fn a_dropped_guard_frees_its_slot() {
    let (_file, start) = mapped_file();
    let address = start.as_ptr().addr();
    for _ in 0..2 * SLOTS_AT_MOST {
        let guard = guard(start, BYTES).unwrap();
        assert!(find(address + BYTES - 1).is_some());
        assert!(find(address + BYTES).is_none_or(|(_, found, _)| found != address));
        drop(guard);
        assert!(find(address).is_none());
    }
    unmap(start);
}
