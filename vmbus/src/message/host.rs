//! Bytes of the host's messages to values, and back.

use super::value::{ConnectionState, Features, GpadlId, Status};
use super::wire::{self, Body, Speaker, kind, put};
use super::{HostMessage, Message, MessageError, Protocol, VersionResponse};

impl HostMessage {
    /// Understands a message of the host's, under what was agreed on. Bytes beyond the message's own are ignored:
    /// hosts pad.
    ///
    /// # Errors
    /// Too short or too long; a type that is unknown, the guest's, or not there under `protocol`.
    pub fn parse(bytes: &[u8], protocol: Protocol) -> Result<Self, MessageError> {
        let body = Body::open(bytes, Speaker::Host, protocol)?;
        Ok(match body.kind {
            kind::OFFER => Self::Offer(Box::new(body.read::<wire::OfferBody>()?.into())),
            kind::RESCIND => Self::Rescind { relid: body.read::<wire::Relid>()?.relid.get() },
            kind::ALL_OFFERS_DELIVERED => Self::AllOffersDelivered,
            kind::OPEN_RESULT => {
                let wire::OpenResultBody { relid, open_id, status } = body.read()?;
                Self::OpenResult { relid: relid.get(), open_id: open_id.get(), status: Status(status.get()) }
            }
            kind::GPADL_CREATED => {
                let wire::GpadlResult { relid, gpadl, status } = body.read()?;
                Self::GpadlCreated { relid: relid.get(), gpadl: GpadlId(gpadl.get()), status: Status(status.get()) }
            }
            kind::GPADL_TORNDOWN => {
                Self::GpadlTorndown { gpadl: GpadlId(body.read::<wire::TorndownGpadl>()?.gpadl.get()) }
            }
            kind::VERSION_RESPONSE => Self::VersionResponse(version_response(&body)?),
            kind::UNLOAD_RESPONSE => Self::UnloadResponse,
            kind::CLOSE_RESERVED_RESPONSE => {
                Self::CloseReservedResponse { relid: body.read::<wire::Relid>()?.relid.get() }
            }
            kind::TL_CONNECT_RESULT => {
                let wire::ServiceResultBody { service, status } = body.read()?;
                Self::TlConnectResult {
                    endpoint: service.endpoint.into(),
                    service: service.service.into(),
                    status: Status(status.get()),
                }
            }
            kind::MODIFY_CHANNEL_RESPONSE => {
                let wire::RelidStatus { relid, status } = body.read()?;
                Self::ModifyChannelResponse { relid: relid.get(), status: Status(status.get()) }
            }
            kind::MODIFY_CONNECTION_RESPONSE => Self::ModifyConnectionResponse {
                state: ConnectionState(body.read::<wire::ConnectionStateBody>()?.state),
            },
            kind::PAUSE_RESPONSE => Self::PauseResponse,
            kind => return Err(MessageError::Unknown { kind }),
        })
    }

    /// The bytes of this message.
    ///
    /// # Errors
    /// It is not there under `protocol`.
    pub fn encode(&self, protocol: Protocol) -> Result<Message, MessageError> {
        let kind = self.kind();
        wire::check(kind, Speaker::Host, protocol)?;
        match self {
            Self::Offer(offer) => put(kind, &wire::OfferBody::from(offer.as_ref())),
            Self::Rescind { relid } | Self::CloseReservedResponse { relid } => {
                put(kind, &wire::Relid { relid: (*relid).into() })
            }
            Self::AllOffersDelivered | Self::UnloadResponse | Self::PauseResponse => put(kind, &()),
            Self::OpenResult { relid, open_id, status } => put(
                kind,
                &wire::OpenResultBody { relid: (*relid).into(), open_id: (*open_id).into(), status: status.0.into() },
            ),
            Self::GpadlCreated { relid, gpadl, status } => {
                put(kind, &wire::GpadlResult { relid: (*relid).into(), gpadl: gpadl.0.into(), status: status.0.into() })
            }
            Self::GpadlTorndown { gpadl } => put(kind, &wire::TorndownGpadl { gpadl: gpadl.0.into() }),
            Self::VersionResponse(response) => put_version_response(kind, response),
            Self::TlConnectResult { endpoint, service, status } => put(
                kind,
                &wire::ServiceResultBody {
                    service: wire::ServiceBody { endpoint: (*endpoint).into(), service: (*service).into() },
                    status: status.0.into(),
                },
            ),
            Self::ModifyChannelResponse { relid, status } => {
                put(kind, &wire::RelidStatus { relid: (*relid).into(), status: status.0.into() })
            }
            Self::ModifyConnectionResponse { state } => put(kind, &wire::ConnectionStateBody { state: state.0 }),
        }
    }

    /// The type, as it is in the header.
    #[must_use]
    pub const fn kind(&self) -> u32 {
        match self {
            Self::Offer(_) => kind::OFFER,
            Self::Rescind { .. } => kind::RESCIND,
            Self::AllOffersDelivered => kind::ALL_OFFERS_DELIVERED,
            Self::OpenResult { .. } => kind::OPEN_RESULT,
            Self::GpadlCreated { .. } => kind::GPADL_CREATED,
            Self::GpadlTorndown { .. } => kind::GPADL_TORNDOWN,
            Self::VersionResponse(_) => kind::VERSION_RESPONSE,
            Self::UnloadResponse => kind::UNLOAD_RESPONSE,
            Self::CloseReservedResponse { .. } => kind::CLOSE_RESERVED_RESPONSE,
            Self::TlConnectResult { .. } => kind::TL_CONNECT_RESULT,
            Self::ModifyChannelResponse { .. } => kind::MODIFY_CHANNEL_RESPONSE,
            Self::ModifyConnectionResponse { .. } => kind::MODIFY_CONNECTION_RESPONSE,
            Self::PauseResponse => kind::PAUSE_RESPONSE,
        }
    }
}

/// The long form is told from the short one by its length alone: nothing has been agreed on yet.
fn version_response(body: &Body<'_>) -> Result<VersionResponse, MessageError> {
    type LongBody = wire::Long<wire::VersionResponseBody, zerocopy::little_endian::U32>;
    let (base, features) = if body.holds::<LongBody>() {
        let wire::Long { base, more } = body.read::<LongBody>()?;
        (base, Some(Features::from_bits_retain(more.get())))
    } else {
        (body.read()?, None)
    };
    Ok(VersionResponse {
        supported: base.supported != 0,
        state: ConnectionState(base.state),
        selected: base.selected.get(),
        features,
    })
}

fn put_version_response(kind: u32, response: &VersionResponse) -> Result<Message, MessageError> {
    let base = wire::VersionResponseBody {
        supported: u8::from(response.supported),
        state: response.state.0,
        padding: [0; 2],
        selected: response.selected.into(),
    };
    match response.features {
        Some(features) => put(kind, &wire::Long { base, more: zerocopy::little_endian::U32::new(features.bits()) }),
        None => put(kind, &base),
    }
}
