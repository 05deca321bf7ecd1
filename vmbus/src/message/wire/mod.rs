//! Layouts of the messages, little-endian throughout, each without the 8-byte header that all of them share.
//!
//! Offsets and sizes: include/linux/hyperv.h for 1-17 and 21-24, the VMBus protocol crate of OpenVMM for the rest.
//! Every integer is unaligned, so that the compiler adds no padding and the asserted sizes are those on the wire.

mod connection;
mod gate;
mod life;
mod offer;

pub(super) use connection::{
    ConnectionStateBody, InitiateContactBody, ModifyConnectionBody, ServiceBody, ServiceResultBody, VersionResponseBody,
};
pub(super) use gate::{Speaker, check, kind};
pub(super) use life::{
    GpadlBodyHead, GpadlHeaderHead, GpadlResult, OpenBody, OpenReservedBody, OpenResultBody, OpenSignal, Relid,
    RelidGpadl, RelidStatus, RelidTarget, ReservedTarget, TorndownGpadl,
};
pub(super) use offer::OfferBody;

use uuid::Uuid;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned, little_endian as le};

use super::{MAX_MESSAGE_BYTES, Message, MessageError, Protocol};

/// What each message begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Header {
    kind: le::U32,
    padding: le::U32,
}

/// Bytes before the body.
pub(super) const HEADER_BYTES: usize = 8;

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// A GUID as it is on the wire: its first three fields are little-endian.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Guid([u8; 16]);

impl From<Uuid> for Guid {
    fn from(uuid: Uuid) -> Self {
        Self(uuid.to_bytes_le())
    }
}

impl From<Guid> for Uuid {
    fn from(guid: Guid) -> Self {
        Self::from_bytes_le(guid.0)
    }
}

/// A long form: what the short one has, and more behind it.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy)]
#[repr(C)]
pub(super) struct Long<T, M> {
    pub(super) base: T,
    pub(super) more: M,
}

/// A message whose type is known to be one that this speaker may say now.
pub(super) struct Body<'a> {
    pub(super) kind: u32,
    bytes: &'a [u8],
}

impl<'a> Body<'a> {
    /// Reads the header and checks the type.
    pub(super) fn open(bytes: &'a [u8], speaker: Speaker, protocol: Protocol) -> Result<Self, MessageError> {
        let Ok((header, body)) = Header::read_from_prefix(bytes) else {
            return Err(MessageError::TooShort { kind: 0, needed: HEADER_BYTES, had: bytes.len() });
        };
        let kind = header.kind.get();
        if bytes.len() > MAX_MESSAGE_BYTES {
            return Err(MessageError::TooLong { kind, had: bytes.len() });
        }
        check(kind, speaker, protocol)?;
        Ok(Self { kind, bytes: body })
    }

    /// Whether the body is long enough for a `T`.
    pub(super) const fn holds<T>(&self) -> bool {
        self.bytes.len() >= size_of::<T>()
    }

    /// The body, which may be longer than `T`.
    pub(super) fn read<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<T, MessageError> {
        self.split().map(|(body, _)| body)
    }

    /// The body, and what comes behind it.
    pub(super) fn split<T: FromBytes + KnownLayout + Immutable>(&self) -> Result<(T, &'a [u8]), MessageError> {
        T::read_from_prefix(self.bytes).map_err(|_| MessageError::TooShort {
            kind: self.kind,
            needed: HEADER_BYTES + size_of::<T>(),
            had: HEADER_BYTES + self.bytes.len(),
        })
    }
}

/// The whole 64-bit words in these bytes; a rest of up to seven bytes is padding.
pub(super) fn words(bytes: &[u8]) -> Vec<u64> {
    bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect()
}

/// A message of this type, with this body.
pub(super) fn put<T: IntoBytes + Immutable>(kind: u32, body: &T) -> Result<Message, MessageError> {
    put_words(kind, body, &[])
}

/// A message of this type, with this body and these words behind it.
pub(super) fn put_words<T: IntoBytes + Immutable>(kind: u32, body: &T, words: &[u64]) -> Result<Message, MessageError> {
    let had = HEADER_BYTES.saturating_add(size_of::<T>()).saturating_add(words.len().saturating_mul(8));
    let too_long = || MessageError::TooLong { kind, had };
    let mut message = Message::EMPTY;
    let header = Header { kind: kind.into(), padding: 0.into() };
    message.push(header.as_bytes()).ok_or_else(too_long)?;
    message.push(body.as_bytes()).ok_or_else(too_long)?;
    for word in words {
        message.push(&word.to_le_bytes()).ok_or_else(too_long)?;
    }
    Ok(message)
}
