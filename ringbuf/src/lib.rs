//! VMBus ring buffers: shared bytes to packets and back, without an operating system.
//!
//! ```text
//!     host  ->  ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!               ^^^^^^^ you are here
//!
//!     Writer (batch, reservation)          Reader (batch, packets in place)
//!        |   packet: OutgoingPacket           |   packet: Packet, Payload, ranges
//!        +------------ signal: publish an index, decide who must be told
//!                 |
//!              Memory   checked access to one ring: control page + data
//!                 |
//!              Mapped   the only unsafe code: contiguous or mirrored memory shared with the other side
//! ```
//!
//! A channel has two rings, one per direction; each has one [`Writer`] and one [`Reader`], on different sides of a
//! trust boundary. Nothing the other side writes causes a panic, an access outside of the ring, an endless loop or a
//! length that is not there: it is [`Corrupt`], and sticky.
//!
//! What this crate does not do: map memory, send signals, wait, or know what a payload means. A [`Signal`] is a value
//! that the caller acts on; *wait until there is work* is a loop of the layer above, made of [`Reader::mask`],
//! [`Reader::unmask`] and [`Writer::request_space`].
//!
//! ```
//! use core::sync::atomic::AtomicU64;
//! use vmbus_ringbuf::{Mapped, OutgoingPacket, Reader, Signal, Writer};
//!
//! let control: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512]; // one page
//! let data: [AtomicU64; 1024] = [const { AtomicU64::new(0) }; 1024]; // 8 KiB
//! let memory = Mapped::in_memory(&control, &data)?;
//! let mut writer = Writer::new(&memory)?;
//! let mut reader = Reader::new(&memory)?;
//!
//! let packet = OutgoingPacket::in_band(7).with_completion_requested();
//! let signal = writer.try_write(&packet, &[b"hello, ", b"host"])?;
//! assert_eq!(signal, Signal::Needed, "the ring was empty");
//!
//! let mut batch = reader.batch();
//! while let Some(packet) = batch.next()? {
//!     assert_eq!(packet.transaction_id(), 7);
//!     let mut payload = [0; 16]; // padded to 8 bytes
//!     packet.payload().copy_to(&mut payload)?;
//!     assert_eq!(&payload, b"hello, host\0\0\0\0\0");
//! }
//! assert_eq!(batch.finish(), Signal::NotNeeded, "no writer is blocked");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "doubles")]
extern crate std;

#[cfg(feature = "doubles")]
pub mod doubles;
mod error;
mod layout;
mod mapped;
mod memory;
mod packet;
mod reader;
mod signal;
mod writer;

pub use error::{Corrupt, LayoutError, Malformed, ReadError, What, WriteError};
pub use layout::{
    CONTROL_BYTES, ControlField, DESCRIPTOR_BYTES, FEATURE_PENDING_SEND_SIZE, LARGEST_DATA_BYTES, LARGEST_PACKET_BYTES,
    RingLayout, SMALLEST_DATA_BYTES, SMALLEST_PACKET_BYTES, TRAILER_BYTES,
};
pub use mapped::Mapped;
pub use memory::Memory;
pub use packet::{
    BLOCK_BYTES, Descriptor, FLAG_COMPLETION_REQUESTED, GpaRange, GpaRanges, HYPERVISOR_PAGE_BYTES, MultiPageBuffer,
    OutgoingPacket, Packet, PacketType, PageBuffer, Payload, TransferPageRange, TransferPages,
};
pub use reader::{ReadBatch, Reader, Received};
pub use signal::Signal;
pub use writer::{Reservation, WriteBatch, Writer};
