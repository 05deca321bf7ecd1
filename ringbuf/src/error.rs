//! What can go wrong: a corrupt ring, a packet that does not fit, memory of a wrong shape.

use thiserror::Error;

/// What in the shared memory contradicted the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum What {
    /// The size of the data area itself.
    DataBytes,
    /// The write index is out of range, not a multiple of 8, or took back what was published.
    WriteIndex,
    /// The read index is out of range, not a multiple of 8, or passed what was published.
    ReadIndex,
    /// A packet's length is below its descriptor's or beyond what was published.
    PacketLength,
    /// A packet's payload starts inside the descriptor or behind the packet.
    PayloadOffset,
}

/// The other side wrote something that no correct peer writes. Sticky: the reader or writer that found it answers
/// every later call with the same value. Close the channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("corrupt ring: {what:?} is {value}, limit {limit}; the other side broke the protocol, close the channel")]
#[non_exhaustive]
pub struct Corrupt {
    /// Which value.
    pub what: What,
    /// The value as it was read, once. Bytes.
    pub value: u32,
    /// What bounded it. Bytes.
    pub limit: u32,
}

/// Why a packet was not written. Nothing of it is visible to the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WriteError {
    /// No room now. Pass `needed` to [`Writer::request_space`](crate::Writer::request_space) before sleeping.
    #[error("ring full: the packet takes {needed} bytes, {free} are free; wait for the reader")]
    Full {
        /// Bytes of ring that the packet takes, descriptor and trailer included.
        needed: u32,
        /// Bytes free when it was tried. The packet fits when more than `needed` are free.
        free: u32,
    },
    /// It will never fit this ring or the format; split it.
    #[error("packet too large: {needed} bytes of ring, at most {limit}; send less at once")]
    TooLarge {
        /// Bytes of ring that the packet would take.
        needed: u64,
        /// The largest that this ring can take.
        limit: u32,
    },
    /// A GPA range or the set of ranges can't be expressed; see [`PageBuffer`](crate::PageBuffer).
    #[error("bad ranges: a range is empty, leaves its pages, or its page frames do not cover it")]
    BadRanges,
    /// A write behind the end of a reservation.
    #[error("write outside of the reservation: {offset} + {bytes} bytes of {reserved}")]
    OutsideReservation {
        /// Where the write would begin. Bytes from the start of the payload.
        offset: usize,
        /// Its length. Bytes.
        bytes: usize,
        /// Bytes of payload that were reserved.
        reserved: usize,
    },
    /// The ring is corrupt.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// Why a packet was not read. It is still in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The caller's buffer is too small.
    #[error("buffer too small: the payload has {needed} bytes")]
    ShortBuffer {
        /// Bytes of payload.
        needed: usize,
    },
    /// The ring is corrupt.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
}

/// A packet's own content contradicts itself although its frame is sound; later packets can still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Malformed {
    /// The accessor does not belong to this packet's type.
    #[error("packet type {found} has no such ranges")]
    WrongType {
        /// The type that the packet has.
        found: u16,
    },
    /// The ranges do not fit between descriptor and payload, or a range is inconsistent.
    #[error("ranges leave the packet's header of {header_bytes} bytes")]
    Ranges {
        /// Bytes before the payload, descriptor included.
        header_bytes: u32,
    },
    /// The caller asked for bytes behind the payload, or its buffer is too small for it.
    #[error("{needed} bytes wanted, {available} there")]
    Short {
        /// Bytes that were asked for.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
}

/// Memory that can't be a ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// Data area too small, too large, or not a multiple of 8.
    #[error("a ring's data can't have {data_bytes} bytes")]
    DataBytes {
        /// Bytes of data.
        data_bytes: u32,
    },
    /// The ring is not larger than its control page, or far too large.
    #[error("a ring of {ring_bytes} bytes has no room for data behind a page of {page_bytes}")]
    RingBytes {
        /// Bytes of the whole ring.
        ring_bytes: u64,
        /// Bytes of one system page.
        page_bytes: u32,
    },
    /// Control page or data do not start at a multiple of 8.
    #[error("a ring must start at a multiple of 8 bytes")]
    Alignment,
    /// The control area is shorter than its fields.
    #[error("a control area of {control_bytes} bytes is too short")]
    Control {
        /// Bytes of the control area.
        control_bytes: usize,
    },
}
