//! What a packet to be written consists of, apart from its payload.
//!
//! Formats: `vmbus_channel_packet_page_buffer`, `vmbus_packet_mpb_array` and `vmtransfer_page_packet_header` in Linux'
//! include/linux/hyperv.h. Both GPA-direct forms are the same on the wire: counted ranges, each with its page frames.

use crate::error::WriteError;
use crate::layout::{DESCRIPTOR_BYTES, LARGEST_PACKET_BYTES, TRAILER_BYTES};
use crate::memory::Memory;
use crate::packet::descriptor::{Descriptor, FLAG_COMPLETION_REQUESTED, PacketType};

/// Hyper-V's page, in which page frames count: 4096 bytes whatever the system page is.
pub const HYPERVISOR_PAGE_BYTES: u32 = 4096;

/// A part of one guest page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PageBuffer {
    /// Number of the guest page, in units of [`HYPERVISOR_PAGE_BYTES`].
    pub page_frame: u64,
    /// Where the data begins in that page. Bytes.
    pub byte_offset: u32,
    /// Bytes of data, at least 1; must not leave the page.
    pub byte_count: u32,
}

/// A range that covers several guest pages, contiguous to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiPageBuffer<'a> {
    /// Numbers of the guest pages, in units of [`HYPERVISOR_PAGE_BYTES`]; exactly as many as the range touches.
    pub page_frames: &'a [u64],
    /// Where the data begins in the first page. Bytes.
    pub byte_offset: u32,
    /// Bytes of data, at least 1.
    pub byte_count: u32,
}

/// A range of a set of transfer pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransferPageRange {
    /// Bytes of data.
    pub byte_count: u32,
    /// Where the data begins in the set. Bytes.
    pub byte_offset: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra<'a> {
    None,
    Pages(&'a [PageBuffer]),
    MultiPage(MultiPageBuffer<'a>),
    Transfer { pageset: u16, sender_owns_set: bool, ranges: &'a [TransferPageRange] },
}

/// A packet to be written: type, transaction id, flags and ranges. The payload goes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutgoingPacket<'a> {
    kind: PacketType,
    flags: u16,
    transaction_id: u64,
    extra: Extra<'a>,
}

impl<'a> OutgoingPacket<'a> {
    #[inline]
    const fn new(kind: PacketType, transaction_id: u64, extra: Extra<'a>) -> Self {
        Self { kind, flags: 0, transaction_id, extra }
    }

    /// Data in the packet itself.
    #[must_use]
    #[inline]
    pub const fn in_band(transaction_id: u64) -> Self {
        Self::new(PacketType::IN_BAND, transaction_id, Extra::None)
    }

    /// The answer to the packet with this transaction id.
    #[must_use]
    #[inline]
    pub const fn completion(transaction_id: u64) -> Self {
        Self::new(PacketType::COMPLETION, transaction_id, Extra::None)
    }

    /// Data in single guest pages ("page buffers"), with the payload as a command.
    #[must_use]
    pub const fn gpa_direct_pages(transaction_id: u64, pages: &'a [PageBuffer]) -> Self {
        Self::new(PacketType::GPA_DIRECT, transaction_id, Extra::Pages(pages))
    }

    /// Data in one range of guest pages ("multi-page buffer"), with the payload as a command.
    #[must_use]
    pub const fn gpa_direct_multi_page(transaction_id: u64, buffer: MultiPageBuffer<'a>) -> Self {
        Self::new(PacketType::GPA_DIRECT, transaction_id, Extra::MultiPage(buffer))
    }

    /// Data in ranges of the set of transfer pages `pageset`.
    #[must_use]
    pub const fn transfer_pages(
        transaction_id: u64,
        pageset: u16,
        sender_owns_set: bool,
        ranges: &'a [TransferPageRange],
    ) -> Self {
        Self::new(PacketType::TRANSFER_PAGES, transaction_id, Extra::Transfer { pageset, sender_owns_set, ranges })
    }

    /// Any other type, without ranges.
    #[must_use]
    #[inline]
    pub const fn of_type(kind: PacketType, transaction_id: u64) -> Self {
        Self::new(kind, transaction_id, Extra::None)
    }

    /// The same packet, asking the receiver for a completion.
    #[must_use]
    #[inline]
    pub const fn with_completion_requested(mut self) -> Self {
        self.flags |= FLAG_COMPLETION_REQUESTED;
        self
    }

    /// The same packet with all its flag bits given.
    #[must_use]
    #[inline]
    pub const fn with_flags(mut self, flags: u16) -> Self {
        self.flags = flags;
        self
    }

    /// Type of the packet.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> PacketType {
        self.kind
    }

    /// Transaction id of the packet.
    #[must_use]
    #[inline]
    pub const fn transaction_id(&self) -> u64 {
        self.transaction_id
    }

    /// Bytes of ring that this packet takes with `payload_bytes` of payload, descriptor and trailer included.
    #[must_use]
    #[inline]
    pub const fn ring_bytes(&self, payload_bytes: u64) -> u64 {
        (DESCRIPTOR_BYTES + TRAILER_BYTES) as u64 + self.extra_bytes() + payload_bytes.saturating_add(7) / 8 * 8
    }

    #[inline]
    const fn extra_bytes(&self) -> u64 {
        match self.extra {
            Extra::None => 0,
            Extra::Pages(pages) => 8 + pages.len() as u64 * 16,
            Extra::MultiPage(buffer) => 16 + buffer.page_frames.len() as u64 * 8,
            Extra::Transfer { ranges, .. } => 8 + ranges.len() as u64 * 8,
        }
    }

    /// Whether nothing stands between descriptor and payload.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        matches!(self.extra, Extra::None)
    }

    /// The descriptor of a packet without ranges, of a length that was checked. Bytes, without the trailer.
    #[inline]
    pub(crate) const fn plain_words(&self, packet_bytes: u32) -> [u64; 2] {
        let first = self.kind.0 as u64
            | (DESCRIPTOR_BYTES as u64 / 8) << 16
            | (packet_bytes as u64 / 8) << 32
            | (self.flags as u64) << 48;
        [first, self.transaction_id]
    }

    /// Sizes and descriptor for a payload of this length.
    #[inline]
    pub(crate) fn frame(&self, payload_bytes: usize, limit: u32) -> Result<Frame, WriteError> {
        let payload = payload_bytes as u64;
        let too_large = |needed| WriteError::TooLarge { needed, limit };
        if payload > u64::from(LARGEST_PACKET_BYTES) {
            return Err(too_large(self.ring_bytes(payload)));
        }
        let total = self.ring_bytes(payload);
        if total > u64::from(limit.min(LARGEST_PACKET_BYTES + TRAILER_BYTES)) {
            return Err(too_large(total));
        }
        if !self.is_plain() {
            self.check_ranges()?;
        }
        let header_bytes = u64::from(DESCRIPTOR_BYTES) + self.extra_bytes();
        let (Ok(ring_bytes), Ok(header_bytes)) = (u32::try_from(total), u32::try_from(header_bytes)) else {
            return Err(too_large(total));
        };
        let (Ok(length8), Ok(payload_offset8)) =
            (u16::try_from((ring_bytes - TRAILER_BYTES) / 8), u16::try_from(header_bytes / 8))
        else {
            return Err(too_large(total));
        };
        let descriptor = Descriptor::new(self.kind, payload_offset8, length8, self.flags, self.transaction_id);
        Ok(Frame { descriptor, header_bytes, ring_bytes })
    }

    #[cold]
    fn check_ranges(&self) -> Result<(), WriteError> {
        let sound = match self.extra {
            Extra::None => true,
            Extra::Pages(pages) => pages.iter().all(|page| pages_of(page.byte_offset, page.byte_count) == Some(1)),
            Extra::MultiPage(buffer) => {
                pages_of(buffer.byte_offset, buffer.byte_count) == Some(buffer.page_frames.len() as u64)
            }
            Extra::Transfer { ranges, .. } => ranges.iter().all(|range| range.byte_count != 0),
        };
        if sound { Ok(()) } else { Err(WriteError::BadRanges) }
    }

    /// Writes what stands between descriptor and payload, beginning at `offset`.
    #[inline]
    pub(crate) fn write_extra<M: Memory>(&self, memory: &M, offset: u32, advance: impl Fn(u32, u32) -> u32) {
        if self.is_plain() {
            return;
        }
        let mut at = offset;
        let mut push = |word: u64| {
            memory.store_words(at, [word]);
            at = advance(at, 8);
        };
        match self.extra {
            Extra::None => {}
            Extra::Pages(pages) => {
                push((pages.len() as u64) << 32);
                for page in pages {
                    push(u64::from(page.byte_count) | u64::from(page.byte_offset) << 32);
                    push(page.page_frame);
                }
            }
            Extra::MultiPage(buffer) => {
                push(1 << 32);
                push(u64::from(buffer.byte_count) | u64::from(buffer.byte_offset) << 32);
                for frame in buffer.page_frames {
                    push(*frame);
                }
            }
            Extra::Transfer { pageset, sender_owns_set, ranges } => {
                push(u64::from(pageset) | u64::from(sender_owns_set) << 16 | (ranges.len() as u64) << 32);
                for range in ranges {
                    push(u64::from(range.byte_count) | u64::from(range.byte_offset) << 32);
                }
            }
        }
    }
}

/// What the writer needs to know to place a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    pub(crate) descriptor: Descriptor,
    /// Bytes before the payload.
    pub(crate) header_bytes: u32,
    /// Bytes of ring, trailer included.
    pub(crate) ring_bytes: u32,
}

/// Pages that a range touches; `None` for an empty one or one that does not begin in its first page.
pub(crate) const fn pages_of(byte_offset: u32, byte_count: u32) -> Option<u64> {
    if byte_offset >= HYPERVISOR_PAGE_BYTES || byte_count == 0 {
        return None;
    }
    Some((byte_offset as u64 + byte_count as u64).div_ceil(HYPERVISOR_PAGE_BYTES as u64))
}
