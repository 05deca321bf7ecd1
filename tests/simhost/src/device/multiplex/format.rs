//! The frames of multiplexed streams, as this host reads and writes them.
//!
//! Forty bytes, little-endian: kind (2), bytes of data (2), moves (4), stream, sequence, acknowledged, limit (8 each); then
//! the data.

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 40;
/// Bytes of data in one frame at most.
pub(super) const DATA_BYTES: usize = 8192;

pub(super) const OPEN: u16 = 1;
pub(super) const MOVE: u16 = 2;
pub(super) const DATA: u16 = 3;
pub(super) const ACKNOWLEDGE: u16 = 4;
pub(super) const END: u16 = 5;
pub(super) const RESET: u16 = 6;
pub(super) const PROBE: u16 = 7;
pub(super) const ALIVE: u16 = 8;

/// Why a stream is over: nobody knows it.
pub(super) const UNKNOWN: u64 = 2;
/// Nobody takes it.
pub(super) const REFUSED: u64 = 4;
/// The host gave it up.
pub(super) const ABORTED: u64 = 1;

/// A frame's header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) bytes: u16,
    pub(super) moves: u32,
    pub(super) stream: u64,
    pub(super) sequence: u64,
    pub(super) acknowledged: u64,
    pub(super) limit: u64,
}

impl Header {
    /// Reads a frame: the header, and its data.
    pub(super) fn read(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (first, data) = frame.split_first_chunk::<HEADER_BYTES>()?;
        let word = |place: usize| {
            let bytes = first.get(place..)?.first_chunk()?;
            Some(u64::from_le_bytes(*bytes))
        };
        let [a, b, c, d, e, f, g, h] = word(0)?.to_le_bytes();
        let header = Self {
            kind: u16::from_le_bytes([a, b]),
            bytes: u16::from_le_bytes([c, d]),
            moves: u32::from_le_bytes([e, f, g, h]),
            stream: word(8)?,
            sequence: word(16)?,
            acknowledged: word(24)?,
            limit: word(32)?,
        };
        let data = data.get(..usize::from(header.bytes))?;
        (data.len() <= DATA_BYTES).then_some((header, data))
    }

    /// Writes a frame.
    pub(super) fn write(&self, data: &[u8]) -> Vec<u8> {
        let mut frame = Vec::with_capacity(HEADER_BYTES + data.len());
        frame.extend(self.kind.to_le_bytes());
        frame.extend(self.bytes.to_le_bytes());
        frame.extend(self.moves.to_le_bytes());
        for word in [self.stream, self.sequence, self.acknowledged, self.limit] {
            frame.extend(word.to_le_bytes());
        }
        frame.extend(data);
        frame
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let header =
            Header { kind: DATA, bytes: 3, moves: 2, stream: 4, sequence: 5, acknowledged: 6, limit: u64::MAX };
        let mut frame = header.write(b"abc");
        assert_eq!(Header::read(&frame), Some((header, &b"abc"[..])));
        // Padding is no data.
        frame.extend([0; 5]);
        assert_eq!(Header::read(&frame), Some((header, &b"abc"[..])));
        assert_eq!(Header::read(&frame[..42]), None);
        assert_eq!(Header::read(&[]), None);
    }
}
