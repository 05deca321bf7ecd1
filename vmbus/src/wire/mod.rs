//! The link that speaks real messages to a host process: over a Unix socket, with guest memory in a memfd.
//!
//! Both ends are here. The guest's is [`WireLink`]; a host is made of [`HostListener`], [`Arrival`], [`HostConnection`],
//! [`HostMemory`] and [`HostInterrupts`]. What goes over the socket is in [`transport`], what lies where in guest memory
//! in [`Layout`].

mod allocator;
mod connection;
mod guest_memory;
mod host;
mod host_interrupts;
mod host_memory;
mod layout;
mod line;
mod link;
mod receiver;
mod settings;
mod shares;
#[cfg(test)]
mod tests;
pub mod transport;

pub use guest_memory::{GuestMemory, Pages};
pub use host::{Arrival, Greeting, Guest, HostConnection, HostListener, Post};
pub use host_interrupts::HostInterrupts;
pub use host_memory::HostMemory;
pub use layout::{EVENT_FLAGS, Layout, MAX_MEMORY_BYTES, MAX_PROCESSORS, PAGE_BYTES, VMBUS_SINT};
pub use line::Line;
pub use link::WireLink;
pub use settings::Settings;
