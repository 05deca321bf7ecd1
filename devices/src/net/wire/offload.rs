//! What the host's side can do for TCP and IP, and what of that is wanted: checksums and segmentation.

use super::oid::ObjectHeader;
use super::{WireError, prefix};
use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

const KIND_DEFAULT: u8 = 0x80;
const KIND_OFFLOAD: u8 = 0xa7;
/// Bytes of the whole object in revision 3, which a question has room for.
const QUERY_BYTES: usize = 156;

wire!(/// What the host's side can do, as far as every revision has it.
Offload, 112 {
    /// [`ObjectHeader`].
    header: ObjectHeader,
    /// Checksums of frames to the host, IPv4: encapsulation and bits.
    transmit_v4: [U32; 2],
    /// From the host.
    receive_v4: [U32; 2],
    /// To the host, IPv6.
    transmit_v6: [U32; 2],
    /// From the host.
    receive_v6: [U32; 2],
    /// Segmentation version 1.
    segmentation_1: [U32; 4],
    /// IPsec.
    ipsec: [U32; 7],
    /// Segmentation version 2: encapsulation, longest packet, fewest segments of IPv4 and of IPv6, bits.
    segmentation_2: [U32; 7],
    /// 0.
    flags: U32,
});
wire!(/// What is wanted: 0 leaves it as it is, 1 is none, 2 to the host, 3 from the host, 4 both (segmentation: 2).
OffloadParameters, 28 {
    /// [`ObjectHeader`].
    header: ObjectHeader,
    /// Checksum of the IPv4 header.
    ip_v4: u8,
    /// Of TCP over IPv4.
    tcp_v4: u8,
    /// Of UDP over IPv4.
    udp_v4: u8,
    /// Of TCP over IPv6.
    tcp_v6: u8,
    /// Of UDP over IPv6.
    udp_v6: u8,
    /// Segmentation version 1.
    segmentation_1: u8,
    /// IPsec.
    ipsec: u8,
    /// Segmentation version 2, IPv4.
    segmentation_v4: u8,
    /// IPv6.
    segmentation_v6: u8,
    /// 0.
    connection: [u8; 2],
    /// 0.
    padding: u8,
    /// 0.
    flags: U32,
    /// 0: IPsec, coalescing, encapsulation.
    rest: [u8; 6],
    /// 0.
    padding_2: [u8; 2],
});

bitflags! {
    /// What is done by the host's side.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct Offloads: u32 {
        /// The checksum of IPv4's header is made.
        const TRANSMIT_IP = 1;
        /// The checksum of TCP over IPv4 is made.
        const TRANSMIT_TCP_V4 = 1 << 1;
        /// The checksum of UDP over IPv4 is made.
        const TRANSMIT_UDP_V4 = 1 << 2;
        /// The checksum of TCP over IPv6 is made.
        const TRANSMIT_TCP_V6 = 1 << 3;
        /// The checksum of UDP over IPv6 is made.
        const TRANSMIT_UDP_V6 = 1 << 4;
        /// Checksums of IPv4 are looked at.
        const RECEIVE_V4 = 1 << 5;
        /// Checksums of IPv6 are looked at.
        const RECEIVE_V6 = 1 << 6;
        /// TCP over IPv4 is cut into segments.
        const SEGMENTATION_V4 = 1 << 7;
        /// TCP over IPv6 is cut into segments.
        const SEGMENTATION_V6 = 1 << 8;
    }
}

impl Offloads {
    /// What the host's side can do, and the longest packet that it cuts.
    ///
    /// # Errors
    /// [`WireError`]: it is another object, or too short.
    pub fn parse(bytes: &[u8]) -> Result<(Self, u32), WireError> {
        let (offload, _) = prefix::<Offload>(bytes, "what can be offloaded")?;
        let header = offload.header;
        if header.kind != KIND_OFFLOAD || header.revision == 0 || usize::from(header.size.get()) < size_of::<Offload>()
        {
            return Err(WireError::Value { what: "kind of what can be offloaded", value: header.kind.into() });
        }
        let mut offloads = Self::empty();
        let bits = |[_, bits]: [U32; 2]| bits.get();
        // Each is two bits wide, and on if either is.
        let (v4, v6) = (bits(offload.transmit_v4), bits(offload.transmit_v6));
        offloads.set(Self::TRANSMIT_IP, v4 & 0x300 != 0);
        offloads.set(Self::TRANSMIT_TCP_V4, v4 & 0x30 != 0 && v4 & 0xc != 0);
        offloads.set(Self::TRANSMIT_UDP_V4, v4 & 0xc0 != 0);
        offloads.set(Self::TRANSMIT_TCP_V6, v6 & 0x30 != 0 && v6 & 0xc != 0);
        offloads.set(Self::TRANSMIT_UDP_V6, v6 & 0xc0 != 0);
        offloads.set(Self::RECEIVE_V4, bits(offload.receive_v4) & 0x30 != 0);
        offloads.set(Self::RECEIVE_V6, bits(offload.receive_v6) & 0x30 != 0);
        let [encapsulation_v4, longest_v4, _, encapsulation_v6, longest_v6, _, bits_v6] = offload.segmentation_2;
        offloads.set(Self::SEGMENTATION_V4, encapsulation_v4.get() & 2 != 0 && longest_v4.get() != 0);
        let options = bits_v6.get() & 3 != 0 && bits_v6.get() & 0xc != 0;
        offloads.set(Self::SEGMENTATION_V6, encapsulation_v6.get() & 2 != 0 && longest_v6.get() != 0 && options);
        let longest = [longest_v4, longest_v6].map(U32::get).into_iter().filter(|longest| *longest != 0).min();
        Ok((offloads, longest.unwrap_or(0)))
    }

    /// The value of a setting that wants these and no others. Hosts before 5.0 take a shorter one, without UDP.
    #[must_use]
    pub fn to_parameters(self, short: bool) -> Vec<u8> {
        let way = |transmit, receive| match (self.contains(transmit), self.contains(receive)) {
            (false, false) => 1,
            (true, false) => 2,
            (false, true) => 3,
            (true, true) => 4,
        };
        let on = |what| if self.contains(what) { 2 } else { 1 };
        let size: u16 = if short { 22 } else { 28 };
        let udp = |transmit, receive| if short { 0 } else { way(transmit, receive) };
        let parameters = OffloadParameters {
            header: ObjectHeader { kind: KIND_DEFAULT, revision: 3, size: U16::new(size) },
            ip_v4: way(Self::TRANSMIT_IP, Self::RECEIVE_V4),
            tcp_v4: way(Self::TRANSMIT_TCP_V4, Self::RECEIVE_V4),
            udp_v4: udp(Self::TRANSMIT_UDP_V4, Self::RECEIVE_V4),
            tcp_v6: way(Self::TRANSMIT_TCP_V6, Self::RECEIVE_V6),
            udp_v6: udp(Self::TRANSMIT_UDP_V6, Self::RECEIVE_V6),
            segmentation_1: 0,
            ipsec: 0,
            segmentation_v4: on(Self::SEGMENTATION_V4),
            segmentation_v6: on(Self::SEGMENTATION_V6),
            connection: [0; 2],
            padding: 0,
            flags: U32::ZERO,
            rest: [0; 6],
            padding_2: [0; 2],
        };
        parameters.as_bytes().iter().copied().take(size.into()).collect()
    }
}

/// The value that goes with the question for what can be offloaded: the object's header, and room.
#[must_use]
pub fn query(ndis: (u32, u32)) -> Vec<u8> {
    let (revision, size) = if ndis >= (6, 30) { (3, QUERY_BYTES) } else { (1, size_of::<Offload>()) };
    let size = u16::try_from(size).unwrap_or(u16::MAX);
    let header = ObjectHeader { kind: KIND_OFFLOAD, revision, size: U16::new(size) };
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(size.into(), 0);
    bytes
}
