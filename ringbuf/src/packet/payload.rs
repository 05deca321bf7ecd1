//! The payload of a received packet, read in place.
//!
//! No reference into the ring is handed out: the other side may still write there. Each accessor copies what it
//! returns, once, out of the shared bytes; check the copy, and don't read the same bytes twice.

use zerocopy::{FromBytes, IntoBytes};

use crate::error::Malformed;
use crate::layout::Geometry;
use crate::memory::Memory;

/// Bytes of one step of [`Payload::fold_blocks`].
pub const BLOCK_BYTES: usize = 64;

/// The payload of a packet, still in the ring. Its length is a multiple of 8: senders pad.
pub struct Payload<'a, M> {
    memory: &'a M,
    ring: Geometry,
    offset: u32,
    bytes: u32,
}

impl<M> Clone for Payload<'_, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Payload<'_, M> {}

impl<M> core::fmt::Debug for Payload<'_, M> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.debug_struct("Payload").field("offset", &self.offset).field("bytes", &self.bytes).finish()
    }
}

impl<'a, M: Memory> Payload<'a, M> {
    #[inline]
    pub(crate) const fn new(memory: &'a M, ring: Geometry, offset: u32, bytes: u32) -> Self {
        Self { memory, ring, offset, bytes }
    }

    /// Bytes of payload.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.bytes as usize
    }

    /// Whether there is none.
    #[must_use]
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Copies the whole payload to the start of `destination` and returns its length.
    ///
    /// # Errors
    /// [`Malformed::Short`] if `destination` is shorter than the payload; nothing is copied then.
    #[inline(always)]
    pub fn copy_to(&self, destination: &mut [u8]) -> Result<usize, Malformed> {
        let available = destination.len();
        let Some(target) = destination.get_mut(..self.len()) else {
            return Err(Malformed::Short { needed: self.len(), available });
        };
        self.memory.read(self.offset, target);
        Ok(self.len())
    }

    /// Copies a part of the payload, from byte `offset` of it, into all of `destination`.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the payload ends before.
    #[inline]
    pub fn copy_part(&self, offset: usize, destination: &mut [u8]) -> Result<(), Malformed> {
        let at = self.locate(offset, destination.len())?;
        self.memory.read(at, destination);
        Ok(())
    }

    /// Reads a wire structure at byte `offset` of the payload.
    ///
    /// # Errors
    /// [`Malformed::Short`] if the payload ends before.
    #[inline(always)]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Malformed> {
        let at = self.locate(offset, size_of::<T>())?;
        // Small structures come in registers. A copy to memory by 16 bytes and a load of it by 64 (which compilers make
        // of the caller's work) costs more than the rest of a packet.
        match (offset % 8, size_of::<T>()) {
            (0, 8) => Ok(self.words_as::<T, 1>(at)),
            (0, 16) => Ok(self.words_as::<T, 2>(at)),
            (0, 24) => Ok(self.words_as::<T, 3>(at)),
            (0, 32) => Ok(self.words_as::<T, 4>(at)),
            (0, 48) => Ok(self.words_as::<T, 6>(at)),
            (0, 64) => Ok(self.words_as::<T, 8>(at)),
            _ => {
                let mut value = T::new_zeroed();
                self.memory.read(at, value.as_mut_bytes());
                Ok(value)
            }
        }
    }

    /// A structure of `N` words at ring offset `at`, a multiple of 8.
    #[inline(always)]
    fn words_as<T: FromBytes, const N: usize>(&self, at: u32) -> T {
        let words = self.memory.load_words::<N>(at).map(u64::to_le);
        // The size was matched, so it does fit.
        T::read_from_bytes(words.as_bytes()).unwrap_or_else(|_| T::new_zeroed())
    }

    /// The payload as little-endian words.
    #[inline]
    pub fn words(&self) -> impl Iterator<Item = u64> + use<'a, M> {
        let this = *self;
        (0..this.bytes / 8).map(move |index| {
            let [word] = this.memory.load_words(this.ring.advance(this.offset, index * 8));
            word
        })
    }

    /// Folds over the payload in blocks of [`BLOCK_BYTES`], each eight little-endian words: work in place, such as a
    /// checksum or a scan, without a copy in memory. The last block is filled up with zeroes.
    #[inline]
    pub fn fold_blocks<B>(&self, init: B, mut each: impl FnMut(B, [u64; 8]) -> B) -> B {
        let (whole, rest) = (self.bytes / 64, self.bytes % 64);
        let folded = self.memory.fold_blocks(self.offset, whole, init, &mut each);
        if rest == 0 {
            return folded;
        }
        let at = self.ring.advance(self.offset, whole * 64);
        let mut last = [0; 8];
        for (position, word) in (0..rest / 8).zip(&mut last) {
            [*word] = self.memory.load_words(self.ring.advance(at, position * 8));
        }
        each(folded, last)
    }

    #[inline]
    fn locate(&self, offset: usize, bytes: usize) -> Result<u32, Malformed> {
        let available = self.len().saturating_sub(offset);
        match u32::try_from(offset) {
            Ok(offset) if bytes <= available && offset <= self.bytes => Ok(self.ring.advance(self.offset, offset)),
            _ => Err(Malformed::Short { needed: bytes, available }),
        }
    }
}
