//! Where things are in a VMBus ring: the control page, the data, and index arithmetic.
//!
//! Format: `struct hv_ring_buffer` in Linux' include/linux/hyperv.h. A ring is one *system* page of control fields
//! followed by data; the page size is a parameter here because it differs between machines.

use crate::error::{Corrupt, LayoutError, What};

/// Bytes of the fixed part of every packet: type, payload offset, length, flags, transaction id.
pub const DESCRIPTOR_BYTES: u32 = 16;
/// Bytes after every packet: the packet's own start offset, in the upper half of a little-endian u64.
pub const TRAILER_BYTES: u32 = 8;
/// The smallest packet, with descriptor and trailer and nothing else.
pub const SMALLEST_PACKET_BYTES: u32 = DESCRIPTOR_BYTES + TRAILER_BYTES;
/// The largest descriptor and payload together: the length field counts 8-byte units in 16 bits.
pub const LARGEST_PACKET_BYTES: u32 = u16::MAX as u32 * 8;
/// Bytes of the control page that carry a meaning; the rest of the page is reserved.
pub const CONTROL_BYTES: u32 = 68;
/// The smallest data area that this crate accepts: one small packet, and the gap that is never filled.
pub const SMALLEST_DATA_BYTES: u32 = 32;
/// The largest data area that this crate accepts, 1 GiB: twice that still fits a `u32`.
pub const LARGEST_DATA_BYTES: u32 = 1 << 30;
/// Indices never become equal by writing: at least this much stays free, or full would look like empty.
pub(crate) const GAP_BYTES: u32 = 8;

/// One 32-bit field of the control page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlField {
    /// Offset in the data at which the writer goes on. Written by the writer only.
    WriteIndex,
    /// Offset in the data at which the reader goes on. Written by the reader only.
    ReadIndex,
    /// Not zero: the reader does not want to be signalled. Written by the reader only.
    InterruptMask,
    /// Not zero: the writer is blocked until more than this many bytes are free. Written by the writer only.
    PendingSendSize,
    /// Bit 0: the writer uses [`ControlField::PendingSendSize`] and expects a signal.
    FeatureBits,
}

impl ControlField {
    /// All fields, in the order of their offsets.
    pub const ALL: [Self; 5] =
        [Self::WriteIndex, Self::ReadIndex, Self::InterruptMask, Self::PendingSendSize, Self::FeatureBits];

    /// Offset in the control page, in bytes.
    #[must_use]
    #[inline]
    pub const fn offset(self) -> usize {
        match self {
            Self::WriteIndex => 0,
            Self::ReadIndex => 4,
            Self::InterruptMask => 8,
            Self::PendingSendSize => 12,
            Self::FeatureBits => 64,
        }
    }
}

/// The bit of [`ControlField::FeatureBits`] that says that [`ControlField::PendingSendSize`] is used.
pub const FEATURE_PENDING_SEND_SIZE: u32 = 1;

/// How one ring of a given size is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingLayout {
    /// Bytes before the data: one system page.
    pub control_bytes: u32,
    /// Bytes of data.
    pub data_bytes: u32,
}

impl RingLayout {
    /// Divides a ring of `ring_bytes` (control page included, as sysfs and UIO count it) on a machine whose pages
    /// have `page_bytes`.
    ///
    /// # Errors
    /// [`LayoutError`] if what is left for data is too small, too large or not a multiple of 8.
    pub fn of_ring(ring_bytes: u64, page_bytes: u32) -> Result<Self, LayoutError> {
        let data_bytes = ring_bytes
            .checked_sub(u64::from(page_bytes))
            .and_then(|bytes| u32::try_from(bytes).ok())
            .ok_or(LayoutError::RingBytes { ring_bytes, page_bytes })?;
        check_data_bytes(data_bytes)?;
        Ok(Self { control_bytes: page_bytes, data_bytes })
    }
}

/// Accepts the sizes of a data area that index arithmetic is right for.
pub(crate) fn check_data_bytes(data_bytes: u32) -> Result<(), LayoutError> {
    let fits = (SMALLEST_DATA_BYTES..=LARGEST_DATA_BYTES).contains(&data_bytes);
    if fits && data_bytes.is_multiple_of(8) { Ok(()) } else { Err(LayoutError::DataBytes { data_bytes }) }
}

/// Index arithmetic for one ring. The size is any multiple of 8, so there is no masking.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    data_bytes: u32,
}

impl Geometry {
    pub(crate) fn new(data_bytes: u32) -> Result<Self, Corrupt> {
        match check_data_bytes(data_bytes) {
            Ok(()) => Ok(Self { data_bytes }),
            Err(_) => Err(Corrupt { what: What::DataBytes, value: data_bytes, limit: LARGEST_DATA_BYTES }),
        }
    }

    #[inline]
    pub(crate) const fn data_bytes(self) -> u32 {
        self.data_bytes
    }

    /// `index` (below the size) moved on by `bytes` (at most the size).
    #[inline]
    pub(crate) const fn advance(self, index: u32, bytes: u32) -> u32 {
        let next = index.wrapping_add(bytes);
        if next >= self.data_bytes { next.wrapping_sub(self.data_bytes) } else { next }
    }

    /// Bytes from one index to another, going forward. Both are below the size.
    #[inline]
    pub(crate) const fn distance(self, from: u32, to: u32) -> u32 {
        if to >= from { to.wrapping_sub(from) } else { to.wrapping_add(self.data_bytes).wrapping_sub(from) }
    }

    /// Whether a value that the other side wrote can be an index at all.
    #[inline]
    pub(crate) const fn is_index(self, value: u32) -> bool {
        value < self.data_bytes && value & 7 == 0
    }
}
