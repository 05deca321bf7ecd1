//! Several packets in one go, published together: one fence and one look at the reader for all of them.

use crate::error::WriteError;
use crate::memory::Memory;
use crate::packet::OutgoingPacket;
use crate::signal::Signal;
use crate::writer::{Cursor, Reservation, Writer};

/// A batch of packets being written.
///
/// A long batch publishes early, in steps of about 16 KiB (less in a small ring). [`WriteBatch::commit`] publishes the
/// rest; dropping the batch takes back whatever is not yet published. A signal that an early publication found due is
/// returned by `commit`; after a drop by the next write, or by [`Writer::take_owed_signal`].
#[derive(Debug)]
#[must_use = "a batch that is not committed is taken back"]
pub struct WriteBatch<'w, M: Memory> {
    pub(super) writer: &'w mut Writer<M>,
    pub(super) at: Cursor,
}

impl<'w, M: Memory> WriteBatch<'w, M> {
    #[inline]
    pub(super) const fn new(writer: &'w mut Writer<M>) -> Self {
        let at = writer.published;
        Self { writer, at }
    }

    /// Adds one packet. The payload is the concatenation of `payload`, padded to 8 bytes with zeroes.
    ///
    /// # Errors
    /// [`WriteError`]; the batch stays as it was. On [`WriteError::Full`] commit it, so that the reader can make room.
    #[inline(always)]
    pub fn push(&mut self, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), WriteError> {
        self.at = self.writer.put(self.at, packet, payload)?;
        self.publish_if_long();
        Ok(())
    }

    /// Makes room for a packet whose payload is then written in place, in any order. The packet joins the batch by
    /// [`Reservation::commit`].
    ///
    /// # Errors
    /// [`WriteError`]; the batch stays as it was.
    #[inline]
    pub fn reserve<'p>(
        &mut self,
        packet: OutgoingPacket<'p>,
        payload_bytes: usize,
    ) -> Result<Reservation<'_, 'w, 'p, M>, WriteError> {
        let (at, frame) = self.writer.open(self.at, &packet, payload_bytes)?;
        self.at = at;
        Ok(Reservation::new(self, packet, frame, payload_bytes))
    }

    /// Bytes written and not yet visible to the reader.
    #[must_use]
    #[inline]
    pub fn unpublished_bytes(&self) -> u32 {
        self.writer.unpublished(self.at)
    }

    /// Publishes all packets.
    #[inline]
    pub fn commit(self) -> Signal {
        self.writer.publish(self.at)
    }

    /// Publishes when enough has come together; a signal that is due is kept for the commit.
    #[inline(always)]
    pub(super) fn publish_if_long(&mut self) {
        if self.unpublished_bytes() >= self.writer.publish_bytes {
            self.writer.publish_early(self.at);
        }
    }
}
