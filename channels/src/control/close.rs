//! Closing: users let go, then the host is told, then it lets go of the memory, buffers before the ring.

use vmbus::message::{GpadlId, GuestMessage, Version};

use super::channel::State;
use super::gpadl::Phase;
use super::input::Ticket;
use super::logging::{complain, note};
use super::{Action, Answer, Core, Due, Refusal};
use crate::ChannelId;

impl Core {
    /// An application wants a channel closed.
    pub(super) fn close(&mut self, ticket: Ticket, id: ChannelId, out: &mut Vec<Action>) -> Result<(), Refusal> {
        let limit = self.limits.closers_per_channel;
        let Some(channel) = self.table.get_mut(id) else { return Err(Refusal::Gone(id)) };
        match channel.state {
            State::Offered | State::Sharing(_) | State::Requested(..) => {
                return Err(Refusal::State(id, channel.state.name()));
            }
            _ if channel.closers.len() >= limit => return Err(Refusal::TooMany("closes of one channel", limit)),
            State::Open | State::Draining | State::ClosingReserved | State::TearingDown | State::Departed => {}
        }
        channel.closers.push((ticket, Answer::Done));
        match channel.state {
            State::Open => self.drain(id, out),
            State::Departed => self.finish(id, out),
            State::ClosingReserved | State::TearingDown if channel.close_timer.is_none() => self.time_close(id),
            _ => {}
        }
        Ok(())
    }

    /// An open channel is to be closed: everybody here is to let go of it first.
    pub(super) fn drain(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        channel.state = State::Draining;
        let relid = channel.relid();
        let refusal = Refusal::State(id, channel.state.name());
        let mut timers = Vec::new();
        let mut tickets = Vec::new();
        if let Some(moving) = channel.moving.take() {
            timers.extend(moving.timer);
            tickets.extend(moving.ticket);
        }
        // Buffers that are being made have nobody to be handed to.
        for buffer in &channel.buffers {
            if let Some(gpadl) = self.gpadls.get_mut(*buffer).filter(|gpadl| gpadl.phase == Phase::Creating) {
                timers.extend(gpadl.timer.take());
                tickets.extend(gpadl.ticket.take());
            }
        }
        for key in timers {
            self.timers.cancel(key);
        }
        out.extend(tickets.into_iter().map(|ticket| Action::Answer(ticket, Answer::Failed(refusal.clone()))));
        note!(self, "relid {relid} channel {id}: closing");
        self.retire(id, out);
        // With the last reference given back before, and no map to be taken from, there is nothing to wait for.
        if self.is_unused(id) {
            self.close_at_host(id, out);
        }
    }

    /// Nobody here uses the channel: the host is told.
    pub(super) fn close_at_host(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        let (relid, processor) = (channel.relid(), channel.processor);
        self.counters.closed += 1;
        if let Some(target_sint) = channel.reserved {
            channel.state = State::ClosingReserved;
            self.post(GuestMessage::CloseReserved { relid, target_vp: processor, target_sint }, out);
            return self.time_close(id);
        }
        // Hosts before 4.0 want a device's buffers back while its channel is open.
        let buffers_first = self.connection.version() < Version::V4_0;
        channel.state = State::TearingDown;
        if buffers_first {
            self.tear_down_buffers(id, out);
        }
        self.post(GuestMessage::Close { relid }, out);
        self.tear_down_memory(id, out);
    }

    /// The host has closed a reserved channel.
    pub(super) fn on_close_reserved(&mut self, relid: u32, out: &mut Vec<Action>) {
        let found = self
            .table
            .at_relid(relid)
            .filter(|id| self.table.get(*id).is_some_and(|channel| channel.state == State::ClosingReserved));
        match found {
            Some(id) => self.tear_down_memory(id, out),
            None => {
                self.counters.stale_answers += 1;
                complain!(self, "relid {relid}: answer to a close that was not awaited");
            }
        }
    }

    /// The channel is not open at the host: its memory is to come back.
    pub(super) fn tear_down_memory(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        if let Some(channel) = self.table.get_mut(id) {
            channel.state = State::TearingDown;
        }
        self.time_close(id);
        self.tear_down_buffers(id, out);
        self.tear_down_further(id, out);
    }

    fn tear_down_buffers(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get(id) else { return };
        let relid = channel.relid();
        let live: Vec<GpadlId> = channel.buffers.iter().copied().filter(|gpadl| self.is_live(*gpadl)).collect();
        for gpadl in live {
            self.tear_down(relid, gpadl, out);
        }
    }

    /// Goes on with a channel whose memory is coming back: the ring when all buffers are on their way, and the end
    /// when all of it is here.
    pub(super) fn tear_down_further(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get(id).filter(|channel| channel.state == State::TearingDown) else { return };
        let relid = channel.relid();
        let creating = |gpadl: &GpadlId| self.gpadls.get(*gpadl).is_some_and(|known| known.phase == Phase::Creating);
        let ready = !channel.buffers.iter().any(creating);
        if let Some(ring) = channel.ring.filter(|ring| ready && self.is_live(*ring)) {
            self.tear_down(relid, ring, out);
        }
        if self.table.get(id).is_some_and(|channel| !channel.has_gpadls()) {
            self.offered_again(id, out);
        }
    }

    fn is_live(&self, gpadl: GpadlId) -> bool {
        self.gpadls.get(gpadl).is_some_and(|known| known.phase == Phase::Live)
    }

    /// Nothing of a channel is shared any more: it can be opened again.
    pub(super) fn offered_again(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        channel.state = State::Offered;
        let timer = channel.close_timer.take();
        let closers = std::mem::take(&mut channel.closers);
        let relid = channel.relid();
        self.stop(timer);
        out.extend(closers.into_iter().map(|(ticket, answer)| Action::Answer(ticket, answer)));
        note!(self, "relid {relid} channel {id}: closed");
        self.leave_if_condemned(id, out);
    }

    /// The wait for the end of a close begins, or begins again.
    fn time_close(&mut self, id: ChannelId) {
        let timer = self.wait(Due::Close(id));
        let Some(channel) = self.table.get_mut(id) else { return };
        let former = channel.close_timer.replace(timer);
        self.stop(former);
    }

    /// The wait for the end of a close is over. The memory stays in quarantine until the host gives it back.
    pub(super) fn close_timed_out(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let silent = self.silent();
        let Some(channel) = self.table.get_mut(id) else { return };
        let relid = channel.relid();
        let closers = std::mem::take(&mut channel.closers);
        out.extend(closers.into_iter().map(|(ticket, answer)| match answer {
            // Why an open failed is more than that its memory is late.
            Answer::Failed(_) => Action::Answer(ticket, answer),
            _ => Action::Answer(ticket, Answer::Failed(silent.clone())),
        }));
        complain!(self, "relid {relid} channel {id}: the host does not let go of its memory, which is in quarantine");
    }
}
