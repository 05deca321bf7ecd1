//! Bytes from the host to a message that is valid, or to a named error. The bytes are already a private copy.

use super::{
    Complete, Header, Indicate, InitializeComplete, KeepAlive, MessageType, PacketBody, QueryComplete, ResetComplete,
    Status,
};
use crate::net::wire::info::ReceiveInfo;
use crate::net::wire::{WireError, part, prefix};

/// Everything that a host may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostMessage<'a> {
    /// A frame.
    Packet(Packet<'a>),
    /// The answer to the begin.
    InitializeComplete(InitializeAnswer),
    /// The answer to a question.
    QueryComplete {
        /// To which.
        request: u32,
        /// How it went.
        status: Status,
        /// What was asked for.
        value: &'a [u8],
    },
    /// Something was set.
    SetComplete {
        /// Which request.
        request: u32,
        /// How it went.
        status: Status,
    },
    /// It began anew.
    ResetComplete {
        /// How it went.
        status: Status,
        /// Filters have to be set again.
        addressing_reset: bool,
    },
    /// Something changed.
    Indicate {
        /// What.
        status: Status,
        /// More about it.
        value: &'a [u8],
    },
    /// The host asks whether the guest is there.
    KeepAlive {
        /// Names the question.
        request: u32,
    },
    /// The host is there.
    KeepAliveComplete {
        /// Names the question.
        request: u32,
        /// How it went.
        status: Status,
    },
}

/// A frame from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    /// From the destination's address on.
    pub frame: &'a [u8],
    /// What goes with it.
    pub info: ReceiveInfo,
}

/// What the host says at the begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitializeAnswer {
    /// Which request this answers.
    pub request: u32,
    /// How it went.
    pub status: Status,
    /// How many messages one packet may have.
    pub max_packets: u32,
    /// And how many bytes they.
    pub max_transfer_bytes: u32,
    /// log2 of what messages in one packet are aligned to.
    pub alignment: u32,
}

/// Reads one message from `bytes`, which may go on behind it.
///
/// # Errors
/// [`WireError`], when the bytes are too few, contradict each other, or are not for a guest.
pub fn parse(bytes: &[u8]) -> Result<HostMessage<'_>, WireError> {
    let (header, _) = prefix::<Header>(bytes, "RNDIS message")?;
    let length = usize::try_from(header.length.get()).ok().filter(|length| *length >= size_of::<Header>());
    let body = length.and_then(|length| bytes.get(size_of::<Header>()..length));
    let Some(body) = body else {
        return Err(WireError::Value { what: "length of an RNDIS message", value: header.length.get().into() });
    };
    match MessageType(header.kind.get()) {
        MessageType::PACKET => packet(body),
        MessageType::INITIALIZE_COMPLETE => {
            let (message, _) = prefix::<InitializeComplete>(body, "answer to the begin of RNDIS")?;
            Ok(HostMessage::InitializeComplete(InitializeAnswer {
                request: message.request.get(),
                status: Status(message.status.get()),
                max_packets: message.max_packets.get(),
                max_transfer_bytes: message.max_transfer_bytes.get(),
                alignment: message.alignment.get(),
            }))
        }
        MessageType::QUERY_COMPLETE => {
            const WHAT: &str = "answer to a question";
            let (message, _) = prefix::<QueryComplete>(body, WHAT)?;
            let (request, status) = (message.request.get(), Status(message.status.get()));
            let place = (message.offset.get(), message.bytes.get());
            let value = part(body, size_of::<QueryComplete>(), place, WHAT);
            // Whoever refuses may leave anything in the rest.
            let value = if status == Status::SUCCESS { value? } else { value.unwrap_or_default() };
            Ok(HostMessage::QueryComplete { request, status, value })
        }
        MessageType::SET_COMPLETE => {
            let (message, _) = prefix::<Complete>(body, "answer to a setting")?;
            Ok(HostMessage::SetComplete { request: message.request.get(), status: Status(message.status.get()) })
        }
        MessageType::KEEP_ALIVE_COMPLETE => {
            let (message, _) = prefix::<Complete>(body, "sign of life")?;
            Ok(HostMessage::KeepAliveComplete { request: message.request.get(), status: Status(message.status.get()) })
        }
        MessageType::RESET_COMPLETE => {
            let (message, _) = prefix::<ResetComplete>(body, "answer to a reset")?;
            let addressing_reset = message.addressing_reset.get() != 0;
            Ok(HostMessage::ResetComplete { status: Status(message.status.get()), addressing_reset })
        }
        MessageType::INDICATE => {
            const WHAT: &str = "indication";
            let (message, _) = prefix::<Indicate>(body, WHAT)?;
            let place = (message.offset.get(), message.bytes.get());
            let value = part(body, size_of::<Indicate>(), place, WHAT)?;
            Ok(HostMessage::Indicate { status: Status(message.status.get()), value })
        }
        MessageType::KEEP_ALIVE => {
            let (message, _) = prefix::<KeepAlive>(body, "question for a sign of life")?;
            Ok(HostMessage::KeepAlive { request: message.request.get() })
        }
        MessageType::INITIALIZE | MessageType::HALT | MessageType::QUERY | MessageType::SET | MessageType::RESET => {
            Err(WireError::Direction(header.kind.get()))
        }
        MessageType(other) => Err(WireError::Unknown(other)),
    }
}

/// Reads what follows the header of a frame.
fn packet(body: &[u8]) -> Result<HostMessage<'_>, WireError> {
    const FIXED: usize = size_of::<PacketBody>();
    let (message, _) = prefix::<PacketBody>(body, "frame")?;
    let frame = part(body, FIXED, (message.data_offset.get(), message.data_bytes.get()), "frame")?;
    let place = (message.info_offset.get(), message.info_bytes.get());
    let info = ReceiveInfo::parse(part(body, FIXED, place, "information with a frame")?)?;
    Ok(HostMessage::Packet(Packet { frame, info }))
}
