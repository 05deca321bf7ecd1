//! The pages in the balloon: which frames the host has, and where in this process they came from.
//!
//! The host knows frames only, and may merge, split and reorder the ranges that it was told. What it names and
//! doesn't have is counted and left alone. A page of this system goes back when all 4 KiB pages in it did.

use super::ranges::RangeSet;
use super::wire::{PAGE_BYTES, PageRange};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use vmbus::Error;
use vmbus::memory::{Pinned, Pinner};

/// Where pages come from; a double in tests.
pub trait PagePool: fmt::Debug {
    /// Pages that were taken together; dropping it gives all of them back.
    type Chunk: fmt::Debug;

    /// Pages of 4 KiB in one page of this system.
    fn granule_pages(&self) -> u32;

    /// Takes `count` pages of this system; `None` when there are none.
    ///
    /// # Errors
    /// What the system says, if it isn't a lack of memory.
    fn take(&mut self, count: usize) -> Result<Option<Self::Chunk>, Error>;

    /// The frame of each page, in pages of this system; doesn't change while the chunk lives.
    fn frames(chunk: &Self::Chunk) -> &[u64];

    /// Gives the pages with these indices back.
    ///
    /// # Errors
    /// What the system says; the pages stay in the chunk then, and may be given back later.
    fn give_back(&mut self, chunk: &mut Self::Chunk, pages: Range<usize>) -> Result<(), Error>;
}

impl PagePool for Pinner {
    type Chunk = Pinned;

    fn granule_pages(&self) -> u32 {
        let dynamic_memory_page = usize::try_from(PAGE_BYTES).unwrap_or(usize::MAX);
        u32::try_from(self.page_bytes() / dynamic_memory_page).unwrap_or(1).max(1)
    }

    fn take(&mut self, count: usize) -> Result<Option<Pinned>, Error> {
        Self::take(self, count)
    }

    fn frames(chunk: &Pinned) -> &[u64] {
        chunk.frames()
    }

    fn give_back(&mut self, chunk: &mut Pinned, pages: Range<usize>) -> Result<(), Error> {
        chunk.give_back(pages)
    }
}

/// What giving pages back came to, in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Released {
    /// Pages that the host had and named.
    pub pages: u64,
    /// Pages that it named and didn't have.
    pub foreign: u64,
}

/// All pages that are out of use.
#[derive(Debug)]
pub struct Book<P: PagePool> {
    pool: P,
    granule: u64,
    chunks: BTreeMap<u64, Chunk<P::Chunk>>,
    /// By first frame, in pages of this system: which pages of which chunk a run of frames is.
    runs: BTreeMap<u64, Run>,
    /// Taken, and the host wasn't told. Pages of 4 KiB, as are the next ones.
    unreported: RangeSet,
    /// The host has them.
    reported: RangeSet,
    /// Free by the protocol but still pinned, as the kernel couldn't cut the chunk: to be tried again.
    stuck: Vec<(u64, Range<usize>)>,
    next_chunk: u64,
}

#[derive(Debug)]
struct Chunk<C> {
    pages: C,
    /// Pages that aren't free by the protocol.
    left: u64,
}

#[derive(Debug, Clone, Copy)]
struct Run {
    frames: u64,
    chunk: u64,
    first: usize,
}

impl<P: PagePool> Book<P> {
    /// Holds nothing yet.
    #[must_use]
    pub fn new(pool: P) -> Self {
        Self {
            granule: u64::from(pool.granule_pages()).max(1),
            pool,
            chunks: BTreeMap::new(),
            runs: BTreeMap::new(),
            unreported: RangeSet::default(),
            reported: RangeSet::default(),
            stuck: Vec::new(),
            next_chunk: 0,
        }
    }

    /// Pages of 4 KiB that are out of use.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.unreported.count().saturating_add(self.reported.count())
    }

    /// Pages of 4 KiB in one page of this system.
    #[must_use]
    pub fn granule_pages(&self) -> u32 {
        u32::try_from(self.granule).unwrap_or(1)
    }

    /// Takes `pages` pages of 4 KiB, rounded down to whole pages of this system; `None` when there are none.
    ///
    /// # Errors
    /// What the pool says; or [`Error::Malformed`] for frames that can't be, which are given back.
    pub fn take(&mut self, pages: u32) -> Result<Option<Vec<PageRange>>, Error> {
        let count = usize::try_from(u64::from(pages) / self.granule).unwrap_or(usize::MAX);
        if count == 0 {
            return Ok(None);
        }
        let Some(chunk) = self.pool.take(count)? else { return Ok(None) };
        let runs = runs(P::frames(&chunk), self.next_chunk);
        let mut taken = RangeSet::default();
        for (start, run) in &runs {
            let (from, to) = self.span(*start, start.saturating_add(run.frames));
            let known = [&taken, &self.unreported, &self.reported].iter().any(|set| set.touches(from, to));
            if known || to > PageRange::START_LIMIT {
                return Err(Error::malformed("/proc/self/pagemap", "frames below 2^40 that come once", start));
            }
            taken.insert(from, to);
        }
        taken.runs().for_each(|(from, to)| self.unreported.insert(from, to));
        let left = u64::try_from(P::frames(&chunk).len()).unwrap_or(u64::MAX);
        self.runs.extend(runs);
        self.chunks.insert(self.next_chunk, Chunk { pages: chunk, left });
        self.next_chunk = self.next_chunk.saturating_add(1);
        Ok(Some(taken.runs().flat_map(|(from, to)| split(from, to)).collect()))
    }

    /// Notes that the host was told of `ranges`.
    pub fn report(&mut self, ranges: &[PageRange]) {
        for range in ranges {
            for (start, end) in self.unreported.remove(range.start, range.end()) {
                self.reported.insert(start, end);
            }
        }
    }

    /// Puts pages that the host wasn't told of back into use.
    pub fn undo(&mut self, ranges: &[PageRange]) {
        for range in ranges {
            let runs = self.unreported.remove(range.start, range.end());
            self.free(&runs);
        }
    }

    /// Puts pages that the host gave back into use.
    pub fn release(&mut self, ranges: &[PageRange]) -> Released {
        let mut released = Released::default();
        for range in ranges {
            let runs = self.reported.remove(range.start, range.end());
            let pages: u64 = runs.iter().map(|(start, end)| end - start).sum();
            released.pages = released.pages.saturating_add(pages);
            released.foreign = released.foreign.saturating_add(u64::from(range.count) - pages);
            self.free(&runs);
        }
        released
    }

    /// Puts everything back into use, and says how many pages of 4 KiB that was.
    pub fn release_all(&mut self) -> u64 {
        let pages = self.pages();
        self.stuck.clear();
        self.runs.clear();
        self.chunks.clear();
        self.unreported = RangeSet::default();
        self.reported = RangeSet::default();
        pages
    }

    /// Pages of 4 KiB from frames of this system.
    fn span(&self, start: u64, end: u64) -> (u64, u64) {
        (start.saturating_mul(self.granule), end.saturating_mul(self.granule))
    }

    /// Frees the pages of this system of which no 4 KiB page is out of use any more.
    fn free(&mut self, runs: &[(u64, u64)]) {
        for (chunk, pages) in std::mem::take(&mut self.stuck) {
            self.give_back(chunk, pages);
        }
        for (start, end) in runs {
            let (mut first, mut last) = (start / self.granule, end.div_ceil(self.granule));
            first = if self.in_use(first) { first + 1 } else { first };
            last = if first < last && self.in_use(last - 1) { last - 1 } else { last };
            self.free_frames(first, last);
        }
    }

    /// Whether a page of this system has a 4 KiB page that is out of use.
    fn in_use(&self, frame: u64) -> bool {
        let (from, to) = self.span(frame, frame.saturating_add(1));
        self.unreported.touches(from, to) || self.reported.touches(from, to)
    }

    /// Frees `first..last`, whatever chunks they are in.
    fn free_frames(&mut self, first: u64, last: u64) {
        if first >= last {
            return;
        }
        while let Some((&start, &run)) = self.runs.range(..last).next_back() {
            let end = start + run.frames;
            if end <= first {
                break;
            }
            self.runs.remove(&start);
            let (from, to) = (start.max(first), end.min(last));
            if end > to {
                self.runs.insert(to, Run { frames: end - to, chunk: run.chunk, first: run.first + index(to - start) });
            }
            if start < from {
                self.runs.insert(start, Run { frames: from - start, ..run });
            }
            if let Some(chunk) = self.chunks.get_mut(&run.chunk) {
                chunk.left = chunk.left.saturating_sub(to - from);
            }
            self.give_back(run.chunk, run.first + index(from - start)..run.first + index(to - start));
        }
    }

    /// Gives pages of a chunk back, and with the last one the chunk.
    fn give_back(&mut self, id: u64, pages: Range<usize>) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        if chunk.left == 0 {
            self.chunks.remove(&id);
        } else if let Err(error) = self.pool.give_back(&mut chunk.pages, pages.clone()) {
            log::warn!(target: "vmbus::balloon", "{} pages stay pinned for now: {error}", pages.len());
            self.stuck.push((id, pages));
        }
    }
}

/// Runs of frames that follow each other in a chunk, by first frame.
fn runs(frames: &[u64], chunk: u64) -> Vec<(u64, Run)> {
    let mut runs: Vec<(u64, Run)> = Vec::new();
    for (first, frame) in frames.iter().enumerate() {
        match runs.last_mut() {
            Some((start, run)) if start.checked_add(run.frames) == Some(*frame) => run.frames += 1,
            _ => runs.push((*frame, Run { frames: 1, chunk, first })),
        }
    }
    runs
}

/// `from..to` as ranges that fit the wire.
fn split(from: u64, to: u64) -> impl Iterator<Item = PageRange> {
    let most = u64::from(PageRange::MAX_COUNT);
    let starts =
        std::iter::successors(Some(from), move |start| start.checked_add(most)).take_while(move |start| *start < to);
    starts.map(move |start| PageRange { start, count: u32::try_from(most.min(to - start)).unwrap_or(0) })
}

/// A distance inside one chunk.
fn index(distance: u64) -> usize {
    usize::try_from(distance).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
