//! Memory that is shared with the host: rings and buffers. Freed when neither side can reach it, and not before.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use vmbus::link::Share;
use vmbus::message::{GpadlId, GuestMessage, Status};

use super::channel::State;
use super::input::Ticket;
use super::logging::{complain, note};
use super::{Action, Answer, Core, Due, Refusal};
use crate::ChannelId;
use crate::timers::TimerKey;

/// The most that one buffer takes.
pub(super) const MAX_BUFFER_BYTES: u32 = 64 << 20;
/// What all sizes are multiples of: a page of the hypervisor.
pub(super) const PAGE_BYTES: u32 = 4096;

/// How far the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The messages are posted, GPADL_CREATED is awaited. The host may reach the memory already.
    Creating,
    /// The host reaches it.
    Live,
    /// Teardown is posted, GPADL_TORNDOWN is awaited. The host may still reach it.
    TearingDown,
}

/// One GPADL.
#[derive(Debug, Clone)]
pub(super) struct Gpadl {
    pub(super) channel: ChannelId,
    pub(super) phase: Phase,
    /// Who waits. While a buffer is created: without one, nobody wants it any more.
    pub(super) ticket: Option<Ticket>,
    pub(super) timer: Option<TimerKey>,
}

/// All GPADLs of the connection and of connections before it, by number. Numbers are not used again while they are known.
#[derive(Debug, Clone)]
pub(super) struct Gpadls {
    known: HashMap<GpadlId, Gpadl>,
    next: u32,
}

impl Gpadls {
    pub(super) fn new() -> Self {
        Self { known: HashMap::new(), next: 1 }
    }

    pub(super) fn insert(&mut self, gpadl: Gpadl) -> GpadlId {
        loop {
            let id = GpadlId(self.next);
            self.next = self.next.wrapping_add(1).max(1);
            if let Entry::Vacant(entry) = self.known.entry(id) {
                entry.insert(gpadl);
                return id;
            }
        }
    }

    /// Whether a number is of the past: it was given, and what it named is forgotten. (Until they begin anew, a host may say
    /// any of those.)
    fn is_past(&self, id: GpadlId) -> bool {
        (1..self.next).contains(&id.0) && !self.known.contains_key(&id)
    }

    pub(super) fn get(&self, id: GpadlId) -> Option<&Gpadl> {
        self.known.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: GpadlId) -> Option<&mut Gpadl> {
        self.known.get_mut(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GpadlId, &Gpadl)> {
        self.known.iter().map(|(id, gpadl)| (*id, gpadl))
    }

    /// What is allocated, in GPADLs.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.known.capacity()
    }
}

impl Core {
    /// Shares memory under a new number.
    pub(super) fn share(&mut self, relid: u32, gpadl: Gpadl, what: Share, out: &mut Vec<Action>) -> GpadlId {
        let id = self.gpadls.insert(gpadl);
        self.counters.gpadls += 1;
        out.push(Action::Share { relid, gpadl: id, what });
        id
    }

    /// Forgets a GPADL; what its timer and ticket come to is up to the caller.
    pub(super) fn forget_gpadl(&mut self, id: GpadlId) -> Option<Gpadl> {
        let gpadl = self.gpadls.known.remove(&id)?;
        if let Some(channel) = self.table.get_mut(gpadl.channel) {
            channel.buffers.retain(|buffer| *buffer != id);
            channel.ring = channel.ring.filter(|ring| *ring != id);
        }
        if let Some(key) = gpadl.timer {
            self.timers.cancel(key);
        }
        Some(gpadl)
    }

    /// Frees the memory of a GPADL that nobody reaches.
    pub(super) fn free_gpadl(&mut self, id: GpadlId, out: &mut Vec<Action>) -> Option<Gpadl> {
        let gpadl = self.forget_gpadl(id)?;
        self.counters.gpadls_freed += 1;
        out.push(Action::Unshare(id));
        Some(gpadl)
    }

    /// Posts a teardown. The GPADL must be live.
    pub(super) fn tear_down(&mut self, relid: u32, id: GpadlId, out: &mut Vec<Action>) {
        if let Some(gpadl) = self.gpadls.get_mut(id) {
            gpadl.phase = Phase::TearingDown;
            self.post(GuestMessage::GpadlTeardown { relid, gpadl: id }, out);
        }
    }

    /// An application wants a buffer.
    pub(super) fn create_buffer(
        &mut self,
        ticket: Ticket,
        id: ChannelId,
        bytes: u32,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let limit = self.limits.gpadls_per_channel;
        let channel = self.usable(id)?;
        if channel.state != State::Open {
            return Err(Refusal::State(id, channel.state.name()));
        }
        if bytes == 0 || !bytes.is_multiple_of(PAGE_BYTES) || bytes > MAX_BUFFER_BYTES {
            return Err(Refusal::Argument("a buffer is whole pages, at least one and at most 64 MiB"));
        }
        if channel.buffers.len() + 1 >= limit {
            return Err(Refusal::TooMany("buffers of one channel", limit.saturating_sub(1)));
        }
        let relid = channel.relid();
        let gpadl = Gpadl { channel: id, phase: Phase::Creating, ticket: Some(ticket), timer: None };
        let gpadl = self.share(relid, gpadl, Share::Buffer { bytes }, out);
        let timer = self.wait(Due::Gpadl(gpadl));
        if let Some(gpadl) = self.gpadls.get_mut(gpadl) {
            gpadl.timer = Some(timer);
        }
        if let Some(channel) = self.table.get_mut(id) {
            channel.buffers.push(gpadl);
        }
        Ok(())
    }

    /// An application has done with a buffer.
    pub(super) fn tear_down_buffer(
        &mut self,
        ticket: Ticket,
        id: ChannelId,
        gpadl: GpadlId,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let channel = self.usable(id)?;
        let relid = channel.relid();
        let known = channel.buffers.contains(&gpadl).then(|| self.gpadls.get(gpadl)).flatten();
        let known = known.ok_or(Refusal::NoBuffer(gpadl))?;
        match known.phase {
            Phase::Creating => return Err(Refusal::NoBuffer(gpadl)),
            Phase::Live => self.tear_down(relid, gpadl, out),
            Phase::TearingDown if known.ticket.is_some() => {
                return Err(Refusal::State(id, "taking that buffer back already"));
            }
            // The channel is being closed, or nobody waited any more: the teardown is posted.
            Phase::TearingDown => {}
        }
        let timer = self.wait(Due::Gpadl(gpadl));
        if let Some(known) = self.gpadls.get_mut(gpadl) {
            known.ticket = Some(ticket);
            known.timer = Some(timer);
        }
        Ok(())
    }

    /// The host has taken a GPADL, or turned it down.
    pub(super) fn on_gpadl_created(&mut self, relid: u32, id: GpadlId, status: Status, out: &mut Vec<Action>) {
        let Some((channel, is_ring)) = self.awaited(relid, id, Phase::Creating) else { return };
        let failed = !status.is_success();
        if failed {
            self.counters.gpadl_failures += 1;
            complain!(self, "relid {relid} channel {channel}: GPADL {} refused, status {:#x}", id.0, status.0);
        }
        if is_ring {
            return self.on_ring_created(channel, id, status, out);
        }
        if failed {
            let ticket = self.free_gpadl(id, out).and_then(|gpadl| gpadl.ticket);
            out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(Refusal::Host(status)))));
            return self.tear_down_further(channel, out);
        }
        let Some(gpadl) = self.gpadls.get_mut(id) else { return };
        gpadl.phase = Phase::Live;
        let (ticket, timer) = (gpadl.ticket.take(), gpadl.timer.take());
        if let Some(key) = timer {
            self.timers.cancel(key);
        }
        match ticket {
            Some(ticket) => out.push(Action::Answer(ticket, Answer::Shared(id))),
            None => self.tear_down(relid, id, out),
        }
        self.tear_down_further(channel, out);
    }

    /// The host has let go of a GPADL.
    pub(super) fn on_gpadl_torn_down(&mut self, id: GpadlId, out: &mut Vec<Action>) {
        if self.gpadls.is_past(id) {
            // Behind a rescind the memory is freed without waiting for this.
            self.counters.stale_answers += 1;
            note!(self, "GPADL {} torn down, which was forgotten before", id.0);
            return;
        }
        let relid =
            self.gpadls.get(id).and_then(|gpadl| self.table.get(gpadl.channel)).map_or(0, |found| found.relid());
        let Some((channel, _)) = self.awaited(relid, id, Phase::TearingDown) else { return };
        note!(self, "relid {relid} channel {channel}: GPADL {} torn down", id.0);
        let ticket = self.free_gpadl(id, out).and_then(|gpadl| gpadl.ticket);
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Done)));
        self.tear_down_further(channel, out);
    }

    /// The channel of a GPADL that waits for this very answer, and whether it is its ring. All else is counted and dropped.
    fn awaited(&mut self, relid: u32, id: GpadlId, phase: Phase) -> Option<(ChannelId, bool)> {
        let found = self.gpadls.get(id).filter(|gpadl| gpadl.phase == phase).and_then(|gpadl| {
            let channel = self.table.get(gpadl.channel)?;
            (channel.relid() == relid && !channel.is_departed()).then(|| (channel.id(), channel.ring == Some(id)))
        });
        if found.is_none() {
            self.counters.stale_answers += 1;
            complain!(self, "relid {relid}: answer about GPADL {} that was not awaited", id.0);
        }
        found
    }

    /// The shell could not share memory: there is nothing to free.
    pub(super) fn on_share_failed(&mut self, id: GpadlId, out: &mut Vec<Action>) {
        let waits = self.gpadls.get(id).is_some_and(|gpadl| gpadl.phase == Phase::Creating);
        let Some(gpadl) = waits.then(|| self.forget_gpadl(id)).flatten() else {
            self.counters.stale_references += 1;
            return;
        };
        self.counters.gpadl_failures += 1;
        out.extend(gpadl.ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(Refusal::Memory))));
        let sharing = self.table.get(gpadl.channel).is_some_and(|channel| matches!(channel.state, State::Sharing(_)));
        if sharing {
            self.open_ended(gpadl.channel, Refusal::Memory, out);
        } else {
            self.tear_down_further(gpadl.channel, out);
        }
    }
}
