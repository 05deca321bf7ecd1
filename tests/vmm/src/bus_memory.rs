//! Guest memory as the bus sees it: the memfd that the guest runs in, mapped once more, every access checked.
//!
//! Words that guest and bus share (message slots, event flags, monitor bits) are reached by 64-bit atomics, on the bus's
//! thread alone; bytes are copied by the kernel, so any thread may do that.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use vmbus::memory::{Mapping, Piece, Ring, map_ring_pages};
use vmbus_simhost::{Memory, PAGE_BYTES};

/// Guest memory as the bus sees it; clones are the same memory.
#[derive(Debug, Clone)]
pub struct BusMemory {
    file: Arc<File>,
    whole: Arc<Mapping>,
    bytes: u64,
}

impl BusMemory {
    /// Of a memfd whose offsets are guest physical addresses, and which nobody cuts short.
    ///
    /// # Errors
    /// It can't be mapped.
    pub fn new(file: &File) -> Result<Self> {
        let file = file.try_clone().context("share the guest's memory with its bus")?;
        let bytes = file.metadata().context("ask for the size of the guest's memory")?.len() / PAGE_BYTES * PAGE_BYTES;
        let piece = Piece { file: file.as_fd(), file_offset: 0, bytes: usize::try_from(bytes)? };
        let whole = Mapping::new(&[piece]).context("map the guest's memory for its bus")?;
        Ok(Self { file: Arc::new(file), whole: Arc::new(whole), bytes })
    }

    /// `count` words of 64 bits from a guest physical address on; `None` where they are not all inside, or not aligned.
    /// For the bus's thread alone.
    pub(crate) fn words(&self, address: u64, count: usize) -> Option<&[AtomicU64]> {
        self.whole.words(usize::try_from(address).ok()?, count)
    }

    fn holds(&self, address: u64, bytes: usize) -> bool {
        let end = u64::try_from(bytes).ok().and_then(|bytes| address.checked_add(bytes));
        end.is_some_and(|end| end <= self.bytes)
    }
}

impl Memory for BusMemory {
    type Ring = Ring;

    fn pages(&self) -> u64 {
        self.bytes / PAGE_BYTES
    }

    fn ring(&self, pages: &[u64]) -> Option<Ring> {
        if pages.iter().any(|page| *page >= self.pages()) {
            return None;
        }
        let ring = map_ring_pages(self.file.as_fd(), pages);
        ring.inspect_err(|error| log::debug!(target: "vmbus::vmm", "no ring: {error}")).ok().map(|(ring, _)| ring)
    }

    fn read(&self, address: u64, destination: &mut [u8]) -> bool {
        self.holds(address, destination.len()) && self.file.read_exact_at(destination, address).is_ok()
    }

    fn write(&self, address: u64, source: &[u8]) -> bool {
        self.holds(address, source.len()) && self.file.write_all_at(source, address).is_ok()
    }

    fn take_bits(&self, address: u64, bits: u32) -> Option<u32> {
        if !address.is_multiple_of(4) {
            return None;
        }
        let word = self.words(address & !7, 1)?.first()?;
        let shift = if address & 4 == 0 { 0 } else { 32 };
        let mask = u64::from(bits) << shift;
        // Most looks find nothing, and need not take the line from the guest's processors.
        if word.load(Ordering::Relaxed) & mask == 0 {
            return Some(0);
        }
        // Sequentially consistent: what is looked at next (a ring's index) is not read before the bits are gone.
        let before = word.fetch_and(!mask, Ordering::SeqCst) & mask;
        u32::try_from(before >> shift).ok()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs::File;
    use std::sync::atomic::Ordering;

    use rustix::fs::{MemfdFlags, memfd_create};
    use vmbus_ringbuf::Memory as _;
    use vmbus_simhost::{Memory, PAGE_BYTES};

    use super::BusMemory;

    /// That many pages of zeroes.
    pub(crate) fn pages(count: u64) -> BusMemory {
        let file = File::from(memfd_create("guest memory", MemfdFlags::CLOEXEC).unwrap());
        file.set_len(count * PAGE_BYTES).unwrap();
        BusMemory::new(&file).unwrap()
    }

    impl BusMemory {
        /// The same memory in a mapping of its own.
        pub(crate) fn again(&self) -> Self {
            Self::new(&self.file).unwrap()
        }
    }

    #[test]
    fn bytes_and_words_are_the_same_memory_and_end_with_it() {
        let memory = pages(2);
        assert!(memory.write(0x1ffc, &[1, 2, 3, 4]));
        assert_eq!(memory.words(0x1ff8, 1).unwrap()[0].load(Ordering::Relaxed), 0x0403_0201_0000_0000);
        let mut bytes = [0; 4];
        assert!(memory.read(0x1ffc, &mut bytes));
        assert_eq!(bytes, [1, 2, 3, 4]);
        for address in [0x1ffd, 0x2000, u64::MAX - 3, u64::MAX] {
            assert!(!memory.read(address, &mut bytes) && !memory.write(address, &bytes), "{address:#x}");
            assert_eq!(
                memory.take_bits(address & !3, u32::MAX),
                if address == 0x1ffd { Some(0x0403_0201) } else { None }
            );
        }
        assert_eq!(memory.take_bits(2, 1), None);
    }

    #[test]
    fn bits_are_taken_once_and_others_stay() {
        let memory = pages(1);
        for address in [8_u64, 12] {
            assert!(memory.write(address, &0x8000_0011_u32.to_le_bytes()));
            assert_eq!(memory.take_bits(address, 0x8000_0001), Some(0x8000_0001));
            assert_eq!(memory.take_bits(address, 0x8000_0001), Some(0));
            assert_eq!(memory.take_bits(address, u32::MAX), Some(0x10));
        }
    }

    #[test]
    fn a_ring_lies_in_the_pages_that_are_named_and_nowhere_else() {
        let memory = pages(8);
        let ring = memory.ring(&[5, 2, 7]).unwrap();
        ring.write(4090, &[7; 12]);
        let mut bytes = [0; 6];
        assert!(memory.read(0x2ffa, &mut bytes));
        assert_eq!(bytes, [7; 6]);
        assert!(memory.read(0x7000, &mut bytes));
        assert_eq!(bytes, [7; 6]);
        for pages in [&[5_u64, 8][..], &[u64::MAX, 1], &[1, 1 << 52], &[3], &[]] {
            assert!(memory.ring(pages).is_none(), "{pages:x?}");
        }
    }
}
