//! A ring against a plain model: a queue of packets and two counters. Shared by property tests and a fuzz target.
#![expect(clippy::panic, clippy::cast_possible_truncation, reason = "a checker: panics when a promise is broken")]

use std::collections::VecDeque;
use std::vec::Vec;

use crate::doubles::Script;
use crate::error::WriteError;
use crate::layout::{ControlField, FEATURE_PENDING_SEND_SIZE};
use crate::memory::Memory;
use crate::packet::{MultiPageBuffer, OutgoingPacket, Packet, PacketType, PageBuffer, Payload, TransferPageRange};
use crate::reader::{ReadBatch, Reader};
use crate::signal::Signal;
use crate::writer::{WriteBatch, Writer};

/// A packet as the model remembers it.
#[derive(Debug, Clone)]
struct Sent {
    kind: PacketType,
    flags: u16,
    transaction_id: u64,
    /// Between descriptor and payload, word by word as the format says.
    extra: Vec<u64>,
    /// Padded.
    payload: Vec<u8>,
    ring_bytes: u32,
}

/// Writes and reads what the script says, on honest memory, and compares every packet, every refusal and every signal
/// with the model.
pub fn round_trip<M: Memory>(memory: &M, script: &[u8]) {
    let mut script = Script::new(script);
    let start = (script.u32() % memory.data_bytes()) & !7;
    memory.store(ControlField::WriteIndex, start);
    memory.store(ControlField::ReadIndex, start);
    memory.store(ControlField::FeatureBits, u32::from(script.byte() & 3 != 0) * FEATURE_PENDING_SEND_SIZE);
    let (Ok(writer), Ok(reader)) = (Writer::new(memory), Reader::new(memory)) else {
        panic!("a sound ring was refused")
    };
    let mut model = Model {
        memory,
        size: memory.data_bytes(),
        write: start,
        queue: VecDeque::new(),
        script,
        serial: 0,
        owed: false,
    };
    let (mut writer, mut reader) = (writer, reader);
    while !model.script.is_exhausted() {
        match model.script.byte() % 8 {
            0 | 1 => model.write_one(&mut writer),
            2 | 3 => model.write_batch(&mut writer),
            4 => model.read_one(&mut reader),
            5 | 6 => model.read_batch(&mut reader),
            _ => model.sleep_and_wake(&mut writer, &mut reader),
        }
    }
    while model.queue.front().is_some() {
        model.read_batch(&mut reader);
    }
    assert_eq!(reader.is_empty(), Ok(true), "all that was sent was read");
}

struct Model<'m, 's, M> {
    memory: &'m M,
    size: u32,
    /// Where the published data ends.
    write: u32,
    /// Published, not yet read.
    queue: VecDeque<Sent>,
    script: Script<'s>,
    serial: u64,
    /// The reader released within a batch while the writer was blocked.
    owed: bool,
}

impl<M: Memory> Model<'_, '_, M> {
    fn distance(&self, from: u32, to: u32) -> u32 {
        (to + self.size - from) % self.size
    }

    /// Calls `each` with a random packet, its payload in random pieces, and what it should look like when it comes out.
    fn packet<R>(&mut self, each: impl FnOnce(&OutgoingPacket<'_>, &[&[u8]], Sent) -> R) -> R {
        self.serial += 1;
        let id = self.serial ^ 0x5a5a_0000_0000_0000;
        let most = if self.script.byte() & 15 == 0 { self.size + 64 } else { self.size / 3 };
        let length = self.script.below(most.max(1)) as usize;
        let seed = self.script.byte();
        let mut payload: Vec<u8> = (0..length).map(|index| seed.wrapping_add((index % 251) as u8)).collect();
        let cut = self.script.below(300) as usize;
        let count = usize::from(self.script.byte() % 4);
        let pages: Vec<_> = (0..count as u64)
            .map(|page| PageBuffer { page_frame: id + page, byte_offset: 4000, byte_count: 96 })
            .collect();
        let ranges: Vec<_> =
            (0..count).map(|_| TransferPageRange { byte_count: 1 + u32::from(seed), byte_offset: 0x1234 }).collect();
        let frames: Vec<u64> = (0..=count as u64).map(|frame| id ^ frame).collect();
        let multi = MultiPageBuffer { page_frames: &frames, byte_offset: 8, byte_count: 4096 * count as u32 + 4000 };
        let range = |bytes: u32, offset: u32| u64::from(bytes) | u64::from(offset) << 32;
        let (packet, extra) = match self.script.byte() % 6 {
            0 => (OutgoingPacket::completion(id), Vec::new()),
            1 => {
                let mut extra = Vec::from([(count as u64) << 32]);
                extra.extend(pages.iter().flat_map(|page| [range(96, 4000), page.page_frame]));
                (OutgoingPacket::gpa_direct_pages(id, &pages), extra)
            }
            2 => {
                let mut extra = Vec::from([1 << 32, range(multi.byte_count, 8)]);
                extra.extend(&frames);
                (OutgoingPacket::gpa_direct_multi_page(id, multi), extra)
            }
            3 => {
                let mut extra = Vec::from([0x1_cafe | (count as u64) << 32]);
                extra.extend(ranges.iter().map(|each| range(each.byte_count, each.byte_offset)));
                (OutgoingPacket::transfer_pages(id, 0xcafe, true, &ranges), extra)
            }
            4 => (OutgoingPacket::of_type(PacketType(0x77), id).with_flags(0x8002), Vec::new()),
            _ => (OutgoingPacket::in_band(id).with_completion_requested(), Vec::new()),
        };
        let flags = match packet.kind() {
            PacketType(0x77) => 0x8002,
            PacketType::IN_BAND => 1,
            _ => 0,
        };
        payload.resize(length.next_multiple_of(8), 0);
        let ring_bytes = (16 + extra.len() * 8 + payload.len() + 8) as u32;
        let sent = Sent { kind: packet.kind(), flags, transaction_id: id, extra, payload, ring_bytes };
        let bytes: Vec<u8> = sent.payload.iter().copied().take(length).collect();
        let (head, tail) = bytes.split_at(cut.min(length));
        match cut % 3 {
            0 => each(&packet, &[&bytes], sent),
            1 => each(&packet, &[head, tail], sent),
            _ => each(&packet, &[head, &[], tail, &[]], sent),
        }
    }

    /// Checks whether a packet was refused for good reason; `unpublished` bytes of the batch come before it.
    fn check_refusal(&self, unpublished: u32, ring_bytes: u32, result: Result<(), WriteError>) -> bool {
        let used = self.distance(self.memory.load(ControlField::ReadIndex), self.write) + unpublished;
        match result {
            Ok(()) => assert!(used + ring_bytes < self.size, "a ring was filled completely"),
            Err(WriteError::Full { needed, free }) => {
                assert_eq!((needed, free), (ring_bytes, self.size - used), "sizes of a refusal");
                assert!(used + ring_bytes >= self.size, "refused although there was room");
            }
            Err(WriteError::TooLarge { needed, .. }) => assert!(needed > u64::from(self.size - 8), "not too large"),
            Err(other) => panic!("{other}"),
        }
        result.is_ok()
    }

    /// The signal that a publication of everything up to `new_write` should yield, seen before it happens.
    fn reader_sleeps(&self) -> bool {
        self.memory.load(ControlField::InterruptMask) == 0 && self.memory.load(ControlField::ReadIndex) == self.write
    }

    fn publish(&mut self, sent: impl IntoIterator<Item = Sent>) {
        for packet in sent {
            self.write = (self.write + packet.ring_bytes) % self.size;
            self.queue.push_back(packet);
        }
        assert_eq!(self.memory.load(ControlField::WriteIndex), self.write, "what is published is what was written");
    }

    fn write_one(&mut self, writer: &mut Writer<&M>) {
        let sleeps = self.reader_sleeps();
        let (result, sent) = self.packet(|packet, payload, sent| (writer.try_write(packet, payload), sent));
        if self.check_refusal(0, sent.ring_bytes, result.map(drop)) {
            self.publish([sent]);
            assert_eq!(result, Ok(Signal::when(sleeps)), "signal of a write");
            assert_eq!(self.memory.load(ControlField::PendingSendSize), 0, "a write takes the request back");
        } else {
            assert_eq!(self.memory.load(ControlField::WriteIndex), self.write, "a refused packet is invisible");
        }
    }

    fn write_batch(&mut self, writer: &mut Writer<&M>) {
        let mut pending: Vec<Sent> = Vec::new();
        let mut needed = false;
        let mut batch = writer.batch();
        for _ in 0..self.script.byte() % 8 {
            let before = batch.unpublished_bytes();
            let sleeps = self.reader_sleeps();
            let reserve = self.script.byte() & 1 == 0;
            let (result, sent) = self.packet(|packet, payload, sent| {
                let result =
                    if reserve { Self::reserve(&mut batch, packet, payload) } else { batch.push(packet, payload) };
                (result, sent)
            });
            if self.check_refusal(before, sent.ring_bytes, result) {
                pending.push(sent);
            }
            if batch.unpublished_bytes() == 0 && !pending.is_empty() {
                self.publish(pending.drain(..));
                needed |= sleeps;
            }
            assert_eq!(self.memory.load(ControlField::WriteIndex), self.write, "a batch is invisible until published");
        }
        if self.script.byte() & 3 == 0 {
            drop(batch);
            assert_eq!(writer.take_owed_signal(), Signal::when(needed), "signal that a dropped batch leaves behind");
            assert_eq!(self.memory.load(ControlField::WriteIndex), self.write, "a dropped batch is invisible");
            return;
        }
        needed |= !pending.is_empty() && self.reader_sleeps();
        assert_eq!(batch.commit(), Signal::when(needed), "signal of a batch");
        self.publish(pending);
    }

    /// Writes the payload in two steps, back to front, after a reservation that is given up.
    fn reserve(batch: &mut WriteBatch<'_, &M>, packet: &OutgoingPacket<'_>, parts: &[&[u8]]) -> Result<(), WriteError> {
        let payload = parts.concat();
        batch.reserve(*packet, payload.len())?.fill(0xee);
        let mut reservation = batch.reserve(*packet, payload.len())?;
        let (head, tail) = payload.split_at(payload.len() / 2);
        reservation.write_at(head.len(), tail)?;
        reservation.write_at(0, head)?;
        assert!(reservation.write_at(payload.len(), &[0]).is_err(), "a write behind the reservation");
        reservation.commit();
        Ok(())
    }

    /// Notes a release that the reader may have made since `old_read` was loaded.
    fn note_release(&mut self, old_read: u32) {
        let read = self.memory.load(ControlField::ReadIndex);
        let pending = self.memory.load(ControlField::PendingSendSize);
        let listens = self.memory.load(ControlField::FeatureBits) & FEATURE_PENDING_SEND_SIZE != 0 && pending != 0;
        let before = self.size - self.distance(old_read, self.write);
        let after = self.size - self.distance(read, self.write);
        self.owed |= listens && before <= pending && after > pending;
    }

    fn read_one(&mut self, reader: &mut Reader<&M>) {
        let old_read = self.memory.load(ControlField::ReadIndex);
        let expected = self.queue.front().map_or(0, |sent| sent.payload.len());
        let mut buffer = std::vec![0; self.size as usize];
        if expected > 0 {
            let (short, _) = buffer.split_at_mut(expected - 1);
            assert!(reader.read_into(short).is_err(), "a short buffer");
        }
        let Ok(received) = reader.read_into(&mut buffer) else { panic!("an honest ring was called corrupt") };
        self.note_release(old_read);
        let sent = self.queue.pop_front();
        assert_eq!(
            received.packet.map(|packet| packet.transaction_id()),
            sent.as_ref().map(|sent| sent.transaction_id)
        );
        assert_eq!(buffer.get(..received.payload_bytes), Some(sent.map_or(Vec::new(), |sent| sent.payload).as_slice()));
        if self.memory.load(ControlField::ReadIndex) != old_read || received.packet.is_none() {
            assert_eq!(received.signal, Signal::when(self.owed), "signal of a read");
            self.owed = false;
        }
    }

    fn read_batch(&mut self, reader: &mut Reader<&M>) {
        let budget = 1 + self.script.byte() % 16;
        let mut batch = reader.batch();
        for _ in 0..budget {
            let old_read = self.memory.load(ControlField::ReadIndex);
            Self::check_next(&mut batch, self.queue.pop_front());
            self.note_release(old_read);
        }
        let old_read = self.memory.load(ControlField::ReadIndex);
        let signal = batch.finish();
        self.note_release(old_read);
        assert_eq!(signal, Signal::when(self.owed), "signal of a batch of reads");
        self.owed = false;
        let unread: u32 = self.queue.iter().map(|sent| sent.ring_bytes).sum();
        assert_eq!(self.distance(self.memory.load(ControlField::ReadIndex), self.write), unread, "all was given back");
    }

    fn check_next(batch: &mut ReadBatch<'_, &M>, sent: Option<Sent>) {
        let peeked = batch.peek().map(|packet| packet.map(|packet| packet.transaction_id()));
        assert_eq!(peeked, Ok(sent.as_ref().map(|sent| sent.transaction_id)), "peek sees what next returns");
        let Ok(packet) = batch.next() else { panic!("an honest ring was called corrupt") };
        match (packet, sent) {
            (Some(packet), Some(sent)) => compare(&packet, &sent),
            (None, None) => {}
            (packet, sent) => panic!("{packet:?} came out where {sent:?} was sent"),
        }
    }

    fn sleep_and_wake(&mut self, writer: &mut Writer<&M>, reader: &mut Reader<&M>) {
        if self.script.byte() & 1 == 0 {
            let wanted = self.script.below(self.size).min(self.size - 8);
            let old = self.memory.load(ControlField::ReadIndex);
            let room = self.size - self.distance(old, self.write) > wanted;
            assert_eq!(writer.request_space(wanted), Ok(room), "room for {wanted}");
            let pending = if room { 0 } else { wanted };
            assert_eq!(self.memory.load(ControlField::PendingSendSize), pending, "the request is in the ring");
        } else if self.script.byte() & 1 == 0 {
            reader.mask();
            assert_ne!(self.memory.load(ControlField::InterruptMask), 0, "masked");
        } else {
            let old_read = self.memory.load(ControlField::ReadIndex);
            let again = reader.unmask();
            self.note_release(old_read);
            assert_eq!(self.memory.load(ControlField::InterruptMask), 0, "unmasked");
            assert_eq!(again, self.owed || !self.queue.is_empty(), "whether to sleep");
            let unread: u32 = self.queue.iter().map(|sent| sent.ring_bytes).sum();
            let left = self.distance(self.memory.load(ControlField::ReadIndex), self.write);
            assert_eq!(left, unread, "a reader that unmasks has given back all it read");
        }
    }
}

fn compare<M: Memory>(packet: &Packet<'_, M>, sent: &Sent) {
    let payload = packet.payload();
    let found = (packet.kind(), packet.flags(), packet.transaction_id(), payload.len());
    assert_eq!(found, (sent.kind, sent.flags, sent.transaction_id, sent.payload.len()), "descriptor");
    assert_eq!(packet.completion_requested(), sent.flags & 1 != 0);
    assert_eq!(packet.extra().words().collect::<Vec<_>>(), sent.extra, "ranges as words");
    let mut copied = std::vec![0; sent.payload.len()];
    assert_eq!(payload.copy_to(&mut copied), Ok(sent.payload.len()));
    assert_eq!(copied, sent.payload, "payload copied");
    let words: Vec<u8> = payload.words().flat_map(u64::to_le_bytes).collect();
    assert_eq!(words, sent.payload, "payload as words");
    let blocks: Vec<u8> = payload.fold_blocks(Vec::new(), |mut all, block| {
        all.extend(block.into_iter().flat_map(u64::to_le_bytes));
        all
    });
    assert_eq!(blocks.get(..words.len()), Some(sent.payload.as_slice()), "payload as blocks");
    assert!(blocks.iter().skip(words.len()).all(|byte| *byte == 0), "the last block is filled with zeroes");
    if payload.len() > 8 {
        let from = payload.len() - 9;
        let (mut part, expected) = ([0; 9], sent.payload.split_at(from).1);
        assert_eq!(payload.copy_part(from, &mut part), Ok(()));
        assert_eq!(part.as_slice(), expected, "a part");
        assert_eq!(payload.read::<[u8; 9]>(from), Ok(part), "a structure");
    }
    for offset in [0, 8, 5] {
        structure::<8, _>(&payload, offset, &sent.payload);
        structure::<16, _>(&payload, offset, &sent.payload);
        structure::<24, _>(&payload, offset, &sent.payload);
        structure::<32, _>(&payload, offset, &sent.payload);
        structure::<40, _>(&payload, offset, &sent.payload);
        structure::<48, _>(&payload, offset, &sent.payload);
        structure::<64, _>(&payload, offset, &sent.payload);
    }
    if let Ok(ranges) = packet.transfer_pages() {
        assert_eq!((ranges.pageset(), ranges.sender_owns_set()), (0xcafe, true));
        let words: Vec<u64> =
            ranges.map(|each| u64::from(each.byte_count) | u64::from(each.byte_offset) << 32).collect();
        assert_eq!(Some(words.as_slice()), sent.extra.get(1..), "transfer-page ranges");
    }
    if let Ok(ranges) = packet.gpa_ranges() {
        let mut words = Vec::new();
        for range in ranges {
            let Ok(range) = range else { panic!("a sound range was refused") };
            words.push(u64::from(range.byte_count) | u64::from(range.byte_offset) << 32);
            words.extend(range.page_frames());
        }
        assert_eq!(Some(words.as_slice()), sent.extra.get(1..), "GPA ranges");
    }
}

/// A structure of `N` bytes at `offset` is what was sent there, or an error where the payload ends before.
fn structure<const N: usize, M: Memory>(payload: &Payload<'_, M>, offset: usize, sent: &[u8]) {
    let expected = sent.get(offset..).and_then(|rest| rest.first_chunk::<N>());
    assert_eq!(payload.read::<[u8; N]>(offset).ok().as_ref(), expected, "{N} bytes at {offset}");
}
