//! Bytes from the host to a message that is valid, or to a named error.
//!
//! The bytes are already a private copy; still every length in them is checked before it is used. The sizes
//! inside a message must fit the packet, which VMBus pads to 8 bytes.

use super::{
    BalloonRequest, CapabilitiesResponse, Header, HotAddRequest, InfoHeader, InfoMessage, InfoType, MAX_MESSAGE_BYTES,
    MessageType, PageRange, UnballoonRequest, VersionResponse, WireRange,
};
use zerocopy::FromBytes;
use zerocopy::little_endian::U64;

/// A message from the host with the number that the host gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    /// The host's transaction number; hosts don't agree on what it means, so nothing depends on it.
    pub transaction: u32,
    /// What the host said.
    pub message: HostMessage,
}

/// Everything that a host may say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostMessage {
    /// The answer to a version request.
    VersionResponse {
        /// Whether that version is spoken from now on.
        accepted: bool,
    },
    /// The answer to the capabilities.
    CapabilitiesResponse {
        /// Whether the host goes on.
        accepted: bool,
        /// The host doesn't want status reports (version 2.0; zero before).
        suppress_status: bool,
    },
    /// Take pages out of use.
    BalloonRequest {
        /// How many.
        pages: u32,
    },
    /// Pages come back.
    UnballoonRequest {
        /// More requests of this transaction follow, and only the last one is answered.
        more: bool,
        /// Which.
        ranges: Vec<PageRange>,
    },
    /// New memory is there.
    HotAddRequest {
        /// The pages that are backed.
        range: PageRange,
        /// The region around them, if the host named one.
        region: Option<PageRange>,
    },
    /// Something worth knowing.
    Info(Info),
}

/// The body of an info message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Info {
    /// The most pages that this guest will ever have.
    MaxPageCount(u64),
    /// A kind that isn't known.
    Other(InfoType),
}

/// Why bytes are not a message from a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Shorter than its kind needs.
    #[error("message of type {kind} has {have} bytes and needs {need}")]
    TooShort {
        /// The message's type; 0 if not even that was there.
        kind: u16,
        /// Bytes that there were.
        have: usize,
        /// Bytes that there should be at least.
        need: usize,
    },
    /// Longer than the protocol's limit.
    #[error("message has {have} bytes; the protocol's limit is {MAX_MESSAGE_BYTES}")]
    TooLong {
        /// Bytes that there were.
        have: usize,
    },
    /// The header's size is smaller than the header or larger than the packet.
    #[error("message of type {kind} says that it has {size} bytes, in a packet of {have}")]
    Size {
        /// The message's type.
        kind: u16,
        /// What the header says.
        size: u16,
        /// Bytes in the packet.
        have: usize,
    },
    /// More ranges announced than there are bytes for.
    #[error("unballoon request names {count} ranges and has bytes for {room}")]
    RangeCount {
        /// Ranges announced.
        count: u32,
        /// Ranges that there is room for.
        room: usize,
    },
    /// A type that only a guest sends.
    #[error("message type {0} goes from guest to host, not back")]
    Direction(u16),
    /// A type that this protocol doesn't know.
    #[error("unknown message type {0}")]
    Unknown(u16),
}

/// Reads a message from `bytes`, one packet's payload.
///
/// # Errors
/// [`WireError`], when the bytes are too few or too many, contradict each other, or are not for a guest.
pub fn parse(bytes: &[u8]) -> Result<Incoming, WireError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLong { have: bytes.len() });
    }
    let (header, _) = prefix::<Header>(bytes, 0)?;
    let kind = header.kind.get();
    let size = header.size.get();
    let message = match bytes.get(..usize::from(size)) {
        Some(message) if message.len() >= size_of::<Header>() => message,
        _ => return Err(WireError::Size { kind, size, have: bytes.len() }),
    };
    Ok(Incoming { transaction: header.transaction.get(), message: body(MessageType(kind), message)? })
}

/// Reads what follows the header; `message` is cut to the size that the header names.
fn body(kind: MessageType, message: &[u8]) -> Result<HostMessage, WireError> {
    match kind {
        MessageType::VERSION_RESPONSE => {
            let (response, _) = prefix::<VersionResponse>(message, kind.0)?;
            Ok(HostMessage::VersionResponse { accepted: response.flags.get() & 1 != 0 })
        }
        MessageType::CAPABILITIES_RESPONSE => {
            let (response, _) = prefix::<CapabilitiesResponse>(message, kind.0)?;
            let flags = response.flags.get();
            Ok(HostMessage::CapabilitiesResponse { accepted: flags & 1 != 0, suppress_status: flags & 4 != 0 })
        }
        MessageType::BALLOON_REQUEST => {
            let (request, _) = prefix::<BalloonRequest>(message, kind.0)?;
            Ok(HostMessage::BalloonRequest { pages: request.pages.get() })
        }
        MessageType::UNBALLOON_REQUEST => unballoon(message),
        MessageType::HOT_ADD_REQUEST => {
            let (request, rest) = prefix::<HotAddRequest>(message, kind.0)?;
            let region = WireRange::read_from_prefix(rest).ok().map(|(region, _)| region.into());
            Ok(HostMessage::HotAddRequest { range: request.range.into(), region })
        }
        MessageType::INFO => info(message),
        MessageType::VERSION_REQUEST
        | MessageType::CAPABILITIES_REPORT
        | MessageType::STATUS_REPORT
        | MessageType::BALLOON_RESPONSE
        | MessageType::UNBALLOON_RESPONSE
        | MessageType::HOT_ADD_RESPONSE => Err(WireError::Direction(kind.0)),
        MessageType(other) => Err(WireError::Unknown(other)),
    }
}

/// Reads an unballoon request and its ranges.
fn unballoon(message: &[u8]) -> Result<HostMessage, WireError> {
    let (request, rest) = prefix::<UnballoonRequest>(message, MessageType::UNBALLOON_REQUEST.0)?;
    let count = request.range_count.get();
    let room = rest.len() / size_of::<WireRange>();
    let wanted = usize::try_from(count).unwrap_or(usize::MAX);
    if wanted > room {
        return Err(WireError::RangeCount { count, room });
    }
    let ranges = rest.chunks_exact(size_of::<WireRange>()).take(wanted);
    let ranges = ranges.filter_map(|bytes| WireRange::read_from_bytes(bytes).ok()).map(PageRange::from).collect();
    Ok(HostMessage::UnballoonRequest { more: request.flags.get() & 1 != 0, ranges })
}

/// Reads an info message; the lengths inside it must fit into it.
fn info(message: &[u8]) -> Result<HostMessage, WireError> {
    let kind = MessageType::INFO.0;
    let (outer, rest) = prefix::<InfoMessage>(message, kind)?;
    let announced = usize::try_from(outer.info_bytes.get()).unwrap_or(usize::MAX);
    let have = rest.len();
    let short = |need: usize| WireError::TooShort { kind, have: message.len(), need: message.len() - have + need };
    let rest = rest.get(..announced).ok_or_else(|| short(announced))?;
    let Ok((inner, data)) = InfoHeader::read_from_prefix(rest) else {
        return Err(short(size_of::<InfoHeader>()));
    };
    let info_type = InfoType(inner.kind.get());
    if info_type != InfoType::MAX_PAGE_COUNT || inner.data_bytes.get() != 8 {
        return Ok(HostMessage::Info(Info::Other(info_type)));
    }
    match U64::read_from_prefix(data) {
        Ok((pages, _)) => Ok(HostMessage::Info(Info::MaxPageCount(pages.get()))),
        Err(_) => Err(short(size_of::<InfoHeader>() + size_of::<U64>())),
    }
}

/// Copies a `T` from the front of `bytes`, and gives what is behind it.
fn prefix<T: FromBytes>(bytes: &[u8], kind: u16) -> Result<(T, &[u8]), WireError> {
    T::read_from_prefix(bytes).map_err(|_| WireError::TooShort { kind, have: bytes.len(), need: size_of::<T>() })
}
