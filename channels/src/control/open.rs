//! Opening: share the ring, ask the host, hand the channel out. Whatever fails on the way is taken back in order.

use vmbus::link::Share;
use vmbus::message::{Features, GuestMessage, OpenChannel, OpenFlags, Status, Version};

use super::channel::{Mapped, Opening, State};
use super::gpadl::{Gpadl, PAGE_BYTES, Phase};
use super::input::{OpenSettings, Ticket};
use super::logging::{complain, note};
use super::{Action, Answer, Core, Due, Refusal};
use crate::ChannelId;
use crate::mutation::{self, Mutation};

impl Core {
    /// An application wants a channel opened. With an interrupt source of its own: as a reserved channel.
    pub(super) fn open(
        &mut self,
        ticket: Ticket,
        id: ChannelId,
        settings: OpenSettings,
        reserved: Option<u32>,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.counters.opens += 1;
        let channel = self.usable(id)?;
        if channel.state != State::Offered {
            return Err(Refusal::State(id, channel.state.name()));
        }
        self.check(&settings)?;
        if reserved.is_some() {
            self.connection.needs(Version::V4_0)?;
        }
        let relid = channel.relid();
        let what = Share::Ring { outgoing_bytes: settings.outgoing_bytes, incoming_bytes: settings.incoming_bytes };
        let ring = Gpadl { channel: id, phase: Phase::Creating, ticket: None, timer: None };
        let ring = self.share(relid, ring, what, out);
        let timer = Some(self.wait(Due::Open(id)));
        if let Some(channel) = self.table.get_mut(id) {
            channel.ring = Some(ring);
            channel.reserved = reserved;
            channel.processor = settings.processor;
            channel.state = State::Sharing(Opening { ticket: Some(ticket), settings, timer });
        }
        Ok(())
    }

    fn check(&self, settings: &OpenSettings) -> Result<(), Refusal> {
        let fits = |bytes: u32| bytes >= 2 * PAGE_BYTES && bytes.is_multiple_of(PAGE_BYTES);
        if !fits(settings.outgoing_bytes) || !fits(settings.incoming_bytes) {
            return Err(Refusal::Argument("a ring is a control page and at least one page of data, in whole pages"));
        }
        if settings.outgoing_bytes.checked_add(settings.incoming_bytes).is_none() {
            return Err(Refusal::Argument("both rings together are at most 4 GiB"));
        }
        self.check_processor(settings.processor)
    }

    /// The host has answered about the ring of a channel that is being opened, or closed.
    pub(super) fn on_ring_created(
        &mut self,
        id: ChannelId,
        ring: vmbus::message::GpadlId,
        status: Status,
        out: &mut Vec<Action>,
    ) {
        if !status.is_success() {
            self.free_gpadl(ring, out);
            return self.open_ended(id, Refusal::Host(status), out);
        }
        if let Some(gpadl) = self.gpadls.get_mut(ring) {
            gpadl.phase = Phase::Live;
        }
        let timer = self.take_opening_timer(id);
        self.stop(timer);
        let Some(opening) = self.opening(id).cloned() else { return };
        if opening.ticket.is_none() {
            return self.tear_down_memory(id, out);
        }
        let open_id = self.post_open(id, ring, &opening.settings, out);
        let timer = Some(self.wait(Due::Open(id)));
        if let Some(channel) = self.table.get_mut(id) {
            channel.state = State::Requested(Opening { timer, ..opening }, open_id);
        }
    }

    /// Posts OPEN or OPEN_RESERVED; which number the result will have.
    fn post_open(
        &mut self,
        id: ChannelId,
        ring: vmbus::message::GpadlId,
        settings: &OpenSettings,
        out: &mut Vec<Action>,
    ) -> u32 {
        let Some(channel) = self.table.get(id) else { return 0 };
        let relid = channel.relid();
        let downstream_offset_pages = settings.outgoing_bytes / PAGE_BYTES;
        if let Some(target_sint) = channel.reserved {
            let target_vp = settings.processor;
            self.post(GuestMessage::OpenReserved { relid, target_vp, target_sint, ring, downstream_offset_pages }, out);
            // That message has no number; the result has a zero.
            return 0;
        }
        let guest_chooses = self.connection.has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS);
        let signal = u16::try_from(relid).ok().filter(|_| guest_chooses);
        let open_id = self.next_open;
        let open = OpenChannel {
            relid,
            open_id,
            ring,
            target_vp: settings.processor,
            downstream_offset_pages,
            user_defined: settings.user_defined,
            signal: signal.map(|flag| (channel.offer.connection_id, flag)),
            flags: OpenFlags::empty(),
        };
        self.next_open = self.next_open.wrapping_add(1).max(1);
        self.post(GuestMessage::Open(Box::new(open)), out);
        open_id
    }

    /// The host has opened a channel, or not.
    pub(super) fn on_open_result(&mut self, relid: u32, open_id: u32, status: Status, out: &mut Vec<Action>) {
        let any = mutation::is(Mutation::MatchByRelidOnly);
        let found = self.table.at_relid(relid).filter(|id| {
            let state = self.table.get(*id).map(|channel| &channel.state);
            matches!(state, Some(State::Requested(_, asked)) if *asked == open_id || any)
        });
        let Some(id) = found else {
            self.counters.stale_answers += 1;
            complain!(self, "relid {relid}: result {open_id} of an open that was not awaited");
            return;
        };
        let timer = self.take_opening_timer(id);
        self.stop(timer);
        let Some(opening) = self.opening(id).cloned() else { return };
        if !status.is_success() {
            complain!(self, "relid {relid} channel {id}: open refused, status {:#x}", status.0);
            self.counters.open_failures += u64::from(opening.ticket.is_some());
            let answer = Answer::Failed(Refusal::Host(status));
            self.leave(id, opening.ticket.map(|ticket| (ticket, answer)));
            return self.tear_down_memory(id, out);
        }
        match opening.ticket {
            Some(ticket) => self.hand_out(id, ticket, out),
            // The wait had timed out: nobody wants it any more.
            None => self.close_at_host(id, out),
        }
    }

    /// The host has opened the channel: from here on somebody holds it.
    fn hand_out(&mut self, id: ChannelId, ticket: Ticket, out: &mut Vec<Action>) {
        let Some(channel) = self.table.get_mut(id) else { return };
        let Some(ring) = channel.ring else { return };
        channel.state = State::Open;
        channel.referenced = true;
        channel.mapped = Mapped::Yes;
        let (relid, processor) = (channel.relid(), channel.processor);
        self.counters.opened += 1;
        note!(self, "relid {relid} channel {id}: open, interrupts processor {processor}");
        out.push(Action::Opened { ticket, channel: id, relid, ring, processor });
    }

    /// An open failed before the host had anything: the channel is on offer again.
    pub(super) fn open_ended(&mut self, id: ChannelId, refusal: Refusal, out: &mut Vec<Action>) {
        let timer = self.take_opening_timer(id);
        self.stop(timer);
        let ticket = self.opening(id).and_then(|opening| opening.ticket);
        self.counters.open_failures += u64::from(ticket.is_some());
        self.leave(id, ticket.map(|ticket| (ticket, Answer::Failed(refusal))));
        self.offered_again(id, out);
    }

    /// The wait for the host's answer to an open is over. What is shared stays so until it answers after all, or rescinds.
    pub(super) fn open_timed_out(&mut self, id: ChannelId, out: &mut Vec<Action>) {
        let silent = self.silent();
        let Some(channel) = self.table.get_mut(id) else { return };
        let (relid, ring) = (channel.relid(), channel.ring);
        if let State::Sharing(opening) | State::Requested(opening, _) = &mut channel.state {
            let ticket = if mutation::is(Mutation::AnswerTwice) { opening.ticket } else { opening.ticket.take() };
            self.counters.open_failures += u64::from(ticket.is_some());
            out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(silent))));
            complain!(self, "relid {relid} channel {id}: no answer to an open; its memory is in quarantine");
        }
        if mutation::is(Mutation::FreeOnTimeout)
            && let Some(ring) = ring
        {
            self.free_gpadl(ring, out);
        }
    }

    fn opening(&self, id: ChannelId) -> Option<&Opening> {
        match &self.table.get(id)?.state {
            State::Sharing(opening) | State::Requested(opening, _) => Some(opening),
            _ => None,
        }
    }

    fn take_opening_timer(&mut self, id: ChannelId) -> Option<crate::timers::TimerKey> {
        match &mut self.table.get_mut(id)?.state {
            State::Sharing(opening) | State::Requested(opening, _) => opening.timer.take(),
            _ => None,
        }
    }

    /// Lets a ticket wait for the end of the channel's close.
    fn leave(&mut self, id: ChannelId, waiting: Option<(Ticket, Answer)>) {
        if let Some(channel) = self.table.get_mut(id) {
            channel.closers.extend(waiting);
        }
    }
}
