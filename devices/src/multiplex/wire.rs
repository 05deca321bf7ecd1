//! The frames of multiplexed streams: one header for all kinds, then the bytes of a stream.
//!
//! Format: this project's own, little-endian. A frame is the payload of one in-band packet, which may be padded behind it.

use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 40;
/// Bytes of a stream in one frame, at most.
pub const DATA_BYTES: usize = 8 * 1024;

/// What a frame is. The other side chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Kind(pub U16);

impl Kind {
    /// Guest: a new stream; `sequence` is its [`Mode`]. Host: the stream is there.
    pub const OPEN: Self = Self(U16::new(1));
    /// Guest: from now on the stream is on this link. Both sides begin again behind what the other has acknowledged.
    pub const MOVE: Self = Self(U16::new(2));
    /// Bytes of the stream from `sequence` on.
    pub const DATA: Self = Self(U16::new(3));
    /// Nothing but what every frame has: what was received and what may be sent.
    pub const ACKNOWLEDGE: Self = Self(U16::new(4));
    /// The sender's end, at `sequence`; it counts as one byte.
    pub const END: Self = Self(U16::new(5));
    /// The stream is over; `sequence` is why ([`Reason`]). A guest's is answered by one, and then both have forgotten it.
    pub const RESET: Self = Self(U16::new(6));
    /// Is anybody there? Of no stream; `sequence` is any number.
    pub const PROBE: Self = Self(U16::new(7));
    /// The answer, with the same number.
    pub const ALIVE: Self = Self(U16::new(8));
}

/// Why a stream is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u64);

impl Reason {
    /// Both ends were said and heard.
    pub const DONE: Self = Self(0);
    /// The application gave it up.
    pub const ABORTED: Self = Self(1);
    /// The other side knows no such stream.
    pub const UNKNOWN: Self = Self(2);
    /// What the other side sent makes no sense.
    pub const NONSENSE: Self = Self(3);
    /// Nobody takes it.
    pub const REFUSED: Self = Self(4);
    /// Its link died, and it was of a kind that does not move.
    pub const LOST: Self = Self(5);
    /// The device's channels have ended. Nobody is left to be told.
    pub const ENDED: Self = Self(6);
}

/// What a stream is like.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// Numbered bytes: what is not acknowledged is kept, and sent again on another link when one dies.
    #[default]
    Numbered,
    /// No numbers, and nothing is kept: with its link the stream is over.
    Plain,
}

impl Mode {
    /// As [`Kind::OPEN`] has it.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Numbered => 1,
            Self::Plain => 0,
        }
    }
}

/// The header of each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Bytes of the stream behind the header.
    pub bytes: U16,
    /// How often the stream has moved, as far as the sender knows.
    pub moves: U32,
    /// Which stream: never used again. Zero is none.
    pub stream: U64,
    /// The place in the stream that it begins at, where it has one.
    pub sequence: U64,
    /// Everything before this place has been received. Zero for plain streams.
    pub acknowledged: U64,
    /// Everything before this place may be sent.
    pub limit: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why something is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoFrame {
    /// It is shorter than it says, or than a header.
    #[error("a frame of {0} bytes is shorter than it says")]
    Short(usize),
    /// It has more bytes than it may.
    #[error("a frame with {0} bytes of data")]
    Long(u16),
    /// Its kind is none.
    #[error("a frame of kind {0}")]
    Kind(u16),
}

impl Header {
    /// Reads a header from the first bytes of a payload of so many bytes, whose stream bytes are behind it.
    ///
    /// # Errors
    /// [`NoFrame`].
    pub fn parse(bytes: &[u8; HEADER_BYTES], payload_bytes: usize) -> Result<Self, NoFrame> {
        let header: Self = zerocopy::transmute!(*bytes);
        let data = header.bytes.get();
        if usize::from(data) > DATA_BYTES {
            return Err(NoFrame::Long(data));
        }
        if payload_bytes < HEADER_BYTES + usize::from(data) {
            return Err(NoFrame::Short(payload_bytes));
        }
        match header.kind.0.get() {
            1..=8 => Ok(header),
            kind => Err(NoFrame::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_header_is_forty_bytes_in_this_order() {
        let header = Header {
            kind: Kind::DATA,
            bytes: U16::new(0x0102),
            moves: U32::new(3),
            stream: U64::new(4),
            sequence: U64::new(5),
            acknowledged: U64::new(6),
            limit: U64::new(7),
        };
        let mut expected = vec![3, 0, 2, 1, 3, 0, 0, 0];
        for number in 4..8_u64 {
            expected.extend(number.to_le_bytes());
        }
        assert_eq!(header.as_bytes(), expected);
        let bytes: [u8; HEADER_BYTES] = expected.try_into().unwrap();
        assert_eq!(Header::parse(&bytes, HEADER_BYTES + 0x102), Ok(header));
        assert_eq!(Header::parse(&bytes, HEADER_BYTES + 0x101), Err(NoFrame::Short(HEADER_BYTES + 0x101)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_answer(bytes: [u8; HEADER_BYTES], payload in 0_usize..20_000) {
            match Header::parse(&bytes, payload) {
                Ok(header) => prop_assert!(HEADER_BYTES + usize::from(header.bytes.get()) <= payload),
                Err(NoFrame::Long(bytes)) => prop_assert!(usize::from(bytes) > DATA_BYTES),
                Err(NoFrame::Short(short)) => prop_assert_eq!(short, payload),
                Err(NoFrame::Kind(kind)) => prop_assert!(kind == 0 || kind > 8),
            }
        }
    }
}
