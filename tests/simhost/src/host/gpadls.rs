//! GPADLs: guest pages under a number, from header and bodies to teardown.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use vmbus::message::gpadl::{Assembler, GpadlError, Limits, MAX_BYTES, Progress};
use vmbus::message::{GpadlBody, GpadlHeader, GpadlId, HostMessage, Status};

use super::channel::{Completion, State};
use super::{Host, OfferId};
use crate::{Memory, ViolationKind};

/// Ranges of one GPADL. Guests use one.
const RANGES_AT_MOST: u16 = 64;

/// GPADLs whose bodies are still to come, at a time: what they hold is not counted elsewhere.
const INCOMPLETE_AT_MOST: usize = 64;

/// All GPADLs, and the pages that they have.
#[derive(Debug, Default)]
pub(super) struct Gpadls {
    all: BTreeMap<GpadlId, Gpadl>,
    /// Pages of those that are complete, and whose channel is the guest's still.
    pages: BTreeSet<u64>,
    /// Pages of those whose channel is rescinded, and how many of them have each: the host reaches none of these.
    stale: BTreeMap<u64, u32>,
}

#[derive(Debug)]
struct Gpadl {
    channel: OfferId,
    relid: u32,
    state: GpadlState,
    /// While bodies are to come.
    assembler: Option<Assembler>,
    /// Page numbers of all ranges, in order.
    pages: Vec<u64>,
    /// Its channel was rescinded while it was up.
    stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GpadlState {
    /// Bodies are to come.
    Incomplete,
    /// Complete, and not answered yet.
    Creating,
    /// The host may reach the pages.
    Up,
    /// Teardown not answered yet.
    TearingDown,
}

impl Gpadls {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// The pages of one that is up.
    pub(super) fn pages(&self, id: GpadlId) -> Option<&[u64]> {
        let gpadl = self.all.get(&id)?;
        (gpadl.state == GpadlState::Up).then_some(gpadl.pages.as_slice())
    }

    /// The same, if it is of that channel.
    pub(super) fn pages_of(&self, id: GpadlId, channel: OfferId) -> Option<&[u64]> {
        self.all.get(&id).filter(|gpadl| gpadl.channel == channel)?;
        self.pages(id)
    }

    /// Those that the guest may not reuse the pages of.
    pub(super) fn live(&self) -> Vec<GpadlId> {
        self.all.keys().copied().collect()
    }

    /// Forgets all of a channel; how many there were.
    pub(super) fn drop_channel(&mut self, channel: OfferId) -> usize {
        let ids: Vec<_> = self.all.iter().filter(|(_, gpadl)| gpadl.channel == channel).map(|(id, _)| *id).collect();
        ids.iter().for_each(|id| self.drop_one(*id));
        ids.len()
    }

    fn drop_one(&mut self, id: GpadlId) {
        let Some(gpadl) = self.all.remove(&id) else { return };
        for page in gpadl.pages {
            if !gpadl.stale {
                self.pages.remove(&page);
            } else if let Entry::Occupied(mut owners) = self.stale.entry(page) {
                *owners.get_mut() -= 1;
                if *owners.get() == 0 {
                    owners.remove();
                }
            }
        }
    }

    /// The channel of one that is up is rescinded.
    fn make_stale(&mut self, id: GpadlId) {
        let Some(gpadl) = self.all.get_mut(&id).filter(|gpadl| !gpadl.stale) else { return };
        gpadl.stale = true;
        for page in &gpadl.pages {
            self.pages.remove(page);
            *self.stale.entry(*page).or_default() += 1;
        }
    }
}

impl<M: Memory> Host<M> {
    pub(super) fn gpadl_header(&mut self, header: &GpadlHeader) {
        let Some(channel) = self.named(header.relid, "GPADL_HEADER") else { return };
        if self.gpadls.all.contains_key(&header.gpadl) {
            let text = format!("{} is in use", header.gpadl.0);
            return self.violation(ViolationKind::GpadlReused, Some(header.relid), text);
        }
        let (state, assembler, pages) = (GpadlState::Incomplete, None, Vec::new());
        let gpadl = Gpadl { channel, relid: header.relid, state, assembler, pages, stale: false };
        let incomplete = self.gpadls.all.values().filter(|gpadl| gpadl.assembler.is_some()).count();
        if self.gpadls.all.len() >= self.config.limits.gpadls || incomplete >= INCOMPLETE_AT_MOST {
            self.violation(ViolationKind::GpadlTooMany, Some(header.relid), format!("GPADL {}", header.gpadl.0));
            return self.gpadl_refused(header.relid, header.gpadl);
        }
        self.gpadls.all.insert(header.gpadl, gpadl);
        let limits = Limits { ranges: RANGES_AT_MOST, bytes: MAX_BYTES };
        self.gpadl_progress(header.gpadl, Assembler::start(header, limits));
    }

    pub(super) fn gpadl_body(&mut self, body: &GpadlBody) {
        let gpadl = self.gpadls.all.get_mut(&body.gpadl);
        let relid = gpadl.as_ref().map(|gpadl| gpadl.relid);
        match gpadl.and_then(|gpadl| gpadl.assembler.take()) {
            Some(assembler) => self.gpadl_progress(body.gpadl, assembler.push(body)),
            None => self.violation(ViolationKind::GpadlBody, relid, format!("body for GPADL {}", body.gpadl.0)),
        }
    }

    /// What has become of a header or a body. When all is there the GPADL is looked at.
    fn gpadl_progress(&mut self, id: GpadlId, progress: Result<Progress, GpadlError>) {
        let Some(gpadl) = self.gpadls.all.get_mut(&id) else { return };
        let (relid, channel) = (gpadl.relid, gpadl.channel);
        let pages = match progress {
            Ok(Progress::More(assembler)) => {
                gpadl.assembler = Some(assembler);
                return;
            }
            Ok(Progress::Done(done)) => Ok(done.ranges.into_iter().flat_map(|range| range.pages).collect::<Vec<_>>()),
            Err(error) => Err(error),
        };
        gpadl.state = GpadlState::Creating;
        // A rescinded channel gets no more memory; the guest is told so, since it may not have heard.
        let gone = self.is_gone(channel, "GPADL");
        let (kind, text) = match pages {
            Err(error) => (ViolationKind::GpadlMalformed, format!("GPADL {}: {error}", id.0)),
            Ok(_) if gone => {
                self.gpadls.drop_one(id);
                self.note_refused(channel, id);
                return self.gpadl_refused(relid, id);
            }
            Ok(pages) => match self.unfit(&pages) {
                None => {
                    // The guest has taken memory out of a channel that it has not given back yet. Linux does.
                    if let Some(page) = pages.iter().find(|page| self.gpadls.stale.contains_key(*page)) {
                        let text = format!("GPADL {}: page {page:#x}", id.0);
                        self.violation(ViolationKind::GpadlStale, Some(relid), text);
                    }
                    self.gpadls.pages.extend(pages.iter().copied());
                    if let Some(gpadl) = self.gpadls.all.get_mut(&id) {
                        gpadl.pages = pages;
                    }
                    return self.later(self.config.latency.gpadl, Completion::Gpadl(id));
                }
                Some((kind, page)) => (kind, format!("GPADL {}: page {page:#x}", id.0)),
            },
        };
        self.violation(kind, Some(relid), text);
        self.gpadls.drop_one(id);
        self.gpadl_refused(relid, id);
    }

    /// What is wrong with these pages, and the first one of which it is true.
    fn unfit(&self, pages: &[u64]) -> Option<(ViolationKind, u64)> {
        let (mut seen, limit) = (BTreeSet::new(), self.memory.pages());
        if self.gpadls.pages.len() + self.gpadls.stale.len() + pages.len() > self.config.limits.gpadl_pages {
            return Some((ViolationKind::GpadlTooMany, 0));
        }
        pages.iter().find_map(|page| {
            let taken = self.gpadls.pages.contains(page) || self.is_connection_page(*page) || !seen.insert(*page);
            match (*page >= limit, taken) {
                (true, _) => Some((ViolationKind::GpadlOutside, *page)),
                (_, true) => Some((ViolationKind::GpadlOverlap, *page)),
                _ => None,
            }
        })
    }

    fn note_refused(&mut self, channel: OfferId, gpadl: GpadlId) {
        if let Some(channel) = self.channels.get_mut(&channel) {
            channel.note_refused(gpadl);
        }
    }

    fn gpadl_refused(&mut self, relid: u32, gpadl: GpadlId) {
        self.counters.refused += 1;
        self.send(HostMessage::GpadlCreated { relid, gpadl, status: Status::UNSUCCESSFUL });
    }

    pub(super) fn gpadl_done(&mut self, id: GpadlId) {
        let Some(gpadl) = self.gpadls.all.get_mut(&id) else { return };
        if gpadl.state != GpadlState::Creating {
            return;
        }
        gpadl.state = GpadlState::Up;
        let relid = gpadl.relid;
        if self.random.chance(u32::from(self.config.refusals.gpadl_permille), 1000) {
            self.gpadls.drop_one(id);
            return self.gpadl_refused(relid, id);
        }
        self.counters.gpadls += 1;
        self.send(HostMessage::GpadlCreated { relid, gpadl: id, status: Status::SUCCESS });
    }

    pub(super) fn gpadl_teardown(&mut self, relid: u32, id: GpadlId) {
        let Some(channel) = self.named(relid, "GPADL_TEARDOWN") else { return };
        let ours = self.gpadls.all.get(&id).filter(|gpadl| gpadl.channel == channel).map(|gpadl| gpadl.state);
        let text = format!("GPADL {}", id.0);
        match ours {
            None if self.channels.get(&channel).is_some_and(|channel| channel.refused.contains(&id)) => return,
            None => return self.violation(ViolationKind::TeardownUnknown, Some(relid), text),
            Some(GpadlState::Up) => {}
            Some(_) => return self.violation(ViolationKind::TeardownTwice, Some(relid), text),
        }
        let in_use = match self.channels.get(&channel).map(|channel| &channel.state) {
            Some(State::Open(opened)) => opened.request.ring == id,
            Some(State::Opening(request, _)) => request.ring == id,
            _ => false,
        };
        if in_use {
            // The host still uses it: no answer, and it stays.
            return self.violation(ViolationKind::TeardownLive, Some(relid), text);
        }
        if let Some(gpadl) = self.gpadls.all.get_mut(&id) {
            gpadl.state = GpadlState::TearingDown;
        }
        let gone = self.channels.get(&channel).is_none_or(|channel| channel.state.is_rescinded());
        if gone { self.teardown_done(id) } else { self.later(self.config.latency.teardown, Completion::Teardown(id)) }
    }

    pub(super) fn teardown_done(&mut self, id: GpadlId) {
        if self.gpadls.all.get(&id).is_some_and(|gpadl| gpadl.state == GpadlState::TearingDown) {
            self.gpadls.drop_one(id);
            self.counters.teardowns += 1;
            self.send(HostMessage::GpadlTorndown { gpadl: id });
        }
    }

    /// The channel is rescinded: what was being worked on is answered at once, what is up stays until the guest takes
    /// it down or releases the channel.
    pub(super) fn revoke_gpadls(&mut self, relid: u32, channel: OfferId) {
        let of_channel = self.gpadls.all.iter().filter(|(_, gpadl)| gpadl.channel == channel);
        let states: Vec<_> = of_channel.map(|(id, gpadl)| (*id, gpadl.state)).collect();
        for (id, state) in states {
            match state {
                GpadlState::Creating => {
                    self.gpadls.drop_one(id);
                    self.note_refused(channel, id);
                    self.gpadl_refused(relid, id);
                }
                GpadlState::TearingDown => self.teardown_done(id),
                GpadlState::Up => self.gpadls.make_stale(id),
                GpadlState::Incomplete => {}
            }
        }
    }
}
