//! Mappings over ordinary files: layout, revocation under load, and bus errors turned into revocations.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use rustix::param::page_size;
use vmbus_ringbuf::{ControlField, Memory};

use super::mapping::{Mapping, Piece};
use super::pages::map_pages;
use super::ring::{contiguous, map_mirrored, map_ring_pages};

const MARK: u32 = 0xA5A5_5A5A;

fn file(pages: usize) -> OwnedFd {
    let file = memfd_create("vmbus-test", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, (pages * page_size()) as u64).unwrap();
    file
}

fn filled(pages: usize) -> OwnedFd {
    let file = file(pages);
    let page = MARK.to_le_bytes().repeat(page_size() / 4);
    for number in 0..pages {
        pwrite(&file, &page, (number * page_size()) as u64).unwrap();
    }
    file
}

fn whole(file: &OwnedFd, pages: usize) -> Mapping {
    Mapping::new(&[Piece { file: file.as_fd(), file_offset: 0, bytes: pages * page_size() }]).unwrap()
}

/// Lines of /proc/self/maps that lie in the mapping and name a file.
fn file_backed(mapping: &Mapping) -> usize {
    let range = mapping.base().as_ptr().addr()..mapping.base().as_ptr().addr() + mapping.bytes();
    std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter(|line| {
            let start = usize::from_str_radix(line.split('-').next().unwrap(), 16).unwrap();
            range.contains(&start) && line.contains("vmbus-test")
        })
        .count()
}

#[test]
fn pieces_lie_one_behind_the_other() {
    let file = file(3);
    for number in 0..3_u32 {
        pwrite(&file, &(number + 1).to_le_bytes(), u64::from(number) * page_size() as u64).unwrap();
    }
    let piece =
        |number: usize| Piece { file: file.as_fd(), file_offset: (number * page_size()) as u64, bytes: page_size() };
    let mapping = Mapping::new(&[piece(2), piece(0), piece(2)]).unwrap();
    let words: Vec<_> = (0..3).map(|at| mapping.load(at * page_size()).unwrap()).collect();
    assert_eq!(words, [3, 1, 3]);
    mapping.set_bits(0, 0x80).unwrap();
    assert_eq!(mapping.load(2 * page_size()), Some(0x83), "the same page is mapped twice");
    let mut there = [0_u8; 1];
    pread(&file, &mut there, 2 * page_size() as u64).unwrap();
    assert_eq!(there, [0x83], "the mapping is shared with the file");
}

#[test]
fn words_outside_or_unaligned_are_refused() {
    let file = file(1);
    let mapping = whole(&file, 1);
    assert!(mapping.load(page_size() - 4).is_some());
    for offset in [page_size() - 3, page_size(), usize::MAX, 2] {
        assert_eq!(mapping.load(offset), None, "offset {offset}");
        assert_eq!(mapping.set_bits(offset, 1), None, "offset {offset}");
    }
}

#[test]
fn pieces_that_are_not_whole_pages_are_refused() {
    let file = file(2);
    let try_piece = |file_offset: u64, bytes: usize| Mapping::new(&[Piece { file: file.as_fd(), file_offset, bytes }]);
    assert!(try_piece(0, 0).is_err());
    assert!(try_piece(0, page_size() - 1).is_err());
    assert!(try_piece(1, page_size()).is_err());
    assert!(Mapping::new(&[]).is_err());
    assert!(try_piece(0, page_size()).is_ok());
}

#[test]
fn revocation_is_idempotent_leaves_the_file_and_lets_go_of_it() {
    let file = filled(4);
    let mapping = whole(&file, 4);
    assert_eq!(file_backed(&mapping), 1);
    mapping.revoke().unwrap();
    mapping.revoke().unwrap();
    assert!(mapping.is_revoked());
    assert_eq!(file_backed(&mapping), 0, "the kernel's side of the mapping is gone");
    assert_eq!(mapping.load(0), Some(0));
    mapping.set_bits(0, 1).unwrap();
    let mut there = [0_u8; 4];
    pread(&file, &mut there, 0).unwrap();
    assert_eq!(u32::from_le_bytes(there), MARK, "a late write does not reach the old pages");
}

/// Between the zeroes and the return of the call that brought them, a reader is told already.
#[test]
fn who_reads_a_zero_is_told_of_the_revocation() {
    let mapping = std::rc::Rc::new(whole(&filled(2), 2));
    let (looked, its) = (std::rc::Rc::new(std::cell::Cell::new(0)), std::rc::Rc::clone(&mapping));
    let count = std::rc::Rc::clone(&looked);
    super::fault::REPLACED.set(Some(Box::new(move || {
        assert_eq!((its.load(0), its.is_revoked()), (Some(0), true));
        count.set(count.get() + 1);
    })));
    mapping.revoke().unwrap();
    super::fault::REPLACED.set(None);
    assert_eq!(looked.get(), 1);
}

/// Threads read every word of the mapping over and over while another revokes it: each read gives the old value or
/// zero, behind a zero the revocation is known, and when it has returned there are only zeroes. The process lives.
#[test]
fn revoking_under_readers_shows_old_bytes_then_only_zeroes() {
    const PAGES: usize = 16;
    for _ in 0..50 {
        let file = filled(PAGES);
        let mapping = whole(&file, PAGES);
        let (start, returned) = (Barrier::new(3), AtomicBool::new(false));
        let (old, zeroes) = thread::scope(|scope| {
            let read = || {
                start.wait();
                let (mut old, mut zeroes) = (0_usize, 0_usize);
                loop {
                    let over = returned.load(Ordering::Acquire);
                    for offset in (0..mapping.bytes()).step_by(64) {
                        match mapping.load(offset).unwrap() {
                            MARK if !over => old += 1,
                            0 if mapping.is_revoked() => zeroes += 1,
                            other => panic!("{other:#x} at {offset}, over {over}"),
                        }
                    }
                    if over {
                        return (old, zeroes);
                    }
                }
            };
            let readers = [scope.spawn(read), scope.spawn(read)];
            start.wait();
            mapping.revoke().unwrap();
            returned.store(true, Ordering::Release);
            let [first, second] = readers.map(|reader| reader.join().unwrap());
            (first.0 + second.0, first.1 + second.1)
        });
        assert!(zeroes >= 2 * mapping.bytes() / 64, "both readers saw all of it zero ({old} reads saw old bytes)");
    }
}

/// A file cut short under its mapping raises SIGBUS, as a `ring` file does when its device goes.
#[test]
fn a_bus_error_becomes_a_revocation() {
    let file = filled(8);
    let (mapping, other) = (whole(&file, 8), whole(&file, 1));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let hammer = || {
            while !stop.load(Ordering::Relaxed) {
                mapping.set_bits(4 * page_size(), 0).unwrap();
                let found = mapping.load(4 * page_size());
                assert!(found == Some(MARK) || found == Some(0) && mapping.is_revoked(), "{found:x?}");
            }
        };
        let hammers = [scope.spawn(hammer), scope.spawn(hammer)];
        ftruncate(&file, page_size() as u64).unwrap();
        while !mapping.is_revoked() {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        for hammer in hammers {
            hammer.join().unwrap();
        }
    });
    mapping.revoke().unwrap();
    assert_eq!(mapping.load(0), Some(0), "the whole range was replaced, not the page that faulted");
    assert!(!other.is_revoked() && other.load(0) == Some(MARK), "the neighbour is untouched");
}

#[test]
fn more_mappings_than_one_group_holds_are_all_protected() {
    let file = filled(2);
    let mappings: Vec<_> = (0..200).map(|_| whole(&file, 2)).collect();
    ftruncate(&file, 0).unwrap();
    for mapping in &mappings {
        assert_eq!(mapping.load(page_size()), Some(0));
        assert!(mapping.is_revoked());
    }
    drop(mappings);
    let file = filled(1);
    assert!(!whole(&file, 1).is_revoked(), "a used slot starts anew");
}

#[test]
fn a_mirrored_ring_continues_behind_its_end() {
    let file = file(2 * 3);
    let ring_bytes = 3 * page_size();
    // The second ring of the file, as the incoming one is.
    let (ring, _) = map_mirrored(file.as_fd(), ring_bytes as u64, ring_bytes).unwrap();
    assert_eq!(ring.data_bytes() as usize, 2 * page_size());
    let last = ring.data_bytes() - 8;
    ring.write(last, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    let mut start = [0_u8; 4];
    pread(&file, &mut start, (ring_bytes + page_size()) as u64).unwrap();
    assert_eq!(start, [9, 10, 11, 12], "what goes past the end lands at the start of the data");
    let mut back = [0_u8; 12];
    ring.read(last, &mut back);
    assert_eq!(back, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    ring.store(ControlField::WriteIndex, 16);
    let mut index = [0_u8; 4];
    pread(&file, &mut index, ring_bytes as u64).unwrap();
    assert_eq!(u32::from_le_bytes(index), 16, "the control page is the first of its ring");
}

#[test]
fn a_contiguous_ring_must_lie_inside_its_mapping() {
    let file = file(4);
    let mapping = Arc::new(whole(&file, 4));
    let two = 2 * page_size();
    assert!(contiguous(Arc::clone(&mapping), 0, two).is_ok());
    assert!(contiguous(Arc::clone(&mapping), two, two).is_ok());
    assert!(contiguous(Arc::clone(&mapping), two + page_size(), two).is_err());
    assert!(contiguous(Arc::clone(&mapping), 8, two).is_err());
    assert!(contiguous(Arc::clone(&mapping), 0, page_size()).is_err(), "no data");
    assert!(contiguous(mapping, usize::MAX - page_size() + 1, two).is_err());
}

#[test]
fn a_ring_outlives_the_file_descriptor() {
    let memory = file(4);
    let (ring, _) = map_mirrored(memory.as_fd(), 0, 2 * page_size()).unwrap();
    drop(memory);
    ring.write(0, &[7]);
    let mut back = [0];
    ring.read(0, &mut back);
    assert_eq!(back, [7]);
    assert!(File::open("/proc/self/maps").is_ok());
}

#[test]
fn whole_words_are_taken_once_and_bits_cleared_alone() {
    let mapping = whole(&file(1), 1);
    mapping.set_bits(8, 0x8000_0001).unwrap();
    mapping.set_bits(12, 0x10).unwrap();
    assert_eq!(mapping.load64(8), Some(0x10_8000_0001), "the lower half is the lower address");
    assert_eq!(mapping.clear_bits(8, 0x8000_0000), Some(0x8000_0001));
    assert_eq!((mapping.take_word(8), mapping.take_word(8)), (Some(0x10_0000_0001), Some(0)));
    assert_eq!((mapping.load64(0), mapping.load64(16)), (Some(0), Some(0)), "its neighbours are left alone");
    for offset in [4, 9, page_size() - 4, page_size(), usize::MAX - 7] {
        assert_eq!((mapping.load64(offset), mapping.take_word(offset)), (None, None), "offset {offset}");
    }
    assert_eq!(mapping.clear_bits(page_size(), 1), None);
}

/// Two threads set a bit each over and over and count how often it was clear, while a third takes the word: each bit is
/// taken as often as it was set. (Seen to fail with a load and a store in place of the swap, and a moment between them;
/// without that moment the processor's hold on the word hides it here.)
#[test]
fn taking_races_with_setting_and_loses_nothing() {
    const TAKES: usize = 20_000;
    let file = file(1);
    let (ours, theirs) = (whole(&file, 1), whole(&file, 1));
    let mut taken = [0_usize; 2];
    let mut take = || {
        let word = ours.take_word(0).unwrap();
        for (bit, taken) in taken.iter_mut().enumerate() {
            *taken += usize::from(word >> (32 * bit) & 1 == 1);
        }
        word != 0
    };
    let stop = AtomicBool::new(false);
    let set = thread::scope(|scope| {
        let (theirs, stop) = (&theirs, &stop);
        let set = move |bit: usize| {
            let mut count = 0_usize;
            while !stop.load(Ordering::Relaxed) {
                count += usize::from(theirs.set_bits(4 * bit, 1) == Some(0));
            }
            count
        };
        let setters = [0, 1].map(|bit| scope.spawn(move || set(bit)));
        let mut takes = 0;
        while takes < TAKES {
            takes += usize::from(take());
        }
        stop.store(true, Ordering::Relaxed);
        setters.map(|setter| setter.join().unwrap())
    });
    take();
    assert_eq!(taken, set);
}

#[test]
fn pages_are_mapped_in_the_order_of_the_list() {
    let file = file(6);
    for number in 0..6_u32 {
        pwrite(&file, &number.to_le_bytes(), u64::from(number) * page_size() as u64).unwrap();
    }
    for list in [&[4][..], &[2, 3, 4], &[5, 4, 3], &[1, 2, 5, 0, 1], &[3, 3]] {
        let mapping = map_pages(file.as_fd(), list).unwrap();
        assert_eq!(mapping.bytes(), list.len() * page_size());
        let words: Vec<_> = (0..list.len()).map(|at| u64::from(mapping.load(at * page_size()).unwrap())).collect();
        assert_eq!(words, list);
    }
    for list in [&[][..], &[u64::MAX], &[u64::MAX, 0], &[1 << 60]] {
        assert!(map_pages(file.as_fd(), list).is_err(), "{list:?}");
    }
    let beyond = map_pages(file.as_fd(), &[5, 6]).unwrap();
    assert_eq!(beyond.load(page_size()), Some(0));
    assert!(beyond.is_revoked(), "the file has no such page");
}

#[test]
fn a_ring_of_pages_is_mirrored_as_one() {
    let file = file(8);
    for list in [&[1, 2, 3, 4][..], &[7, 0, 5, 2], &[6, 5, 4]] {
        let (ring, mapping) = map_ring_pages(file.as_fd(), list).unwrap();
        assert_eq!(ring.data_bytes() as usize, (list.len() - 1) * page_size());
        assert_eq!(mapping.bytes(), (2 * list.len() - 1) * page_size());
        let last = ring.data_bytes() - 8;
        ring.write(last, &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        ring.store(ControlField::ReadIndex, 40);
        let page = |number: u64| number * page_size() as u64;
        let at = |offset: u64| {
            let mut word = [0_u8; 4];
            pread(&file, &mut word, offset).unwrap();
            word
        };
        assert_eq!(at(page(list[0]) + 4), [40, 0, 0, 0], "the control page is the first of the list");
        assert_eq!(at(page(*list.last().unwrap()) + page_size() as u64 - 4), [5, 6, 7, 8]);
        assert_eq!(at(page(list[1])), [9, 10, 11, 12]);
    }
    for list in [&[][..], &[1]] {
        assert!(map_ring_pages(file.as_fd(), list).is_err(), "{list:?}");
    }
}
