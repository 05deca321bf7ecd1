//! What the host gives to the guest: completions, and packets with messages in the receive buffer.

use vmbus_ringbuf::{OutgoingPacket, TransferPageRange, WriteError};

use super::adapter::{Adapter, Cause};
use super::command::Forged;
use super::format::{RECEIVE_BUFFER, words};
use super::{Layer, Network, SUCCESS};
use crate::Error;
use crate::device::Port;

/// Bytes of the guest's messages in one packet.
const MESSAGES_AT_MOST: usize = 1 << 18;

/// A packet whose messages are in the receive buffer.
#[derive(Debug)]
pub(super) struct Packet {
    control: bool,
    ranges: Vec<TransferPageRange>,
    pub(super) parts: Vec<u32>,
    /// What is completed with it.
    causes: Vec<Cause>,
    frames: u64,
}

impl Network {
    /// Gives everything that there is, as far as there is room, but for so many completions if they go in any order.
    pub(super) fn give(&mut self, port: &mut dyn Port, late: usize) -> Result<(), Error> {
        while let Some(forged) = self.forged.front() {
            if !sent(forged.send(port))? {
                return Ok(());
            }
            self.forged.pop_front();
        }
        loop {
            if !self.give_completions(port, late)? {
                return Ok(());
            }
            if self.pending.is_none() {
                self.pending = self.next_packet(port);
            }
            let Some(packet) = &self.pending else { return Ok(()) };
            let Some(id) = packet.parts.first().map(|part| u64::from(*part)) else { return Ok(()) };
            let outgoing = OutgoingPacket::transfer_pages(id, RECEIVE_BUFFER, false, &packet.ranges);
            let mut message = words(&[107, packet.control.into(), u32::MAX, 0, 0, 0, 0, 0, 0, 0]);
            self.adapter().settings.lie(Layer::Nvsp, &mut message);
            if !sent(port.send(&outgoing.with_completion_requested(), &message))? {
                return Ok(());
            }
            let Some(packet) = self.pending.take() else { return Ok(()) };
            self.counters.delivered += packet.frames;
            self.outstanding.insert(id, packet.parts);
            for (id, section) in packet.causes {
                self.complete(id, words(&[108, SUCCESS]), section);
            }
        }
    }

    /// Sends completions; whether there was room for all that are to go now.
    fn give_completions(&mut self, port: &mut dyn Port, late: usize) -> Result<bool, Error> {
        let (holds, reorders) = {
            let adapter = self.adapter();
            (adapter.holds, adapter.settings.reorders)
        };
        if holds {
            return Ok(true);
        }
        let keep = if reorders { late } else { 0 };
        while self.completions.len() > keep {
            if reorders {
                let count = u64::try_from(self.completions.len()).unwrap_or(1);
                let other = usize::try_from(port.random() % count).unwrap_or(0);
                self.completions.swap(0, other);
            }
            let Some((id, message, section)) = self.completions.front() else { return Ok(true) };
            if !sent(port.send(&OutgoingPacket::completion(*id), message))? {
                return Ok(false);
            }
            if let Some(section) = section {
                self.busy.remove(section);
            }
            self.completions.pop_front();
        }
        Ok(true)
    }

    /// The next packet of this queue, written into the receive buffer: messages of one kind.
    fn next_packet(&mut self, port: &mut dyn Port) -> Option<Packet> {
        let index = self.index;
        let mut adapter = self.adapter();
        let most = adapter.settings.frames_per_packet.max(1);
        let mut packet = Packet {
            control: adapter.next(index)?.control,
            ranges: Vec::new(),
            parts: Vec::new(),
            causes: Vec::new(),
            frames: 0,
        };
        while packet.ranges.len() < most && adapter.next(index).is_some_and(|next| next.control == packet.control) {
            let Some((part, range)) = write_next(&mut adapter, index, port) else { break };
            let Some(outgoing) = adapter.taken(index) else { break };
            packet.parts.push(part);
            packet.ranges.push(range);
            packet.causes.extend(outgoing.completes);
            packet.frames += u64::from(!outgoing.control);
        }
        (!packet.ranges.is_empty()).then_some(packet)
    }
}

/// Writes what is next for a queue into a free part.
fn write_next(adapter: &mut Adapter, index: u16, port: &dyn Port) -> Option<(u32, TransferPageRange)> {
    let (receive, part_bytes) = (adapter.receive?, adapter.settings.part_bytes);
    let part = adapter.free.last().copied()?;
    let message = &adapter.next(index)?.message;
    let (byte_offset, byte_count) = (part * part_bytes, u32::try_from(message.len()).ok()?);
    if !port.write_gpadl(receive.gpadl, byte_offset.into(), message) {
        return None;
    }
    adapter.free.pop();
    Some((part, TransferPageRange { byte_count, byte_offset }))
}

/// What the pages of the guest's packet have, behind what there is already.
pub(super) fn pages(port: &dyn Port, mut message: Vec<u8>) -> Option<Vec<u8>> {
    for range in port.ranges() {
        let before = message.len();
        message.resize(before + usize::try_from(range.byte_count).ok()?, 0);
        let inside = message.len() <= MESSAGES_AT_MOST;
        (inside && port.read_range(range, 0, message.get_mut(before..)?)).then_some(())?;
    }
    (!message.is_empty()).then_some(message)
}

/// Whether it was sent; `false` when there is no room.
pub(super) fn sent(outcome: Result<(), Error>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(Error::Write(WriteError::Full { .. })) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Forged {
    /// Sends it.
    pub(super) fn send(&self, port: &mut dyn Port) -> Result<(), Error> {
        match self {
            Self::Transfer { id, set, range } => {
                let ranges = [*range];
                let packet = OutgoingPacket::transfer_pages(*id, *set, false, &ranges).with_completion_requested();
                port.send(&packet, &words(&[107, 0, u32::MAX, 0]))
            }
            Self::Completion(id) => port.send(&OutgoingPacket::completion(*id), &words(&[108, SUCCESS])),
            Self::InBand(message) => port.send(&OutgoingPacket::in_band(0), message),
        }
    }
}
