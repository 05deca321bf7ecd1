//! Which message is whose, and what must have been agreed on before it may be said.

use super::super::value::{Features, Version};
use super::super::{MessageError, Protocol};

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::message) enum Speaker {
    Host,
    Guest,
}

/// Types of messages, as they are in the header.
pub(in crate::message) mod kind {
    pub(in crate::message) const OFFER: u32 = 1;
    pub(in crate::message) const RESCIND: u32 = 2;
    pub(in crate::message) const REQUEST_OFFERS: u32 = 3;
    pub(in crate::message) const ALL_OFFERS_DELIVERED: u32 = 4;
    pub(in crate::message) const OPEN: u32 = 5;
    pub(in crate::message) const OPEN_RESULT: u32 = 6;
    pub(in crate::message) const CLOSE: u32 = 7;
    pub(in crate::message) const GPADL_HEADER: u32 = 8;
    pub(in crate::message) const GPADL_BODY: u32 = 9;
    pub(in crate::message) const GPADL_CREATED: u32 = 10;
    pub(in crate::message) const GPADL_TEARDOWN: u32 = 11;
    pub(in crate::message) const GPADL_TORNDOWN: u32 = 12;
    pub(in crate::message) const RELID_RELEASED: u32 = 13;
    pub(in crate::message) const INITIATE_CONTACT: u32 = 14;
    pub(in crate::message) const VERSION_RESPONSE: u32 = 15;
    pub(in crate::message) const UNLOAD: u32 = 16;
    pub(in crate::message) const UNLOAD_RESPONSE: u32 = 17;
    pub(in crate::message) const OPEN_RESERVED: u32 = 18;
    pub(in crate::message) const CLOSE_RESERVED: u32 = 19;
    pub(in crate::message) const CLOSE_RESERVED_RESPONSE: u32 = 20;
    pub(in crate::message) const TL_CONNECT: u32 = 21;
    pub(in crate::message) const MODIFY_CHANNEL: u32 = 22;
    pub(in crate::message) const TL_CONNECT_RESULT: u32 = 23;
    pub(in crate::message) const MODIFY_CHANNEL_RESPONSE: u32 = 24;
    pub(in crate::message) const MODIFY_CONNECTION: u32 = 25;
    pub(in crate::message) const MODIFY_CONNECTION_RESPONSE: u32 = 26;
    pub(in crate::message) const PAUSE: u32 = 27;
    pub(in crate::message) const PAUSE_RESPONSE: u32 = 28;
    pub(in crate::message) const RESUME: u32 = 29;
}

/// What must have been agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Nothing: it may be said before contact.
    Nothing,
    /// A version that is at least this.
    Version(Version),
    /// 6.0 and this feature.
    Feature(Features),
}

/// Windows Server 2008, the first version there was.
const V0_13: Version = Version::new(0, 13);
/// Windows 7, Server 2008 R2.
const V1_1: Version = Version::new(1, 1);

/// Whose a type is and what it needs; `None` for a type that nobody knows.
const fn gate(kind: u32) -> Option<(Speaker, Needs)> {
    use Speaker::{Guest, Host};
    let first = Needs::Version(V0_13);
    Some(match kind {
        kind::OFFER
        | kind::RESCIND
        | kind::ALL_OFFERS_DELIVERED
        | kind::OPEN_RESULT
        | kind::GPADL_CREATED
        | kind::GPADL_TORNDOWN => (Host, first),
        kind::REQUEST_OFFERS
        | kind::OPEN
        | kind::CLOSE
        | kind::GPADL_HEADER
        | kind::GPADL_BODY
        | kind::GPADL_TEARDOWN
        | kind::RELID_RELEASED
        | kind::UNLOAD => (Guest, first),
        kind::INITIATE_CONTACT => (Guest, Needs::Nothing),
        kind::VERSION_RESPONSE => (Host, Needs::Nothing),
        kind::UNLOAD_RESPONSE => (Host, Needs::Version(V1_1)),
        kind::OPEN_RESERVED => (Guest, Needs::Version(Version::V4_0)),
        // A reserved channel outlives the connection, and so does the wish to close it.
        kind::CLOSE_RESERVED => (Guest, Needs::Nothing),
        kind::CLOSE_RESERVED_RESPONSE => (Host, Needs::Version(Version::V4_0)),
        kind::TL_CONNECT => (Guest, Needs::Version(Version::V4_0)),
        kind::MODIFY_CHANNEL => (Guest, Needs::Version(Version::V4_1)),
        kind::TL_CONNECT_RESULT => (Host, Needs::Version(Version::V4_1)),
        kind::MODIFY_CHANNEL_RESPONSE => (Host, Needs::Version(Version::V5_3)),
        kind::MODIFY_CONNECTION => (Guest, Needs::Feature(Features::MODIFY_CONNECTION)),
        kind::MODIFY_CONNECTION_RESPONSE => (Host, Needs::Feature(Features::MODIFY_CONNECTION)),
        kind::PAUSE | kind::RESUME => (Guest, Needs::Feature(Features::PAUSE_RESUME)),
        kind::PAUSE_RESPONSE => (Host, Needs::Feature(Features::PAUSE_RESUME)),
        _ => return None,
    })
}

/// Whether this speaker may say a message of this type now.
///
/// # Errors
/// Nobody knows the type; it is the other side's; it is not there under `protocol`.
pub(in crate::message) fn check(kind: u32, speaker: Speaker, protocol: Protocol) -> Result<(), MessageError> {
    let (whose, needs) = gate(kind).ok_or(MessageError::Unknown { kind })?;
    if whose != speaker {
        return Err(MessageError::Direction { kind });
    }
    let there = match needs {
        Needs::Nothing => true,
        Needs::Version(version) => protocol.at_least(version),
        Needs::Feature(feature) => protocol.has(feature),
    };
    if there { Ok(()) } else { Err(MessageError::NotAgreed { kind, protocol }) }
}
