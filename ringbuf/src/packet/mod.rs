//! Packets: what is written ([`OutgoingPacket`]) and what was received ([`Packet`]).

mod descriptor;
mod outgoing;
mod payload;
mod ranges;

pub use descriptor::{Descriptor, FLAG_COMPLETION_REQUESTED, PacketType};
pub(crate) use outgoing::Frame;
pub use outgoing::{HYPERVISOR_PAGE_BYTES, MultiPageBuffer, OutgoingPacket, PageBuffer, TransferPageRange};
pub use payload::{BLOCK_BYTES, Payload};
pub use ranges::{GpaRange, GpaRanges, TransferPages};

use crate::error::Malformed;
use crate::layout::{DESCRIPTOR_BYTES, Geometry};
use crate::memory::Memory;
use crate::reader::Checked;
use ranges::Window;

/// A received packet, still in the ring. Its descriptor was read once and checked; any type is possible.
pub struct Packet<'a, M> {
    memory: &'a M,
    ring: Geometry,
    checked: Checked,
}

impl<M> core::fmt::Debug for Packet<'_, M> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter
            .debug_struct("Packet")
            .field("start", &self.checked.start)
            .field("descriptor", &self.checked.descriptor)
            .finish()
    }
}

impl<'a, M: Memory> Packet<'a, M> {
    #[inline]
    pub(crate) const fn new(memory: &'a M, ring: Geometry, checked: Checked) -> Self {
        Self { memory, ring, checked }
    }

    /// Type of the packet. Skip a type that you don't know.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> PacketType {
        self.checked.descriptor.kind()
    }

    /// All flag bits.
    #[must_use]
    #[inline]
    pub const fn flags(&self) -> u16 {
        self.checked.descriptor.flags()
    }

    /// Whether the sender waits for a completion with this [`Packet::transaction_id`].
    #[must_use]
    #[inline]
    pub const fn completion_requested(&self) -> bool {
        self.checked.descriptor.flags() & FLAG_COMPLETION_REQUESTED != 0
    }

    /// The sender's id. Look it up, never treat it as an address.
    #[must_use]
    #[inline]
    pub const fn transaction_id(&self) -> u64 {
        self.checked.descriptor.transaction_id()
    }

    /// The whole descriptor.
    #[must_use]
    #[inline]
    pub const fn descriptor(&self) -> Descriptor {
        self.checked.descriptor
    }

    /// The payload: from the payload offset to the end of the packet.
    #[must_use]
    #[inline]
    pub const fn payload(&self) -> Payload<'a, M> {
        let header_bytes = self.checked.descriptor.header_bytes();
        let bytes = self.checked.descriptor.packet_bytes().saturating_sub(header_bytes);
        Payload::new(self.memory, self.ring, self.checked.payload, bytes)
    }

    /// What stands between descriptor and payload, raw: ranges, or the extra fields of a type that this crate does
    /// not parse. Empty for in-band packets and completions.
    #[must_use]
    #[inline]
    pub const fn extra(&self) -> Payload<'a, M> {
        let bytes = self.checked.descriptor.header_bytes().saturating_sub(DESCRIPTOR_BYTES);
        Payload::new(self.memory, self.ring, self.ring.advance(self.checked.start, DESCRIPTOR_BYTES), bytes)
    }

    /// The ranges of a packet of type [`PacketType::TRANSFER_PAGES`].
    ///
    /// # Errors
    /// [`Malformed`] for another type, or if the ranges do not fit the header.
    pub fn transfer_pages(&self) -> Result<TransferPages<'a, M>, Malformed> {
        self.expect_type(PacketType::TRANSFER_PAGES)?;
        TransferPages::parse(self.window())
    }

    /// The ranges of a packet of type [`PacketType::GPA_DIRECT`], page buffers and multi-page buffers alike.
    ///
    /// # Errors
    /// [`Malformed`] for another type, or if the count of ranges can't fit the header.
    pub fn gpa_ranges(&self) -> Result<GpaRanges<'a, M>, Malformed> {
        self.expect_type(PacketType::GPA_DIRECT)?;
        GpaRanges::parse(self.window())
    }

    fn expect_type(&self, kind: PacketType) -> Result<(), Malformed> {
        let PacketType(found) = self.kind();
        if self.kind() == kind { Ok(()) } else { Err(Malformed::WrongType { found }) }
    }

    fn window(&self) -> Window<'a, M> {
        let words = self.checked.descriptor.header_bytes().saturating_sub(DESCRIPTOR_BYTES) / 8;
        Window::new(self.memory, self.ring, self.ring.advance(self.checked.start, DESCRIPTOR_BYTES), words)
    }
}
