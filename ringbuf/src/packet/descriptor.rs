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

/// A descriptor: two words, taken apart on demand. May be nonsense; the reader checks it before use.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    // Decoding into fields of 16 bits makes the compiler pass them through memory, at the price of the rest of a read.
    first: u64,
    transaction_id: u64,
}

impl Descriptor {
    /// A descriptor of these fields; offset and length are in units of 8 bytes.
    #[must_use]
    #[inline]
    pub const fn new(kind: PacketType, payload_offset8: u16, length8: u16, flags: u16, transaction_id: u64) -> Self {
        let first = kind.0 as u64 | (payload_offset8 as u64) << 16 | (length8 as u64) << 32 | (flags as u64) << 48;
        Self { first, transaction_id }
    }

    /// Decodes two little-endian words.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [first, transaction_id] = words;
        Self { first, transaction_id }
    }

    /// Encodes as two little-endian words.
    #[must_use]
    #[inline]
    pub const fn to_words(self) -> [u64; 2] {
        [self.first, self.transaction_id]
    }

    /// Type of the packet.
    #[must_use]
    #[inline]
    pub const fn kind(self) -> PacketType {
        let [low, high, ..] = self.first.to_le_bytes();
        PacketType(u16::from_le_bytes([low, high]))
    }

    /// [`FLAG_COMPLETION_REQUESTED`], or bits that this crate passes on.
    #[must_use]
    #[inline]
    pub const fn flags(self) -> u16 {
        let [.., low, high] = self.first.to_le_bytes();
        u16::from_le_bytes([low, high])
    }

    /// Chosen by the sender, returned in the completion. Look it up, never treat it as an address.
    #[must_use]
    #[inline]
    pub const fn transaction_id(self) -> u64 {
        self.transaction_id
    }

    /// Bytes of the packet without its trailer.
    #[must_use]
    #[inline]
    pub const fn packet_bytes(self) -> u32 {
        bits_16(self.first >> 32) * 8
    }

    /// Bytes before the payload.
    #[must_use]
    #[inline]
    pub const fn header_bytes(self) -> u32 {
        bits_16(self.first >> 16) * 8
    }
}

/// The lowest 16 bits.
#[inline]
const fn bits_16(word: u64) -> u32 {
    (word & 0xffff) as u32
}

impl fmt::Debug for Descriptor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Descriptor")
            .field("kind", &self.kind())
            .field("header_bytes", &self.header_bytes())
            .field("packet_bytes", &self.packet_bytes())
            .field("flags", &self.flags())
            .field("transaction_id", &self.transaction_id)
            .finish()
    }
}
