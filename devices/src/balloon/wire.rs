//! Formats of the Dynamic Memory protocol, as little-endian structs with asserted sizes.
//!
//! Source of the format: `drivers/hv/hv_balloon.c` of Linux 6.12 (versions 0.3, 1.0 and 2.0) and, for the
//! bits that version 2.0 added to the capabilities, `dynmem-proto.h` of QEMU. Pages are 4 KiB everywhere.

mod build;
mod parse;

pub use build::{GuestMessage, StatusReport};
pub use parse::{HostMessage, Incoming, Info, WireError, parse};

use core::fmt;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a Dynamic Memory page, whatever the page size of this system is.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of the longest message that either side sends.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Ranges that fit into one balloon response.
pub const MAX_RANGES: usize = (MAX_MESSAGE_BYTES - size_of::<BalloonResponse>()) / size_of::<WireRange>();

/// A protocol version: major in the high 16 bits, minor in the low ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// 0.3, Windows Server 2008 R2 with SP1.
    pub const V0_3: Self = Self(3);
    /// 1.0, Windows Server 2012: adds the info message.
    pub const V1_0: Self = Self(1 << 16);
    /// 2.0, Windows Server 2016: adds bits to the capabilities.
    pub const V2_0: Self = Self(2 << 16);
    /// What a guest asks for, best first; the last one is announced as the last attempt.
    pub const OFFERED: [Self; 3] = [Self::V2_0, Self::V1_0, Self::V0_3];

    /// The part before the dot.
    #[must_use]
    pub const fn major(self) -> u32 {
        self.0 >> 16
    }

    /// The part behind the dot.
    #[must_use]
    pub const fn minor(self) -> u32 {
        self.0 & 0xffff
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major(), self.minor())
    }
}

/// What a message is; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub u16);

impl MessageType {
    /// Named by the protocol, sent by nobody.
    pub const ERROR: Self = Self(0);
    /// Guest to host: may we speak this version?
    pub const VERSION_REQUEST: Self = Self(1);
    /// Host to guest: yes or no.
    pub const VERSION_RESPONSE: Self = Self(2);
    /// Guest to host: what the guest can do.
    pub const CAPABILITIES_REPORT: Self = Self(3);
    /// Host to guest: accepted or not.
    pub const CAPABILITIES_RESPONSE: Self = Self(4);
    /// Guest to host, about once a second: memory pressure. Not answered.
    pub const STATUS_REPORT: Self = Self(5);
    /// Host to guest: take this many pages out of use.
    pub const BALLOON_REQUEST: Self = Self(6);
    /// Guest to host, once or more for a request: the pages taken.
    pub const BALLOON_RESPONSE: Self = Self(7);
    /// Host to guest, once or more for a transaction: pages given back.
    pub const UNBALLOON_REQUEST: Self = Self(8);
    /// Guest to host, once for a transaction.
    pub const UNBALLOON_RESPONSE: Self = Self(9);
    /// Host to guest: new memory is there.
    pub const HOT_ADD_REQUEST: Self = Self(10);
    /// Guest to host: how much of it the guest uses.
    pub const HOT_ADD_RESPONSE: Self = Self(11);
    /// Host to guest, from version 1.0: something worth knowing.
    pub const INFO: Self = Self(12);
}

/// What an info message is about; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoType(pub u32);

impl InfoType {
    /// The most pages that the guest will ever have, as 64 bits.
    pub const MAX_PAGE_COUNT: Self = Self(0);
}

/// A run of pages: `count` pages of 4 KiB from page frame `start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRange {
    /// First page frame number; 40 bits on the wire.
    pub start: u64,
    /// Pages; 24 bits on the wire.
    pub count: u32,
}

impl PageRange {
    /// One more than the highest page frame number that a range can start at.
    pub const START_LIMIT: u64 = 1 << 40;
    /// The most pages in one range.
    pub const MAX_COUNT: u32 = (1 << 24) - 1;

    /// The first page frame number behind the range.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.start.saturating_add(self.count as u64)
    }

    /// The wire form, or `None` if the range doesn't fit into its 40 and 24 bits.
    #[must_use]
    pub const fn to_wire(self) -> Option<WireRange> {
        if self.start >= Self::START_LIMIT || self.count > Self::MAX_COUNT {
            return None;
        }
        Some(WireRange(U64::new(self.start | (self.count as u64) << 40)))
    }
}

impl From<WireRange> for PageRange {
    fn from(wire: WireRange) -> Self {
        let [b0, b1, b2, b3, b4, c0, c1, c2] = wire.0.to_bytes();
        Self { start: u64::from_le_bytes([b0, b1, b2, b3, b4, 0, 0, 0]), count: u32::from_le_bytes([c0, c1, c2, 0]) }
    }
}

/// [`PageRange`] on the wire: start in bits 0-39, count in bits 40-63.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct WireRange(pub U64);

/// Declares a wire struct and asserts its size.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

wire!(/// Opens each message.
Header, 8 {
    /// [`MessageType`].
    kind: U16,
    /// Bytes of the whole message, this header included.
    size: U16,
    /// Made up by the sender.
    transaction: U32,
});
wire!(/// [`MessageType::VERSION_REQUEST`].
VersionRequest, 16 {
    /// The header.
    header: Header,
    /// [`Version`].
    version: U32,
    /// Bit 0: no further version follows.
    flags: U32,
});
wire!(/// [`MessageType::VERSION_RESPONSE`].
VersionResponse, 16 {
    /// The header.
    header: Header,
    /// Bit 0: accepted.
    flags: U64,
});
wire!(/// [`MessageType::CAPABILITIES_REPORT`].
CapabilitiesReport, 32 {
    /// The header.
    header: Header,
    /// Bit 0 balloon, bit 1 hot-add, bits 2-5 its alignment (log2 of MiB), bit 6 hot-remove.
    capabilities: U64,
    /// Not used by hosts; 0.
    min_page_count: U64,
    /// Not used by hosts; all ones.
    max_page_number: U64,
});
wire!(/// [`MessageType::CAPABILITIES_RESPONSE`].
CapabilitiesResponse, 16 {
    /// The header.
    header: Header,
    /// Bit 0 accepted; from 2.0 on also bit 1 hot-remove, bit 2 "send no status reports".
    flags: U64,
});
wire!(/// [`MessageType::STATUS_REPORT`]; counts are pages.
Status, 48 {
    /// The header.
    header: Header,
    /// Pages that could be had without swapping.
    available: U64,
    /// Pages promised to processes, and the floor.
    committed: U64,
    /// Windows only; 0.
    page_file_size: U64,
    /// Windows only; 0.
    zero_free: U64,
    /// Windows only; 0.
    page_file_writes: U32,
    /// Windows only; 0.
    io_diff: U32,
});
wire!(/// [`MessageType::BALLOON_REQUEST`].
BalloonRequest, 16 {
    /// The header.
    header: Header,
    /// Pages wanted.
    pages: U32,
    /// 0.
    reserved: U32,
});
wire!(/// [`MessageType::BALLOON_RESPONSE`]; the ranges follow.
BalloonResponse, 16 {
    /// The header.
    header: Header,
    /// 0.
    reserved: U32,
    /// Bit 0: another response follows; bits 1-31: ranges in this one.
    more_and_count: U32,
});
wire!(/// [`MessageType::UNBALLOON_REQUEST`]; the ranges follow.
UnballoonRequest, 16 {
    /// The header.
    header: Header,
    /// Bit 0: another request of the same transaction follows.
    flags: U32,
    /// Ranges in this one.
    range_count: U32,
});
wire!(/// [`MessageType::UNBALLOON_RESPONSE`].
UnballoonResponse, 8 {
    /// The header.
    header: Header,
});
wire!(/// [`MessageType::HOT_ADD_REQUEST`]; a second range, the region, follows if the size says so.
HotAddRequest, 16 {
    /// The header.
    header: Header,
    /// The pages that are backed.
    range: WireRange,
});
wire!(/// [`MessageType::HOT_ADD_RESPONSE`].
HotAddResponse, 16 {
    /// The header.
    header: Header,
    /// Pages added.
    pages: U32,
    /// 1 success, 0 failure; success with no pages means "never ask again".
    result: U32,
});
wire!(/// [`MessageType::INFO`]; its [`InfoHeader`] and data follow.
InfoMessage, 16 {
    /// The header.
    header: Header,
    /// 0.
    reserved: U32,
    /// Bytes that follow.
    info_bytes: U32,
});
wire!(/// Opens the body of an info message.
InfoHeader, 8 {
    /// [`InfoType`].
    kind: U32,
    /// Bytes that follow.
    data_bytes: U32,
});

const _: () = assert!(size_of::<WireRange>() == 8);
const _: () = assert!(MAX_RANGES == 510);

#[cfg(test)]
mod tests;
