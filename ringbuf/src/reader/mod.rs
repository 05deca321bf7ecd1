//! The reading end of a ring.
//!
//! Own index in private memory, the writer's index cached and loaded again only when everything known was read. The
//! read index is given back lazily: at [`ReadBatch::finish`], when the ring is found empty, or after a quarter of it.

mod batch;

pub use batch::ReadBatch;

use crate::error::{Corrupt, ReadError, What};
use crate::layout::{ControlField, DESCRIPTOR_BYTES, Geometry, SMALLEST_PACKET_BYTES, TRAILER_BYTES};
use crate::memory::Memory;
use crate::packet::{Descriptor, Packet};
use crate::signal::{Signal, publish_read};

/// Reads packets out of a ring. There must be one reader per ring.
#[derive(Debug)]
pub struct Reader<M> {
    memory: M,
    ring: Geometry,
    /// Where the next packet begins.
    read: u32,
    /// The read index in the ring; behind `read` by what was read and not given back.
    released: u32,
    /// The write index when it was last loaded: up to here there are whole packets, if the writer is honest.
    known: u32,
    /// Bytes after which a batch gives back what was read.
    release_bytes: u32,
    /// A release found the writer blocked, and nobody was told yet.
    owed: bool,
    corrupt: Option<Corrupt>,
}

/// What [`Reader::read_into`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The packet's descriptor, or nothing if the ring is empty.
    pub packet: Option<Descriptor>,
    /// Bytes of payload in the caller's buffer.
    pub payload_bytes: usize,
    /// Whether the writer must be signalled now.
    pub signal: Signal,
}

impl<M: Memory> Reader<M> {
    /// A reader that goes on where the ring's read index stands.
    ///
    /// # Errors
    /// [`Corrupt`] if size or indices can't be those of a ring.
    pub fn new(memory: M) -> Result<Self, Corrupt> {
        let ring = Geometry::new(memory.data_bytes())?;
        let read = memory.load(ControlField::ReadIndex);
        if !ring.is_index(read) {
            return Err(Corrupt { what: What::ReadIndex, value: read, limit: ring.data_bytes() });
        }
        let release_bytes = ring.data_bytes() / 4;
        let mut reader =
            Self { memory, ring, read, released: read, known: read, release_bytes, owed: false, corrupt: None };
        reader.refresh(read)?;
        Ok(reader)
    }

    /// Starts a batch. Packets come out of it in place; [`ReadBatch::finish`] gives their space back.
    #[inline]
    pub fn batch(&mut self) -> ReadBatch<'_, M> {
        ReadBatch::new(self)
    }

    /// The next packet, which stays in the ring.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Packet<'_, M>>, Corrupt> {
        let Some(next) = self.next_at(self.read)? else { return Ok(None) };
        Ok(Some(Packet::new(&self.memory, self.ring, next)))
    }

    /// Copies the payload of the next packet into `buffer` and moves on. Space is given back lazily; a call that
    /// finds the ring empty gives back all of it.
    ///
    /// # Errors
    /// [`ReadError::ShortBuffer`] leaves the packet where it is; [`ReadError::Corrupt`] is sticky.
    #[inline(always)]
    pub fn read_into(&mut self, buffer: &mut [u8]) -> Result<Received, ReadError> {
        let Some(next) = self.next_at(self.read)? else {
            return Ok(Received { packet: None, payload_bytes: 0, signal: self.finish() });
        };
        let payload = Packet::new(&self.memory, self.ring, next).payload();
        let Ok(payload_bytes) = payload.copy_to(buffer) else {
            return Err(ReadError::ShortBuffer { needed: payload.len() });
        };
        self.read = next.end;
        let signal = if self.unreleased() >= self.release_bytes { self.finish() } else { Signal::NotNeeded };
        Ok(Received { packet: Some(next.descriptor), payload_bytes, signal })
    }

    /// Whether nothing is there to read. Asks the ring if nothing is known to be there.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    #[inline]
    pub fn is_empty(&mut self) -> Result<bool, Corrupt> {
        Ok(self.read == self.known && !self.refresh(self.read)?)
    }

    /// Tells the writer not to signal new packets. A signal may still come from a publication that is under way.
    #[inline]
    pub fn mask(&mut self) {
        self.memory.store(ControlField::InterruptMask, 1);
    }

    /// Asks the writer for signals again, gives back all space, and looks once more, behind a full fence.
    ///
    /// Sleep only after `false`. `true`: run another batch and finish it first; packets arrived in between, or a
    /// signal to the writer is owed and [`ReadBatch::finish`] will return it, or the ring is corrupt.
    #[must_use = "sleeping after `true` may sleep forever"]
    pub fn unmask(&mut self) -> bool {
        if self.corrupt.is_some() {
            return true;
        }
        // Before the mask opens: the writer compares its old write index with the read index it finds, and an index
        // that is behind would look like a reader that is awake.
        self.release();
        // Fence, between our stores of read index and mask and our load of the write index; the writer's half is
        // `publish_write` (Linux: hv_signal_on_write).
        self.memory.store_then_fence(ControlField::InterruptMask, 0);
        self.read != self.known || self.owed || self.refresh(self.read).unwrap_or(true)
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

    /// Gives the memory back. Space of packets that were read is not released.
    #[must_use]
    pub fn into_memory(self) -> M {
        self.memory
    }

    /// The packet at `start`, up to which everything was read; its descriptor is read once and checked.
    #[inline(always)]
    fn next_at(&mut self, start: u32) -> Result<Option<Checked>, Corrupt> {
        if start == self.known && !self.refresh(start)? {
            return Ok(None);
        }
        let (ring, known) = (self.ring, self.known);
        let descriptor = Descriptor::from_words(self.memory.load_words(start));
        let (packet_bytes, ready) = (descriptor.packet_bytes(), ring.distance(start, known));
        if packet_bytes + TRAILER_BYTES > ready {
            return Err(self.fail(start, What::PacketLength, packet_bytes, ready));
        }
        let header_bytes = descriptor.header_bytes();
        if header_bytes < DESCRIPTOR_BYTES || header_bytes > packet_bytes {
            return Err(self.fail(start, What::PayloadOffset, header_bytes, packet_bytes));
        }
        // The usual offset in a branch of its own: the payload's address then does not wait for the descriptor.
        let payload = match header_bytes {
            DESCRIPTOR_BYTES => ring.advance(start, DESCRIPTOR_BYTES),
            _ => far_payload(ring, start, header_bytes),
        };
        let end = ring.advance(start, packet_bytes + TRAILER_BYTES);
        Ok(Some(Checked { descriptor, start, payload, end }))
    }

    /// Bytes read and not given back.
    #[inline]
    const fn unreleased(&self) -> u32 {
        self.ring.distance(self.released, self.read)
    }

    /// Loads the write index and checks that the writer only went forward, and not into what was not given back.
    /// Called when everything known was read, up to `read`. Returns whether there is something to read.
    #[inline(always)]
    fn refresh(&mut self, read: u32) -> Result<bool, Corrupt> {
        if let Some(corrupt) = self.corrupt {
            return Err(corrupt);
        }
        let write = self.memory.load(ControlField::WriteIndex);
        if write == read {
            return Ok(false);
        }
        if !self.ring.is_index(write) {
            return Err(self.fail(read, What::WriteIndex, write, self.ring.data_bytes()));
        }
        let (ready, unreleased) = (self.ring.distance(read, write), self.ring.distance(self.released, read));
        if ready < SMALLEST_PACKET_BYTES || ready + unreleased >= self.ring.data_bytes() {
            return Err(self.fail(read, What::WriteIndex, write, read));
        }
        self.known = write;
        Ok(true)
    }

    /// Gives everything back and returns the signal that is due.
    #[inline]
    fn finish(&mut self) -> Signal {
        self.release();
        let owed = self.owed;
        self.owed = false;
        Signal::when(owed)
    }

    /// Gives back what a batch has read so far.
    #[cold]
    fn release_up_to(&mut self, read: u32) {
        self.read = read;
        self.release();
    }

    /// Gives everything back and remembers the signal that is due.
    #[inline]
    fn release(&mut self) {
        let bytes = self.unreleased();
        if bytes != 0 && self.corrupt.is_none() {
            self.owed |= publish_read(&self.memory, self.ring, self.read, bytes).is_needed();
            self.released = self.read;
        }
    }

    #[cold]
    fn fail(&mut self, read: u32, what: What, value: u32, limit: u32) -> Corrupt {
        let corrupt = Corrupt { what, value, limit };
        self.corrupt = Some(corrupt);
        // Nothing more is known to be there: every call comes by `refresh`, which remembers.
        self.read = read;
        self.known = read;
        corrupt
    }
}

/// A packet's descriptor, checked against what was published, and where its parts are in the ring.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checked {
    pub(crate) descriptor: Descriptor,
    pub(crate) start: u32,
    pub(crate) payload: u32,
    /// Where the next packet begins.
    end: u32,
}

/// Where the payload is if it does not follow the descriptor. Out of line, or it would be merged with the usual case.
#[cold]
#[inline(never)]
fn far_payload(ring: Geometry, start: u32, header_bytes: u32) -> u32 {
    ring.advance(start, header_bytes)
}
