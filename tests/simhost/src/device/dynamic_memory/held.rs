//! The pages that the host has taken: each of them once.

use std::collections::BTreeMap;

use super::PageRange;

/// Runs of pages, none touching another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// First page to the page behind the last.
    runs: BTreeMap<u64, u64>,
}

impl Held {
    /// Adds pages. `false`, and nothing changes, if any of them is there already or the range runs over 40 bits.
    pub fn insert(&mut self, range: PageRange) -> bool {
        let (start, end) = (range.start, range.start.saturating_add(range.count.into()));
        let before = self.runs.range(..end).next_back().map(|(start, end)| (*start, *end));
        if end > 1 << 40 || start == end || before.is_some_and(|(_, before_end)| before_end > start) {
            return false;
        }
        let (mut start, mut end) = (start, end);
        if let Some((before_start, _)) = before.filter(|(_, before_end)| *before_end == start) {
            start = before_start;
        }
        if let Some(behind_end) = self.runs.remove(&end) {
            end = behind_end;
        }
        self.runs.insert(start, end);
        true
    }

    /// Takes that many pages out, or all there are: as ranges that fit the wire.
    pub fn take(&mut self, pages: u64) -> Vec<PageRange> {
        let (mut left, mut taken) = (pages, Vec::new());
        while left != 0
            && let Some((start, end)) = self.runs.pop_first()
        {
            let count = (end - start).min(left).min(PageRange::MAX_COUNT.into());
            taken.push(PageRange { start, count: u32::try_from(count).unwrap_or(PageRange::MAX_COUNT) });
            left -= count;
            if start + count < end {
                self.runs.insert(start + count, end);
            }
        }
        taken
    }

    /// Pages in all.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|(start, end)| end - start).sum()
    }
}
