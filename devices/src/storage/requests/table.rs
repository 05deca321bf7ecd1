//! What is known of requests that are under way, under one lock.

use std::collections::BTreeSet;

use crossbeam_channel::Sender;
use vmbus_channels::dispatch::Ending;
use vmbus_channels::requests::RequestTable;

use super::{Answer, PRIMARY};
use crate::storage::pool::Segment;

/// Requests that are not commands: the beginning, resets.
const CONTROL_REQUESTS: usize = 4;
/// Bytes of the primary channel's ring that are kept for those.
const CONTROL_BYTES: u32 = 1024;

/// What was counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Counters {
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that the host completed in time.
    pub completed: u64,
    /// Requests that nobody waits for any more.
    pub abandoned: u64,
    /// Those of them that the host has completed since.
    pub late: u64,
    /// Completions that name nothing that is under way.
    pub unknown: u64,
    /// Packets that are none.
    pub malformed: u64,
    /// Packets by which the host said that units have come or gone.
    pub announcements: u64,
    /// Requests now that the host has not completed.
    pub under_way: u64,
}

/// Why nothing is sent any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Channel(Ending),
}

/// What kind of request wants room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage) enum Kind {
    /// On the primary channel, from what is kept for it.
    Control,
    /// On any.
    Command,
}

/// A request that the host has not completed.
#[derive(Debug)]
pub(super) struct Waiting {
    /// `None`: nobody waits any more.
    pub(super) reply: Option<Sender<Answer>>,
    pub(super) segment: Option<Segment>,
    pub(super) link: usize,
    pub(super) ring_bytes: u32,
}

/// One channel's share.
#[derive(Debug, Default)]
pub(super) struct Share {
    /// Bytes of its outgoing ring that no request has. A host may complete a packet that it has not yet given the room of
    /// back; then the ring is full, and says so.
    pub(super) room: u32,
    pub(super) open: bool,
    /// It was, and never will be again.
    pub(super) over: bool,
    pub(super) ids: BTreeSet<u64>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) waiting: RequestTable<Waiting>,
    pub(super) depth: usize,
    pub(super) links: Vec<Share>,
    /// Where to look for room first.
    pub(super) next: usize,
    pub(super) end: Option<End>,
    /// Pages that the host may still use, of requests that are no more.
    pub(super) kept: Vec<Segment>,
    pub(super) changed: bool,
    pub(super) counters: Counters,
}

impl Table {
    pub(super) fn new(depth: usize) -> Self {
        let depth = depth.clamp(1, RequestTable::<Waiting>::MOST - CONTROL_REQUESTS);
        Self {
            waiting: RequestTable::new(depth + CONTROL_REQUESTS),
            depth,
            links: Vec::new(),
            next: 0,
            end: None,
            kept: Vec::new(),
            changed: false,
            counters: Counters::default(),
        }
    }

    /// A channel with room for a request.
    pub(super) fn place(&mut self, kind: Kind, ring_bytes: u32) -> Option<usize> {
        let fits = |share: &Share, kept: u32| share.open && share.room >= ring_bytes.saturating_add(kept);
        if kind == Kind::Control {
            return self.links.get(PRIMARY).filter(|share| fits(share, 0)).map(|_| PRIMARY);
        }
        if self.waiting.len() >= self.depth {
            return None;
        }
        let count = self.links.len();
        let mut turns = (0..count).map(|turn| (self.next + turn) % count.max(1));
        let kept = |link: usize| if link == PRIMARY { CONTROL_BYTES } else { 0 };
        let found = turns.find(|link| self.links.get(*link).is_some_and(|share| fits(share, kept(*link))))?;
        self.next = (found + 1) % count.max(1);
        Some(found)
    }

    /// Takes a request out, and gives its room back.
    pub(super) fn remove(&mut self, id: u64, completed: bool) -> Option<Waiting> {
        let waiting = if completed { self.waiting.complete(id) } else { self.waiting.cancel(id) }?;
        if let Some(share) = self.links.get_mut(waiting.link) {
            share.ids.remove(&id);
            share.room = share.room.saturating_add(waiting.ring_bytes);
        }
        Some(waiting)
    }
}
