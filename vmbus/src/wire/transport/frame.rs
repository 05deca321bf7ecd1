//! The frames, as bytes and as values. All numbers are little-endian.
//!
//! Each begins with `{kind: u32, argument: u32}`. Format: this project's own; [`TRANSPORT_VERSION`] counts its changes.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::message::{MAX_MESSAGE_BYTES, MessageError};

/// The first bytes of a hello's body, by which a host knows that it talks to a guest.
pub const MAGIC: u64 = u64::from_le_bytes(*b"VMBuswir");
/// Version of the frames. Both sides must have the same.
pub const TRANSPORT_VERSION: u32 = 1;
/// Bytes of a frame at most.
pub const MAX_FRAME_BYTES: usize = HEADER_BYTES + MAX_MESSAGE_BYTES;

const HEADER_BYTES: usize = size_of::<Header>();

const HELLO: u32 = 1;
const WELCOME: u32 = 2;
const REFUSED: u32 = 3;
const POST: u32 = 4;
const MESSAGE: u32 = 5;

/// What every frame begins with.
#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    kind: U32,
    /// Hello and welcome: version. Post: connection id. Message: virtual processor.
    argument: U32,
}

#[derive(Debug, Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct HelloBody {
    magic: U64,
    memory_bytes: U64,
    processors: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<Header>() == 8);
const _: () = assert!(size_of::<HelloBody>() == 24);

/// What a guest says of itself. Beside it travel descriptors: guest memory, an eventfd for each processor (host to
/// guest), and one from guest to host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// Version of the frames that the guest sends.
    pub version: u32,
    /// Virtual processors.
    pub processors: u32,
    /// Guest memory.
    pub memory_bytes: u64,
}

/// A frame of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromGuest<'a> {
    /// The first.
    Hello(Hello),
    /// A control message.
    Post {
        /// Where it was posted to.
        connection: u32,
        /// At most [`MAX_MESSAGE_BYTES`].
        bytes: &'a [u8],
    },
}

/// A frame of the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FromHost<'a> {
    /// Answer to a hello.
    Welcome,
    /// Answer to a hello: no, and why, in UTF-8. The host closes the socket behind it.
    Refused(&'a [u8]),
    /// A control message.
    Message {
        /// Which processor's message slot it goes to.
        target_vp: u32,
        /// At most [`MAX_MESSAGE_BYTES`].
        bytes: &'a [u8],
    },
}

/// Splits a frame behind its header.
fn split(frame: &[u8]) -> Result<(u32, u32, &[u8]), MessageError> {
    let Ok((header, body)) = Header::read_from_prefix(frame) else {
        return Err(MessageError::TooShort { kind: 0, needed: HEADER_BYTES, had: frame.len() });
    };
    let kind = header.kind.get();
    if frame.len() > MAX_FRAME_BYTES {
        return Err(MessageError::TooLong { kind, had: frame.len() });
    }
    Ok((kind, header.argument.get(), body))
}

impl<'a> FromGuest<'a> {
    /// Understands a guest's frame.
    ///
    /// # Errors
    /// Too short, too long, no frame of a guest's, or a hello of something that is no guest. (Another version is no
    /// error here: the host should say so in its refusal.)
    pub fn parse(frame: &'a [u8]) -> Result<Self, MessageError> {
        match split(frame)? {
            (HELLO, version, body) => {
                let Ok((body, _)) = HelloBody::read_from_prefix(body) else {
                    let needed = HEADER_BYTES + size_of::<HelloBody>();
                    return Err(MessageError::TooShort { kind: HELLO, needed, had: frame.len() });
                };
                if body.magic.get() != MAGIC {
                    return Err(MessageError::Field { kind: HELLO, what: "its magic", value: body.magic.get() });
                }
                let (processors, memory_bytes) = (body.processors.get(), body.memory_bytes.get());
                Ok(Self::Hello(Hello { version, processors, memory_bytes }))
            }
            (POST, connection, bytes) => Ok(Self::Post { connection, bytes }),
            (kind, ..) => Err(MessageError::Unknown { kind }),
        }
    }
}

impl<'a> FromHost<'a> {
    /// Understands a host's frame.
    ///
    /// # Errors
    /// Too short, too long, no frame of a host's.
    pub fn parse(frame: &'a [u8]) -> Result<Self, MessageError> {
        match split(frame)? {
            (WELCOME, TRANSPORT_VERSION, _) => Ok(Self::Welcome),
            (WELCOME, version, _) => {
                Err(MessageError::Field { kind: WELCOME, what: "its version", value: u64::from(version) })
            }
            (REFUSED, _, reason) => Ok(Self::Refused(reason)),
            (MESSAGE, target_vp, bytes) => Ok(Self::Message { target_vp, bytes }),
            (kind, ..) => Err(MessageError::Unknown { kind }),
        }
    }
}

/// The bytes of one frame, inline.
#[derive(Debug, Clone, Copy)]
pub(in crate::wire) struct Frame {
    bytes: [u8; MAX_FRAME_BYTES],
    length: usize,
}

impl Frame {
    /// `None` when the body is too long.
    fn new(kind: u32, argument: u32, body: &[u8]) -> Option<Self> {
        let length = HEADER_BYTES.checked_add(body.len())?;
        let mut frame = Self { bytes: [0; MAX_FRAME_BYTES], length };
        let header = Header { kind: kind.into(), argument: argument.into() };
        header.write_to_prefix(&mut frame.bytes).ok()?;
        frame.bytes.get_mut(HEADER_BYTES..length)?.copy_from_slice(body);
        Some(frame)
    }

    pub(in crate::wire) fn hello(hello: Hello) -> Option<Self> {
        let body = HelloBody {
            magic: MAGIC.into(),
            memory_bytes: hello.memory_bytes.into(),
            processors: hello.processors.into(),
            reserved: 0.into(),
        };
        Self::new(HELLO, hello.version, body.as_bytes())
    }

    pub(in crate::wire) fn welcome() -> Option<Self> {
        Self::new(WELCOME, TRANSPORT_VERSION, &[])
    }

    /// The reason is cut where it is too long.
    pub(in crate::wire) fn refused(reason: &str) -> Option<Self> {
        let reason = reason.as_bytes();
        Self::new(REFUSED, 0, reason.get(..reason.len().min(MAX_MESSAGE_BYTES))?)
    }

    pub(in crate::wire) fn post(connection: u32, message: &[u8]) -> Option<Self> {
        Self::new(POST, connection, message)
    }

    pub(in crate::wire) fn message(target_vp: u32, message: &[u8]) -> Option<Self> {
        Self::new(MESSAGE, target_vp, message)
    }
}

impl AsRef<[u8]> for Frame {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO_BYTES: [u8; 32] = [
        1, 0, 0, 0, 1, 0, 0, 0, b'V', b'M', b'B', b'u', b's', b'w', b'i', b'r', 0, 0, 0x10, 0, 0, 0, 0, 0, 3, 0, 0, 0,
        0, 0, 0, 0,
    ];

    #[test]
    fn frames_are_these_bytes() {
        let hello = Hello { version: TRANSPORT_VERSION, processors: 3, memory_bytes: 1 << 20 };
        assert_eq!(Frame::hello(hello).unwrap().as_ref(), HELLO_BYTES);
        assert_eq!(FromGuest::parse(&HELLO_BYTES), Ok(FromGuest::Hello(hello)));
        assert_eq!(Frame::welcome().unwrap().as_ref(), [2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(Frame::refused("no").unwrap().as_ref(), [3, 0, 0, 0, 0, 0, 0, 0, b'n', b'o']);
        assert_eq!(Frame::post(0x104, &[9]).unwrap().as_ref(), [4, 0, 0, 0, 4, 1, 0, 0, 9]);
        assert_eq!(Frame::message(2, &[9]).unwrap().as_ref(), [5, 0, 0, 0, 2, 0, 0, 0, 9]);
    }

    #[test]
    fn a_frame_holds_a_message_and_no_byte_more() {
        assert_eq!(Frame::post(1, &[0; MAX_MESSAGE_BYTES]).unwrap().as_ref().len(), MAX_FRAME_BYTES);
        assert!(Frame::post(1, &[0; MAX_MESSAGE_BYTES + 1]).is_none());
        assert_eq!(Frame::refused(&"x".repeat(1000)).unwrap().as_ref().len(), MAX_FRAME_BYTES, "a reason is cut");
    }

    proptest! {
        /// Any bytes are a frame or an error; of a message nothing is lost, and one side's frames are not the other's.
        #[test]
        fn any_bytes_are_a_frame_or_an_error(kind in 0_u8..8, rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let bytes = [&[kind, 0, 0, 0], &rest[..]].concat();
            let (guest, host) = (FromGuest::parse(&bytes), FromHost::parse(&bytes));
            prop_assert!(guest.is_err() || host.is_err());
            prop_assert!((8..=MAX_FRAME_BYTES).contains(&bytes.len()) || guest.is_err() && host.is_err());
            if let Ok(FromGuest::Post { connection, bytes: message }) = guest {
                prop_assert!(Frame::post(connection, message).unwrap().as_ref() == bytes);
            }
            if let Ok(FromHost::Message { target_vp, bytes: message }) = host {
                prop_assert!(Frame::message(target_vp, message).unwrap().as_ref() == bytes);
            }
        }
    }
}
