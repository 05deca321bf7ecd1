//! [`Memory`] for [`Mapped`]: safe code over its checked accesses, and what to do with an access that wraps.
#![deny(unsafe_code)]

use core::sync::atomic::Ordering;

use crate::layout::ControlField;
use crate::mapped::Mapped;
#[cfg(all(target_arch = "x86_64", not(miri)))]
use crate::memory::fold_blocks_one_by_one;
use crate::memory::{Memory, store_packet_in_parts};

impl<O> Mapped<O> {
    /// Where an access that leaves the mapping is to be split, if it is an access at all.
    #[cold]
    fn split(&self, offset: u32, bytes: usize) -> Option<usize> {
        let sound = offset < self.data_bytes && bytes <= self.data_bytes as usize;
        sound.then(|| (self.data_bytes - offset) as usize)
    }
}

impl<O> Memory for Mapped<O> {
    #[inline]
    fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    #[inline]
    fn load(&self, field: ControlField) -> u32 {
        u32::from_le(self.field(field).load(Ordering::Acquire))
    }

    #[inline]
    fn store(&self, field: ControlField, value: u32) {
        self.field(field).store(value.to_le(), Ordering::Release);
    }

    #[inline]
    fn store_then_fence(&self, field: ControlField, value: u32) {
        #[cfg(target_arch = "x86_64")]
        {
            // One xchg: store and full fence. An acquiring read-modify-write keeps later loads behind it in the
            // compiler, a locked instruction does in the processor; cheaper than mov and mfence.
            self.field(field).swap(value.to_le(), Ordering::SeqCst);
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            // A swap would not do here: on aarch64 later loads may pass its store half.
            self.field(field).store(value.to_le(), Ordering::Release);
            core::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    #[inline(always)]
    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        match self.words::<N>(offset) {
            Some(words) => words.map(|word| u64::from_le(word.load(Ordering::Relaxed))),
            None => core::array::from_fn(|index| {
                u64::from_le(self.wrapped((offset as usize).wrapping_add(index * 8)).load(Ordering::Relaxed))
            }),
        }
    }

    #[inline]
    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        let whole = self.words::<N>(offset);
        for (index, value) in words.into_iter().enumerate() {
            let word = whole.as_ref().and_then(|words| words.get(index).copied());
            let word = word.unwrap_or_else(|| self.wrapped((offset as usize).wrapping_add(index * 8)));
            word.store(value.to_le(), Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn store_packet(&self, offset: u32, head: [u64; 2], payload: &[u8], trailer: u64) {
        if !self.packet_in(offset, head, payload, trailer) {
            store_packet_in_parts(self, offset, head, payload, trailer);
        }
    }

    #[cfg(all(target_arch = "x86_64", not(miri)))]
    #[inline(always)]
    fn fold_blocks<B>(&self, offset: u32, blocks: u32, init: B, each: impl FnMut(B, [u64; 8]) -> B) -> B {
        match self.fold(offset, blocks, init, each) {
            Ok(folded) => folded,
            Err((init, each)) => fold_blocks_one_by_one(self, offset, blocks, init, each),
        }
    }

    #[inline(always)]
    fn read(&self, offset: u32, destination: &mut [u8]) {
        if self.copy_out(offset as usize, destination) {
            return;
        }
        let head = self.split(offset, destination.len()).unwrap_or(usize::MAX);
        if let Some((first, second)) = destination.split_at_mut_checked(head) {
            let _ = self.copy_out(offset as usize, first) && self.copy_out(0, second);
        } else {
            destination.fill(0);
        }
    }

    #[inline]
    fn write(&self, offset: u32, source: &[u8]) {
        if self.copy_in(offset as usize, source) {
            return;
        }
        let head = self.split(offset, source.len()).unwrap_or(usize::MAX);
        if let Some((first, second)) = source.split_at_checked(head) {
            let _ = self.copy_in(offset as usize, first) && self.copy_in(0, second);
        }
    }
}
