//! Guest memory in this process's own: words on the heap, shared by clones, without unsafe code. For tests of one
//! process, slow and simple.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use vmbus_ringbuf::ControlField;

use super::{Memory, PAGE_BYTES};

/// Words of a page.
const PAGE_WORDS: usize = 512;

/// Guest memory on the heap. A clone is the same memory.
#[derive(Debug, Clone)]
pub struct PlainMemory {
    words: Arc<[AtomicU64]>,
}

impl PlainMemory {
    /// That many pages of zeroes.
    #[must_use]
    pub fn new(pages: usize) -> Self {
        Self { words: (0..pages.saturating_mul(PAGE_WORDS)).map(|_| AtomicU64::new(0)).collect() }
    }

    fn word(&self, address: u64) -> Option<&AtomicU64> {
        self.words.get(usize::try_from(address / 8).ok()?)
    }

    fn holds(&self, address: u64, bytes: usize) -> bool {
        let end = u64::try_from(bytes).ok().and_then(|bytes| address.checked_add(bytes));
        end.is_some_and(|end| end <= self.pages() * PAGE_BYTES)
    }

    fn load_byte(&self, address: u64) -> u8 {
        let word = self.word(address).map_or(0, |word| word.load(Ordering::Relaxed));
        word.to_le_bytes().get(lane(address)).copied().unwrap_or(0)
    }

    fn store_byte(&self, address: u64, value: u8) {
        let mask = 0xff_u64 << (lane(address) * 8);
        self.merge(address & !7, mask, u64::from(value) << (lane(address) * 8), Ordering::Relaxed);
    }

    /// Replaces the bits of `mask` in the word at `address` by those of `value`; the word as it was.
    fn merge(&self, address: u64, mask: u64, value: u64, order: Ordering) -> Option<u64> {
        let word = self.word(address)?;
        word.fetch_update(order, Ordering::Relaxed, |old| Some(old & !mask | value & mask)).ok()
    }

    /// Sets bits of the 32-bit word at `address`: what a guest or a hypervisor does.
    pub fn set_bits(&self, address: u64, bits: u32) {
        let shift = lane(address & !3) * 8;
        self.merge(address & !7, u64::from(bits) << shift, u64::MAX, Ordering::SeqCst);
    }
}

/// Which byte of its word an address is.
fn lane(address: u64) -> usize {
    usize::try_from(address % 8).unwrap_or(0)
}

impl Memory for PlainMemory {
    type Ring = PageRing;

    fn pages(&self) -> u64 {
        u64::try_from(self.words.len() / PAGE_WORDS).unwrap_or(0)
    }

    fn ring(&self, pages: &[u64]) -> Option<PageRing> {
        let (control, data) = pages.split_first()?;
        let data_bytes = u32::try_from(data.len()).ok()?.checked_mul(4096)?;
        let inside = data_bytes != 0 && pages.iter().all(|page| *page < self.pages());
        inside.then(|| PageRing { memory: self.clone(), control: *control, data: data.into(), data_bytes })
    }

    fn read(&self, address: u64, destination: &mut [u8]) -> bool {
        let inside = self.holds(address, destination.len());
        if inside {
            for (at, byte) in (address..).zip(destination) {
                *byte = self.load_byte(at);
            }
        }
        inside
    }

    fn write(&self, address: u64, source: &[u8]) -> bool {
        let inside = self.holds(address, source.len());
        if inside {
            for (at, byte) in (address..).zip(source) {
                self.store_byte(at, *byte);
            }
        }
        inside
    }

    fn take_bits(&self, address: u64, bits: u32) -> Option<u32> {
        if !address.is_multiple_of(4) {
            return None;
        }
        let shift = lane(address) * 8;
        let old = self.merge(address & !7, u64::from(bits) << shift, 0, Ordering::SeqCst)?;
        u32::try_from((old >> shift) & u64::from(bits)).ok()
    }
}

/// A ring in pages of [`PlainMemory`], which may lie anywhere in it.
#[derive(Debug, Clone)]
pub struct PageRing {
    memory: PlainMemory,
    control: u64,
    data: Arc<[u64]>,
    data_bytes: u32,
}

impl PageRing {
    /// The guest physical address of a byte of data, wrapping.
    fn address(&self, offset: u32, behind: usize) -> u64 {
        let size = u64::from(self.data_bytes);
        let at = (u64::from(offset) + u64::try_from(behind).unwrap_or(0)) % size;
        let page = usize::try_from(at / PAGE_BYTES).ok().and_then(|index| self.data.get(index)).copied();
        page.unwrap_or(0) * PAGE_BYTES + at % PAGE_BYTES
    }

    fn put(&self, field: ControlField, value: u32, order: Ordering) {
        let address = self.control * PAGE_BYTES + u64::try_from(field.offset()).unwrap_or(0);
        let shift = lane(address) * 8;
        self.memory.merge(address & !7, 0xffff_ffff << shift, u64::from(value) << shift, order);
    }
}

impl vmbus_ringbuf::Memory for PageRing {
    fn data_bytes(&self) -> u32 {
        self.data_bytes
    }

    fn load(&self, field: ControlField) -> u32 {
        let address = self.control * PAGE_BYTES + u64::try_from(field.offset()).unwrap_or(0);
        let word = self.memory.word(address).map_or(0, |word| word.load(Ordering::Acquire));
        u32::try_from((word >> (lane(address) * 8)) & 0xffff_ffff).unwrap_or(0)
    }

    fn store(&self, field: ControlField, value: u32) {
        self.put(field, value, Ordering::AcqRel);
    }

    fn store_then_fence(&self, field: ControlField, value: u32) {
        self.put(field, value, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    fn load_words<const N: usize>(&self, offset: u32) -> [u64; N] {
        core::array::from_fn(|index| {
            let word = self.memory.word(self.address(offset & !7, index * 8));
            word.map_or(0, |word| word.load(Ordering::Relaxed))
        })
    }

    fn store_words<const N: usize>(&self, offset: u32, words: [u64; N]) {
        for (index, value) in words.into_iter().enumerate() {
            if let Some(word) = self.memory.word(self.address(offset & !7, index * 8)) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    fn read(&self, offset: u32, destination: &mut [u8]) {
        for (index, byte) in destination.iter_mut().enumerate() {
            *byte = self.memory.load_byte(self.address(offset, index));
        }
    }

    fn write(&self, offset: u32, source: &[u8]) {
        for (index, byte) in source.iter().enumerate() {
            self.memory.store_byte(self.address(offset, index), *byte);
        }
    }
}
