//! What comes from the host through one channel, checked, until somebody takes it: packets with ranges of the receive
//! buffer, completions, and what the host tells.
//!
//! A packet of the host occupies its transaction id until its completion has been sent. Ids are looked up, so that no
//! more packets can wait here than the receive buffer has parts; that bounds all queues in this file.

use super::bytes;
use super::shared::Shared;
use super::statistics::Statistics;
use super::wire::nvsp::{ChannelType, HostMessage, MOST_RANGES, RECEIVE_BUFFER_ID, Status, parse};
use super::wire::{WireError, rndis};
use std::collections::VecDeque;
use vmbus_channels::requests::{RequestTable, TableFull};
use vmbus_ringbuf::TransferPageRange;

/// Notices that wait to be heard; the oldest go.
const NOTICES: usize = 64;

/// What was sent and waits for its completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// A frame of so many bytes, in a section.
    Frame { section: u32, bytes: u32 },
    /// A frame of so many bytes, in a place for long ones.
    LongFrame { place: u32, bytes: u32 },
    /// A control message, in a section.
    Control { section: u32 },
    /// A control message, in a place for long frames.
    LongControl { place: u32 },
    /// A request whose answer is in the completion.
    Request,
}

/// A packet of the host that has been taken out of the queue and is not completed. It is to be given back to the queue
/// that it came from ([`complete`](super::Queue::complete)), in any order: until then the host can't use that part of the
/// receive buffer.
#[derive(Debug)]
#[must_use = "the host waits for its completion"]
pub struct Held {
    pub(super) transaction: u64,
    pub(super) ranges: Vec<TransferPageRange>,
}

impl Held {
    /// Messages in it: most often one frame each.
    #[must_use]
    pub fn messages(&self) -> usize {
        self.ranges.len()
    }
}

/// What the host told without being asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    VirtualFunction { allocated: bool, serial: u32 },
}

/// What has come through one channel.
#[derive(Debug)]
pub(super) struct Intake {
    /// A bit for each transaction id: in use by a packet that is not completed.
    busy: Vec<u64>,
    parts: u32,
    /// Packets with frames.
    frames: VecDeque<Held>,
    /// Packets with control messages.
    pub(super) control: VecDeque<Held>,
    /// Completions that wait for room, at most one for each id.
    completions: VecDeque<(u64, Status)>,
    pub(super) sent: RequestTable<Sent>,
    /// Answers to [`Sent::Request`], newest last: one waits at a time, and late ones go with the next question.
    pub(super) answers: VecDeque<Result<HostMessage, WireError>>,
    pub(super) told: VecDeque<Told>,
    pub(super) statistics: Statistics,
    /// For a look at a message's type.
    peek: Vec<u8>,
}

impl Intake {
    pub(super) fn new(shared: &Shared) -> Self {
        let words = usize::try_from(shared.parts.div_ceil(u64::BITS)).unwrap_or(0);
        // A request for each section, and a few that need none.
        let places = shared.long.as_ref().map_or(0, |long| long.places.count());
        let requests = usize::try_from(shared.sections.count() + places).unwrap_or(0).saturating_add(16);
        Self {
            busy: vec![0; words],
            parts: shared.parts,
            frames: VecDeque::new(),
            control: VecDeque::new(),
            completions: VecDeque::new(),
            sent: RequestTable::new(requests),
            answers: VecDeque::new(),
            told: VecDeque::new(),
            statistics: Statistics::default(),
            peek: Vec::new(),
        }
    }

    /// A packet with ranges of a set of pages: `message` is what it says of them.
    pub(super) fn transfer(
        &mut self,
        shared: &Shared,
        transaction: u64,
        message: Result<HostMessage, WireError>,
        pageset: u16,
        ranges: impl Iterator<Item = TransferPageRange>,
    ) {
        if !self.occupy(transaction) {
            // There is no such id, or its packet will be completed: a second completion would be for nobody.
            self.statistics.bad_transactions += 1;
            return;
        }
        let channel = match message {
            Ok(HostMessage::Rndis(channel)) if pageset == RECEIVE_BUFFER_ID => channel,
            _ => {
                self.statistics.malformed += 1;
                return self.complete(transaction, Status::FAILURE);
            }
        };
        // One more than may be, to see that there are too many.
        let ranges: Vec<_> = ranges.take(MOST_RANGES + 1).collect();
        let inside = |range: &TransferPageRange| is_inside(*range, shared.receive_bytes);
        if ranges.is_empty() || ranges.len() > MOST_RANGES || !ranges.iter().all(inside) {
            self.statistics.bad_ranges += 1;
            return self.complete(transaction, Status::FAILURE);
        }
        let is_control = channel == ChannelType::CONTROL || !self.begins_with_frame(shared, &ranges);
        let queue = if is_control { &mut self.control } else { &mut self.frames };
        queue.push_back(Held { transaction, ranges });
    }

    /// Whether the first message is a frame. The host may change it later, which does no harm: it is read anew then.
    fn begins_with_frame(&mut self, shared: &Shared, ranges: &[TransferPageRange]) -> bool {
        let offset = ranges.first().and_then(|range| usize::try_from(range.byte_offset).ok());
        let kind = offset.and_then(|offset| bytes::read(shared.receive.memory(), offset, 4, &mut self.peek));
        kind == Some(&rndis::MessageType::PACKET.0.to_le_bytes())
    }

    /// A completion: `payload` is what it says.
    pub(super) fn completion(&mut self, shared: &Shared, transaction: u64, payload: &[u8]) {
        let Some(sent) = self.sent.complete(transaction) else {
            self.statistics.unknown_completions += 1;
            return;
        };
        let answer = parse(payload, shared.version);
        let status = match answer {
            Ok(HostMessage::RndisComplete(status)) => Some(status),
            _ => None,
        };
        match sent {
            Sent::Request => {
                self.answers.clear();
                self.answers.push_back(answer);
            }
            Sent::Frame { section, bytes } => {
                // The host is done with the section, whatever it says.
                shared.sections.give(section);
                self.transmitted(status, bytes);
            }
            Sent::LongFrame { place, bytes } => {
                if let Some(long) = &shared.long {
                    long.places.give(place);
                }
                self.transmitted(status, bytes);
            }
            Sent::Control { section } => {
                shared.sections.give(section);
                self.statistics.malformed += u64::from(status.is_none());
            }
            Sent::LongControl { place } => {
                if let Some(long) = &shared.long {
                    long.places.give(place);
                }
                self.statistics.malformed += u64::from(status.is_none());
            }
        }
    }

    /// The host has taken a frame, or not.
    fn transmitted(&mut self, status: Option<Status>, bytes: u32) {
        match status {
            Some(Status::SUCCESS) => {
                self.statistics.transmitted_frames += 1;
                self.statistics.transmitted_bytes += u64::from(bytes);
            }
            Some(_) => self.statistics.transmit_refused += 1,
            None => self.statistics.malformed += 1,
        }
    }

    /// A packet that carries its message itself.
    pub(super) fn in_band(&mut self, shared: &Shared, payload: &[u8]) {
        match parse(payload, shared.version) {
            Ok(HostMessage::IndirectionTable(table)) => shared.set_table(&table),
            Ok(HostMessage::VfAssociation { allocated, serial }) => {
                if self.told.len() >= NOTICES {
                    self.told.pop_front();
                }
                self.told.push_back(Told::VirtualFunction { allocated, serial });
            }
            Ok(_) => self.statistics.unexpected += 1,
            Err(_) => self.statistics.malformed += 1,
        }
    }

    /// Whether there are frames.
    pub(super) fn has_frames(&self) -> bool {
        !self.frames.is_empty()
    }

    /// The next packet with frames.
    pub(super) fn next(&mut self) -> Option<Held> {
        self.frames.pop_front()
    }

    /// Keeps a request that is being sent.
    pub(super) fn expect(&mut self, sent: Sent) -> Option<u64> {
        self.sent.insert(sent).map_err(|TableFull(_)| ()).ok()
    }

    /// A packet is done with: its completion is to be sent. The id stays in use until it has been.
    pub(super) fn complete(&mut self, transaction: u64, status: Status) {
        self.completions.push_back((transaction, status));
    }

    /// The next `count` completions are published: the host may use their ids again.
    pub(super) fn completed(&mut self, count: usize) {
        for _ in 0..count {
            let Some((transaction, _)) = self.completions.pop_front() else { return };
            if let Some((word, bit)) = self.busy_bit(transaction) {
                *word &= !bit;
            }
        }
    }

    /// Completions that wait, oldest first.
    pub(super) fn completions(&self) -> impl Iterator<Item = (u64, Status)> + '_ {
        self.completions.iter().copied()
    }

    /// Marks an id as in use. `false`: there is none of that number, or it is in use already.
    fn occupy(&mut self, transaction: u64) -> bool {
        let Some((word, bit)) = self.busy_bit(transaction) else { return false };
        let free = *word & bit == 0;
        *word |= bit;
        free
    }

    /// Ids are below the number of parts: the first one that is not, is that number itself.
    fn busy_bit(&mut self, transaction: u64) -> Option<(&mut u64, u64)> {
        if transaction >= u64::from(self.parts) {
            return None;
        }
        let word = usize::try_from(transaction / u64::from(u64::BITS)).ok()?;
        Some((self.busy.get_mut(word)?, 1 << (transaction % u64::from(u64::BITS))))
    }
}

/// Whether a range lies in a buffer of so many bytes, and is not longer than any message may be.
fn is_inside(range: TransferPageRange, buffer_bytes: usize) -> bool {
    let (Ok(offset), Ok(count)) = (usize::try_from(range.byte_offset), usize::try_from(range.byte_count)) else {
        return false;
    };
    count <= rndis::LONGEST_BYTES && offset <= buffer_bytes && count <= buffer_bytes - offset
}

#[cfg(test)]
mod tests;
