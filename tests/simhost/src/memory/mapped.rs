//! Guest memory over the wire: the memfd that the guest has sent.

use std::sync::Arc;

use vmbus::memory::Ring;
use vmbus::wire::HostMemory;

use super::{Memory, PAGE_BYTES};

/// The memory of a guest in another process, or in this one beyond a socket.
#[derive(Debug, Clone)]
pub struct MappedMemory {
    memory: Arc<HostMemory>,
}

impl MappedMemory {
    /// What came with a guest's hello.
    #[must_use]
    pub const fn new(memory: Arc<HostMemory>) -> Self {
        Self { memory }
    }

    /// The pages that these bytes touch, and where they begin in the first.
    fn touched(address: u64, bytes: usize) -> Option<(Vec<u64>, usize)> {
        let last = address.checked_add(u64::try_from(bytes).ok()?.saturating_sub(1))?;
        let pages = (address / PAGE_BYTES)..=(last / PAGE_BYTES);
        Some((pages.collect(), usize::try_from(address % PAGE_BYTES).ok()?))
    }
}

impl Memory for MappedMemory {
    type Ring = Ring;

    fn pages(&self) -> u64 {
        self.memory.layout().pages()
    }

    fn ring(&self, pages: &[u64]) -> Option<Ring> {
        let ring = self.memory.view(pages);
        ring.inspect_err(|error| log::debug!(target: "vmbus::simhost", "no ring: {error}")).ok()
    }

    fn read(&self, address: u64, destination: &mut [u8]) -> bool {
        let Some((pages, offset)) = Self::touched(address, destination.len()) else { return false };
        self.memory.read(&pages, offset, destination).is_ok()
    }

    fn write(&self, address: u64, source: &[u8]) -> bool {
        let Some((pages, offset)) = Self::touched(address, source.len()) else { return false };
        self.memory.write(&pages, offset, source).is_ok()
    }

    fn take_bits(&self, address: u64, bits: u32) -> Option<u32> {
        let page = self.memory.map(&[address / PAGE_BYTES]).ok()?;
        let offset = usize::try_from(address % PAGE_BYTES).ok()?;
        page.clear_bits(offset, bits).map(|before| before & bits)
    }
}
