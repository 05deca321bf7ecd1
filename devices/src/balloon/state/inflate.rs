//! One balloon request: chunk after chunk, each between two looks at the memory that is left.
//!
//! What turns out to have crossed the floor goes straight back; the host never hears of it. As in the kernel
//! driver the request ends with a response that says so, with no ranges if there was nothing to give.

use super::running::Running;
use super::{Action, Limit, Machine, Notice, Settings};
use crate::balloon::ranges;
use crate::balloon::report::Memory;
use crate::balloon::wire::{GuestMessage, MAX_RANGES, PageRange};

/// Pages that are reported as soon as they are there, though more will follow: 64 MiB.
const FLUSH_PAGES: u64 = 1 << 14;

/// How far a balloon request is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inflation {
    /// What the host asked for.
    requested: u64,
    /// Pages taken and not given straight back.
    taken: u64,
    /// The most pages to take at once; shrinks when the kernel has none.
    unit: u64,
    /// What comes next.
    awaits: Awaits,
    /// The last chunk, not yet judged.
    fresh: Vec<PageRange>,
    /// Taken and not yet reported, sorted and merged.
    unsent: Vec<PageRange>,
    /// What the host asked for meanwhile; the latest request counts, as in the kernel driver.
    queued: Option<u32>,
}

/// What an inflation waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    Measure,
    Pages(u64),
}

/// What an inflation does next.
pub(super) enum Next {
    /// Wait: this input was not for the balloon.
    Nothing,
    /// Look at the memory.
    Measure,
    /// Take that many pages.
    Take(u64),
    /// It is over.
    Finish {
        /// Pages to put straight back.
        undo: Vec<PageRange>,
        /// What ended it early.
        limit: Option<Limit>,
    },
}

impl Inflation {
    /// Begins to serve a request; a look at the memory comes first.
    pub(super) fn new(requested: u32, settings: &Settings) -> Self {
        Self {
            requested: u64::from(requested),
            taken: 0,
            unit: u64::from(settings.chunk_pages.max(settings.granule_pages)),
            awaits: Awaits::Measure,
            fresh: Vec::new(),
            unsent: Vec::new(),
            queued: None,
        }
    }

    /// Remembers a request that came meanwhile.
    pub(super) fn queue(&mut self, pages: u32) {
        self.queued = Some(pages);
    }

    /// Judges the last chunk by the memory that is left, and decides on the next one.
    pub(super) fn measured(&mut self, settings: &Settings, memory: &Memory) -> Next {
        if self.awaits != Awaits::Measure {
            return Next::Nothing;
        }
        let floor = memory.floor_pages().max(settings.floor_pages);
        let fresh = core::mem::take(&mut self.fresh);
        if !fresh.is_empty() && memory.available_pages < floor {
            return Next::Finish { undo: self.retreat(settings, *memory, fresh), limit: Some(Limit::Floor) };
        }
        self.taken = self.taken.saturating_add(ranges::count(&fresh));
        self.unsent.extend(fresh);
        ranges::merge(&mut self.unsent);

        let granule = u64::from(settings.granule_pages.max(1));
        let whole = |pages: u64| pages - pages % granule;
        let left = whole(self.requested.saturating_sub(self.taken));
        let room = whole(memory.available_pages.saturating_sub(floor));
        let pages = left.min(room).min(whole(self.unit));
        if pages == 0 {
            return Next::Finish { undo: Vec::new(), limit: (left > 0).then_some(Limit::Floor) };
        }
        self.awaits = Awaits::Pages(pages);
        Next::Take(pages)
    }

    /// The pages to put back so that the floor holds again: the last chunk, and of what the host doesn't know
    /// of either as much as it takes, if somebody else needed memory meanwhile.
    fn retreat(&mut self, settings: &Settings, mut memory: Memory, fresh: Vec<PageRange>) -> Vec<PageRange> {
        let granule = u64::from(settings.granule_pages.max(1));
        let mut put_back = |pages: u64| {
            memory.available_pages = memory.available_pages.saturating_add(pages);
            memory.ballooned_pages = memory.ballooned_pages.saturating_sub(pages);
            let floor = memory.floor_pages().max(settings.floor_pages);
            floor.saturating_sub(memory.available_pages).next_multiple_of(granule)
        };
        let mut missing = put_back(ranges::count(&fresh));
        let mut undo = fresh;
        while missing > 0 {
            let Some(mut range) = self.unsent.pop() else { break };
            let count = u32::try_from(missing).unwrap_or(u32::MAX).min(range.count);
            range.count -= count;
            undo.push(PageRange { start: range.end(), count });
            if range.count > 0 {
                self.unsent.push(range);
            }
            self.taken = self.taken.saturating_sub(u64::from(count));
            missing = put_back(u64::from(count));
        }
        undo
    }

    /// Holds a chunk until the memory has been looked at.
    pub(super) fn taken(&mut self, ranges: Vec<PageRange>) -> Next {
        self.fresh.extend(ranges);
        self.awaits = Awaits::Measure;
        Next::Measure
    }

    /// Tries with less: an eighth at a time, down to one page of this system.
    pub(super) fn not_taken(&mut self, settings: &Settings) -> Next {
        let granule = u64::from(settings.granule_pages.max(1));
        let Awaits::Pages(pages) = self.awaits else { return Next::Nothing };
        if pages <= granule {
            return Next::Finish { undo: Vec::new(), limit: Some(Limit::Memory) };
        }
        self.unit = (pages / 8).max(granule);
        self.awaits = Awaits::Measure;
        Next::Measure
    }

    /// The ranges that have to go now though more will follow, if any.
    fn flush(&mut self) -> Option<Vec<PageRange>> {
        if self.unsent.len() > MAX_RANGES || ranges::count(&self.unsent) >= FLUSH_PAGES {
            return Some(self.message());
        }
        None
    }

    /// The next message's worth of what is unsent.
    fn message(&mut self) -> Vec<PageRange> {
        let behind = self.unsent.split_off(self.unsent.len().min(MAX_RANGES));
        core::mem::replace(&mut self.unsent, behind)
    }
}

impl Running {
    /// Lets the balloon request, if there is one, go on.
    pub(super) fn inflate(
        &mut self,
        machine: &mut Machine,
        go_on: impl FnOnce(&mut Inflation, &Settings) -> Next,
        actions: &mut Vec<Action>,
    ) {
        let Some(mut inflation) = self.inflation.take() else { return };
        match go_on(&mut inflation, &machine.settings) {
            Next::Nothing => {}
            Next::Measure => actions.push(Action::Measure),
            Next::Take(pages) => {
                while let Some(ranges) = inflation.flush() {
                    machine.send(GuestMessage::BalloonResponse { more: true, ranges }, actions);
                }
                actions.push(Action::Take(u32::try_from(pages).unwrap_or(u32::MAX)));
            }
            Next::Finish { undo, limit } => {
                if !undo.is_empty() {
                    actions.push(Action::Undo(undo));
                }
                self.inflation = finish(inflation, limit, machine, actions);
                return;
            }
        }
        self.inflation = Some(inflation);
    }
}

/// Ends a request, and begins the one that came meanwhile.
fn finish(
    mut inflation: Inflation,
    limit: Option<Limit>,
    machine: &mut Machine,
    actions: &mut Vec<Action>,
) -> Option<Inflation> {
    loop {
        let ranges = inflation.message();
        let more = !inflation.unsent.is_empty();
        machine.send(GuestMessage::BalloonResponse { more, ranges }, actions);
        if !more {
            break;
        }
    }
    let Inflation { requested, taken: pages, queued, .. } = inflation;
    actions.push(Action::Notify(Notice::Ballooned { requested, pages, limit }));
    let next = queued.map(|pages| Inflation::new(pages, &machine.settings));
    if next.is_some() {
        actions.push(Action::Measure);
    }
    next
}

#[cfg(test)]
mod tests;
