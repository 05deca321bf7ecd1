//! What can be asked for and set at an adapter: object identifiers of NDIS, and the header of its objects.

use core::fmt;
use zerocopy::little_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Names something that can be asked for or set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Oid(pub u32);

impl Oid {
    /// The longest payload of a frame. 4 bytes.
    pub const MAXIMUM_FRAME_SIZE: Self = Self(0x0001_0106);
    /// Speed of the link, in units of 100 bit/s. 4 bytes.
    pub const LINK_SPEED: Self = Self(0x0001_0107);
    /// Which frames are wanted. Set. 4 bytes.
    pub const CURRENT_PACKET_FILTER: Self = Self(0x0001_010e);
    /// 0: connected. 4 bytes.
    pub const MEDIA_CONNECT_STATUS: Self = Self(0x0001_0114);
    /// What the host's side can do about queues.
    pub const RECEIVE_SCALE_CAPABILITIES: Self = Self(0x0001_0203);
    /// Which queue a frame goes to.
    pub const RECEIVE_SCALE_PARAMETERS: Self = Self(0x0001_0204);
    /// Frames sent.
    pub const TRANSMITTED: Self = Self(0x0002_0101);
    /// Frames received.
    pub const RECEIVED: Self = Self(0x0002_0102);
    /// Frames not received for want of buffers.
    pub const RECEIVE_NO_BUFFER: Self = Self(0x0002_0105);
    /// The address that the adapter was made with. 6 bytes.
    pub const PERMANENT_ADDRESS: Self = Self(0x0101_0101);
    /// What the host's side can do for TCP and IP.
    pub const OFFLOAD_CAPABILITIES: Self = Self(0xfc01_020d);
    /// What of that is wanted. Set.
    pub const OFFLOAD_PARAMETERS: Self = Self(0xfc01_020c);
}

impl fmt::Display for Oid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#010x}", self.0)
    }
}

/// Which frames are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketFilter(pub u32);

impl PacketFilter {
    /// None.
    pub const NONE: Self = Self(0);
    /// Those to this adapter, to all, and to groups.
    pub const USUAL: Self = Self(0x1 | 0x4 | 0x8);
    /// All that come by: what a bridge needs.
    pub const PROMISCUOUS: Self = Self(0x20);
}

wire!(/// Opens each object of NDIS.
ObjectHeader, 4 {
    /// What it is.
    kind: u8,
    /// Which version of that.
    revision: u8,
    /// Bytes, this header included.
    size: U16,
});
