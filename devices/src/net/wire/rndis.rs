//! RNDIS: what guest and host say to each other about frames, in the buffers that they share.
//!
//! A message is a header {type, length} and a body; offsets in a body count from its begin.

mod build;
mod parse;

pub use build::{GuestMessage, PACKET_HEADER_MOST_BYTES, packet_header};
pub use parse::{HostMessage, InitializeAnswer, Packet, parse};

use core::fmt;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most bytes that a message of the host takes, which the guest chooses: a frame of 64 KiB and what goes with it.
pub const LONGEST_BYTES: usize = 0x1_1000;
/// What the guest says of it; the value that every guest gives.
pub const MAX_TRANSFER_BYTES: u32 = 0x4000;
/// The most bytes of control messages either way.
pub const CONTROL_MOST_BYTES: usize = 4096;

/// What a message is; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageType(pub u32);

impl MessageType {
    /// Either: a frame.
    pub const PACKET: Self = Self(1);
    /// Guest: begin.
    pub const INITIALIZE: Self = Self(2);
    /// Guest: end. Not answered.
    pub const HALT: Self = Self(3);
    /// Guest: what is this?
    pub const QUERY: Self = Self(4);
    /// Guest: this be so.
    pub const SET: Self = Self(5);
    /// Guest: begin anew.
    pub const RESET: Self = Self(6);
    /// Host: something changed.
    pub const INDICATE: Self = Self(7);
    /// Either: are you there?
    pub const KEEP_ALIVE: Self = Self(8);
    /// What a type's answer has in addition.
    pub const COMPLETE: u32 = 0x8000_0000;
    /// Host: answer.
    pub const INITIALIZE_COMPLETE: Self = Self(Self::COMPLETE | 2);
    /// Host: answer.
    pub const QUERY_COMPLETE: Self = Self(Self::COMPLETE | 4);
    /// Host: answer.
    pub const SET_COMPLETE: Self = Self(Self::COMPLETE | 5);
    /// Host: answer.
    pub const RESET_COMPLETE: Self = Self(Self::COMPLETE | 6);
    /// Either: yes.
    pub const KEEP_ALIVE_COMPLETE: Self = Self(Self::COMPLETE | 8);
}

/// How a request went, or what changed; the host may say any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Status(pub u32);

impl Status {
    /// Done.
    pub const SUCCESS: Self = Self(0);
    /// The link is there.
    pub const MEDIA_CONNECT: Self = Self(0x4001_000b);
    /// The link is gone.
    pub const MEDIA_DISCONNECT: Self = Self(0x4001_000c);
    /// The link has another speed.
    pub const LINK_SPEED_CHANGE: Self = Self(0x4001_0013);
    /// Another network is at the other end: addresses are to be asked for again.
    pub const NETWORK_CHANGE: Self = Self(0x4001_0018);
    /// Not done.
    pub const FAILURE: Self = Self(0xc000_0001);
    /// Not known.
    pub const NOT_SUPPORTED: Self = Self(0xc000_00bb);
}

impl fmt::Display for Status {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#010x}", self.0)
    }
}

wire!(/// Opens each message.
Header, 8 {
    /// [`MessageType`].
    kind: U32,
    /// Bytes of the whole message, this header included.
    length: U32,
});
wire!(/// [`MessageType::PACKET`]; information and frame follow. Out-of-band data is something else, and nobody's.
PacketBody, 36 {
    /// Where the frame is.
    data_offset: U32,
    /// Bytes of it.
    data_bytes: U32,
    /// 0.
    out_of_band_offset: U32,
    /// 0.
    out_of_band_bytes: U32,
    /// 0.
    out_of_band_count: U32,
    /// Where the information is.
    info_offset: U32,
    /// Bytes of it.
    info_bytes: U32,
    /// 0.
    connection: U32,
    /// 0.
    reserved: U32,
});
wire!(/// [`MessageType::INITIALIZE`].
Initialize, 16 {
    /// Names the request.
    request: U32,
    /// Version: 1.
    major: U32,
    /// 0.
    minor: U32,
    /// The longest message that is taken. Bytes.
    max_transfer_bytes: U32,
});
wire!(/// [`MessageType::INITIALIZE_COMPLETE`].
InitializeComplete, 44 {
    /// Names the request.
    request: U32,
    /// [`Status`].
    status: U32,
    /// Version.
    major: U32,
    /// Version.
    minor: U32,
    /// 1: connectionless.
    device_flags: U32,
    /// 0: Ethernet.
    medium: U32,
    /// How many messages one packet may have.
    max_packets: U32,
    /// And how many bytes they.
    max_transfer_bytes: U32,
    /// log2 of what messages in one packet are aligned to.
    alignment: U32,
    /// Not used.
    family_offset: U32,
    /// Not used.
    family_bytes: U32,
});
wire!(/// [`MessageType::QUERY`] and [`MessageType::SET`]; the value follows.
Request, 20 {
    /// Names the request.
    request: U32,
    /// [`Oid`](super::oid::Oid).
    oid: U32,
    /// Bytes of the value.
    bytes: U32,
    /// Where it is.
    offset: U32,
    /// 0.
    connection: U32,
});
wire!(/// [`MessageType::QUERY_COMPLETE`]; the value follows.
QueryComplete, 16 {
    /// Names the request.
    request: U32,
    /// [`Status`].
    status: U32,
    /// Bytes of the value.
    bytes: U32,
    /// Where it is.
    offset: U32,
});
wire!(/// [`MessageType::SET_COMPLETE`] and [`MessageType::KEEP_ALIVE_COMPLETE`].
Complete, 8 {
    /// Names the request.
    request: U32,
    /// [`Status`].
    status: U32,
});
wire!(/// [`MessageType::RESET_COMPLETE`].
ResetComplete, 8 {
    /// [`Status`].
    status: U32,
    /// Filters have to be set again.
    addressing_reset: U32,
});
wire!(/// [`MessageType::INDICATE`]; the value follows.
Indicate, 12 {
    /// [`Status`].
    status: U32,
    /// Bytes of the value.
    bytes: U32,
    /// Where it is.
    offset: U32,
});
wire!(/// [`MessageType::KEEP_ALIVE`] and [`MessageType::HALT`].
KeepAlive, 4 {
    /// Names the request.
    request: U32,
});
