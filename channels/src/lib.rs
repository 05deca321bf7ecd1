//! The life of a VMBus channel, from open to close: packets in and out, signals, masks and waiting, in one place.
//!
//! ```text
//! ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                         ^^^^^^^^ you are here
//! ```
//!
//! A [`Channel`] is one open channel with one owner. It knows when the host must be signalled, when interrupts may be
//! masked, how to sleep without losing a wake-up on kernels of both interrupt semantics, and how to end when the
//! device goes. It does not know what a payload means, and it has no threads of its own.
//!
//! ```no_run
//! use vmbus::sysfs::Bus;
//! use vmbus_channels::{Channel, Error, Options, OutgoingPacket, Wake};
//!
//! let bus = Bus::system();
//! let mut channel = Channel::open(&bus, &bus.find("balloon")?, Options::default())?;
//! channel.send(OutgoingPacket::in_band(1), &[b"ping"], None)?;
//! while channel.wait(None)? == Wake::Packets {
//!     channel.receive(32, |packet| {
//!         println!("{} bytes", packet.payload().len());
//!         Ok::<_, Error>(())
//!     })?;
//! }
//! channel.close()?;
//! # Ok::<(), Error>(())
//! ```

#![forbid(unsafe_code)]

// Tests inside and outside share a model, which speaks of this crate by its name.
#[cfg(test)]
extern crate self as vmbus_channels;

mod buffer;
mod bus;
mod channel;
pub mod control;
pub mod dispatch;
mod error;
mod executor;
#[cfg(test)]
mod fuzz_tests;
mod here;
mod id;
pub mod mutation;
mod offer;
pub mod requests;
mod subscription;
mod waker;

pub use buffer::Buffer;
pub use bus::{Counters, OpenOptions, Settings, Vmbus};
pub use channel::{Channel, Dispatched, IncomingPacket, OutgoingBatch, Wake};
pub use dispatch::{Handler, Notifier};
pub use error::Error;
pub use id::ChannelId;
pub use offer::{Announcement, Offer};
pub use subscription::Subscription;
pub use vmbus::uio::{Layout, Options};
pub use vmbus_ringbuf::OutgoingPacket;
pub use waker::Waker;
