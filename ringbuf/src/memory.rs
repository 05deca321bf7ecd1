//! The one way to a ring's bytes: a safe trait whose accesses are checked by whoever implements it.
//!
//! Nothing here hands out references to shared bytes. The other side may change any of them at any moment, so each
//! access copies, once, and the copy is what gets checked.

use crate::layout::ControlField;

/// Access to one ring: its control fields and its data.
///
/// Offsets of data are in bytes from the start of the data, below [`Memory::data_bytes`]; an access that reaches the
/// end goes on at the start. An access that begins out of range or is longer than the data has no useful result, but it
/// touches nothing outside of the ring: zeroes are loaded, stores dropped, or the access wraps. Nothing here panics.
///
/// [`Mapped`](crate::Mapped) is the real one; `doubles` has one in plain memory and a hostile one.
pub trait Memory {
    /// Bytes of data: a multiple of 8, any size (not only powers of two). Must not change.
    fn data_bytes(&self) -> u32;

    /// Loads a control field. Later accesses are not moved before it (acquire).
    fn load(&self, field: ControlField) -> u32;

    /// Stores a control field. Earlier accesses are not moved behind it (release).
    fn store(&self, field: ControlField, value: u32);

    /// Stores a control field as [`Memory::store`] does, then a full fence: no later load is carried out before the
    /// store is visible to the other side.
    fn store_then_fence(&self, field: ControlField, value: u32);

    /// Loads `N` little-endian words. `offset` is rounded down to a multiple of 8.
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N];

    /// Stores `N` words little-endian. `offset` is rounded down to a multiple of 8.
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]);

    /// Folds over `blocks` blocks of eight words. Memory may have a faster way than [`Memory::load_words`].
    #[inline]
    fn fold_blocks<B>(&self, offset: u32, blocks: u32, init: B, each: impl FnMut(B, [u64; 8]) -> B) -> B {
        fold_blocks_one_by_one(self, offset, blocks, init, each)
    }

    /// Copies bytes out of the ring.
    fn read(&self, offset: u32, destination: &mut [u8]);

    /// Copies bytes into the ring.
    fn write(&self, offset: u32, source: &[u8]);

    /// Stores a packet without ranges: `head`, the payload padded to 8 bytes with zeroes, `trailer`. The same as three
    /// stores, but memory may check its bounds once.
    #[inline]
    fn store_packet(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) {
        store_packet_in_parts(self, offset, head, payload, trailer);
    }
}

/// [`Memory::store_packet`] for memory that has nothing better, and for packets that wrap.
#[cold]
pub(crate) fn store_packet_in_parts<M: Memory + ?Sized>(
    memory: &M,
    offset: u32,
    head: [u64; 2],
    payload: &[u8],
    trailer: u64,
) {
    let after = |bytes: usize| {
        let offset = offset as usize + bytes;
        let size = memory.data_bytes() as usize;
        // Both terms are at most the size, which fits; nothing useful comes of a larger one.
        u32::try_from(if offset >= size { offset - size } else { offset }).unwrap_or(u32::MAX)
    };
    let (words, tail) = payload.split_at(payload.len() & !7);
    memory.store_words(offset, head);
    memory.write(after(16), words);
    if !tail.is_empty() {
        memory.store_words(after(16 + words.len()), [padded_word(tail)]);
    }
    memory.store_words(after(16 + payload.len().next_multiple_of(8)), [trailer]);
}

/// [`Memory::fold_blocks`] for memory that has nothing better, and for blocks that wrap.
pub(crate) fn fold_blocks_one_by_one<M: Memory + ?Sized, B>(
    memory: &M,
    offset: u32,
    blocks: u32,
    init: B,
    mut each: impl FnMut(B, [u64; 8]) -> B,
) -> B {
    let mut at = u64::from(offset);
    let mut folded = init;
    for _ in 0..blocks {
        folded = each(folded, memory.load_words(u32::try_from(at).unwrap_or(u32::MAX)));
        at += 64;
        if at >= u64::from(memory.data_bytes()) {
            at -= u64::from(memory.data_bytes());
        }
    }
    folded
}

/// Fewer than eight bytes, filled up with zeroes.
#[inline]
pub(crate) fn padded_word(tail: &[u8]) -> u64 {
    let mut last = [0; 8];
    for (byte, value) in last.iter_mut().zip(tail) {
        *byte = *value;
    }
    u64::from_le_bytes(last)
}

impl<M: Memory> Memory for &M {
    #[inline]
    fn data_bytes(&self) -> u32 {
        (**self).data_bytes()
    }

    #[inline]
    fn load(&self, field: ControlField) -> u32 {
        (**self).load(field)
    }

    #[inline]
    fn store(&self, field: ControlField, value: u32) {
        (**self).store(field, value);
    }

    #[inline]
    fn store_then_fence(&self, field: ControlField, value: u32) {
        (**self).store_then_fence(field, value);
    }

    #[inline]
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        (**self).load_words(offset)
    }

    #[inline]
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        (**self).store_words(offset, words);
    }

    #[inline]
    fn fold_blocks<B>(&self, offset: u32, blocks: u32, init: B, each: impl FnMut(B, [u64; 8]) -> B) -> B {
        (**self).fold_blocks(offset, blocks, init, each)
    }

    #[inline]
    fn read(&self, offset: u32, destination: &mut [u8]) {
        (**self).read(offset, destination);
    }

    #[inline]
    fn write(&self, offset: u32, source: &[u8]) {
        (**self).write(offset, source);
    }

    #[inline]
    fn store_packet(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) {
        (**self).store_packet(offset, head, payload, trailer);
    }
}
