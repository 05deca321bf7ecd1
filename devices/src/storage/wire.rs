//! vstor packets: a header of 12 bytes and a body, in-band, in completions or beside ranges of guest memory.
//!
//! Format: drivers/scsi/storvsc_drv.c of Linux 6.12, and storvsp_protocol of OpenVMM. A body is the largest of what it may
//! hold, a SCSI request: 36 bytes before 5.1, 52 since.

mod build;
mod parse;

pub use build::GuestPacket;
pub use parse::{Completion, HostPacket, WireError, parse};

use core::fmt;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the largest packet.
pub const MAX_PACKET_BYTES: usize = 64;
/// Bytes of the largest body.
pub const MAX_BODY_BYTES: usize = 52;
/// Bytes of a request's command, and of its sense data in an answer.
pub const COMMAND_BYTES: usize = 16;
/// Bytes of what stands in the place of the command.
pub const PAYLOAD_BYTES: usize = 20;

/// A version of the protocol: major in the upper byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u16);

impl Version {
    /// Windows 7.
    pub const V4_2: Self = Self(0x0402);
    /// Windows 8.
    pub const V5_1: Self = Self(0x0501);
    /// Windows 8.1.
    pub const V6_0: Self = Self(0x0600);
    /// Windows 10.
    pub const V6_2: Self = Self(0x0602);
    /// Those that are asked for, in this order.
    pub const ALL: &'static [Self] = &[Self::V6_2, Self::V6_0, Self::V5_1, Self::V4_2];

    /// Bytes of a SCSI request.
    #[must_use]
    pub const fn request_bytes(self) -> u8 {
        if self.0 < Self::V5_1.0 { 36 } else { 52 }
    }

    /// Bytes of a packet that the guest sends.
    #[must_use]
    pub const fn packet_bytes(self) -> usize {
        12 + self.request_bytes() as usize
    }

    /// Bytes of sense data that an answer has room for.
    #[must_use]
    pub const fn sense_bytes(self) -> u8 {
        if self.0 < Self::V5_1.0 { 18 } else { 20 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [major, minor] = self.0.to_be_bytes();
        write!(formatter, "{major}.{minor}")
    }
}

/// What a packet is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation(pub u32);

#[expect(missing_docs, reason = "the names are those of the protocol")]
impl Operation {
    pub const COMPLETE_IO: Self = Self(1);
    pub const REMOVE_DEVICE: Self = Self(2);
    pub const EXECUTE_SRB: Self = Self(3);
    pub const RESET_LUN: Self = Self(4);
    pub const RESET_ADAPTER: Self = Self(5);
    pub const RESET_BUS: Self = Self(6);
    pub const BEGIN_INITIALIZATION: Self = Self(7);
    pub const END_INITIALIZATION: Self = Self(8);
    pub const QUERY_PROTOCOL_VERSION: Self = Self(9);
    pub const QUERY_PROPERTIES: Self = Self(10);
    pub const ENUMERATE_BUS: Self = Self(11);
    pub const FIBRE_CHANNEL_DATA: Self = Self(12);
    pub const CREATE_SUB_CHANNELS: Self = Self(13);
    pub const EVENT_NOTIFICATION: Self = Self(14);
}

/// What became of a request in the host's adapter; two flags above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SrbStatus(pub u8);

#[expect(missing_docs, reason = "the names are those of the protocol")]
impl SrbStatus {
    pub const SUCCESS: u8 = 1;
    pub const ABORTED: u8 = 2;
    pub const ERROR: u8 = 4;
    pub const BUSY: u8 = 5;
    pub const INVALID_REQUEST: u8 = 6;
    pub const TIMEOUT: u8 = 9;
    pub const BUS_RESET: u8 = 0x0e;
    pub const DATA_OVERRUN: u8 = 0x12;
    pub const INVALID_LUN: u8 = 0x20;

    /// The number without its flags.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.0 & 0x3f
    }

    /// Whether the answer has sense data.
    #[must_use]
    pub const fn has_sense(self) -> bool {
        self.0 & 0x80 != 0
    }
}

/// Which way data go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// To the device.
    Out,
    /// From the device.
    In,
    /// There are none.
    None,
}

macro_rules! wire {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

wire!(/// Opens each packet.
Header, 12 {
    /// [`Operation`].
    operation: U32,
    /// Bit 0: the guest wants a completion.
    flags: U32,
    /// In a completion: an NTSTATUS.
    status: U32,
});
wire!(/// A SCSI command, or what became of it. Before 5.1 it ends behind the payload.
Request, 52 {
    /// Bytes of this.
    length: U16,
    /// [`SrbStatus`].
    srb_status: u8,
    /// The device's own status.
    scsi_status: u8,
    /// Of the guest's making.
    port: u8,
    /// Which bus.
    path: u8,
    /// Which device on it.
    target: u8,
    /// Which unit of it.
    lun: u8,
    /// Bytes of the command.
    command_bytes: u8,
    /// Room for sense data; in an answer, how much there is.
    sense_bytes: u8,
    /// 0 out, 1 in, 2 neither.
    data_in: u8,
    /// 0.
    properties: u8,
    /// Bytes of data; in an answer, those that were moved.
    transfer_bytes: U32,
    /// The command; in an answer, the sense data.
    payload: [u8; PAYLOAD_BYTES],
    /// 0.
    reserved: U16,
    /// 0.
    queue_tag: u8,
    /// How it may be queued: [`SIMPLE_TAG`].
    queue_action: u8,
    /// [`flag`].
    srb_flags: U32,
    /// What the host may take, in seconds.
    timeout_seconds: U32,
    /// 0.
    sort_key: U32,
});
wire!(/// What the controller is like.
Properties, 24 {
    /// 0.
    reserved: U32,
    /// Subchannels that may be asked for.
    subchannels: U16,
    /// 0.
    reserved_too: U16,
    /// Bit 0: there may be subchannels.
    flags: U32,
    /// The most that one request may move.
    max_transfer_bytes: U32,
    /// 0.
    reserved_more: U64,
});
wire!(/// A version, asked for.
VersionBody, 4 {
    /// [`Version`].
    version: U16,
    /// 0.
    revision: U16,
});

/// Commands may be carried out in any order.
pub const SIMPLE_TAG: u8 = 0x20;

/// Flags of a SCSI request.
pub mod flag {
    /// The queue action counts.
    pub const QUEUE_ACTION: u32 = 0x2;
    /// No synchronous transfers.
    pub const NO_SYNCHRONOUS_TRANSFER: u32 = 0x8;
    /// Data come.
    pub const DATA_IN: u32 = 0x40;
    /// Data go.
    pub const DATA_OUT: u32 = 0x80;
}

const _: () = assert!(size_of::<Header>() + MAX_BODY_BYTES == MAX_PACKET_BYTES);
const _: () = assert!(Version::V6_2.packet_bytes() == MAX_PACKET_BYTES);
const _: () = assert!(Version::V4_2.packet_bytes() == 48);

#[cfg(test)]
mod tests;
