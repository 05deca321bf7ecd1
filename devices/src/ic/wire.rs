//! The frame of all integration components' messages, as little-endian structs with asserted sizes.
//!
//! Source of the format: `include/linux/hyperv.h` of Linux 6.12 (`vmbuspipe_hdr`, `icmsg_hdr`, `icmsg_negotiate`), and
//! `hyperv_ic_protocol` of OpenVMM for what the bits of the flags mean.

use core::fmt;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the longest message that a host sends.
pub const MAX_MESSAGE_BYTES: usize = 13_312;
/// Bytes before a message's body: the pipe's header and the component's.
pub const FRAME_BYTES: usize = size_of::<PipeHeader>() + size_of::<Header>();
/// Versions of each kind that a host may offer.
pub const MAX_OFFERED_VERSIONS: u16 = 100;

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
pub(super) use wire;

wire!(/// A version on the wire.
WireVersion, 4 {
    /// The part before the dot.
    major: U16,
    /// The part behind it.
    minor: U16,
});
wire!(/// Opens each packet.
PipeHeader, 8 {
    /// 1.
    flags: U32,
    /// Bytes of the message that follows.
    size: U32,
});
wire!(/// Opens each message.
Header, 20 {
    /// Of the framework; zero while negotiating.
    framework: WireVersion,
    /// [`MessageType`].
    kind: U16,
    /// Of the component's messages; zero while negotiating.
    version: WireVersion,
    /// Bytes of the body.
    body_bytes: U16,
    /// [`Status`], in answers.
    status: U32,
    /// Made up by the host; the answer has the same.
    transaction: u8,
    /// [`Flags`].
    flags: u8,
    /// 0.
    reserved: [u8; 2],
});
wire!(/// The body of [`MessageType::NEGOTIATE`]; the versions follow, those of the framework first.
Negotiate, 8 {
    /// Versions of the framework that follow; in an answer 1, or 0 if there is none in common.
    framework_count: U16,
    /// Versions of the component's messages that follow; likewise.
    message_count: U16,
    /// 0.
    reserved: U32,
});

bitflags::bitflags! {
    /// What a message is in its conversation.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u8 {
        /// It belongs to a pair of request and answer.
        const TRANSACTION = 1;
        /// It is the host's part.
        const REQUEST = 2;
        /// It is the guest's.
        const RESPONSE = 4;
        /// Whatever else a host sets.
        const _ = !0;
    }
}

impl Flags {
    /// What an answer has.
    pub const ANSWER: Self = Self::TRANSACTION.union(Self::RESPONSE);
}

/// A version of the framework or of a component's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The part before the dot.
    pub major: u16,
    /// The part behind it.
    pub minor: u16,
}

impl Version {
    /// Of these two numbers.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self { major, minor }
    }
}

impl From<WireVersion> for Version {
    fn from(wire: WireVersion) -> Self {
        Self { major: wire.major.get(), minor: wire.minor.get() }
    }
}

impl From<Version> for WireVersion {
    fn from(version: Version) -> Self {
        Self { major: U16::new(version.major), minor: U16::new(version.minor) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// What a message is about; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub u16);

impl MessageType {
    /// Which versions are there.
    pub const NEGOTIATE: Self = Self(0);
    /// Heartbeat.
    pub const HEARTBEAT: Self = Self(1);
    /// Key-value pairs.
    pub const KVP: Self = Self(2);
    /// Shutdown.
    pub const SHUTDOWN: Self = Self(3);
    /// Time synchronisation.
    pub const TIME_SYNC: Self = Self(4);
    /// Volume snapshots.
    pub const VSS: Self = Self(5);
    /// File copy.
    pub const FCOPY: Self = Self(7);
}

/// How a request went: a Windows `HRESULT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const OK: Self = Self(0);
    /// Failed.
    pub const FAIL: Self = Self(0x8000_4005);
    /// No more items, or no such key.
    pub const NO_MORE_ITEMS: Self = Self(0x8007_0103);
    /// Not supported.
    pub const NOT_SUPPORTED: Self = Self(0x8007_0032);
    /// A value that makes no sense.
    pub const INVALID_ARGUMENT: Self = Self(0x8007_0057);
    /// No such adapter.
    pub const GUID_NOT_FOUND: Self = Self(0x8004_1002);
    /// The file is there already.
    pub const ALREADY_EXISTS: Self = Self(0x8007_0050);
    /// No room is left.
    pub const DISK_FULL: Self = Self(0x8007_0070);

    /// Whether it is [`OK`](Self::OK).
    #[must_use]
    pub fn is_ok(self) -> bool {
        self == Self::OK
    }
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#010x}", self.0)
    }
}

const _: () = assert!(FRAME_BYTES == 28);
