//! Honest ring memory: atomics on the heap, no unsafe code, any size.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::vec::Vec;

use crate::layout::ControlField;
use crate::memory::Memory;

/// A ring in the process's own memory, as slow and simple as can be. Share it by reference or in an `Arc`.
#[derive(Debug)]
pub struct PlainMemory {
    fields: [AtomicU32; 5],
    words: Vec<AtomicU64>,
}

impl PlainMemory {
    /// An empty ring with `data_bytes` of data, rounded down to a multiple of 8.
    #[must_use]
    pub fn new(data_bytes: u32) -> Self {
        Self { fields: Default::default(), words: (0..data_bytes / 8).map(|_| AtomicU64::new(0)).collect() }
    }

    fn field(&self, field: ControlField) -> &AtomicU32 {
        let [write, read, mask, pending, features] = &self.fields;
        match field {
            ControlField::WriteIndex => write,
            ControlField::ReadIndex => read,
            ControlField::InterruptMask => mask,
            ControlField::PendingSendSize => pending,
            ControlField::FeatureBits => features,
        }
    }

    /// The word that holds byte `offset + behind`, wrapping; nothing for an access that is out of range.
    fn word(&self, offset: u32, behind: usize) -> Option<&AtomicU64> {
        let bytes = self.words.len() * 8;
        if offset as usize >= bytes || behind >= bytes {
            return None;
        }
        self.words.get((offset as usize + behind) % bytes / 8)
    }
}

impl Memory for PlainMemory {
    fn data_bytes(&self) -> u32 {
        u32::try_from(self.words.len() * 8).unwrap_or(0)
    }

    fn load(&self, field: ControlField) -> u32 {
        self.field(field).load(Ordering::Acquire)
    }

    fn store(&self, field: ControlField, value: u32) {
        self.field(field).store(value, Ordering::Release);
    }

    fn store_then_fence(&self, field: ControlField, value: u32) {
        self.field(field).store(value, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        core::array::from_fn(|index| self.word(offset, index * 8).map_or(0, |word| word.load(Ordering::Relaxed)))
    }

    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        for (index, word) in words.into_iter().enumerate() {
            if let Some(shared) = self.word(offset, index * 8) {
                shared.store(word, Ordering::Relaxed);
            }
        }
    }

    fn read(&self, offset: u32, destination: &mut [u8]) {
        let sound = destination.len() <= self.data_bytes() as usize;
        for (index, byte) in destination.iter_mut().enumerate() {
            let word = self.word(offset, index).filter(|_| sound).map_or(0, |word| word.load(Ordering::Relaxed));
            let lane = (offset as usize + index) % 8;
            *byte = word.to_le_bytes().get(lane).copied().unwrap_or(0);
        }
    }

    fn write(&self, offset: u32, source: &[u8]) {
        if source.len() > self.data_bytes() as usize {
            return;
        }
        for (index, byte) in source.iter().enumerate() {
            let Some(shared) = self.word(offset, index) else { return };
            let mut bytes = shared.load(Ordering::Relaxed).to_le_bytes();
            if let Some(lane) = bytes.get_mut((offset as usize + index) % 8) {
                *lane = *byte;
            }
            shared.store(u64::from_le_bytes(bytes), Ordering::Relaxed);
        }
    }
}
