//! The VMBus as Linux shows it to user space: devices, their arrival and removal, binding, and the link to a host.
//!
//! ```text
//! ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!              ^^^^^ you are here
//! ```
//!
//! This crate finds devices in sysfs ([`sysfs`]), hears of changes ([`uevent`]), moves devices between kernel
//! drivers and user space ([`bind`]), and says what stands in their way ([`doctor`]). A bound device is opened as a
//! link ([`uio`]), which hands out its rings in memory that can be taken back ([`memory`]). Where there is no kernel in
//! between, control messages ([`message`]) go to a host process over a socket ([`wire`], both ends of it); [`link`] is
//! what those above see of either way. This crate does not move packets between threads, does not know any device's
//! protocol, and never prints.
//!
//! ```no_run
//! use vmbus::bind::{BindOptions, Binder, DEFAULT_STATE_DIRECTORY};
//! use vmbus::sysfs::Bus;
//!
//! let bus = Bus::system();
//! let device = bus.find("balloon")?;
//! let bound = Binder::new(&bus, DEFAULT_STATE_DIRECTORY).bind(&device, BindOptions::default())?;
//! println!("{} is {}", device.class.title(), bound.node.display());
//! # Ok::<(), vmbus::Error>(())
//! ```

#![deny(unsafe_code)]

pub mod bind;
pub mod class;
pub mod direct;
pub mod doctor;
pub mod error;
#[cfg(test)]
mod fake;
pub mod holders;
pub mod kernel;
pub mod link;
pub mod memory;
pub mod message;
pub mod mutation;
mod signal_bits;
pub mod sysfs;
pub mod uevent;
pub mod uio;
pub mod wire;

pub use error::{Error, ErrorKind};
