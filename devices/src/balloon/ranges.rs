//! Sets of page frame numbers as sorted, disjoint runs.

use super::wire::PageRange;
use std::collections::BTreeMap;

/// Pages in all of `ranges`.
#[must_use]
pub fn count(ranges: &[PageRange]) -> u64 {
    ranges.iter().fold(0, |sum, range| sum.saturating_add(u64::from(range.count)))
}

/// Sorts `ranges` and joins those that touch, as far as a range's 24 bits of count go. They must be disjoint.
pub fn merge(ranges: &mut Vec<PageRange>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let sum = u64::from(last.count) + u64::from(next.count);
        match u32::try_from(sum) {
            Ok(count) if last.end() == next.start && count <= PageRange::MAX_COUNT => {
                last.count = count;
                true
            }
            _ => false,
        }
    });
}

/// A set of page frame numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RangeSet {
    /// First frame of each run to the first frame behind it; runs neither touch nor overlap.
    runs: BTreeMap<u64, u64>,
    count: u64,
}

impl RangeSet {
    /// Frames in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether any frame in `start..end` is in the set.
    #[must_use]
    pub fn touches(&self, start: u64, end: u64) -> bool {
        start < end && self.runs.range(..end).next_back().is_some_and(|(_, run_end)| *run_end > start)
    }

    /// Adds `start..end`; what is in the set already stays.
    pub fn insert(&mut self, start: u64, end: u64) {
        if start >= end {
            return;
        }
        let (mut first, mut last) = (start, end);
        // Every run that overlaps or touches becomes part of the new one.
        while let Some((&run_start, &run_end)) = self.runs.range(..=last).next_back() {
            if run_end < first {
                break;
            }
            self.runs.remove(&run_start);
            self.count -= run_end - run_start;
            first = first.min(run_start);
            last = last.max(run_end);
        }
        self.runs.insert(first, last);
        self.count += last - first;
    }

    /// Takes `start..end` out, and gives the runs that really were in the set.
    pub fn remove(&mut self, start: u64, end: u64) -> Vec<(u64, u64)> {
        let mut removed = Vec::new();
        if start >= end {
            return removed;
        }
        while let Some((&run_start, &run_end)) = self.runs.range(..end).next_back() {
            if run_end <= start {
                break;
            }
            self.runs.remove(&run_start);
            if run_end > end {
                self.runs.insert(end, run_end);
            }
            let (cut_start, cut_end) = (run_start.max(start), run_end.min(end));
            self.count -= cut_end - cut_start;
            removed.push((cut_start, cut_end));
            if run_start < start {
                self.runs.insert(run_start, start);
                break;
            }
        }
        removed.reverse();
        removed
    }

    /// The runs, lowest first, as start and end.
    pub fn runs(&self) -> impl Iterator<Item = (u64, u64)> {
        self.runs.iter().map(|(start, end)| (*start, *end))
    }
}
