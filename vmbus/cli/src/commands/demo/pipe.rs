//! Traffic with a byte pipe, as hvsock has it: what is written comes back as a stream of bytes.
//!
//! Format: each packet's payload is {type: u32 = 1, bytes: u32} and that many bytes, padded to 8
//! (net/vmw_vsock/hyperv_transport.c).

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use vmbus_channels::{Channel, Error, OutgoingPacket, Wake};

use super::report::Traffic;
use crate::simulated::PATIENCE;

/// Bytes of data in a packet of ours.
const CHUNK_BYTES: usize = 4096;
/// Bytes on their way at a time: less than the host keeps for us.
const WINDOW_BYTES: u64 = 128 * 1024;
/// Bytes of the header.
const HEADER_BYTES: usize = 8;
/// Type of data.
const DATA: u32 = 1;

/// Bytes of data in a packet of the host's, at most: it joins what it has.
const BACK_BYTES: usize = 16 * 1024;
/// After so many bytes the stream begins anew.
const PERIOD: u8 = 251;

/// The bytes of a stream, each its place modulo [`PERIOD`].
struct Pattern(Vec<u8>);

impl Pattern {
    fn new() -> Self {
        Self((0..PERIOD).cycle().take(usize::from(PERIOD) + BACK_BYTES).collect())
    }

    /// So many bytes from a place on; fewer beyond [`BACK_BYTES`].
    fn at(&self, place: u64, bytes: usize) -> &[u8] {
        let start = usize::try_from(place % u64::from(PERIOD)).unwrap_or_default();
        self.0.get(start..).map(|rest| rest.get(..bytes).unwrap_or(rest)).unwrap_or_default()
    }

    /// The place behind `data`, or the largest number if it is not the pattern.
    fn check(&self, place: u64, data: &[u8]) -> u64 {
        if self.at(place, data.len()) == data { place + data.len() as u64 } else { u64::MAX }
    }
}

/// Writes for a while, and reads all of it back, byte for byte.
pub(super) fn stream(channel: &mut Channel, lasts: Duration) -> anyhow::Result<Traffic> {
    let start = Instant::now();
    let (mut sent, mut back, mut packets) = (0_u64, 0_u64, 0_u64);
    let mut packet_bytes = vec![0; HEADER_BYTES + BACK_BYTES];
    let pattern = Pattern::new();
    loop {
        let over = start.elapsed() >= lasts;
        if over && sent == back {
            break;
        }
        if !over && sent - back < WINDOW_BYTES {
            let bytes = u32::try_from(CHUNK_BYTES).context("a chunk has 32 bits of bytes")?;
            let header = [DATA.to_le_bytes(), bytes.to_le_bytes()].concat();
            match channel.try_send(OutgoingPacket::in_band(0), &[&header, pattern.at(sent, CHUNK_BYTES)]) {
                Ok(()) => {
                    sent += u64::from(bytes);
                    packets += 1;
                }
                Err(Error::Full { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let received = channel.receive(16, |packet| {
            let bytes = packet.payload().len().min(packet_bytes.len());
            let copy = packet_bytes.get_mut(..bytes).unwrap_or_default();
            // One copy, and all checks on the copy. The host may have changed it meanwhile; the pattern would show it.
            if packet.payload().copy_part(0, copy).is_ok() {
                back = data(copy).map_or(u64::MAX, |data| pattern.check(back, data));
            }
            Ok::<_, Error>(())
        })?;
        ensure!(back != u64::MAX, "the pipe gave back other bytes than were written");
        if received == 0 && (over || sent - back >= WINDOW_BYTES) {
            ensure!(channel.wait(Some(PATIENCE))? == Wake::Packets, "no bytes in {} s", PATIENCE.as_secs());
        }
    }
    Ok(Traffic::new(packets, back, start.elapsed()))
}

/// The data of a packet's payload.
fn data(payload: &[u8]) -> Option<&[u8]> {
    let (header, data) = payload.split_at_checked(HEADER_BYTES)?;
    let (kind, bytes) = header.split_at_checked(4)?;
    let kind = u32::from_le_bytes(kind.try_into().ok()?);
    let bytes = usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok()?;
    if kind == DATA { data.get(..bytes) } else { None }
}
