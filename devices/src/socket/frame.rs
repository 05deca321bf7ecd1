//! The framing of byte pipes: each packet is a header and so many bytes of data; none at all is the sender's end.
//!
//! Format: the pipe header in net/vmw_vsock/hyperv_transport.c: type (1), bytes of data; both little-endian u32. Sizes and
//! limits are those of that transport.

/// Bytes of the header.
pub const HEADER_BYTES: usize = 8;
/// Bytes of data in one packet at most; what the other side sends may not be longer, either.
pub const MESSAGE_BYTES: usize = 16 * 1024;
/// Bytes of a ring that hosts before version 5.0 want, and the least that a newer one gets: control page not counted.
pub const RING_BYTES_LEAST: u32 = 6 * 4096;
/// Bytes of a ring at most.
pub const RING_BYTES_MOST: u32 = 64 * 4096;

/// The header's type for data, and for the end.
const DATA: u32 = 1;
/// What surrounds a payload in the ring: its descriptor before, the trailer behind.
const FRAME_BYTES: u32 = 16 + 8;
/// What the end takes in the ring. That much is always left free, so that saying it never waits.
pub const END_RING_BYTES: u32 = ring_bytes(0);
/// A ring is never full: the indices of an empty one would be the same.
const GAP_BYTES: u32 = 8;

/// What a packet with so many bytes of data takes in the ring.
#[must_use]
pub const fn ring_bytes(data_bytes: u32) -> u32 {
    FRAME_BYTES + 8 + (data_bytes.saturating_add(7) & !7)
}

/// Bytes of data that a packet may have when `free` bytes of ring are free, so that the end still fits behind it.
#[must_use]
pub const fn data_bytes_in(free: u32) -> u32 {
    (free & !7).saturating_sub(GAP_BYTES + END_RING_BYTES + ring_bytes(0))
}

/// The header of a packet with so many bytes of data.
#[must_use]
pub const fn header(data_bytes: u32) -> [u8; HEADER_BYTES] {
    (((data_bytes as u64) << 32) | DATA as u64).to_le_bytes()
}

/// The bytes of data in a packet whose payload has `payload_bytes`, which senders pad; zero is the end.
///
/// # Errors
/// The packet is none of a pipe.
pub fn data_bytes(header: [u8; HEADER_BYTES], payload_bytes: usize) -> Result<usize, NoFrame> {
    let [a, b, c, d, e, f, g, h] = header;
    let (kind, bytes) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    let data = usize::try_from(bytes).unwrap_or(usize::MAX);
    let there = payload_bytes.saturating_sub(HEADER_BYTES);
    if kind != DATA {
        Err(NoFrame::Kind(kind))
    } else if data > there || data > MESSAGE_BYTES {
        Err(NoFrame::Bytes { bytes, there })
    } else {
        Ok(data)
    }
}

/// Why a packet is none of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NoFrame {
    /// Its type is not that of data.
    #[error("a packet of type {0} in a byte pipe")]
    Kind(u32),
    /// It says more bytes than it has, or may have.
    #[error("a packet that says {bytes} bytes of data and has {there} in a byte pipe")]
    Bytes {
        /// What it says.
        bytes: u32,
        /// What there is.
        there: usize,
    },
    /// It is of a kind that pipes do not have.
    #[error("a packet that is no plain one in a byte pipe")]
    Packet,
    /// It is shorter than a header.
    #[error("a packet of {0} bytes in a byte pipe")]
    Short(usize),
    /// Data, or another end, behind the end.
    #[error("a packet behind the end of a byte pipe")]
    BehindEnd,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_is_type_and_length() {
        assert_eq!(header(0x0403), [1, 0, 0, 0, 3, 4, 0, 0]);
        assert_eq!(data_bytes(header(3), 16), Ok(3));
        assert_eq!(data_bytes(header(0), 8), Ok(0));
        assert_eq!(data_bytes(header(9), 16), Err(NoFrame::Bytes { bytes: 9, there: 8 }));
        assert_eq!(data_bytes([2, 0, 0, 0, 0, 0, 0, 0], 8), Err(NoFrame::Kind(2)));
        assert!(data_bytes(header(u32::MAX), usize::MAX).is_err());
        assert!(data_bytes(header(16 * 1024 + 1), 1 << 20).is_err());
    }

    proptest! {
        #[test]
        fn what_fits_leaves_room_for_the_end(free in 0_u32..1 << 20) {
            let data = data_bytes_in(free);
            prop_assert!(data == 0 || ring_bytes(data) + END_RING_BYTES + GAP_BYTES <= free);
            // And no more would fit.
            prop_assert!(ring_bytes(data + 8) + END_RING_BYTES + GAP_BYTES > free & !7);
        }

        #[test]
        fn any_header_is_an_answer(header: [u8; HEADER_BYTES], payload in 0_usize..40_000) {
            if let Ok(bytes) = data_bytes(header, payload) {
                prop_assert!(bytes + HEADER_BYTES <= payload.max(HEADER_BYTES));
            }
        }
    }
}
