//! What a guest says, to bytes.

use super::{
    Buffer, Capabilities, ChannelType, Init, MESSAGE_BYTES, MessageType, NO_SECTION, NdisConfig, NdisVersion,
    RECEIVE_BUFFER_ID, Revoke, Rndis, RndisComplete, SEND_BUFFER_ID, Status, SubchannelRequest, Version,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

/// Everything that a guest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestMessage {
    /// May we speak this version?
    Init(Version),
    /// From version 2 on, once a version is agreed on.
    NdisConfig {
        /// Bytes of the longest frame, its header included.
        mtu: u32,
        /// What the guest can do.
        capabilities: Capabilities,
    },
    /// Which NDIS version the guest's requests are of.
    NdisVersion {
        /// Before the dot.
        major: u32,
        /// Behind it.
        minor: u32,
    },
    /// Here is the receive buffer.
    ReceiveBuffer {
        /// The memory.
        gpadl: u32,
    },
    /// Forget it.
    RevokeReceiveBuffer,
    /// Here is the send buffer.
    SendBuffer {
        /// The memory.
        gpadl: u32,
    },
    /// Forget it.
    RevokeSendBuffer,
    /// RNDIS messages, in a section of the send buffer or in the packet's own pages.
    Rndis {
        /// What kind.
        channel: ChannelType,
        /// Which section, and how many bytes of it.
        section: Option<(u32, u32)>,
    },
    /// The host's RNDIS messages are taken.
    RndisComplete(Status),
    /// Make so many more channels.
    Subchannels(u32),
}

impl GuestMessage {
    /// The bytes; hosts take the same length for all messages, and zeroes behind what they need.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MESSAGE_BYTES] {
        let mut bytes = [0; MESSAGE_BYTES];
        let put = |bytes: &mut [u8; MESSAGE_BYTES], message: &[u8]| {
            bytes.iter_mut().zip(message).for_each(|(to, from)| *to = *from);
        };
        match self {
            Self::Init(Version(version)) => {
                let (kind, version) = (kind(MessageType::INIT), U32::new(version));
                put(&mut bytes, Init { kind, lowest: version, highest: version }.as_bytes());
            }
            Self::NdisConfig { mtu, capabilities } => {
                let capabilities = U64::new(capabilities.bits());
                let kind = kind(MessageType::NDIS_CONFIG);
                put(&mut bytes, NdisConfig { kind, mtu: U32::new(mtu), reserved: U32::ZERO, capabilities }.as_bytes());
            }
            Self::NdisVersion { major, minor } => {
                let kind = kind(MessageType::NDIS_VERSION);
                put(&mut bytes, NdisVersion { kind, major: U32::new(major), minor: U32::new(minor) }.as_bytes());
            }
            Self::ReceiveBuffer { gpadl } => {
                put(&mut bytes, buffer(MessageType::RECEIVE_BUFFER, gpadl, RECEIVE_BUFFER_ID).as_bytes());
            }
            Self::SendBuffer { gpadl } => {
                put(&mut bytes, buffer(MessageType::SEND_BUFFER, gpadl, SEND_BUFFER_ID).as_bytes());
            }
            Self::RevokeReceiveBuffer => {
                put(&mut bytes, revoke(MessageType::REVOKE_RECEIVE_BUFFER, RECEIVE_BUFFER_ID).as_bytes());
            }
            Self::RevokeSendBuffer => {
                put(&mut bytes, revoke(MessageType::REVOKE_SEND_BUFFER, SEND_BUFFER_ID).as_bytes());
            }
            Self::Rndis { channel, section } => {
                let (section, length) = section.unwrap_or((NO_SECTION, 0));
                let (kind, channel) = (kind(MessageType::RNDIS), U32::new(channel.0));
                let message = Rndis { kind, channel, section: U32::new(section), bytes: U32::new(length) };
                put(&mut bytes, message.as_bytes());
            }
            Self::RndisComplete(_) => put(&mut bytes, &self.completion()),
            Self::Subchannels(count) => {
                let kind = kind(MessageType::SUBCHANNEL);
                let message = SubchannelRequest { kind, operation: U32::new(1), count: U32::new(count) };
                put(&mut bytes, message.as_bytes());
            }
        }
        bytes
    }

    /// The bytes of a completion, which are as few as it needs: a message's type and a status.
    #[must_use]
    pub fn completion(self) -> [u8; 8] {
        let status = if let Self::RndisComplete(status) = self { status } else { Status::NONE };
        let message = RndisComplete { kind: kind(MessageType::RNDIS_COMPLETE), status: U32::new(status.0) };
        zerocopy::transmute!(message)
    }
}

const fn kind(kind: MessageType) -> U32 {
    U32::new(kind.0)
}

const fn buffer(of: MessageType, gpadl: u32, id: u16) -> Buffer {
    Buffer { kind: kind(of), gpadl: U32::new(gpadl), id: U16::new(id), reserved: U16::ZERO }
}

const fn revoke(of: MessageType, id: u16) -> Revoke {
    Revoke { kind: kind(of), id: U16::new(id), reserved: U16::ZERO }
}
