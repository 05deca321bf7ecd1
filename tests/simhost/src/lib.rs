//! A simulated VMBus host: what a guest of the real one sees, from one seed, with faults on demand.
//!
//! ```text
//!     host  ->  ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                              ^                         ^
//!                              +------ tests/simhost ----+
//!                                      ^^^^^^^^^^^^^ you are here
//!
//!     Server       threads over the wire link: in this process, or on a path for several guest processes
//!        |
//!     Simulation   faults (delay, drop, lie ...) and trace around
//!        |
//!     Host         the state machine: messages and signals in, messages and interrupts out; the checker
//!        |
//!     Device       what speaks over a channel: echo, byte pipe, dynamic memory
//! ```
//!
//! Nothing here reads a clock or asks the system for randomness except the server, which tells the state machine what
//! time it is. What the guest does wrong is a [`Violation`], and never a panic. The crate does not know how a guest
//! is made; it speaks the wire formats of [`vmbus::message`] only.
//!
//! ```
//! use vmbus::message::{ContactTarget, GuestMessage, HostMessage, InitiateContact, Version};
//! use vmbus_simhost::{Config, Host, Output, PlainMemory};
//!
//! let mut host = Host::new(Config::seeded(7), PlainMemory::new(64));
//! host.message(&GuestMessage::InitiateContact(InitiateContact {
//!     version: Version::V4_1,
//!     target_vp: 0,
//!     target: ContactTarget::InterruptPage(0),
//!     parent_to_child_monitor: 0x1000,
//!     child_to_parent_monitor: 0x2000,
//!     client: None,
//! }));
//! let Some(Output::Message { message: HostMessage::VersionResponse(answer), .. }) = host.poll_output() else {
//!     return Err("the host did not answer".into());
//! };
//! assert!(answer.supported);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

mod config;
pub mod device;
mod error;
pub mod fault;
mod host;
mod memory;
pub mod plain;
mod random;
pub mod server;
mod simulation;
pub mod trace;
mod violation;

pub use config::{Config, DeviceMaker, DeviceSpec, Latency, Limits, Refusals};
pub use device::Device;
pub use error::Error;
pub use host::{Asked, Counters, Ended, Host, OfferId, Offered, Output, hvsock_service};
pub use memory::{MappedMemory, Memory, PAGE_BYTES, PageRing, PlainMemory};
pub use random::Random;
pub use server::{Control, Door, Server, ServerSettings, Wake};
pub use simulation::{Delivery, Simulation};
pub use violation::{Violation, ViolationKind};
