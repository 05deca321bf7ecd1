//! A device's turn: the rings are taken out of the channel, handed to the device, and put back.

use std::time::Duration;

use vmbus::message::{GpadlId, UserDefined};
use vmbus_ringbuf::{Corrupt, Descriptor, OutgoingPacket, WriteError};

use super::channel::{Opened, State};
use super::gpadls::Gpadls;
use super::{Host, OfferId};
use crate::device::Port;
use crate::{Error, Memory, Random, ViolationKind};

/// Violations that a device may tell of in one turn.
const COMPLAINTS: usize = 8;
/// Bytes of packets that a device takes in one turn: half of the largest ring of a socket.
const BYTES: usize = 128 * 1024;
/// Rounds of *take all there is, look again* in one turn.
const ROUNDS: usize = 4;

/// An open channel in its device's hands.
struct Turn<'a, M: Memory> {
    opened: &'a mut Opened<M::Ring>,
    /// Nobody needs to signal.
    polls: bool,
    gpadls: &'a Gpadls,
    memory: &'a M,
    id: OfferId,
    random: &'a mut Random,
    now: Duration,
    /// Packets, and bytes of them, that may still be taken. A guest that waits for room is told at the end of the turn.
    packets: usize,
    bytes: usize,
    sent: u64,
    interrupt: bool,
    complaints: Vec<String>,
}

impl<M: Memory> Turn<'_, M> {
    /// Gives the room of all packets taken back to the guest.
    fn finish(&mut self) {
        self.interrupt |= self.opened.reader.batch().finish().is_needed();
    }

    /// Asks for signals again, unless nobody needs to signal; whether there is something to be read by now.
    fn look_again(&mut self) -> bool {
        let reader = &mut self.opened.reader;
        if self.polls { !reader.is_empty().unwrap_or(false) } else { reader.unmask() }
    }

    fn write(&mut self, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), WriteError> {
        self.interrupt |= self.opened.writer.try_write(packet, payload)?.is_needed();
        self.sent += 1;
        Ok(())
    }
}

impl<M: Memory> Port for Turn<'_, M> {
    fn now(&self) -> Duration {
        self.now
    }

    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<Option<Descriptor>, Error> {
        // What was in it need not be cleared: all of it is written over.
        if self.packets == 0 || self.bytes == 0 {
            payload.clear();
            return Ok(None);
        }
        let mut batch = self.opened.reader.batch();
        let Some(packet) = batch.next()? else {
            payload.clear();
            return Ok(None);
        };
        payload.resize(packet.payload().len(), 0);
        // As long as the payload, so it fits.
        let copied = packet.payload().copy_to(payload);
        debug_assert!(copied.is_ok());
        let descriptor = packet.descriptor();
        self.packets -= 1;
        self.bytes = self.bytes.saturating_sub(payload.len());
        Ok(Some(descriptor))
    }

    fn send_pieces(&mut self, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        match self.write(packet, payload) {
            Err(WriteError::Full { needed, free }) => {
                if self.opened.writer.request_space(needed)? {
                    return Ok(self.write(packet, payload)?);
                }
                Err(WriteError::Full { needed, free }.into())
            }
            other => Ok(other?),
        }
    }

    fn interrupt(&mut self) {
        self.interrupt = true;
    }

    fn random(&mut self) -> u64 {
        self.random.next_u64()
    }

    fn user_defined(&self) -> UserDefined {
        self.opened.request.user_defined
    }

    fn read_gpadl(&self, gpadl: u32, offset: u64, destination: &mut [u8]) -> bool {
        let Some(pages) = self.gpadls.pages_of(GpadlId(gpadl), self.id) else { return false };
        let mut rest = destination;
        let bytes = rest.len();
        Host::<M>::walk(pages, offset, bytes, |address, here| {
            let Some((part, behind)) = std::mem::take(&mut rest).split_at_mut_checked(here) else { return false };
            rest = behind;
            self.memory.read(address, part)
        })
    }

    fn write_gpadl(&self, gpadl: u32, offset: u64, source: &[u8]) -> bool {
        let Some(pages) = self.gpadls.pages_of(GpadlId(gpadl), self.id) else { return false };
        let mut rest = source;
        Host::<M>::walk(pages, offset, source.len(), |address, here| {
            let Some((part, behind)) = rest.split_at_checked(here) else { return false };
            rest = behind;
            self.memory.write(address, part)
        })
    }

    fn violation(&mut self, text: String) {
        if self.complaints.len() < COMPLAINTS {
            self.complaints.push(text);
        }
    }
}

impl<M: Memory> Host<M> {
    /// The guest signalled a channel.
    pub(super) fn signalled(&mut self, id: OfferId) {
        if !self.turn(id) {
            self.counters.stray_signals += 1;
        }
    }

    /// Gives the device of an open channel its turn; whether it is one.
    fn turn(&mut self, id: OfferId) -> bool {
        let open = self.rounds(id).is_some();
        self.end_if_over(id);
        open
    }

    fn rounds(&mut self, id: OfferId) -> Option<Result<(), Error>> {
        self.in_turn(id, |device, turn| {
            // Whether the device was given its turn with something there. What comes between its look and ours is not
            // signalled, as the mask is set, and a device that found nothing must be asked once more for that.
            let mut known = false;
            for round in 0..ROUNDS {
                turn.opened.reader.mask();
                let before = (turn.packets, turn.sent);
                let result = device.turn(turn);
                turn.finish();
                result?;
                // A guest that signals for each packet is waited for; one that never stops must not keep the others
                // waiting, so the device's turn comes again.
                let more = turn.look_again();
                // A device that does nothing about what is there waits for room, which comes with a signal, or for a
                // command.
                if !more || known && before == (turn.packets, turn.sent) {
                    return Ok(false);
                }
                known = true;
                if turn.packets == 0 || turn.bytes == 0 || round + 1 == ROUNDS {
                    break;
                }
            }
            Ok(true)
        })
    }

    /// The channel has just become open: whether its device takes it.
    pub(super) fn device_opened(&mut self, id: OfferId) -> bool {
        let result = self.in_turn(id, |device, turn| {
            let result = device.opened(turn);
            turn.finish();
            result.map(|()| turn.look_again())
        });
        matches!(result, Some(Ok(_)))
    }

    /// Does something with the device and the rings of an open channel. `work` returns whether it wants more.
    fn in_turn(
        &mut self,
        id: OfferId,
        work: impl FnOnce(&mut dyn crate::Device, &mut Turn<'_, M>) -> Result<bool, Error>,
    ) -> Option<Result<(), Error>> {
        let channel = self.channels.get_mut(&id)?;
        let State::Open(opened) = &mut channel.state else { return None };
        let device = channel.device.as_mut().filter(|_| !opened.broken)?;
        let mut turn = Turn {
            opened,
            polls: self.polls,
            gpadls: &self.gpadls,
            memory: &self.memory,
            id,
            random: &mut channel.random,
            now: self.now,
            packets: self.config.limits.packets,
            bytes: BYTES,
            sent: 0,
            interrupt: false,
            complaints: Vec::new(),
        };
        let result = work(device.as_mut(), &mut turn);
        let (interrupt, sent, complaints) = (turn.interrupt, turn.sent, std::mem::take(&mut turn.complaints));
        let taken = self.config.limits.packets.saturating_sub(turn.packets);
        channel.again = matches!(result, Ok(true));
        let corrupt = match &result {
            Err(Error::Corrupt(corrupt) | Error::Write(WriteError::Corrupt(corrupt))) => Some(*corrupt),
            _ => opened.reader.corrupt().or(opened.writer.corrupt()),
        };
        opened.broken |= corrupt.is_some();
        let (relid, to) = (channel.relid, opened.processor.map(|processor| (processor, opened.flag)));
        self.counters.packets_in += u64::try_from(taken).unwrap_or(0);
        self.counters.packets_out += sent;
        for text in complaints {
            self.violation(ViolationKind::Device, relid, text);
        }
        if let Some(corrupt) = corrupt {
            self.ring_broken(id, relid, corrupt);
        }
        if let Some((processor, flag)) = to.filter(|_| interrupt) {
            self.interrupt(processor, flag);
        }
        Some(result.map(|_| ()))
    }

    fn ring_broken(&mut self, id: OfferId, relid: Option<u32>, corrupt: Corrupt) {
        self.violation(ViolationKind::Ring, relid, corrupt.to_string());
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.again = false;
        }
    }

    /// From now on guests need not signal: rings are looked into by [`look`](Self::look) again and again.
    pub fn poll_rings(&mut self) {
        self.polls = true;
    }

    /// Gives each open channel in whose ring there is something its turn; whether there was one.
    pub fn look(&mut self) -> bool {
        let (mut any, mut from) = (false, OfferId(0));
        while let Some((id, channel)) = self.channels.range_mut(from..).next() {
            let id = *id;
            from = OfferId(id.0.saturating_add(1));
            if let State::Open(opened) = &mut channel.state
                && !opened.broken
                && !opened.reader.is_empty().unwrap_or(false)
            {
                any = true;
                self.turn(id);
            }
        }
        any
    }

    /// Guests have to signal again. Those whose rings have something by now get their turn next.
    pub fn rest(&mut self) {
        self.polls = false;
        for channel in self.channels.values_mut() {
            if let State::Open(opened) = &mut channel.state
                && !opened.broken
            {
                channel.again |= opened.reader.unmask();
            }
        }
    }

    /// Turns of the devices whose time has come, one each.
    pub(super) fn due_turns(&mut self) {
        let due = |channel: &super::Channel<M::Ring>| channel.deadline().is_some_and(|due| due <= self.now);
        let ids: Vec<_> = self.channels.iter().filter(|(_, channel)| due(channel)).map(|(id, _)| *id).collect();
        for id in ids {
            self.turn(id);
        }
    }

    /// Says something to the device of an offer, in its own words, and gives it its turn.
    ///
    /// # Errors
    /// [`Error::NoOffer`]; what the device says.
    pub fn command(&mut self, id: OfferId, words: &str) -> Result<(), Error> {
        let channel = self.channels.get_mut(&id).ok_or(Error::NoOffer)?;
        channel.device.as_mut().ok_or(Error::NoOffer)?.command(words)?;
        self.turn(id);
        Ok(())
    }

    /// Interrupts the guest for a channel, with nothing new in its rings; or any flag, for a channel that is not there.
    pub fn stray_interrupt(&mut self, processor: u32, flag: u32) {
        self.interrupt(processor, flag);
    }

    /// The page numbers of the rings of an open channel: guest to host, host to guest.
    #[must_use]
    pub fn ring_pages(&self, id: OfferId) -> Option<(Vec<u64>, Vec<u64>)> {
        let State::Open(opened) = &self.channels.get(&id)?.state else { return None };
        let pages = self.gpadls.pages_of(opened.request.ring, id)?;
        let split = usize::try_from(opened.request.downstream_offset_pages).ok()?;
        let (outgoing, incoming) = pages.split_at_checked(split)?;
        Some((outgoing.to_vec(), incoming.to_vec()))
    }
}
