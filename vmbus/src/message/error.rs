//! Why bytes are not a message.

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Fewer bytes than this message has.
    #[error("message {kind} has {had} bytes of {needed}")]
    TooShort {
        /// Message type, zero where not even that is there.
        kind: u32,
        /// Bytes that it must have.
        needed: usize,
        /// Bytes that there are.
        had: usize,
    },
    /// More bytes than any message has.
    #[error("message {kind} has {had} bytes")]
    TooLong {
        /// Message type.
        kind: u32,
        /// Bytes that there are.
        had: usize,
    },
    /// No message of this direction and version has this type.
    #[error("message type {kind} is unknown here")]
    Unknown {
        /// Message type.
        kind: u32,
    },
    /// A field has a value that makes no sense.
    #[error("message {kind}: {what} is {value}")]
    Field {
        /// Message type.
        kind: u32,
        /// Which field.
        what: &'static str,
        /// What it holds.
        value: u64,
    },
}
