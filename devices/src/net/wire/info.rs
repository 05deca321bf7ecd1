//! What goes with a frame: checksums, segmentation, VLAN tag, hash ("per-packet info").
//!
//! Each is one word behind a header of 12 bytes: size, type (the high bit: internal), offset of the word.

use super::{WireError, part, prefix};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

wire!(/// Opens each piece of information.
InfoHeader, 12 {
    /// Bytes, this header included.
    size: U32,
    /// [`InfoType`].
    kind: U32,
    /// Where the value is, from this header on.
    offset: U32,
});

/// What a piece of information is about; the host may send any value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InfoType(pub u32);

impl InfoType {
    /// Checksums: to be made, or what was found.
    pub const CHECKSUM: Self = Self(0);
    /// Into segments of which length.
    pub const SEGMENTATION: Self = Self(2);
    /// VLAN tag.
    pub const VLAN: Self = Self(6);
    /// Hash by which a queue is chosen.
    pub const HASH: Self = Self(8);
}

/// Bytes of one piece of information.
pub const INFO_BYTES: usize = size_of::<InfoHeader>() + 4;

/// An 802.1Q tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct VlanTag {
    /// Priority, 0 to 7.
    pub priority: u8,
    /// May be dropped first.
    pub drop_eligible: bool,
    /// Number of the network, 0 to 4095.
    pub id: u16,
}

impl VlanTag {
    fn from_word(word: u32) -> Self {
        let [low, high, ..] = word.to_le_bytes();
        Self { priority: low & 7, drop_eligible: low & 8 != 0, id: u16::from_le_bytes([low, high]) >> 4 }
    }

    /// The word on the wire; what does not fit is cut off.
    #[must_use]
    pub fn to_word(self) -> u32 {
        u32::from(self.priority & 7) | u32::from(self.drop_eligible) << 3 | u32::from(self.id & 0xfff) << 4
    }
}

/// Which protocol a checksum or a segmentation is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What checksums the host is to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransmitChecksum {
    /// Of which network protocol.
    pub network: Network,
    /// That of TCP.
    pub tcp: bool,
    /// That of UDP.
    pub udp: bool,
    /// That of the IPv4 header.
    pub ip_header: bool,
    /// Where the transport header begins in the frame. Bytes, below 1024.
    pub transport_offset: u16,
}

impl TransmitChecksum {
    /// The word on the wire.
    #[must_use]
    pub fn to_word(self) -> u32 {
        let network = if self.network == Network::V4 { 1 } else { 2 };
        let which = u32::from(self.tcp) << 2 | u32::from(self.udp) << 3 | u32::from(self.ip_header) << 4;
        network | which | u32::from(self.transport_offset & 0x3ff) << 16
    }
}

/// Into what segments the host is to cut a TCP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Segmentation {
    /// Of which network protocol.
    pub network: Network,
    /// Bytes of payload in each segment, below 2^20.
    pub segment_bytes: u32,
    /// Where the TCP header begins in the frame. Bytes, below 1024.
    pub transport_offset: u16,
}

impl Segmentation {
    /// The word on the wire: version 2 of segmentation.
    #[must_use]
    pub fn to_word(self) -> u32 {
        let network = u32::from(self.network == Network::V6) << 31;
        self.segment_bytes & 0xf_ffff | u32::from(self.transport_offset & 0x3ff) << 20 | 1 << 30 | network
    }
}

/// What the host found about checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReceiveChecksum(pub u32);

impl ReceiveChecksum {
    /// The transport protocol's is right: it was checked, or never left this machine.
    #[must_use]
    pub const fn transport_good(self) -> bool {
        self.0 & (1 << 3 | 1 << 4) != 0 && !self.bad()
    }

    /// The IPv4 header's is right.
    #[must_use]
    pub const fn ip_good(self) -> bool {
        self.0 & 1 << 5 != 0 && !self.bad()
    }

    /// One of them is wrong.
    #[must_use]
    pub const fn bad(self) -> bool {
        self.0 & 7 != 0
    }
}

/// What goes with a frame to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct TransmitInfo {
    /// A tag that is not in the frame.
    pub vlan: Option<VlanTag>,
    /// Checksums to be made.
    pub checksum: Option<TransmitChecksum>,
    /// Segments to be made; the checksums of segments are made without asking.
    pub segmentation: Option<Segmentation>,
    /// By which the host may choose.
    pub hash: Option<u32>,
}

/// What goes with a frame from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ReceiveInfo {
    /// A tag that is not in the frame.
    pub vlan: Option<VlanTag>,
    /// What the host found.
    pub checksum: Option<ReceiveChecksum>,
    /// By which the queue was chosen.
    pub hash: Option<u32>,
}

impl TransmitInfo {
    /// The pieces, type and value.
    pub(super) fn words(&self) -> [Option<(InfoType, u32)>; 4] {
        [
            self.hash.map(|hash| (InfoType::HASH, hash)),
            self.vlan.map(|tag| (InfoType::VLAN, tag.to_word())),
            self.segmentation.map(|segmentation| (InfoType::SEGMENTATION, segmentation.to_word())),
            self.checksum.filter(|_| self.segmentation.is_none()).map(|sums| (InfoType::CHECKSUM, sums.to_word())),
        ]
    }
}

impl ReceiveInfo {
    /// Reads all pieces; those of types that are not known here are passed over.
    ///
    /// # Errors
    /// [`WireError`]: a size or an offset that can't be.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, WireError> {
        const WHAT: &str = "information with a frame";
        let mut info = Self::default();
        while !bytes.is_empty() {
            let (header, _) = prefix::<InfoHeader>(bytes, WHAT)?;
            let size = usize::try_from(header.size.get()).ok().filter(|size| *size >= size_of::<InfoHeader>());
            let split = size.and_then(|size| bytes.split_at_checked(size));
            let Some((this, rest)) = split else {
                return Err(WireError::Value {
                    what: "size of information with a frame",
                    value: header.size.get().into(),
                });
            };
            bytes = rest;
            let kind = InfoType(header.kind.get());
            if ![InfoType::CHECKSUM, InfoType::VLAN, InfoType::HASH].contains(&kind) {
                continue;
            }
            let value = part(this, size_of::<InfoHeader>(), (header.offset.get(), 4), WHAT)?;
            let word = prefix::<U32>(value, WHAT)?.0.get();
            match kind {
                InfoType::CHECKSUM => info.checksum = Some(ReceiveChecksum(word)),
                InfoType::VLAN => info.vlan = Some(VlanTag::from_word(word)),
                _ => info.hash = Some(word),
            }
        }
        Ok(info)
    }
}
