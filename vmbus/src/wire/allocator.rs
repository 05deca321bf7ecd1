//! Which pages are free: runs of them, found by size and by place, each in O(log n) of the number of runs.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Which pages are free. The smallest run that is large enough is taken; neighbours become one run again.
#[derive(Debug)]
pub(super) struct Allocator {
    all: Range<u64>,
    /// First page to the page behind the last, of each free run. No two of them touch.
    by_place: BTreeMap<u64, u64>,
    /// The same runs as (pages, first page).
    by_size: BTreeSet<(u64, u64)>,
    free: u64,
}

impl Allocator {
    /// All of these pages are free.
    pub(super) fn new(all: Range<u64>) -> Self {
        let mut allocator = Self { all: all.clone(), by_place: BTreeMap::new(), by_size: BTreeSet::new(), free: 0 };
        allocator.insert(all);
        allocator
    }

    /// Pages that are free.
    pub(super) fn free_pages(&self) -> u64 {
        self.free
    }

    /// Takes `pages` pages: one run if there is one, otherwise as few as there are, largest first. `None`, and nothing
    /// is taken, when there are not so many, or none are asked for.
    pub(super) fn take(&mut self, pages: u64) -> Option<Vec<Range<u64>>> {
        if pages == 0 || pages > self.free {
            return None;
        }
        let mut taken = Vec::new();
        let mut missing = pages;
        while missing > 0 {
            let fitting = self.by_size.range((missing, 0)..).next().or_else(|| self.by_size.last());
            // There are enough free pages, so there is a run.
            let &(size, start) = fitting?;
            let end = start + size;
            self.remove(start..end);
            let cut = start + size.min(missing);
            self.insert(cut..end);
            missing -= cut - start;
            taken.push(start..cut);
        }
        Some(taken)
    }

    /// Gives a run back. `false`, and nothing changes, for pages that are free already or were never there.
    pub(super) fn give(&mut self, run: Range<u64>) -> bool {
        if run.is_empty() || run.start < self.all.start || run.end > self.all.end {
            return false;
        }
        let before = self.by_place.range(..run.end).next_back().map(|(start, end)| *start..*end);
        if before.as_ref().is_some_and(|before| before.end > run.start) {
            return false;
        }
        let mut whole = run.clone();
        if let Some(before) = before.filter(|before| before.end == run.start) {
            whole.start = before.start;
            self.remove(before);
        }
        if let Some(end) = self.by_place.get(&run.end).copied() {
            whole.end = end;
            self.remove(run.end..end);
        }
        self.insert(whole);
        true
    }

    fn insert(&mut self, run: Range<u64>) {
        if !run.is_empty() {
            self.by_place.insert(run.start, run.end);
            self.by_size.insert((run.end - run.start, run.start));
            self.free += run.end - run.start;
        }
    }

    fn remove(&mut self, run: Range<u64>) {
        self.by_place.remove(&run.start);
        self.by_size.remove(&(run.end - run.start, run.start));
        self.free -= run.end - run.start;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: Range<u64> = 3..67;

    /// Takes pages, and returns the first page and the page behind the last of each run.
    fn take(allocator: &mut Allocator, pages: u64) -> Vec<(u64, u64)> {
        allocator.take(pages).into_iter().flatten().map(|run| (run.start, run.end)).collect()
    }

    #[test]
    fn the_smallest_run_that_fits_is_taken_and_neighbours_join() {
        let mut allocator = Allocator::new(0..10);
        assert_eq!([3, 1, 6].map(|pages| take(&mut allocator, pages)), [[(0, 3)], [(3, 4)], [(4, 10)]]);
        assert!(allocator.give(0..3) && allocator.give(4..10));
        assert_eq!(take(&mut allocator, 3), [(0, 3)], "of 3 and 6 free pages");
        assert!(allocator.give(0..3));
        assert_eq!(take(&mut allocator, 2), [(0, 2)], "of 3 and 6 free pages");
        assert!(allocator.give(0..2) && allocator.give(3..4));
        assert_eq!(take(&mut allocator, 10), [(0, 10)], "all of it is one run again");
    }

    #[test]
    fn scattered_pages_make_up_what_no_run_has() {
        let mut allocator = Allocator::new(0..9);
        assert_eq!(take(&mut allocator, 9), [(0, 9)]);
        for run in [0..2, 3..6, 7..9] {
            assert!(allocator.give(run));
        }
        assert_eq!(take(&mut allocator, 6), [(3, 6), (7, 9), (0, 1)]);
        assert_eq!((allocator.take(2), allocator.free_pages()), (None, 1), "nothing is taken when it is not enough");
    }

    #[test]
    fn what_is_free_or_foreign_is_not_taken_back() {
        let mut allocator = Allocator::new(ALL);
        allocator.take(8);
        for run in [2..5, 66..68, 70..71, 10..12, 40..41, 5..5] {
            assert!(!allocator.give(run.clone()), "{run:?}");
        }
        assert_eq!(allocator.free_pages(), ALL.end - ALL.start - 8);
    }

    proptest! {
        /// Against a model that knows of each page whether it is free. Each step takes some pages, or gives one of the
        /// held runs back. (Seen to fail with joining removed, and with a run one page longer than asked for.)
        #[test]
        fn it_does_what_a_plain_table_does(steps in prop::collection::vec((any::<bool>(), 0_u64..20, any::<prop::sample::Index>()), 1..200)) {
            let mut allocator = Allocator::new(ALL);
            let mut free: Vec<bool> = (0..ALL.end).map(|page| page >= ALL.start).collect();
            let mut held: Vec<Range<u64>> = Vec::new();
            for (take, pages, which) in steps {
                let before = free.iter().filter(|free| **free).count() as u64;
                if take {
                    let taken = allocator.take(pages);
                    prop_assert_eq!(taken.is_some(), pages > 0 && pages <= before);
                    let longest = free.split(|free| !free).map(<[bool]>::len).max().unwrap() as u64;
                    for run in taken.iter().flatten() {
                        for page in run.clone() {
                            prop_assert!(std::mem::replace(&mut free[usize::try_from(page).unwrap()], false));
                        }
                    }
                    if let Some(taken) = taken {
                        prop_assert_eq!(taken.iter().map(|run| run.end - run.start).sum::<u64>(), pages);
                        prop_assert_eq!(taken.len() == 1, longest >= pages);
                        held.extend(taken);
                    }
                } else if !held.is_empty() {
                    let run = held.swap_remove(which.index(held.len()));
                    for page in run.clone() {
                        free[usize::try_from(page).unwrap()] = true;
                    }
                    prop_assert!(allocator.give(run));
                }
                prop_assert_eq!(allocator.free_pages(), free.iter().filter(|free| **free).count() as u64);
                let runs = free.split(|free| !free).filter(|run| !run.is_empty()).count();
                prop_assert_eq!((allocator.by_place.len(), allocator.by_size.len()), (runs, runs), "neighbours are one run");
            }
        }
    }
}
