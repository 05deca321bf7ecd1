//! What the driver is told by its user.

use super::wire::offload::Offloads;
use super::wire::oid::PacketFilter;
use core::time::Duration;
use vmbus_channels::OpenOptions;

/// What the driver is told by its user.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Bytes of the longest payload of a frame that the guest wants to send and get.
    pub mtu: u32,
    /// Bytes of receive buffer; old hosts take less.
    pub receive_bytes: u32,
    /// Bytes of send buffer.
    pub send_bytes: u32,
    /// Places for frames that are longer than a section of the send buffer (hosts make those 6 KiB): each takes 68 KiB of
    /// memory that the host reaches by page numbers. Segmentation is of little use without, and control messages go this
    /// way, too. None over a link that has no such memory; then control messages go through the send buffer.
    pub long_frames: u32,
    /// What the host's side shall do, as far as it can.
    pub offloads: Offloads,
    /// Which frames are wanted.
    pub filter: PacketFilter,
    /// How long the host may be silent when it is asked for something; five seconds in the kernel's driver.
    pub host_timeout: Duration,
    /// How each channel is opened.
    pub open: OpenOptions,
    /// The key of the hash by which the host chooses a queue.
    pub key: [u8; super::wire::scale::KEY_BYTES],
}

impl Default for Settings {
    /// MTU 1500, 16 MiB and 1 MiB of buffers, four long frames, rings of 128 KiB, no offloads.
    fn default() -> Self {
        Self {
            mtu: 1500,
            receive_bytes: 16 << 20,
            send_bytes: 1 << 20,
            long_frames: 4,
            offloads: Offloads::empty(),
            filter: PacketFilter::USUAL,
            host_timeout: Duration::from_secs(5),
            open: OpenOptions { outgoing_bytes: 128 << 10, incoming_bytes: 128 << 10, ..OpenOptions::default() },
            key: KEY,
        }
    }
}

/// Says nothing by itself; every bit of an address makes a difference.
const KEY: [u8; super::wire::scale::KEY_BYTES] = {
    let (mut key, mut place, mut word) = ([0; super::wire::scale::KEY_BYTES], 0, 0x6e65_7476_7363_6b65_u64);
    while place < key.len() {
        word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let [.., high] = word.to_le_bytes();
        #[expect(clippy::indexing_slicing, reason = "inside: looked at when this is compiled")]
        {
            key[place] = high;
        }
        place += 1;
    }
    key
};
