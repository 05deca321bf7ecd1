//! Control messages of the VMBus: what guest and host say to each other about channels, as typed values.
//!
//! Format: drivers/hv and include/linux/hyperv.h (messages 1-24), the VMBus protocol crate of OpenVMM (25-29 and 6.0).
//! Each is an 8-byte header (type, padding) and a body; little-endian; at most [`MAX_MESSAGE_BYTES`] bytes in all.

mod buffer;
#[cfg(any(test, feature = "doubles"))]
pub mod doubles;
mod error;
pub mod gpadl;
mod guest;
mod host;
mod protocol;
mod value;
mod wire;

#[cfg(test)]
mod tests;

pub use buffer::Message;
pub use error::MessageError;
pub use protocol::Protocol;
pub use value::{
    ConnectionState, Features, GpadlId, OfferFlags, OpenFlags, Status, USER_DEFINED_BYTES, UserDefined, Version,
};

use uuid::Uuid;

use crate::class::Class;

/// Bytes that a message has at most, header included: the payload of a SynIC message.
pub const MAX_MESSAGE_BYTES: usize = 240;

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostMessage {
    /// 1: a channel is there.
    Offer(Box<OfferChannel>),
    /// 2: a channel is taken back.
    Rescind {
        /// The channel.
        relid: u32,
    },
    /// 4: the channels that were there when they were requested have all been offered.
    AllOffersDelivered,
    /// 6: answer to [`GuestMessage::Open`].
    OpenResult {
        /// The channel.
        relid: u32,
        /// As in the request.
        open_id: u32,
        /// Zero is success.
        status: Status,
    },
    /// 10: answer to a complete [`GuestMessage::GpadlHeader`].
    GpadlCreated {
        /// The channel.
        relid: u32,
        /// As in the request.
        gpadl: GpadlId,
        /// Zero is success.
        status: Status,
    },
    /// 12: answer to [`GuestMessage::GpadlTeardown`].
    GpadlTorndown {
        /// As in the request.
        gpadl: GpadlId,
    },
    /// 15: answer to [`GuestMessage::InitiateContact`].
    VersionResponse(VersionResponse),
    /// 17: answer to [`GuestMessage::Unload`].
    UnloadResponse,
    /// 20: answer to [`GuestMessage::CloseReserved`].
    CloseReservedResponse {
        /// The channel.
        relid: u32,
    },
    /// 23: answer to [`GuestMessage::TlConnect`], when it failed (success is an offer).
    TlConnectResult {
        /// As in the request.
        endpoint: Uuid,
        /// As in the request.
        service: Uuid,
        /// Zero is success.
        status: Status,
    },
    /// 24: answer to [`GuestMessage::ModifyChannel`], from 5.3 on.
    ModifyChannelResponse {
        /// The channel.
        relid: u32,
        /// Zero is success.
        status: Status,
    },
    /// 26: answer to [`GuestMessage::ModifyConnection`].
    ModifyConnectionResponse {
        /// How it went.
        state: ConnectionState,
    },
    /// 28: answer to [`GuestMessage::Pause`].
    PauseResponse,
}

/// What the guest says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestMessage {
    /// 3: offer me what there is.
    RequestOffers,
    /// 5: open a channel. The long form (with `signal` and `flags`) is sent when its features were agreed on.
    Open(Box<OpenChannel>),
    /// 7: close a channel. Nothing answers it.
    Close {
        /// The channel.
        relid: u32,
    },
    /// 8: start of a GPADL, with as many range words as fit.
    GpadlHeader(GpadlHeader),
    /// 9: more range words.
    GpadlBody(GpadlBody),
    /// 11: take a GPADL down.
    GpadlTeardown {
        /// The channel.
        relid: u32,
        /// Which.
        gpadl: GpadlId,
    },
    /// 13: the channel's number may be used again; answers a rescind, once.
    RelidReleased {
        /// The channel.
        relid: u32,
    },
    /// 14: hello. The long form is sent when `client` is there.
    InitiateContact(InitiateContact),
    /// 16: goodbye.
    Unload,
    /// 18: open a reserved channel.
    OpenReserved {
        /// The channel.
        relid: u32,
        /// Where interrupts go.
        target_vp: u32,
        /// Which interrupt source.
        target_sint: u32,
        /// Both rings.
        ring: GpadlId,
        /// Where the incoming ring begins, in pages.
        downstream_offset_pages: u32,
    },
    /// 19: close a reserved channel.
    CloseReserved {
        /// The channel.
        relid: u32,
        /// Where the answer goes.
        target_vp: u32,
        /// Which interrupt source.
        target_sint: u32,
    },
    /// 21: connect to a hvsock service. The long form is sent when `silo` is there (from 5.2 on).
    TlConnect {
        /// Chosen by the guest.
        endpoint: Uuid,
        /// Whom to connect to.
        service: Uuid,
        /// Container, if any.
        silo: Option<Uuid>,
    },
    /// 22: move a channel's interrupts (from 4.1 on).
    ModifyChannel {
        /// The channel.
        relid: u32,
        /// Where interrupts go from now on.
        target_vp: u32,
    },
    /// 25: other monitor pages (6.0, if agreed on).
    ModifyConnection {
        /// Guest physical address.
        parent_to_child_monitor: u64,
        /// Guest physical address.
        child_to_parent_monitor: u64,
    },
    /// 27: send no more messages until resumed (6.0, if agreed on).
    Pause,
    /// 29: send messages again (6.0, if agreed on).
    Resume,
}

/// Body of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfferChannel {
    /// What kind of device.
    pub class: Class,
    /// Which device of that kind; stays the same across rescinds, reboots and resumes.
    pub instance: Uuid,
    /// What the channel is like.
    pub flags: OfferFlags,
    /// Address space that the device needs.
    pub mmio_megabytes: u16,
    /// Address space that the device would like.
    pub mmio_megabytes_optional: u16,
    /// Of the device's class.
    pub user_defined: UserDefined,
    /// Zero is the primary channel.
    pub subchannel_index: u16,
    /// The channel's number.
    pub relid: u32,
    /// Monitor bit, if one is allocated.
    pub monitor_id: Option<u8>,
    /// Whether the channel has a signal connection of its own.
    pub is_dedicated: bool,
    /// What the guest signals.
    pub connection_id: u32,
}

/// Body of an open request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenChannel {
    /// The channel.
    pub relid: u32,
    /// Chosen by the guest; comes back in the result.
    pub open_id: u32,
    /// Both rings, outgoing first.
    pub ring: GpadlId,
    /// Where interrupts go.
    pub target_vp: u32,
    /// Where the incoming ring begins, in pages.
    pub downstream_offset_pages: u32,
    /// Of the device's class.
    pub user_defined: UserDefined,
    /// Connection id and event flag of the guest's choice: long form, with that feature.
    pub signal: Option<(u32, u16)>,
    /// Long form only.
    pub flags: OpenFlags,
}

/// Body of a GPADL header. A range is `{byte_count: u32, byte_offset: u32}` in one word, then a page number a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpadlHeader {
    /// The channel.
    pub relid: u32,
    /// Chosen by the guest.
    pub gpadl: GpadlId,
    /// Bytes of all range words, those of later bodies included.
    pub range_bytes: u16,
    /// Ranges.
    pub ranges: u16,
    /// The words in this message.
    pub words: Vec<u64>,
}

/// Body of a GPADL continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpadlBody {
    /// Number of this body, from 1 on (hosts ignore it).
    pub number: u32,
    /// Which.
    pub gpadl: GpadlId,
    /// The words in this message.
    pub words: Vec<u64>,
}

/// Body of the hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitiateContact {
    /// What the guest would speak.
    pub version: Version,
    /// Where the host's messages go.
    pub target_vp: u32,
    /// Before 5.0: the interrupt page's address. From 5.0 on: interrupt source, trust level, and (6.0) features.
    pub target: ContactTarget,
    /// Guest physical address.
    pub parent_to_child_monitor: u64,
    /// Guest physical address.
    pub child_to_parent_monitor: u64,
    /// Who the guest is: long form.
    pub client: Option<Uuid>,
}

/// The union in the hello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactTarget {
    /// Guest physical address of the interrupt page.
    InterruptPage(u64),
    /// From 5.0 on.
    Source {
        /// Interrupt source for messages.
        sint: u8,
        /// Trust level.
        vtl: u8,
        /// What the guest knows (6.0).
        features: Features,
    },
}

/// Body of the answer to a hello.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionResponse {
    /// Whether the host speaks that version.
    pub supported: bool,
    /// Whether the connection was made.
    pub state: ConnectionState,
    /// From 5.0 on, when supported: the connection id to post messages to. (Before: the version, or nothing.)
    pub selected: u32,
    /// What both know: long form, 6.0.
    pub features: Option<Features>,
}
