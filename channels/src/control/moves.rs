//! Moving a channel's interrupts to another processor.

use vmbus::message::{GuestMessage, Status, Version};

use super::channel::{Moving, State};
use super::input::Ticket;
use super::logging::{complain, note};
use super::{Action, Answer, Core, Due, Refusal};
use crate::ChannelId;

impl Core {
    /// An application wants a channel moved. The new map has it before the host hears of it; the old one forwards until the
    /// host has confirmed (from 5.3 on), or until the channel is closed.
    pub(super) fn move_to(
        &mut self,
        ticket: Ticket,
        id: ChannelId,
        to: u32,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let channel = self.usable(id)?;
        if channel.state != State::Open {
            return Err(Refusal::State(id, channel.state.name()));
        }
        if channel.moving.is_some() {
            return Err(Refusal::State(id, "being moved"));
        }
        if channel.reserved.is_some() {
            return Err(Refusal::State(id, "opened as a reserved channel, which stays where it is"));
        }
        self.check_processor(to)?;
        self.connection.needs(Version::V4_1)?;
        let (relid, from) = (channel.relid(), channel.processor);
        if from == to {
            out.push(Action::Answer(ticket, Answer::Done));
            return Ok(());
        }
        let answered = self.connection.version() >= Version::V5_3;
        let timer = answered.then(|| self.wait(Due::Move(id)));
        if let Some(channel) = self.table.get_mut(id) {
            channel.processor = to;
            channel.forwarding.retain(|processor| *processor != to && *processor != from);
            channel.forwarding.push(from);
            channel.moving = answered.then_some(Moving { from, to, ticket: Some(ticket), timer });
        }
        self.counters.moves += 1;
        note!(self, "relid {relid} channel {id}: moves from processor {from} to {to}");
        out.push(Action::Move { channel: id, relid, from, to });
        self.post(GuestMessage::ModifyChannel { relid, target_vp: to }, out);
        if !answered {
            out.push(Action::Answer(ticket, Answer::Done));
        }
        Ok(())
    }

    /// The host interrupts the new processor from now on, or refuses to.
    pub(super) fn on_moved(&mut self, relid: u32, status: Status, out: &mut Vec<Action>) {
        let id = self.table.at_relid(relid);
        let moving = id.and_then(|id| self.table.get_mut(id)).and_then(|channel| channel.moving.take());
        let (Some(id), Some(Moving { from, to, ticket, timer })) = (id, moving) else {
            self.counters.stale_answers += 1;
            complain!(self, "relid {relid}: answer to a move that was not awaited");
            return;
        };
        self.stop(timer);
        let moved = status.is_success();
        if !moved {
            complain!(self, "relid {relid} channel {id}: stays on processor {from}, status {:#x}", status.0);
            out.push(Action::Move { channel: id, relid, from: to, to: from });
        }
        let left = if moved { from } else { to };
        if let Some(channel) = self.table.get_mut(id) {
            channel.processor = if moved { to } else { from };
            channel.forwarding.retain(|processor| *processor != from && *processor != to);
        }
        out.push(Action::Forget { channel: id, relid, processor: left });
        let answer = if moved { Answer::Done } else { Answer::Failed(Refusal::Host(status)) };
        out.extend(ticket.map(|ticket| Action::Answer(ticket, answer)));
    }

    /// The wait for the answer to a move is over. The old map goes on forwarding, and there is no other move, until it
    /// comes after all.
    pub(super) fn move_timed_out(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let silent = self.silent();
        let Some(channel) = self.table.get_mut(id) else { return };
        let relid = channel.relid();
        let ticket = channel.moving.as_mut().and_then(|moving| moving.ticket.take());
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(silent))));
        complain!(self, "relid {relid} channel {id}: no answer to a move");
    }

    pub(super) fn check_processor(&self, processor: u32) -> Result<(), Refusal> {
        if processor < self.limits.processors { Ok(()) } else { Err(Refusal::Argument("there is no such processor")) }
    }
}
