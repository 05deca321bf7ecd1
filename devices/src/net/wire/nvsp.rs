//! NVSP: how guest and host agree on versions, buffers and queues, and what carries RNDIS.
//!
//! Requests of the guest are packets that want a completion, which is the answer; frames of the host are packets with
//! ranges of the receive buffer, which the guest completes.

mod build;
mod parse;

pub use build::GuestMessage;
pub use parse::{HostMessage, parse};

use bitflags::bitflags;
use core::fmt;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of every message that a guest sends, whatever the version: what the longest of 6.1 needs.
pub const MESSAGE_BYTES: usize = 40;
/// Bytes of the longest message that a host sends: the indirection table behind a message.
pub const LONGEST_BYTES: usize = MESSAGE_BYTES + 4 * SEND_TABLE_ENTRIES;
/// Entries of the table by which the host tells which queue to send on.
pub const SEND_TABLE_ENTRIES: usize = 16;
/// Names the receive buffer in messages and in packets with ranges of it.
pub const RECEIVE_BUFFER_ID: u16 = 0xcafe;
/// Names the send buffer.
pub const SEND_BUFFER_ID: u16 = 0;
/// Says that a message is not in the send buffer.
pub const NO_SECTION: u32 = u32::MAX;
/// The most ranges in one packet of a host that does not coalesce segments.
pub const MOST_RANGES: usize = 375;

/// A version of the protocol: major in the high 16 bits, minor in the low ones (the oldest is numbered otherwise).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32);

impl Version {
    /// The first: Windows Server 2008.
    pub const V1: Self = Self(2);
    /// Windows Server 2008 R2: the NDIS configuration.
    pub const V2: Self = Self(0x3_0002);
    /// Windows Server 2012: virtual functions.
    pub const V4: Self = Self(0x4_0000);
    /// Windows Server 2012 R2: subchannels.
    pub const V5: Self = Self(0x5_0000);
    /// Windows Server 2016.
    pub const V6: Self = Self(0x6_0000);
    /// Windows Server 2019: longer messages.
    pub const V6_1: Self = Self(0x6_0001);
    /// What a guest asks for, best first.
    pub const OFFERED: [Self; 6] = [Self::V6_1, Self::V6, Self::V5, Self::V4, Self::V2, Self::V1];

    /// The most bytes of receive buffer that hosts of this version take.
    #[must_use]
    pub const fn most_receive_bytes(self) -> u32 {
        if self.0 <= Self::V2.0 { 15 << 20 } else { 31 << 20 }
    }

    /// The most bytes of send buffer.
    #[must_use]
    pub const fn most_send_bytes(self) -> u32 {
        15 << 20
    }

    /// The NDIS version that goes with it: major and minor.
    #[must_use]
    pub const fn ndis(self) -> (u32, u32) {
        if self.0 <= Self::V4.0 { (6, 1) } else { (6, 30) }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::V1 => write!(formatter, "1"),
            Self(version) => write!(formatter, "{}.{}", version >> 16, version & 0xffff),
        }
    }
}

/// What a message is; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub u32);

impl MessageType {
    /// Guest: may we speak this version?
    pub const INIT: Self = Self(1);
    /// Host: yes or no.
    pub const INIT_COMPLETE: Self = Self(2);
    /// Guest: NDIS version. Not answered.
    pub const NDIS_VERSION: Self = Self(100);
    /// Guest: here is the receive buffer.
    pub const RECEIVE_BUFFER: Self = Self(101);
    /// Host: and these are its sections.
    pub const RECEIVE_BUFFER_COMPLETE: Self = Self(102);
    /// Guest: forget the receive buffer. Not answered.
    pub const REVOKE_RECEIVE_BUFFER: Self = Self(103);
    /// Guest: here is the send buffer.
    pub const SEND_BUFFER: Self = Self(104);
    /// Host: and so long are its sections.
    pub const SEND_BUFFER_COMPLETE: Self = Self(105);
    /// Guest: forget the send buffer. Not answered.
    pub const REVOKE_SEND_BUFFER: Self = Self(106);
    /// Either: RNDIS messages, in a buffer.
    pub const RNDIS: Self = Self(107);
    /// Either: they are taken.
    pub const RNDIS_COMPLETE: Self = Self(108);
    /// Guest, from version 2: MTU and capabilities. Not answered.
    pub const NDIS_CONFIG: Self = Self(125);
    /// Host, from version 4: a virtual function is there, or no longer.
    pub const VF_ASSOCIATION: Self = Self(128);
    /// Guest, from version 4: which way frames go.
    pub const SWITCH_DATA_PATH: Self = Self(129);
    /// Either, from version 5: more channels, and how many there are.
    pub const SUBCHANNEL: Self = Self(133);
    /// Host, from version 5: which queue to send on.
    pub const INDIRECTION_TABLE: Self = Self(134);
}

/// How a request went; the host may say any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// Not answered yet.
    pub const NONE: Self = Self(0);
    /// Done.
    pub const SUCCESS: Self = Self(1);
    /// Not done.
    pub const FAILURE: Self = Self(2);
    /// What came is not RNDIS.
    pub const INVALID_RNDIS: Self = Self(5);
    /// Not now.
    pub const BUSY: Self = Self(6);
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

bitflags! {
    /// What a guest can do, in the NDIS configuration.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// Queues of its own in the switch.
        const VMQ = 1;
        /// Connections carried by the host.
        const CHIMNEY = 1 << 1;
        /// Virtual functions.
        const SRIOV = 1 << 2;
        /// VLAN tags beside the frame.
        const IEEE_8021Q = 1 << 3;
        /// Correlation ids.
        const CORRELATION_ID = 1 << 4;
        /// Link speeds are told.
        const TEAMING = 1 << 5;
        /// Virtual subnets.
        const VIRTUAL_SUBNET_ID = 1 << 6;
        /// Coalesced segments in several ranges.
        const RSC = 1 << 7;
    }
}

/// What kind of RNDIS messages a packet carries; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ChannelType(pub u32);

impl ChannelType {
    /// Frames.
    pub const DATA: Self = Self(0);
    /// Everything else.
    pub const CONTROL: Self = Self(1);
}

wire!(/// [`MessageType::INIT`].
Init, 12 {
    /// [`MessageType`].
    kind: U32,
    /// The lowest version that is meant.
    lowest: U32,
    /// The highest: the same.
    highest: U32,
});
wire!(/// [`MessageType::INIT_COMPLETE`].
InitComplete, 16 {
    /// [`MessageType`].
    kind: U32,
    /// Not used any more.
    version: U32,
    /// Longest chain of buffers.
    chain: U32,
    /// [`Status`].
    status: U32,
});
wire!(/// [`MessageType::NDIS_VERSION`].
NdisVersion, 12 {
    /// [`MessageType`].
    kind: U32,
    /// Before the dot.
    major: U32,
    /// Behind it.
    minor: U32,
});
wire!(/// [`MessageType::NDIS_CONFIG`].
NdisConfig, 20 {
    /// [`MessageType`].
    kind: U32,
    /// Bytes of the longest frame, its header included.
    mtu: U32,
    /// 0.
    reserved: U32,
    /// [`Capabilities`].
    capabilities: U64,
});
wire!(/// [`MessageType::RECEIVE_BUFFER`] and [`MessageType::SEND_BUFFER`].
Buffer, 12 {
    /// [`MessageType`].
    kind: U32,
    /// The memory.
    gpadl: U32,
    /// Its name from now on.
    id: U16,
    /// 0.
    reserved: U16,
});
wire!(/// [`MessageType::REVOKE_RECEIVE_BUFFER`] and [`MessageType::REVOKE_SEND_BUFFER`].
Revoke, 8 {
    /// [`MessageType`].
    kind: U32,
    /// Its name.
    id: U16,
    /// 0.
    reserved: U16,
});
wire!(/// [`MessageType::RECEIVE_BUFFER_COMPLETE`]; the sections follow.
ReceiveBufferComplete, 12 {
    /// [`MessageType`].
    kind: U32,
    /// [`Status`].
    status: U32,
    /// How many sections follow: one.
    sections: U32,
});
wire!(/// A part of the receive buffer, itself in parts of one size.
Section, 16 {
    /// Where it begins. Bytes.
    offset: U32,
    /// Bytes of each part.
    part_bytes: U32,
    /// How many parts.
    parts: U32,
    /// Where it ends. Bytes.
    end: U32,
});
wire!(/// [`MessageType::SEND_BUFFER_COMPLETE`].
SendBufferComplete, 12 {
    /// [`MessageType`].
    kind: U32,
    /// [`Status`].
    status: U32,
    /// Bytes of each section.
    section_bytes: U32,
});
wire!(/// [`MessageType::RNDIS`].
Rndis, 16 {
    /// [`MessageType`].
    kind: U32,
    /// [`ChannelType`].
    channel: U32,
    /// Section of the send buffer, or [`NO_SECTION`].
    section: U32,
    /// Bytes in it.
    bytes: U32,
});
wire!(/// [`MessageType::RNDIS_COMPLETE`].
RndisComplete, 8 {
    /// [`MessageType`].
    kind: U32,
    /// [`Status`].
    status: U32,
});
wire!(/// [`MessageType::VF_ASSOCIATION`].
VfAssociation, 12 {
    /// [`MessageType`].
    kind: U32,
    /// 1: it is there.
    allocated: U32,
    /// Which.
    serial: U32,
});
wire!(/// [`MessageType::SUBCHANNEL`], from the guest.
SubchannelRequest, 12 {
    /// [`MessageType`].
    kind: U32,
    /// 1: make.
    operation: U32,
    /// How many.
    count: U32,
});
wire!(/// [`MessageType::SUBCHANNEL`], from the host.
SubchannelComplete, 12 {
    /// [`MessageType`].
    kind: U32,
    /// [`Status`].
    status: U32,
    /// How many will be offered.
    count: U32,
});
wire!(/// [`MessageType::INDIRECTION_TABLE`]; the table follows somewhere.
IndirectionTable, 12 {
    /// [`MessageType`].
    kind: U32,
    /// Entries.
    count: U32,
    /// Where the table is, from the message's begin. Bytes.
    offset: U32,
});
