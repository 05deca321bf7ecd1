//! Bytes of the host's messages to values, and back.

use super::{HostMessage, Message, MessageError, Protocol};

impl HostMessage {
    /// Understands a message of the host's, under what was agreed on. Bytes beyond the message's own are ignored.
    ///
    /// # Errors
    /// Too short or too long; a type that is unknown, the guest's, or not there under `protocol`.
    pub fn parse(bytes: &[u8], protocol: Protocol) -> Result<Self, MessageError> {
        let _ = protocol;
        Err(MessageError::TooShort { kind: 0, needed: 8, had: bytes.len() })
    }

    /// The bytes of this message.
    ///
    /// # Errors
    /// It is not there under `protocol`, or holds something that has no place in it.
    pub fn encode(&self, protocol: Protocol) -> Result<Message, MessageError> {
        let _ = protocol;
        Err(MessageError::Unknown { kind: 0 })
    }
}
