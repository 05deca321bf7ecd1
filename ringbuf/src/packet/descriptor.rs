//! The 16 bytes at the head of every packet.
//!
//! Format: `struct vmpacket_descriptor` in Linux' include/linux/hyperv.h, all little-endian.

use core::fmt;

/// Type of a packet: an open set, since the other side chooses it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PacketType(pub u16);

impl PacketType {
    /// Data in the packet itself.
    pub const IN_BAND: Self = Self(6);
    /// Data in ranges of a set of transfer pages.
    pub const TRANSFER_PAGES: Self = Self(7);
    /// Data in guest pages, named by page frame numbers.
    pub const GPA_DIRECT: Self = Self(9);
    /// Answer to a packet that asked for one.
    pub const COMPLETION: Self = Self(0xb);

    /// The name, if it is a type that this crate builds and parses.
    #[must_use]
    pub const fn name(self) -> Option<&'static str> {
        match self {
            Self::IN_BAND => Some("in-band"),
            Self::TRANSFER_PAGES => Some("transfer pages"),
            Self::GPA_DIRECT => Some("GPA-direct"),
            Self::COMPLETION => Some("completion"),
            Self(_) => None,
        }
    }
}

impl fmt::Debug for PacketType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => formatter.write_str(name),
            None => write!(formatter, "type {:#x}", self.0),
        }
    }
}

/// Flag: the sender wants a completion with the same transaction id.
pub const FLAG_COMPLETION_REQUESTED: u16 = 1;

/// A descriptor, decoded. May be nonsense; the reader checks it before use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    /// Type of the packet.
    pub kind: PacketType,
    /// Where the payload starts, in units of 8 bytes from the start of the packet.
    pub payload_offset8: u16,
    /// Length of the packet without its trailer, in units of 8 bytes.
    pub length8: u16,
    /// [`FLAG_COMPLETION_REQUESTED`], or bits that this crate passes on.
    pub flags: u16,
    /// Chosen by the sender, returned in the completion. Look it up, never treat it as an address.
    pub transaction_id: u64,
}

impl Descriptor {
    /// Decodes two little-endian words.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [first, transaction_id] = words;
        let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
        Self {
            kind: PacketType(u16::from_le_bytes([a, b])),
            payload_offset8: u16::from_le_bytes([c, d]),
            length8: u16::from_le_bytes([e, f]),
            flags: u16::from_le_bytes([g, h]),
            transaction_id,
        }
    }

    /// Encodes as two little-endian words.
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        let first = self.kind.0 as u64
            | (self.payload_offset8 as u64) << 16
            | (self.length8 as u64) << 32
            | (self.flags as u64) << 48;
        [first, self.transaction_id]
    }

    /// Bytes of the packet without its trailer.
    #[must_use]
    #[inline]
    pub const fn packet_bytes(self) -> u32 {
        self.length8 as u32 * 8
    }

    /// Bytes before the payload.
    #[must_use]
    #[inline]
    pub const fn header_bytes(self) -> u32 {
        self.payload_offset8 as u32 * 8
    }
}
