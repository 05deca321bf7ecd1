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
pub struct ReadBatch<'r, M> {
    reader: &'r mut Reader<M>,
}

impl<'r, M: Memory> ReadBatch<'r, M> {
    #[inline]
    pub(super) const fn new(reader: &'r mut Reader<M>) -> Self {
        Self { reader }
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
        if reader.unreleased() >= reader.release_bytes {
            // A large batch in a small ring must not starve the writer. A signal that is due is kept for `finish`.
            reader.release();
        }
        let Some(next) = reader.next_descriptor()? else { return Ok(None) };
        reader.read = next.end;
        Ok(Some(Packet::new(&reader.memory, reader.ring, next)))
    }

    /// The next packet, in place, without consuming it.
    ///
    /// # Errors
    /// [`Corrupt`], sticky.
    #[inline]
    pub fn peek(&mut self) -> Result<Option<Packet<'_, M>>, Corrupt> {
        self.reader.peek()
    }

    /// Gives the space of all consumed packets back to the writer.
    #[inline]
    pub fn finish(self) -> Signal {
        self.reader.finish()
    }
}
