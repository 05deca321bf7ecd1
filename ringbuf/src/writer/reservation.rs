//! A packet whose payload is produced directly in the ring.

use crate::error::WriteError;
use crate::memory::Memory;
use crate::packet::{Frame, OutgoingPacket};
use crate::writer::WriteBatch;

/// Room for one packet in a batch. Dropping it without [`Reservation::commit`] gives the room up.
///
/// Bytes that are never written keep what the ring held before, except for the padding, which is zero.
#[derive(Debug)]
#[must_use = "a reservation that is not committed is given up"]
pub struct Reservation<'b, 'w, 'p, M: Memory> {
    batch: &'b mut WriteBatch<'w, M>,
    packet: OutgoingPacket<'p>,
    frame: Frame,
    payload_bytes: usize,
}

impl<'b, 'w, 'p, M: Memory> Reservation<'b, 'w, 'p, M> {
    #[inline]
    pub(super) fn new(
        batch: &'b mut WriteBatch<'w, M>,
        packet: OutgoingPacket<'p>,
        frame: Frame,
        payload_bytes: usize,
    ) -> Self {
        batch.writer.zero_last_word(batch.at, &frame);
        Self { batch, packet, frame, payload_bytes }
    }

    /// Bytes of payload that were reserved.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.payload_bytes
    }

    /// Whether the payload is empty.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.payload_bytes == 0
    }

    /// Writes `source` at byte `offset` of the payload.
    ///
    /// # Errors
    /// [`WriteError::OutsideReservation`], with nothing written.
    #[inline]
    pub fn write_at(&mut self, offset: usize, source: &[u8]) -> Result<(), WriteError> {
        let inside = offset.checked_add(source.len()).is_some_and(|end| end <= self.payload_bytes);
        match u32::try_from(offset) {
            Ok(offset) if inside => {
                let (writer, start) = (&*self.batch.writer, self.batch.at.write);
                writer.memory.write(writer.ring.advance(start, self.frame.header_bytes + offset), source);
                Ok(())
            }
            _ => Err(WriteError::OutsideReservation { offset, bytes: source.len(), reserved: self.payload_bytes }),
        }
    }

    /// Sets every byte of the payload to `value`.
    pub fn fill(&mut self, value: u8) {
        let chunk = [value; 64];
        let mut offset = 0;
        while offset < self.payload_bytes {
            let bytes = (self.payload_bytes - offset).min(chunk.len());
            let (part, _) = chunk.split_at(bytes);
            if self.write_at(offset, part).is_err() {
                return;
            }
            offset += bytes;
        }
    }

    /// Adds the packet to its batch.
    #[inline]
    pub fn commit(self) {
        self.batch.at = self.batch.writer.close(self.batch.at, &self.packet, &self.frame);
        self.batch.publish_if_long();
    }
}
