//! Guest memory as the host sees it: pages that a guest may write at any moment.

mod mapped;
mod plain;

pub use mapped::MappedMemory;
pub use plain::{PageRing, PlainMemory};

/// Bytes of a page of the hypervisor, in which GPADLs count.
pub const PAGE_BYTES: u64 = 4096;

/// The memory of one guest. Every access is checked; what is out of range does nothing and says so.
pub trait Memory {
    /// A ring in some of its pages.
    type Ring: vmbus_ringbuf::Memory + std::fmt::Debug;

    /// Pages that there are, from page 0 on.
    fn pages(&self) -> u64;

    /// The ring whose control page is the first of these page numbers and whose data are the others, in order.
    /// `None`: a page is out of range, or too few or too many for a ring.
    fn ring(&self, pages: &[u64]) -> Option<Self::Ring>;

    /// Copies bytes out of guest memory, from a physical address on. Whether all of them are there.
    fn read(&self, address: u64, destination: &mut [u8]) -> bool;

    /// Copies bytes into guest memory. Whether all of them have a place; otherwise none is written.
    fn write(&self, address: u64, source: &[u8]) -> bool;

    /// Clears the bits of the 32-bit word at `address` and returns those that were set, in one step. `None`: out of
    /// range, or not aligned to 4.
    fn take_bits(&self, address: u64, bits: u32) -> Option<u32>;
}
