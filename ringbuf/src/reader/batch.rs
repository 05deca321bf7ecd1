//! Several packets in one go, read in place, given back together.

use crate::error::Corrupt;
use crate::memory::Memory;
use crate::packet::Packet;
use crate::reader::Reader;
use crate::signal::Signal;

/// A batch of packets being read. A packet is consumed when it has been returned.
///
/// Dropping a batch without [`ReadBatch::finish`] keeps what was consumed consumed; the space is given back by the
/// next batch that is finished, by [`Reader::unmask`], or by a later batch that reaches a quarter of the ring.
#[derive(Debug)]
pub struct ReadBatch<'r, M: Memory> {
    reader: &'r mut Reader<M>,
    /// Where the next packet begins. Here and not in the reader, so that a loop can keep it in a register.
    read: u32,
}

impl<'r, M: Memory> ReadBatch<'r, M> {
    #[inline]
    pub(super) const fn new(reader: &'r mut Reader<M>) -> Self {
        let read = reader.read;
        Self { reader, read }
    }

    /// The next packet, in place, or nothing if the ring is empty. Valid until the next call: earlier packets' space
    /// may go back to the writer then.
    ///
    /// # Errors
    /// [`Corrupt`], sticky. Packets before the corrupt one have been returned.
    #[expect(clippy::should_implement_trait, reason = "the packet borrows the batch, which Iterator can't express")]
    #[inline(always)]
    pub fn next(&mut self) -> Result<Option<Packet<'_, M>>, Corrupt> {
        let reader = &mut *self.reader;
        if reader.ring.distance(reader.released, self.read) >= reader.release_bytes {
            // A large batch in a small ring must not starve the writer. A signal that is due is kept for `finish`.
            reader.release_up_to(self.read);
        }
        let Some(next) = reader.next_at(self.read)? else { return Ok(None) };
        self.read = next.end;
        Ok(Some(Packet::new(&reader.memory, reader.ring, next)))
    }

    /// The next packet, in place, without consuming it.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Packet<'_, M>>, Corrupt> {
        let Some(next) = self.reader.next_at(self.read)? else { return Ok(None) };
        Ok(Some(Packet::new(&self.reader.memory, self.reader.ring, next)))
    }

    /// Gives the space of all consumed packets back to the writer.
    #[inline]
    pub fn finish(self) -> Signal {
        self.reader.read = self.read;
        self.reader.finish()
    }
}

impl<M: Memory> Drop for ReadBatch<'_, M> {
    #[inline]
    fn drop(&mut self) {
        self.reader.read = self.read;
    }
}
