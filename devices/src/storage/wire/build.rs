//! What a guest says, as bytes.

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32};

use super::{
    Direction, Header, MAX_PACKET_BYTES, Operation, PAYLOAD_BYTES, Request, SIMPLE_TAG, Version, VersionBody, flag,
};
use crate::storage::Address;
use crate::storage::scsi::Command;

/// A packet of the guest's. Each wants a completion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestPacket {
    /// The first word.
    Begin,
    /// May we speak this version?
    QueryVersion(Version),
    /// What is the controller like?
    QueryProperties,
    /// The last word of the beginning.
    End,
    /// So many subchannels, please.
    CreateSubchannels(u16),
    /// A SCSI command.
    Execute {
        /// To whom.
        to: Address,
        /// The command.
        command: Command,
        /// Bytes of data, as the ranges have them.
        transfer_bytes: u32,
        /// What the host may take, in seconds.
        timeout_seconds: u32,
    },
    /// Everything under way at this unit is to end.
    ResetLun(Address),
    /// Everything under way on this bus is to end.
    ResetBus(u8),
}

impl GuestPacket {
    /// What it is for.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Begin => Operation::BEGIN_INITIALIZATION,
            Self::QueryVersion(_) => Operation::QUERY_PROTOCOL_VERSION,
            Self::QueryProperties => Operation::QUERY_PROPERTIES,
            Self::End => Operation::END_INITIALIZATION,
            Self::CreateSubchannels(_) => Operation::CREATE_SUB_CHANNELS,
            Self::Execute { .. } => Operation::EXECUTE_SRB,
            Self::ResetLun(_) => Operation::RESET_LUN,
            Self::ResetBus(_) => Operation::RESET_BUS,
        }
    }

    /// Its bytes, of which the first [`Version::packet_bytes`] are sent: of the version that was agreed on, before that
    /// of the oldest one.
    #[must_use]
    pub fn to_bytes(&self, version: Version) -> [u8; MAX_PACKET_BYTES] {
        let header = Header { operation: U32::new(self.operation().0), flags: U32::new(1), status: U32::ZERO };
        let mut bytes = [0; MAX_PACKET_BYTES];
        let body = match self {
            Self::Begin | Self::QueryProperties | Self::End => Vec::new(),
            Self::QueryVersion(version) => {
                VersionBody { version: U16::new(version.0), revision: U16::ZERO }.as_bytes().to_vec()
            }
            Self::CreateSubchannels(count) => U16::new(*count).as_bytes().to_vec(),
            Self::Execute { to, command, transfer_bytes, timeout_seconds } => {
                execute(version, *to, command, *transfer_bytes, *timeout_seconds).as_bytes().to_vec()
            }
            Self::ResetLun(at) => request(version, *at).as_bytes().to_vec(),
            Self::ResetBus(path) => request(version, Address { path: *path, target: 0, lun: 0 }).as_bytes().to_vec(),
        };
        let said = header.as_bytes().iter().chain(&body);
        bytes.iter_mut().zip(said).for_each(|(to, from)| *to = *from);
        bytes
    }
}

fn request(version: Version, to: Address) -> Request {
    Request {
        length: U16::new(version.request_bytes().into()),
        path: to.path,
        target: to.target,
        lun: to.lun,
        ..Request::default()
    }
}

fn execute(version: Version, to: Address, command: &Command, transfer_bytes: u32, timeout_seconds: u32) -> Request {
    let (data_in, direction) = match command.direction() {
        Direction::Out => (0, flag::DATA_OUT),
        Direction::In => (1, flag::DATA_IN),
        Direction::None => (2, 0),
    };
    let mut payload = [0; PAYLOAD_BYTES];
    payload.iter_mut().zip(command.bytes()).for_each(|(to, from)| *to = *from);
    Request {
        command_bytes: u8::try_from(command.bytes().len()).unwrap_or(0),
        sense_bytes: version.sense_bytes(),
        data_in,
        transfer_bytes: U32::new(transfer_bytes),
        payload,
        queue_action: SIMPLE_TAG,
        srb_flags: U32::new(direction | flag::QUEUE_ACTION | flag::NO_SYNCHRONOUS_TRANSFER),
        timeout_seconds: U32::new(timeout_seconds),
        ..request(version, to)
    }
}
