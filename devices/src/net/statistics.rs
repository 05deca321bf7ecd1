//! What a queue has counted.

/// What a queue has counted since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Frames that the host has taken.
    pub transmitted_frames: u64,
    /// Bytes of those.
    pub transmitted_bytes: u64,
    /// Frames that the host has refused.
    pub transmit_refused: u64,
    /// Times that a frame found no section of the send buffer, or no room in the ring.
    pub transmit_busy: u64,
    /// Frames from the host.
    pub received_frames: u64,
    /// Bytes of those.
    pub received_bytes: u64,
    /// Frames that the host found to have a wrong checksum.
    pub received_bad_checksums: u64,
    /// Messages of the host that were none, or none for a guest.
    pub malformed: u64,
    /// Packets of the host with a transaction id that can't be, or that it has in use.
    pub bad_transactions: u64,
    /// Packets of the host with ranges that are not in the receive buffer, or too many, or too long.
    pub bad_ranges: u64,
    /// Completions that named no request.
    pub unknown_completions: u64,
    /// What came and had no place.
    pub unexpected: u64,
    /// Completions that had to wait for room in the ring.
    pub completions_delayed: u64,
}

impl Statistics {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: &Self) -> Self {
        Self {
            transmitted_frames: self.transmitted_frames + other.transmitted_frames,
            transmitted_bytes: self.transmitted_bytes + other.transmitted_bytes,
            transmit_refused: self.transmit_refused + other.transmit_refused,
            transmit_busy: self.transmit_busy + other.transmit_busy,
            received_frames: self.received_frames + other.received_frames,
            received_bytes: self.received_bytes + other.received_bytes,
            received_bad_checksums: self.received_bad_checksums + other.received_bad_checksums,
            malformed: self.malformed + other.malformed,
            bad_transactions: self.bad_transactions + other.bad_transactions,
            bad_ranges: self.bad_ranges + other.bad_ranges,
            unknown_completions: self.unknown_completions + other.unknown_completions,
            unexpected: self.unexpected + other.unexpected,
            completions_delayed: self.completions_delayed + other.completions_delayed,
        }
    }
}
