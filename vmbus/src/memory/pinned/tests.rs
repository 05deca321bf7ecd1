//! Needs a kernel that lets this process pin memory and see page frame numbers; says so where it doesn't.

use super::{HUGE_BYTES, Pinned, Pinner};
use crate::direct::DirectSource;
use crate::uio::ProcessMemory;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `VmPin` counts for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// A pinner, or the reason why this machine can't run the test, printed.
///
/// A skipped test is not a passed one: the guest lab runs the same code on a kernel that allows it.
fn pinner(test: &str) -> Option<(Pinner, MutexGuard<'static, ()>)> {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    match Pinner::open() {
        Ok(pinner) => Some((pinner, alone)),
        Err(error) => {
            eprintln!("SKIPPED {test}: {error}");
            None
        }
    }
}

/// Pages that the kernel counts as pinned for this process.
fn pinned_pages(pinner: &Pinner) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024 / pinner.page_bytes()
}

/// Where the pages that are still held are now.
fn frames_now(pinned: &Pinned) -> Vec<(usize, u64)> {
    let mut now = Vec::new();
    for piece in &pinned.pieces {
        let pages = piece.span.bytes() / pinned.shared.page_bytes;
        let frames = pinned.shared.pagemap.frames(piece.span.address(), pages).unwrap();
        now.extend(frames.into_iter().enumerate().map(|(index, frame)| (piece.first + index, frame)));
    }
    now.sort_unstable();
    now
}

/// How many of `frames` are not memory of a process, not even as a part of a huge page; `None` if that can't be read.
fn unused(frames: &[u64]) -> Option<usize> {
    const ANONYMOUS: u64 = 1 << 12; // Documentation/admin-guide/mm/pagemap.rst
    let file = File::open("/proc/kpageflags").ok()?;
    let mut unused = 0;
    for frame in frames {
        let mut word = [0; 8];
        file.read_exact_at(&mut word, frame * 8).ok()?;
        unused += usize::from(u64::from_ne_bytes(word) & ANONYMOUS == 0);
    }
    Some(unused)
}

#[test]
fn pages_of_a_huge_page_are_pinned_and_given_back_one_by_one() {
    let Some((pinner, _alone)) = pinner("pages_of_a_huge_page_are_pinned_and_given_back_one_by_one") else { return };
    assert_mostly_free(|| pinned_and_given_back(&pinner));
}

#[test]
fn small_pages_are_pinned_and_given_back_one_by_one() {
    let Some((pinner, _alone)) = pinner("small_pages_are_pinned_and_given_back_one_by_one") else { return };
    assert_mostly_free(|| {
        pinner.shared.huge_pause.store(1, Ordering::Relaxed);
        pinned_and_given_back(&pinner)
    });
}

/// Other programs of a busy machine take returned pages at once, but not each time. Pages that are kept are kept always.
fn assert_mostly_free(mut round: impl FnMut() -> (usize, usize)) {
    let rounds: Vec<_> = (0..10).map(|_| round()).collect();
    assert!(rounds.iter().any(|(free, returned)| free * 2 > *returned), "free of returned pages: {rounds:?}");
}

/// Returns how many of the pages that were given back are free, and how many those were.
fn pinned_and_given_back(pinner: &Pinner) -> (usize, usize) {
    let pages = HUGE_BYTES / pinner.page_bytes();
    let before = pinned_pages(pinner);
    let mut pinned = pinner.take(pages).unwrap().expect("memory");
    let frames = pinned.frames().to_vec();
    assert_eq!(frames.len(), pages);
    assert_eq!(pinned.held_pages(), pages);
    assert_eq!(pinned_pages(pinner), before + pages);
    let mut unique = frames.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), pages, "a frame came twice");
    assert_eq!(unused(&frames).unwrap_or(0), 0);

    // The middle, then one page at each end, then the same again, then across what is gone.
    let gone = [pages / 4..pages / 2, 0..1, pages - 1..pages, 0..1, pages / 4 - 1..pages / 2 + 1];
    let mut held: Vec<usize> = (0..pages).collect();
    for range in gone {
        held.retain(|page| !range.contains(page));
        pinned.give_back(range).unwrap();
        assert_eq!(pinned.held_pages(), held.len());
        assert_eq!(pinned_pages(pinner), before + held.len());
    }
    // What is left did not move, also when the kernel is asked to move what it can.
    let _ = fs::write("/proc/sys/vm/compact_memory", "1");
    let expected: Vec<_> = held.iter().map(|page| (*page, frames[*page])).collect();
    assert_eq!(frames_now(&pinned), expected);
    // What was given back is free, but for what others took meanwhile.
    let returned: Vec<u64> =
        (0..pages).filter(|page| held.binary_search(page).is_err()).map(|page| frames[page]).collect();
    let free = unused(&returned).unwrap_or_else(|| {
        eprintln!("SKIPPED the check that returned pages are free: no /proc/kpageflags");
        returned.len()
    });
    drop(pinned);
    assert_eq!(pinned_pages(pinner), before);
    (free, returned.len())
}

#[test]
fn more_chunks_than_one_table_has_entries() {
    let Some((pinner, _alone)) = pinner("more_chunks_than_one_table_has_entries") else { return };
    let before = pinned_pages(&pinner);
    let count = 16_384 + 10;
    let chunks: Vec<_> = (0..count).map(|_| pinner.take(1).unwrap().expect("memory")).collect();
    assert_eq!(pinned_pages(&pinner), before + count);
    drop(chunks);
    assert_eq!(pinned_pages(&pinner), before);
    assert!(pinner.take(1).unwrap().is_some(), "entries are used again");
}

#[test]
fn nothing_is_no_chunk() {
    let Some((pinner, _alone)) = pinner("nothing_is_no_chunk") else { return };
    assert!(pinner.take(0).unwrap().is_none());
    assert!(pinner.take(usize::MAX).unwrap().is_none());
    let mut pinned = pinner.take(3).unwrap().expect("memory");
    pinned.give_back(5..9).unwrap();
    pinned.give_back(2..2).unwrap();
    assert_eq!(pinned.held_pages(), 3);
    pinned.give_back(0..99).unwrap();
    assert_eq!(pinned.held_pages(), 0);
}

/// Memory for packets with GPA ranges: every page has a frame of its own, and what is written is there.
#[test]
fn pages_of_a_mapping_are_pinned_as_long_as_they_are_used() {
    let Some((pinner, _alone)) = pinner("pages_of_a_mapping_are_pinned_as_long_as_they_are_used") else { return };
    let before = pinned_pages(&pinner);
    let memory = ProcessMemory::default().allocate(300_000).unwrap();
    assert!(memory.bytes() >= 300_000 && memory.frames().len() * 4096 == memory.bytes());
    assert!(pinned_pages(&pinner) >= before + memory.bytes() / pinner.page_bytes());
    let mut frames = memory.frames().to_vec();
    frames.sort_unstable();
    frames.dedup();
    assert_eq!(frames.len(), memory.frames().len());
    let data: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
    let mut read = vec![0; 300_000];
    assert!(memory.write(0, &data) && memory.read(0, &mut read) && read == data);
    assert!(!memory.read(memory.bytes() - 8, &mut [0; 9]) && !memory.write(4, &data), "outside, or not aligned");
    drop(memory);
    assert_eq!(pinned_pages(&pinner), before);
}
