//! Bytes from the host to a message that is valid, or to a named error. The bytes are already a private copy.

use super::{
    ChannelType, IndirectionTable, InitComplete, MESSAGE_BYTES, MessageType, ReceiveBufferComplete, Rndis,
    RndisComplete, SEND_TABLE_ENTRIES, Section, SendBufferComplete, Status, SubchannelComplete, Version, VfAssociation,
};
use crate::net::wire::{WireError, prefix};
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

/// Everything that a host may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostMessage {
    /// Whether that version is spoken from now on.
    InitComplete(Status),
    /// How the receive buffer is divided: its first section, if there is success.
    ReceiveBufferComplete {
        /// How it went.
        status: Status,
        /// How many sections.
        sections: u32,
        /// The first.
        first: Section,
    },
    /// How the send buffer is divided.
    SendBufferComplete {
        /// How it went.
        status: Status,
        /// Bytes of each section.
        section_bytes: u32,
    },
    /// RNDIS messages; where they are is with the packet.
    Rndis(ChannelType),
    /// RNDIS messages were taken.
    RndisComplete(Status),
    /// A virtual function came or went.
    VfAssociation {
        /// It is there.
        allocated: bool,
        /// Which.
        serial: u32,
    },
    /// How many more channels will be offered.
    SubchannelComplete {
        /// How it went.
        status: Status,
        /// How many.
        count: u32,
    },
    /// Which queue to send on.
    IndirectionTable([u32; SEND_TABLE_ENTRIES]),
}

/// Reads a message from `bytes`, one packet's payload, of a host that speaks `version`.
///
/// # Errors
/// [`WireError`], when the bytes are too few, contradict each other, or are not for a guest.
pub fn parse(bytes: &[u8], version: Version) -> Result<HostMessage, WireError> {
    let (kind, _) = prefix::<U32>(bytes, "message")?;
    match MessageType(kind.get()) {
        MessageType::INIT_COMPLETE => {
            let (message, _) = prefix::<InitComplete>(bytes, "answer to a version")?;
            Ok(HostMessage::InitComplete(Status(message.status.get())))
        }
        MessageType::RECEIVE_BUFFER_COMPLETE => {
            let (message, rest) = prefix::<ReceiveBufferComplete>(bytes, "answer to a receive buffer")?;
            let (status, sections) = (Status(message.status.get()), message.sections.get());
            // A refusal needs no section.
            let first = Section::read_from_prefix(rest).map(|(section, _)| section);
            let first = match first {
                Ok(first) => first,
                Err(_) if status != Status::SUCCESS => {
                    Section { offset: U32::ZERO, part_bytes: U32::ZERO, parts: U32::ZERO, end: U32::ZERO }
                }
                Err(_) => prefix::<Section>(rest, "section of the receive buffer")?.0,
            };
            Ok(HostMessage::ReceiveBufferComplete { status, sections, first })
        }
        MessageType::SEND_BUFFER_COMPLETE => {
            let (message, _) = prefix::<SendBufferComplete>(bytes, "answer to a send buffer")?;
            let section_bytes = message.section_bytes.get();
            Ok(HostMessage::SendBufferComplete { status: Status(message.status.get()), section_bytes })
        }
        MessageType::RNDIS => {
            let (message, _) = prefix::<Rndis>(bytes, "packet of frames")?;
            Ok(HostMessage::Rndis(ChannelType(message.channel.get())))
        }
        MessageType::RNDIS_COMPLETE => {
            let (message, _) = prefix::<RndisComplete>(bytes, "completion")?;
            Ok(HostMessage::RndisComplete(Status(message.status.get())))
        }
        MessageType::VF_ASSOCIATION => {
            let (message, _) = prefix::<VfAssociation>(bytes, "word on virtual functions")?;
            let (allocated, serial) = (message.allocated.get() != 0, message.serial.get());
            Ok(HostMessage::VfAssociation { allocated, serial })
        }
        MessageType::SUBCHANNEL => {
            let (message, _) = prefix::<SubchannelComplete>(bytes, "answer about subchannels")?;
            let (status, count) = (Status(message.status.get()), message.count.get());
            Ok(HostMessage::SubchannelComplete { status, count })
        }
        MessageType::INDIRECTION_TABLE => table(bytes, version),
        MessageType::INIT
        | MessageType::NDIS_VERSION
        | MessageType::RECEIVE_BUFFER
        | MessageType::REVOKE_RECEIVE_BUFFER
        | MessageType::SEND_BUFFER
        | MessageType::REVOKE_SEND_BUFFER
        | MessageType::NDIS_CONFIG
        | MessageType::SWITCH_DATA_PATH => Err(WireError::Direction(kind.get())),
        MessageType(other) => Err(WireError::Unknown(other)),
    }
}

/// Reads the table that says which queue to send on. Up to 6.0 there are hosts that name a wrong place for it; it is
/// behind a whole message, as long as one of 6.1.
fn table(bytes: &[u8], version: Version) -> Result<HostMessage, WireError> {
    const WHAT: &str = "table of queues";
    const TABLE_BYTES: usize = 4 * SEND_TABLE_ENTRIES;
    let (message, _) = prefix::<IndirectionTable>(bytes, WHAT)?;
    let count = message.count.get();
    if usize::try_from(count) != Ok(SEND_TABLE_ENTRIES) {
        return Err(WireError::Value { what: "length of the table of queues", value: count.into() });
    }
    let mut offset = message.offset.get();
    if version <= Version::V6 && bytes.len() >= MESSAGE_BYTES + TABLE_BYTES {
        offset = u32::try_from(MESSAGE_BYTES).unwrap_or(offset);
    }
    let place = usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..));
    let place = place.ok_or(WireError::Value { what: "offset of the table of queues", value: offset.into() })?;
    let (table, _) = prefix::<[U32; SEND_TABLE_ENTRIES]>(place, WHAT)?;
    Ok(HostMessage::IndirectionTable(table.map(U32::get)))
}
