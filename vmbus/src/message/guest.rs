//! Bytes of the guest's messages to values, and back.

use super::value::{Features, GpadlId, OpenFlags, Version};
use super::wire::{self, Body, Speaker, kind, put, put_words};
use super::{
    ContactTarget, GpadlBody, GpadlHeader, GuestMessage, InitiateContact, Message, MessageError, OpenChannel, Protocol,
};

impl GuestMessage {
    /// Understands a message of the guest's, under what was agreed on. Bytes beyond the message's own are ignored:
    /// some guests always send the most there can be. (The words of a GPADL are bounded by its ranges, not by this.)
    ///
    /// # Errors
    /// Too short or too long; a type that is unknown, the host's, or not there under `protocol`.
    pub fn parse(bytes: &[u8], protocol: Protocol) -> Result<Self, MessageError> {
        let body = Body::open(bytes, Speaker::Guest, protocol)?;
        Ok(match body.kind {
            kind::REQUEST_OFFERS => Self::RequestOffers,
            kind::OPEN => Self::Open(Box::new(open(&body, protocol)?)),
            kind::CLOSE => Self::Close { relid: relid(&body)? },
            kind::GPADL_HEADER => {
                let (wire::GpadlHeaderHead { relid, gpadl, range_bytes, ranges }, rest) = body.split()?;
                Self::GpadlHeader(GpadlHeader {
                    relid: relid.get(),
                    gpadl: GpadlId(gpadl.get()),
                    range_bytes: range_bytes.get(),
                    ranges: ranges.get(),
                    words: wire::words(rest),
                })
            }
            kind::GPADL_BODY => {
                let (wire::GpadlBodyHead { number, gpadl }, rest) = body.split()?;
                Self::GpadlBody(GpadlBody {
                    number: number.get(),
                    gpadl: GpadlId(gpadl.get()),
                    words: wire::words(rest),
                })
            }
            kind::GPADL_TEARDOWN => {
                let wire::RelidGpadl { relid, gpadl } = body.read()?;
                Self::GpadlTeardown { relid: relid.get(), gpadl: GpadlId(gpadl.get()) }
            }
            kind::RELID_RELEASED => Self::RelidReleased { relid: relid(&body)? },
            kind::INITIATE_CONTACT => Self::InitiateContact(initiate_contact(&body)?),
            kind::UNLOAD => Self::Unload,
            kind::OPEN_RESERVED => {
                let wire::OpenReservedBody { target, ring, downstream_offset_pages } = body.read()?;
                Self::OpenReserved {
                    relid: target.relid.get(),
                    target_vp: target.target_vp.get(),
                    target_sint: target.target_sint.get(),
                    ring: GpadlId(ring.get()),
                    downstream_offset_pages: downstream_offset_pages.get(),
                }
            }
            kind::CLOSE_RESERVED => {
                let wire::ReservedTarget { relid, target_vp, target_sint } = body.read()?;
                Self::CloseReserved { relid: relid.get(), target_vp: target_vp.get(), target_sint: target_sint.get() }
            }
            kind::TL_CONNECT => tl_connect(&body, protocol)?,
            kind::MODIFY_CHANNEL => {
                let wire::RelidTarget { relid, target_vp } = body.read()?;
                Self::ModifyChannel { relid: relid.get(), target_vp: target_vp.get() }
            }
            kind::MODIFY_CONNECTION => {
                let wire::ModifyConnectionBody { parent_to_child_monitor, child_to_parent_monitor } = body.read()?;
                Self::ModifyConnection {
                    parent_to_child_monitor: parent_to_child_monitor.get(),
                    child_to_parent_monitor: child_to_parent_monitor.get(),
                }
            }
            kind::PAUSE => Self::Pause,
            kind::RESUME => Self::Resume,
            kind => return Err(MessageError::Unknown { kind }),
        })
    }

    /// The bytes of this message.
    ///
    /// # Errors
    /// It is not there under `protocol` (a goodbye always is), lacks what this version has in it, or holds what has no
    /// place in it.
    pub fn encode(&self, protocol: Protocol) -> Result<Message, MessageError> {
        let kind = self.kind();
        // A guest that has said hello and heard nothing may say goodbye: the host may know more than the guest.
        if kind != kind::UNLOAD {
            wire::check(kind, Speaker::Guest, protocol)?;
        }
        match self {
            Self::RequestOffers | Self::Unload | Self::Pause | Self::Resume => put(kind, &()),
            Self::Open(request) => put_open(kind, request, protocol),
            Self::Close { relid } | Self::RelidReleased { relid } => put(kind, &wire::Relid { relid: (*relid).into() }),
            Self::GpadlHeader(GpadlHeader { relid, gpadl, range_bytes, ranges, words }) => put_words(
                kind,
                &wire::GpadlHeaderHead {
                    relid: (*relid).into(),
                    gpadl: gpadl.0.into(),
                    range_bytes: (*range_bytes).into(),
                    ranges: (*ranges).into(),
                },
                words,
            ),
            Self::GpadlBody(GpadlBody { number, gpadl, words }) => {
                put_words(kind, &wire::GpadlBodyHead { number: (*number).into(), gpadl: gpadl.0.into() }, words)
            }
            Self::GpadlTeardown { relid, gpadl } => {
                put(kind, &wire::RelidGpadl { relid: (*relid).into(), gpadl: gpadl.0.into() })
            }
            Self::InitiateContact(hello) => put_initiate_contact(kind, hello),
            &Self::OpenReserved { relid, target_vp, target_sint, ring, downstream_offset_pages } => put(
                kind,
                &wire::OpenReservedBody {
                    target: reserved_target(relid, target_vp, target_sint),
                    ring: ring.0.into(),
                    downstream_offset_pages: downstream_offset_pages.into(),
                },
            ),
            &Self::CloseReserved { relid, target_vp, target_sint } => {
                put(kind, &reserved_target(relid, target_vp, target_sint))
            }
            Self::TlConnect { endpoint, service, silo } => {
                let base = wire::ServiceBody { endpoint: (*endpoint).into(), service: (*service).into() };
                match silo {
                    Some(_) if !protocol.at_least(Version::V5_2) => {
                        Err(MessageError::NoPlace { kind, what: "a silo", protocol })
                    }
                    Some(silo) => put(kind, &wire::Long { base, more: wire::Guid::from(*silo) }),
                    None => put(kind, &base),
                }
            }
            Self::ModifyChannel { relid, target_vp } => {
                put(kind, &wire::RelidTarget { relid: (*relid).into(), target_vp: (*target_vp).into() })
            }
            Self::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor } => put(
                kind,
                &wire::ModifyConnectionBody {
                    parent_to_child_monitor: (*parent_to_child_monitor).into(),
                    child_to_parent_monitor: (*child_to_parent_monitor).into(),
                },
            ),
        }
    }

    /// The type, as it is in the header.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        match self {
            Self::RequestOffers => kind::REQUEST_OFFERS,
            Self::Open(_) => kind::OPEN,
            Self::Close { .. } => kind::CLOSE,
            Self::GpadlHeader(_) => kind::GPADL_HEADER,
            Self::GpadlBody(_) => kind::GPADL_BODY,
            Self::GpadlTeardown { .. } => kind::GPADL_TEARDOWN,
            Self::RelidReleased { .. } => kind::RELID_RELEASED,
            Self::InitiateContact(_) => kind::INITIATE_CONTACT,
            Self::Unload => kind::UNLOAD,
            Self::OpenReserved { .. } => kind::OPEN_RESERVED,
            Self::CloseReserved { .. } => kind::CLOSE_RESERVED,
            Self::TlConnect { .. } => kind::TL_CONNECT,
            Self::ModifyChannel { .. } => kind::MODIFY_CHANNEL,
            Self::ModifyConnection { .. } => kind::MODIFY_CONNECTION,
            Self::Pause => kind::PAUSE,
            Self::Resume => kind::RESUME,
        }
    }
}

fn relid(body: &Body<'_>) -> Result<u32, MessageError> {
    Ok(body.read::<wire::Relid>()?.relid.get())
}

fn reserved_target(relid: u32, target_vp: u32, target_sint: u32) -> wire::ReservedTarget {
    wire::ReservedTarget { relid: relid.into(), target_vp: target_vp.into(), target_sint: target_sint.into() }
}

/// Features under which an open request has its long form, and nothing else.
const LONG_OPEN: Features = Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS.union(Features::CHANNEL_INTERRUPT_REDIRECTION);

/// Each of the two features makes the request long; the other's field then means nothing.
fn open(body: &Body<'_>, protocol: Protocol) -> Result<OpenChannel, MessageError> {
    let (base, signal, flags) = if protocol.has(LONG_OPEN) {
        let wire::Long { base, more } = body.read::<wire::Long<wire::OpenBody, wire::OpenSignal>>()?;
        let signal = protocol
            .has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS)
            .then_some((more.connection_id.get(), more.event_flag.get()));
        let redirectable = protocol.has(Features::CHANNEL_INTERRUPT_REDIRECTION);
        let flags = if redirectable { OpenFlags::from_bits_retain(more.flags.get()) } else { OpenFlags::empty() };
        (base, signal, flags)
    } else {
        (body.read::<wire::OpenBody>()?, None, OpenFlags::empty())
    };
    Ok(OpenChannel {
        relid: base.relid.get(),
        open_id: base.open_id.get(),
        ring: GpadlId(base.ring.get()),
        target_vp: base.target_vp.get(),
        downstream_offset_pages: base.downstream_offset_pages.get(),
        user_defined: base.user_defined,
        signal,
        flags,
    })
}

fn put_open(kind: u32, request: &OpenChannel, protocol: Protocol) -> Result<Message, MessageError> {
    let base = wire::OpenBody {
        relid: request.relid.into(),
        open_id: request.open_id.into(),
        ring: request.ring.0.into(),
        target_vp: request.target_vp.into(),
        downstream_offset_pages: request.downstream_offset_pages.into(),
        user_defined: request.user_defined,
    };
    let may_choose = protocol.has(Features::GUEST_SPECIFIED_SIGNAL_PARAMETERS);
    let (connection_id, event_flag) = match request.signal {
        // Without them the host would take zeroes for the guest's choice.
        None if may_choose => return Err(MessageError::Missing { kind, what: "signal parameters", protocol }),
        Some(_) if !may_choose => return Err(MessageError::NoPlace { kind, what: "signal parameters", protocol }),
        signal => signal.unwrap_or_default(),
    };
    if !request.flags.is_empty() && !protocol.has(Features::CHANNEL_INTERRUPT_REDIRECTION) {
        return Err(MessageError::NoPlace { kind, what: "open flags", protocol });
    }
    if !protocol.has(LONG_OPEN) {
        return put(kind, &base);
    }
    let more = wire::OpenSignal {
        connection_id: connection_id.into(),
        event_flag: event_flag.into(),
        flags: request.flags.bits().into(),
    };
    put(kind, &wire::Long { base, more })
}

/// From 5.2 on there may be a silo, but guests send the short form, too: the length decides.
fn tl_connect(body: &Body<'_>, protocol: Protocol) -> Result<GuestMessage, MessageError> {
    type LongBody = wire::Long<wire::ServiceBody, wire::Guid>;
    let (base, silo) = if protocol.at_least(Version::V5_2) && body.holds::<LongBody>() {
        let wire::Long { base, more } = body.read::<LongBody>()?;
        (base, Some(more.into()))
    } else {
        (body.read::<wire::ServiceBody>()?, None)
    };
    Ok(GuestMessage::TlConnect { endpoint: base.endpoint.into(), service: base.service.into(), silo })
}

/// Nothing is agreed on yet, so the version in the message decides what is in it.
fn initiate_contact(body: &Body<'_>) -> Result<InitiateContact, MessageError> {
    type LongBody = wire::Long<wire::InitiateContactBody, wire::Guid>;
    let base = body.read::<wire::InitiateContactBody>()?;
    let version = Version(base.version.get());
    let [sint, vtl, _, _, features @ ..] = base.target;
    let features = Features::from_bits_retain(u32::from_le_bytes(features));
    let target = if version < Version::V5_0 {
        ContactTarget::InterruptPage(u64::from_le_bytes(base.target))
    } else if version < Version::V6_0 {
        ContactTarget::Source { sint, vtl, features: Features::empty() }
    } else {
        ContactTarget::Source { sint, vtl, features }
    };
    let must_name_client = version >= Version::V6_0 && features.contains(Features::CLIENT_ID);
    let client = if must_name_client || (version >= Version::V6_0 && body.holds::<LongBody>()) {
        Some(body.read::<LongBody>()?.more.into())
    } else {
        None
    };
    Ok(InitiateContact {
        version,
        target_vp: base.target_vp.get(),
        target,
        parent_to_child_monitor: base.parent_to_child_monitor.get(),
        child_to_parent_monitor: base.child_to_parent_monitor.get(),
        client,
    })
}

fn put_initiate_contact(kind: u32, hello: &InitiateContact) -> Result<Message, MessageError> {
    let version = hello.version;
    let protocol = Protocol::new(version, Features::empty());
    let no_place = |what| MessageError::NoPlace { kind, what, protocol };
    let target = match hello.target {
        ContactTarget::InterruptPage(address) if version < Version::V5_0 => address.to_le_bytes(),
        ContactTarget::InterruptPage(_) => return Err(no_place("an interrupt page")),
        ContactTarget::Source { .. } if version < Version::V5_0 => return Err(no_place("an interrupt source")),
        ContactTarget::Source { features, .. } if version < Version::V6_0 && !features.is_empty() => {
            return Err(no_place("features"));
        }
        ContactTarget::Source { sint, vtl, features } => {
            if features.contains(Features::CLIENT_ID) && hello.client.is_none() {
                return Err(MessageError::Missing { kind, what: "a client", protocol });
            }
            let [a, b, c, d] = features.bits().to_le_bytes();
            [sint, vtl, 0, 0, a, b, c, d]
        }
    };
    let base = wire::InitiateContactBody {
        version: version.0.into(),
        target_vp: hello.target_vp.into(),
        target,
        parent_to_child_monitor: hello.parent_to_child_monitor.into(),
        child_to_parent_monitor: hello.child_to_parent_monitor.into(),
    };
    match hello.client {
        Some(_) if version < Version::V6_0 => Err(no_place("a client")),
        Some(client) => put(kind, &wire::Long { base, more: wire::Guid::from(client) }),
        None => put(kind, &base),
    }
}
