//! The writing end of a ring.
//!
//! Own index in private memory, the reader's index cached and loaded again only when the ring seems full. Header and
//! trailer are plain word stores, the payload is copied once, and one store with a full fence publishes.

mod batch;
mod reservation;

pub use batch::WriteBatch;
pub use reservation::Reservation;

use crate::error::{Corrupt, What, WriteError};
use crate::layout::{
    ControlField, DESCRIPTOR_BYTES, FEATURE_PENDING_SEND_SIZE, GAP_BYTES, Geometry, LARGEST_PACKET_BYTES,
    SMALLEST_PACKET_BYTES, TRAILER_BYTES,
};
use crate::memory::Memory;
use crate::packet::{Frame, OutgoingPacket};
use crate::signal::{Signal, publish_write};

/// A batch publishes what it has after this many bytes, or a quarter of the ring if that is less, so that the reader
/// starts while the rest is being written.
const PUBLISH_BYTES: u32 = 16 * 1024;

/// Writes packets into a ring. There must be one writer per ring.
#[derive(Debug)]
pub struct Writer<M> {
    memory: M,
    ring: Geometry,
    /// The write index in the ring, and the room behind it.
    published: Cursor,
    /// Bytes after which a batch publishes.
    publish_bytes: u32,
    /// A publication within a batch found the reader asleep, and nobody was told yet.
    owed: bool,
    /// The pending send size in the ring is not zero.
    space_requested: bool,
    corrupt: Option<Corrupt>,
}

/// Where the next packet begins. A batch has one of its own, so that dropping the batch takes everything back.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    write: u32,
    /// Bytes that may be written from there on, as far as known; the gap is taken off.
    room: u32,
}

impl<M: Memory> Writer<M> {
    /// A writer that goes on where the ring's write index stands.
    ///
    /// # Errors
    /// [`Corrupt`] if size or indices can't be those of a ring.
    pub fn new(memory: M) -> Result<Self, Corrupt> {
        let ring = Geometry::new(memory.data_bytes())?;
        let write = memory.load(ControlField::WriteIndex);
        if !ring.is_index(write) {
            return Err(Corrupt { what: What::WriteIndex, value: write, limit: ring.data_bytes() });
        }
        let mut writer = Self {
            memory,
            ring,
            published: Cursor { write, room: 0 },
            publish_bytes: PUBLISH_BYTES.min(ring.data_bytes() / 4),
            owed: false,
            space_requested: false,
            corrupt: None,
        };
        writer.published = writer.refresh(writer.published)?;
        Ok(writer)
    }

    /// Writes one packet and publishes it. The payload is the concatenation of `payload`, padded to 8 bytes with
    /// zeroes.
    ///
    /// # Errors
    /// [`WriteError`]; nothing is visible to the other side then.
    #[inline(always)]
    pub fn try_write(&mut self, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<Signal, WriteError> {
        let end = self.put(self.published, packet, payload)?;
        Ok(self.publish(end))
    }

    /// Starts a batch: several packets, published together.
    #[inline]
    pub fn batch(&mut self) -> WriteBatch<'_, M> {
        WriteBatch::new(self)
    }

    /// Bytes free in the ring, asking the ring. A packet fits if it takes less than that.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    #[inline]
    pub fn free_bytes(&mut self) -> Result<u32, Corrupt> {
        self.published = self.refresh(self.published)?;
        Ok(self.published.room + GAP_BYTES)
    }

    /// Bytes of ring that the largest packet may take, descriptor and trailer included.
    #[must_use]
    #[inline]
    pub const fn largest_packet_bytes(&self) -> u32 {
        self.ring.data_bytes().saturating_sub(GAP_BYTES)
    }

    /// Asks the reader for a signal when more than `ring_bytes` ([`WriteError::Full`]'s `needed`) are free, and looks
    /// once more, behind a full fence.
    ///
    /// Sleep only after `false`. `true`: there is room already, and the request was taken back. A write that succeeds
    /// takes a request back, too.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    pub fn request_space(&mut self, ring_bytes: u32) -> Result<bool, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        let wanted = ring_bytes.min(self.largest_packet_bytes());
        self.space_requested = true;
        // Fence, between our store of the pending size and our load of the read index; the reader's half is
        // `publish_read` (Linux: hv_pkt_iter_close).
        self.memory.store_then_fence(ControlField::PendingSendSize, wanted);
        let room = wanted < self.free_bytes()?;
        if room {
            self.cancel_space_request();
        }
        Ok(room)
    }

    /// Takes a request for space back. The signal may be under way already.
    pub fn cancel_space_request(&mut self) {
        self.space_requested = false;
        self.memory.store(ControlField::PendingSendSize, 0);
    }

    /// Tells the reader that this writer uses [`Writer::request_space`] (the feature bit). Linux sets it in both rings
    /// when a channel opens; who makes a ring himself calls this before he uses it.
    pub fn announce_flow_control(&mut self) {
        self.memory.store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
    }

    /// The signal that a dropped batch left behind, if any; later writes return it, too.
    #[inline]
    pub fn take_owed_signal(&mut self) -> Signal {
        let owed = self.owed;
        self.owed = false;
        Signal::when(owed)
    }

    /// The memory of this ring.
    #[inline]
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// What was found wrong, if anything was.
    #[must_use]
    #[inline]
    pub const fn corrupt(&self) -> Option<Corrupt> {
        self.corrupt
    }

    /// Gives the memory back.
    #[must_use]
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// Places one packet without publishing it; returns where the next one begins.
    #[inline(always)]
    fn put(&mut self, at: Cursor, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<Cursor, WriteError> {
        // What nearly every packet is: no ranges, one slice, and room for it is known.
        let ([only], true) = (payload, packet.is_plain()) else { return self.put_any(at, packet, payload) };
        let padded = (only.len() + 7) & !7;
        let ring_bytes = padded + SMALLEST_PACKET_BYTES as usize;
        if ring_bytes <= at.room as usize
            && padded <= (LARGEST_PACKET_BYTES - DESCRIPTOR_BYTES) as usize
            && let Ok(ring_bytes) = u32::try_from(ring_bytes)
        {
            let end = at.behind(ring_bytes, self.ring);
            self.memory.store_packet(at.write, packet.plain_words(ring_bytes - TRAILER_BYTES), only, trailer(at.write));
            return Ok(end);
        }
        // Copies, so that the caller's values need no address on the usual way.
        self.put_any(at, &{ *packet }, &[*only])
    }

    /// [`Writer::put`] for every packet.
    #[inline(never)]
    fn put_any(&mut self, at: Cursor, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<Cursor, WriteError> {
        let bytes = payload.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()));
        let (at, frame) = self.open(at, packet, bytes)?;
        let mut offset = self.ring.advance(at.write, frame.header_bytes);
        self.zero_last_word(at, &frame);
        for part in payload {
            self.memory.write(offset, part);
            // Bounded by the frame, so it fits.
            offset = self.ring.advance(offset, u32::try_from(part.len()).unwrap_or(0));
        }
        Ok(self.close(at, packet, &frame))
    }

    /// Makes sure that a packet with this payload fits; returns what is known about the room now.
    fn open(&mut self, at: Cursor, packet: &OutgoingPacket<'_>, bytes: usize) -> Result<(Cursor, Frame), WriteError> {
        let frame = packet.frame(bytes, self.largest_packet_bytes())?;
        if frame.ring_bytes <= at.room {
            return Ok((at, frame));
        }
        let at = self.refresh(at)?;
        if frame.ring_bytes <= at.room {
            Ok((at, frame))
        } else {
            Err(WriteError::Full { needed: frame.ring_bytes, free: at.room + GAP_BYTES })
        }
    }

    /// Writes what surrounds the payload; returns where the next packet begins.
    fn close(&self, at: Cursor, packet: &OutgoingPacket<'_>, frame: &Frame) -> Cursor {
        let ring = self.ring;
        self.memory.store_words(at.write, frame.descriptor.to_words());
        packet.write_extra(&self.memory, ring.advance(at.write, DESCRIPTOR_BYTES), |at, by| ring.advance(at, by));
        let last = ring.advance(at.write, frame.ring_bytes.saturating_sub(TRAILER_BYTES));
        self.memory.store_words(last, [trailer(at.write)]);
        at.behind(frame.ring_bytes, ring)
    }

    /// The last word before the trailer: padding, until the payload overwrites it.
    fn zero_last_word(&self, at: Cursor, frame: &Frame) {
        let before_trailer = frame.ring_bytes.saturating_sub(TRAILER_BYTES);
        if before_trailer > frame.header_bytes {
            self.memory.store_words(self.ring.advance(at.write, before_trailer - 8), [0]);
        }
    }

    /// Publishes what was written up to `end` and returns the signal that is due.
    #[inline(always)]
    fn publish(&mut self, end: Cursor) -> Signal {
        if self.space_requested || self.published.write == end.write {
            return self.publish_rarely(end);
        }
        let start = self.published.write;
        self.published = end;
        let signal = publish_write(&self.memory, start, end.write);
        if self.owed { self.take_owed_signal() } else { signal }
    }

    /// [`Writer::publish`] after a request for space, or with nothing to publish.
    #[cold]
    fn publish_rarely(&mut self, end: Cursor) -> Signal {
        if self.published.write == end.write {
            return self.take_owed_signal();
        }
        // Before the write index moves, or the reader could pair the new index with the old request.
        self.cancel_space_request();
        self.publish(end)
    }

    /// Publishes within a batch and keeps the signal that is due.
    #[inline(never)]
    fn publish_early(&mut self, end: Cursor) {
        self.owed = self.publish(end).is_needed();
    }

    /// Bytes written before `at` and not published.
    #[inline]
    const fn unpublished(&self, at: Cursor) -> u32 {
        self.ring.distance(self.published.write, at.write)
    }

    /// Loads the read index and checks that the reader only went forward, and not beyond what was published.
    #[inline(never)]
    fn refresh(&mut self, at: Cursor) -> Result<Cursor, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        let read = self.memory.load(ControlField::ReadIndex);
        if !self.ring.is_index(read) {
            return Err(self.fail(read, self.ring.data_bytes()));
        }
        let used = self.ring.distance(read, at.write);
        let room = self.largest_packet_bytes().saturating_sub(used);
        if used < self.unpublished(at) || room < at.room {
            return Err(self.fail(read, at.write));
        }
        Ok(Cursor { write: at.write, room })
    }

    #[cold]
    fn fail(&mut self, value: u32, limit: u32) -> Corrupt {
        let corrupt = Corrupt { what: What::ReadIndex, value, limit };
        self.corrupt = Some(corrupt);
        // Without room every write comes by `refresh`, which remembers.
        self.published.room = 0;
        corrupt
    }
}

impl Cursor {
    /// Behind a packet for which there is room.
    #[inline(always)]
    const fn behind(self, ring_bytes: u32, ring: Geometry) -> Self {
        Self { write: ring.advance(self.write, ring_bytes), room: self.room.wrapping_sub(ring_bytes) }
    }
}

/// The word behind a packet: where the packet starts, in the upper half.
#[inline]
const fn trailer(start: u32) -> u64 {
    (start as u64) << 32
}
