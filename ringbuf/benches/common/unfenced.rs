//! A ring without its full fences, to measure them. Signals get lost with it.

use vmbus_ringbuf::{ControlField, Memory};

/// Memory whose `store_then_fence` only stores.
pub(crate) struct Unfenced<M>(pub(crate) M);

impl<M: Memory> Memory for Unfenced<M> {
    #[inline]
    fn data_bytes(&self) -> u32 {
        self.0.data_bytes()
    }

    #[inline]
    fn load(&self, field: ControlField) -> u32 {
        self.0.load(field)
    }

    #[inline]
    fn store(&self, field: ControlField, value: u32) {
        self.0.store(field, value);
    }

    #[inline]
    fn store_then_fence(&self, field: ControlField, value: u32) {
        self.0.store(field, value);
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        self.0.load_words(offset)
    }

    #[inline]
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        self.0.store_words(offset, words);
    }

    #[inline(always)]
    fn store_packet(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) {
        self.0.store_packet(offset, head, payload, trailer);
    }

    #[inline(always)]
    fn read(&self, offset: u32, destination: &mut [u8]) {
        self.0.read(offset, destination);
    }

    #[inline]
    fn write(&self, offset: u32, source: &[u8]) {
        self.0.write(offset, source);
    }
}
