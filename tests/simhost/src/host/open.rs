//! Opening a channel, and moving its interrupts.

use vmbus::message::{Features, GpadlId, HostMessage, OpenChannel, OpenFlags, Status, USER_DEFINED_BYTES, Version};
use vmbus_ringbuf::{Reader, Writer};

use super::channel::{Completion, OpenKind, Opened, State};
use super::{Host, OfferId};
use crate::{Memory, ViolationKind};

/// The processor of a channel whose interrupts go nowhere.
const NO_PROCESSOR: u32 = u32::MAX;
/// Event flags of an interrupt source.
const FLAGS: u32 = 2048;

impl<M: Memory> Host<M> {
    pub(super) fn open(&mut self, open: &OpenChannel) {
        let protocol = self.connection.protocol;
        let signal = open.signal.is_some() && !protocol.has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS);
        let flags = open.flags != OpenFlags::empty() && !protocol.has(Features::CHANNEL_INTERRUPT_REDIRECTION);
        if signal || flags {
            self.violation(ViolationKind::OpenForm, Some(open.relid), "long form without its feature".into());
        }
        self.open_as(open, OpenKind::Usual);
    }

    pub(super) fn open_reserved(&mut self, relid: u32, ring: GpadlId, downstream_offset_pages: u32) {
        if !self.connection.protocol.at_least(Version::V4_0) {
            return self.violation(ViolationKind::Unsupported, Some(relid), "OPEN_RESERVED".into());
        }
        let open = OpenChannel {
            relid,
            open_id: 0,
            ring,
            target_vp: NO_PROCESSOR,
            downstream_offset_pages,
            user_defined: [0; USER_DEFINED_BYTES],
            signal: None,
            flags: OpenFlags::empty(),
        };
        self.open_as(&open, OpenKind::Reserved);
    }

    fn open_as(&mut self, open: &OpenChannel, kind: OpenKind) {
        let Some(id) = self.named(open.relid, "OPEN") else { return };
        // A host does not answer the open of a channel that it has rescinded: the guest has to notice.
        if self.is_gone(id, "OPEN") {
            return;
        }
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if !matches!(channel.state, State::Offered) {
            let text = format!("it is {}", channel.state.name());
            return self.violation(ViolationKind::OpenTwice, Some(open.relid), text);
        }
        channel.state = State::Opening(Box::new(open.clone()), kind);
        self.later(self.config.latency.open, Completion::Open(id));
    }

    pub(super) fn open_done(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let (request, kind) = match std::mem::replace(&mut channel.state, State::Offered) {
            State::Opening(request, kind) => (request, kind),
            other => {
                channel.state = other;
                return;
            }
        };
        let refused = self.random.chance(u32::from(self.config.refusals.open_permille), 1000);
        let opened = if refused { None } else { self.rings(id, &request, kind) };
        let (relid, open_id) = (request.relid, request.open_id);
        let mut success = opened.is_some();
        if let (Some(opened), Some(channel)) = (opened, self.channels.get_mut(&id)) {
            channel.state = State::Open(Box::new(opened));
            success = self.device_opened(id);
        }
        let status = if success { Status::SUCCESS } else { Status::UNSUCCESSFUL };
        if success {
            self.counters.opens += 1;
            self.accepted(id);
        } else {
            self.counters.refused += 1;
            if let Some(channel) = self.channels.get_mut(&id) {
                channel.state = State::Offered;
            }
        }
        self.send(HostMessage::OpenResult { relid, open_id, status });
        self.end_if_over(id);
    }

    /// Both ends of the channel's rings, if the request makes sense.
    fn rings(&mut self, id: OfferId, request: &OpenChannel, kind: OpenKind) -> Option<Opened<M::Ring>> {
        let relid = Some(request.relid);
        let processor = (request.target_vp != NO_PROCESSOR).then_some(request.target_vp);
        if processor.is_some_and(|processor| processor >= self.config.processors) {
            self.violation(ViolationKind::Processor, relid, format!("OPEN for {}", request.target_vp));
            return None;
        }
        let flag = match request.signal {
            Some((_, flag)) if self.connection.protocol.has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS) => flag.into(),
            _ => request.relid,
        };
        let pages = self.gpadls.pages_of(request.ring, id).unwrap_or_default();
        let split = usize::try_from(request.downstream_offset_pages).unwrap_or(usize::MAX);
        let rings = pages
            .split_at_checked(split)
            .and_then(|(outgoing, incoming)| Some((self.memory.ring(outgoing)?, self.memory.ring(incoming)?)));
        let Some((outgoing, incoming)) = rings.filter(|_| flag < FLAGS) else {
            let text = format!("GPADL {} of {} pages, divided at {split}", request.ring.0, pages.len());
            self.violation(ViolationKind::OpenRing, relid, text);
            return None;
        };
        match (Reader::new(outgoing), Writer::new(incoming)) {
            (Ok(reader), Ok(mut writer)) => {
                writer.announce_flow_control();
                let request = request.clone();
                let (moving, moving_next, broken) = (None, None, false);
                Some(Opened { reader, writer, request, kind, processor, flag, moving, moving_next, broken })
            }
            (Err(corrupt), _) | (_, Err(corrupt)) => {
                self.violation(ViolationKind::Ring, relid, corrupt.to_string());
                None
            }
        }
    }

    pub(super) fn modify(&mut self, relid: u32, target_vp: u32) {
        if !self.connection.protocol.at_least(Version::V4_1) {
            return self.violation(ViolationKind::Unsupported, Some(relid), "MODIFYCHANNEL".into());
        }
        let Some(id) = self.named(relid, "MODIFYCHANNEL") else { return self.modify_failed(relid) };
        if self.is_gone(id, "MODIFYCHANNEL") {
            return self.modify_failed(relid);
        }
        let answered = self.connection.protocol.at_least(Version::V5_3);
        let exists = target_vp < self.config.processors;
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let wrong = match &mut channel.state {
            State::Open(opened) if !exists || opened.kind == OpenKind::Reserved => ViolationKind::Processor,
            State::Open(opened) if opened.moving.is_none() => {
                opened.moving = Some(target_vp);
                return self.later(self.config.latency.modify, Completion::Modify(id));
            }
            State::Open(_) if answered => ViolationKind::Modify,
            State::Open(opened) => {
                // Before moves are answered a guest can't know that one is under way; the last one counts.
                opened.moving_next = Some(target_vp);
                return;
            }
            _ => ViolationKind::Modify,
        };
        self.violation(wrong, Some(relid), format!("move to {target_vp}"));
        self.modify_failed(relid);
    }

    pub(super) fn modify_failed(&mut self, relid: u32) {
        self.modify_answer(relid, Status::UNSUCCESSFUL);
    }

    fn modify_answer(&mut self, relid: u32, status: Status) {
        if self.connection.protocol.at_least(Version::V5_3) {
            self.send(HostMessage::ModifyChannelResponse { relid, status });
        }
    }

    pub(super) fn modify_done(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let State::Open(opened) = &mut channel.state else { return };
        let Some(processor) = opened.moving.take() else { return };
        opened.processor = Some(processor);
        let (relid, next) = (opened.request.relid, opened.moving_next.take());
        self.counters.moves += 1;
        self.modify_answer(relid, Status::SUCCESS);
        if let Some(next) = next {
            self.modify(relid, next);
        }
    }
}
