//! How channels go: by rescind, with the connection, and when the last one here has let go of them.
//!
//! What real hosts do with subchannels: each gets its own rescind, in no fixed order with its primary channel's, and its
//! own RELID_RELEASED is awaited. So a subchannel whose primary has gone stays until its own rescind comes.

use vmbus::message::GuestMessage;

use super::channel::{Mapped, State};
use super::gpadl::Phase;
use super::logging::{complain, note};
use super::{Action, Answer, Core, Refusal};
use crate::mutation::{self, Mutation};
use crate::{Announcement, ChannelId};

/// Why a channel departs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The host took it back: it reaches no memory of it any more, and wants the number back.
    Rescinded,
    /// We said goodbye: the number is over, the memory stays the host's until it has answered.
    Unloaded,
    /// The host is gone, with everything.
    Lost,
}

impl Core {
    /// The host takes a channel back.
    pub(super) fn on_rescind(&mut self, relid: u32, out: &mut Vec<Action>) {
        let Some(id) = self.table.at_relid(relid) else {
            self.counters.unknown_relid += 1;
            complain!(self, "relid {relid}: rescinded, and not there");
            return;
        };
        let Some(channel) = self.table.get(id) else { return };
        if channel.is_departed() {
            self.counters.unexpected += 1;
            complain!(self, "relid {relid} channel {id}: rescinded twice");
            return;
        }
        let closing = matches!(channel.state, State::Draining | State::ClosingReserved | State::TearingDown);
        if closing && mutation::is(Mutation::RescindForgetsClosing) {
            return;
        }
        self.counters.rescinds += 1;
        note!(self, "relid {relid} channel {id}: rescinded");
        self.depart(id, Cause::Rescinded, out);
    }

    /// A channel goes, whatever it is doing: waits for the host end now, users are told, and when none is left it is released.
    pub(super) fn depart(&mut self, id: ChannelId, cause: Cause, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        if !channel.is_departed() {
            if !(cause == Cause::Rescinded && mutation::is(Mutation::RescindKeepsWaits)) {
                self.cancel_waits(id, cause, out);
            }
            self.announce_departure(id, out);
        }
        let Some(channel) = self.table.get_mut(id) else { return };
        match cause {
            Cause::Rescinded => {}
            Cause::Unloaded => {
                channel.host_reaches = channel.state != State::Departed && channel.has_gpadls();
                channel.severed = true;
            }
            Cause::Lost => {
                channel.host_reaches = false;
                channel.severed = true;
            }
        }
        channel.state = State::Departed;
        if channel.severed {
            self.unlink(id);
        }
        self.finish(id, out);
    }

    /// Ends every wait for the host that the channel has. Who waits for its close goes on waiting: for its users alone.
    fn cancel_waits(&mut self, id: ChannelId, cause: Cause, out: &mut Vec<Action>) {
        let refusal = match cause {
            Cause::Rescinded | Cause::Unloaded => Refusal::Rescinded(id),
            Cause::Lost => Refusal::NotConnected,
        };
        let Some(channel) = self.table.get_mut(id) else { return };
        let mut timers = vec![channel.close_timer.take()];
        let mut tickets = Vec::new();
        if let State::Sharing(opening) | State::Requested(opening, _) = &mut channel.state {
            timers.push(opening.timer.take());
            tickets.extend(opening.ticket.take());
            self.counters.open_failures += tickets.len() as u64;
        }
        if let Some(moving) = channel.moving.take() {
            timers.push(moving.timer);
            tickets.extend(moving.ticket);
        }
        for buffer in &channel.buffers {
            if let Some(gpadl) = self.gpadls.get_mut(*buffer) {
                timers.push(gpadl.timer.take());
                tickets.extend(gpadl.ticket.take());
            }
        }
        for key in timers.into_iter().flatten() {
            self.timers.cancel(key);
        }
        out.extend(tickets.into_iter().map(|ticket| Action::Answer(ticket, Answer::Failed(refusal.clone()))));
    }

    /// Tells users, dispatcher and subscribers that the channel goes.
    fn announce_departure(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        if channel.referenced {
            out.push(Action::Revoke(id));
        }
        if std::mem::take(&mut channel.announced) {
            out.push(Action::Announce(Announcement::Departed(channel.offer.clone())));
        }
        let device = channel.device();
        self.table.unbind_device(&device, id);
        self.retire(id, out);
    }

    /// Takes the channel out of its processor's map, if it is there.
    pub(super) fn retire(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        let relid = channel.relid();
        if channel.mapped == Mapped::Yes {
            channel.mapped = Mapped::Retiring;
            out.push(Action::Retire { channel: id, relid, processor: channel.processor });
        }
        let forwarding = std::mem::take(&mut channel.forwarding);
        out.extend(forwarding.into_iter().map(|processor| Action::Forget { channel: id, relid, processor }));
    }

    /// The last reference to a channel was dropped.
    pub(super) fn on_unreferenced(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id).filter(|channel| channel.referenced) else {
            self.counters.stale_references += 1;
            return;
        };
        channel.referenced = false;
        if channel.state == State::Open {
            self.drain(id, out);
        } else {
            self.progress(id, out);
        }
    }

    /// A dispatcher has let go of a channel.
    pub(super) fn on_retired(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id).filter(|channel| channel.mapped == Mapped::Retiring) else {
            self.counters.stale_references += 1;
            return;
        };
        channel.mapped = Mapped::No;
        self.progress(id, out);
    }

    /// Somebody let go of a channel: if that was what it waited for, it goes on.
    fn progress(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        match self.table.get(id).map(|channel| &channel.state) {
            Some(State::Draining) if self.is_unused(id) => self.close_at_host(id, out),
            Some(State::Departed) => self.finish(id, out),
            _ => {}
        }
    }

    /// Whether nobody here can touch the channel's memory any more.
    pub(super) fn is_unused(&self, id: ChannelId) -> bool {
        self.table.get(id).is_some_and(|channel| {
            let departed = channel.is_departed();
            let unreferenced = !channel.referenced || (departed && mutation::is(Mutation::ReleaseBeforeUnreferenced));
            let unmapped = channel.mapped == Mapped::No || (departed && mutation::is(Mutation::ReleaseBeforeRetired));
            unreferenced && unmapped
        })
    }

    /// A departed channel that nobody here uses is closed; when the host can't reach its memory either, it is released.
    pub(super) fn finish(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let unused = self.is_unused(id);
        let Some(channel) = self.table.get_mut(id).filter(|channel| channel.is_departed() && unused) else { return };
        out.extend(channel.closers.drain(..).map(|(ticket, answer)| Action::Answer(ticket, answer)));
        if !channel.host_reaches {
            self.release(id, out);
        }
    }

    /// The end of a channel: memory, number, slot; in that order, and each once.
    fn release(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        let (relid, severed) = (channel.relid(), channel.severed);
        let gpadls: Vec<_> = channel.gpadls().collect();
        channel.buffers = Vec::new();
        channel.ring = None;
        for gpadl in &gpadls {
            // A host that was told already is not told twice. None of them is waited for: the rescind has ended its reach.
            let told = self.gpadls.get(*gpadl).is_none_or(|known| known.phase == Phase::TearingDown);
            if !severed && !told {
                self.post(GuestMessage::GpadlTeardown { relid, gpadl: *gpadl }, out);
            }
        }
        for gpadl in gpadls {
            self.free_gpadl(gpadl, out);
        }
        if severed {
            self.counters.severed += 1;
        } else {
            self.counters.released += 1;
        }
        if !severed || mutation::is(Mutation::PostAfterLost) {
            self.post(GuestMessage::RelidReleased { relid }, out);
            if mutation::is(Mutation::DoubleRelease) {
                self.post(GuestMessage::RelidReleased { relid }, out);
            }
        }
        note!(self, "relid {relid} channel {id}: released{}", if severed { " with its connection" } else { "" });
        self.unlink(id);
        self.table.free(id);
    }
}
