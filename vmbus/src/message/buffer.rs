//! The bytes of one message, inline.

use std::fmt;

use super::{MAX_MESSAGE_BYTES, MessageError};

/// The bytes of one message, header included: at most [`MAX_MESSAGE_BYTES`], held inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message {
    bytes: [u8; MAX_MESSAGE_BYTES],
    length: u8,
}

impl Message {
    /// No bytes yet.
    pub(super) const EMPTY: Self = Self { bytes: [0; MAX_MESSAGE_BYTES], length: 0 };

    /// Adds bytes at the end; `None` where they don't fit (nothing is added then).
    pub(super) fn push(&mut self, bytes: &[u8]) -> Option<()> {
        let start = usize::from(self.length);
        let end = start.checked_add(bytes.len())?;
        let length = u8::try_from(end).ok()?;
        self.bytes.get_mut(start..end)?.copy_from_slice(bytes);
        self.length = length;
        Some(())
    }

    /// The type of the message: its first four bytes, zero where there are fewer.
    #[must_use]
    pub fn kind(&self) -> u32 {
        self.as_ref().first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }
}

/// Takes any bytes as a message, sense or not: tests, fault injection, relays.
impl TryFrom<&[u8]> for Message {
    type Error = MessageError;

    fn try_from(bytes: &[u8]) -> Result<Self, MessageError> {
        let mut message = Self::EMPTY;
        let kind = bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
        message.push(bytes).ok_or(MessageError::TooLong { kind, had: bytes.len() })?;
        Ok(message)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Message({}:", self.kind())?;
        for byte in self.as_ref().iter().skip(8) {
            write!(formatter, " {byte:02x}")?;
        }
        write!(formatter, ")")
    }
}
