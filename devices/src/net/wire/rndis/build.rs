//! What a guest says, to bytes; and the header of a frame, which is written before the frame.

use super::{Complete, Header, Initialize, KeepAlive, MAX_TRANSFER_BYTES, MessageType, PacketBody, Request, Status};
use crate::net::wire::info::{INFO_BYTES, InfoHeader, TransmitInfo};
use crate::net::wire::oid::Oid;
use zerocopy::little_endian::U32;
use zerocopy::{Immutable, IntoBytes};

/// Bytes of the longest header of a frame.
pub const PACKET_HEADER_MOST_BYTES: usize = size_of::<Header>() + size_of::<PacketBody>() + 4 * INFO_BYTES;

/// Everything that a guest says beside frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestMessage<'a> {
    /// Begin.
    Initialize,
    /// End.
    Halt,
    /// What is this?
    Query(Oid, &'a [u8]),
    /// This be so.
    Set(Oid, &'a [u8]),
    /// Are you there?
    KeepAlive,
    /// Yes.
    KeepAliveComplete,
}

impl GuestMessage<'_> {
    /// The bytes; `request` is what the answer will name, or which request of the host this answers.
    #[must_use]
    pub fn to_bytes(self, request: u32) -> Vec<u8> {
        let request = U32::new(request);
        match self {
            Self::Initialize => {
                let max_transfer_bytes = U32::new(MAX_TRANSFER_BYTES);
                let body = Initialize { request, major: U32::new(1), minor: U32::ZERO, max_transfer_bytes };
                message(MessageType::INITIALIZE, &body, &[])
            }
            Self::Halt => message(MessageType::HALT, &KeepAlive { request }, &[]),
            Self::Query(oid, value) => message(MessageType::QUERY, &object(request, oid, value), value),
            Self::Set(oid, value) => message(MessageType::SET, &object(request, oid, value), value),
            Self::KeepAlive => message(MessageType::KEEP_ALIVE, &KeepAlive { request }, &[]),
            Self::KeepAliveComplete => {
                let body = Complete { request, status: U32::new(Status::SUCCESS.0) };
                message(MessageType::KEEP_ALIVE_COMPLETE, &body, &[])
            }
        }
    }
}

fn object(request: U32, oid: Oid, value: &[u8]) -> Request {
    Request {
        request,
        oid: U32::new(oid.0),
        bytes: length(value.len()),
        offset: length(size_of::<Request>()),
        connection: U32::ZERO,
    }
}

fn message(kind: MessageType, body: &(impl IntoBytes + Immutable), value: &[u8]) -> Vec<u8> {
    let body = body.as_bytes();
    let total = size_of::<Header>() + body.len() + value.len();
    let header = Header { kind: U32::new(kind.0), length: length(total) };
    let mut bytes = Vec::with_capacity(total);
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(body);
    bytes.extend_from_slice(value);
    bytes
}

/// The header of a frame of `frame_bytes`, which follows it at once, and how long it is.
#[must_use]
pub fn packet_header(frame_bytes: usize, info: &TransmitInfo) -> ([u8; PACKET_HEADER_MOST_BYTES], usize) {
    let words = info.words();
    let info_bytes = words.iter().flatten().count() * INFO_BYTES;
    let fixed = size_of::<PacketBody>();
    let total = size_of::<Header>() + fixed + info_bytes;
    let mut bytes = [0; PACKET_HEADER_MOST_BYTES];
    let mut rest = bytes.as_mut_slice();
    put(&mut rest, &Header { kind: U32::new(MessageType::PACKET.0), length: length(total + frame_bytes) });
    put(
        &mut rest,
        &PacketBody {
            data_offset: length(fixed + info_bytes),
            data_bytes: length(frame_bytes),
            info_offset: if info_bytes == 0 { U32::ZERO } else { length(fixed) },
            info_bytes: length(info_bytes),
            out_of_band_offset: U32::ZERO,
            out_of_band_bytes: U32::ZERO,
            out_of_band_count: U32::ZERO,
            connection: U32::ZERO,
            reserved: U32::ZERO,
        },
    );
    for (kind, word) in words.into_iter().flatten() {
        let (size, offset) = (length(INFO_BYTES), length(size_of::<InfoHeader>()));
        put(&mut rest, &InfoHeader { size, kind: U32::new(kind.0), offset });
        put(&mut rest, &U32::new(word));
    }
    (bytes, total)
}

/// Writes a value, and goes on behind it.
fn put(rest: &mut &mut [u8], value: &(impl IntoBytes + Immutable)) {
    let value = value.as_bytes();
    let (here, behind) = std::mem::take(rest).split_at_mut_checked(value.len()).unwrap_or_default();
    here.iter_mut().zip(value).for_each(|(to, from)| *to = *from);
    *rest = behind;
}

fn length(bytes: usize) -> U32 {
    U32::new(u32::try_from(bytes).unwrap_or(u32::MAX))
}
