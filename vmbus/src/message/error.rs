//! Why bytes are not a message, or a value can't be one.

use super::Protocol;

/// Why bytes are not a message, or a value can't be one. Nothing of it is fatal: the message is dropped and counted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// Fewer bytes than this message has.
    #[error("message {kind} has {had} bytes of {needed}")]
    TooShort {
        /// Message type, zero where not even that is there.
        kind: u32,
        /// Bytes that it must have, header included.
        needed: usize,
        /// Bytes that there are.
        had: usize,
    },
    /// More bytes than any message has.
    #[error("message {kind} has {had} bytes, and 240 is the most")]
    TooLong {
        /// Message type.
        kind: u32,
        /// Bytes that there are.
        had: usize,
    },
    /// No message has this type.
    #[error("message type {kind} is unknown")]
    Unknown {
        /// Message type.
        kind: u32,
    },
    /// The guest said what only a host says, or the other way round.
    #[error("message {kind} came from the wrong side")]
    Direction {
        /// Message type.
        kind: u32,
    },
    /// The message is not there in this version, or without a feature.
    #[error("message {kind} is not there under {protocol}")]
    NotAgreed {
        /// Message type.
        kind: u32,
        /// What was agreed on.
        protocol: Protocol,
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
    /// The message to send lacks what this version has in it.
    #[error("message {kind} needs {what} under {protocol}")]
    Missing {
        /// Message type.
        kind: u32,
        /// What is missing.
        what: &'static str,
        /// What was agreed on.
        protocol: Protocol,
    },
    /// The message to send holds what has no place in this version of it, so it would be lost.
    #[error("message {kind} has no place for {what} under {protocol}")]
    NoPlace {
        /// Message type.
        kind: u32,
        /// What has no place.
        what: &'static str,
        /// What was agreed on.
        protocol: Protocol,
    },
}
