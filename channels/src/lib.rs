//! The life of VMBus channels, from offer to release: one executor for the bus, dispatchers for interrupts, handles.
//!
//! ```text
//! ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                         ^^^^^^^^ you are here
//! ```
//!
//! A [`Vmbus`] is the handle to the executor: one thread that takes everything that happens, in order, waits for nobody,
//! and alone changes what is known of channels ([`control`] is that without the thread). A [`Channel`] is one open
//! channel with one owner, a [`Dispatched`] one whose packets a dispatcher hands to a [`Handler`] ([`dispatch`]). They
//! know when the host must be signalled, when interrupts may be masked, how to sleep without losing a wake-up, and how to
//! end when the device goes, or, with a [`KeepAlive`], when it is silent. A [`group`] is a
//! primary channel and its subchannels, and the connections that move between them. None of it knows what a payload means.
//!
//! ```no_run
//! use vmbus::class::Class;
//! use vmbus::sysfs::Bus;
//! use vmbus::uio::BusLink;
//! use vmbus_channels::{Error, OpenOptions, OutgoingPacket, Settings, Vmbus, Wake};
//!
//! let vmbus = Vmbus::start(Box::new(BusLink::new(Bus::system())?), Settings::default())?;
//! let offers = vmbus.of_class(Class::DYNAMIC_MEMORY)?;
//! let offer = offers.first().expect("a device that is bound to uio_hv_generic");
//! let mut channel = vmbus.open(offer.id, OpenOptions::default())?;
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
pub mod group;
mod here;
mod id;
pub mod keepalive;
pub mod mutation;
mod offer;
pub mod requests;
mod subscription;
mod timers;
mod waker;

pub use buffer::Buffer;
pub use bus::{Counters, OpenOptions, Placement, Settings, Vmbus};
pub use channel::{Channel, Dispatched, IncomingPacket, OutgoingBatch, Receiver, Sender, Wake};
pub use dispatch::{Handler, Notifier};
pub use error::Error;
pub use id::ChannelId;
pub use keepalive::{KeepAlive, Probe, Probed, Watched};
pub use offer::{Announcement, Offer};
pub use subscription::Subscription;
pub use vmbus_ringbuf::OutgoingPacket;
pub use waker::Waker;
