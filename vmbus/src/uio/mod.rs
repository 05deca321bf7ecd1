//! The link to a host through `uio_hv_generic`: the kernel owns the channels' lives, this process owns their rings.
//!
//! [`BusLink`] is the link for the control executor: it plays the host. [`OpenDevice`] is one device below it: it hands
//! out rings, signals the host, and reports interrupts and the end of the device. Its teardown order: users of the
//! rings stop, the mappings of subchannels go, then the others, and the file descriptor closes last.

mod buffers;
mod bus_link;
mod direct;
mod doorbell;
mod ending;
mod events;
mod line;
mod maps;
mod node;
mod open_device;
mod options;
mod rings;
mod shared;
mod subchannel;
mod watcher;

pub use buffers::KernelBuffer;
pub use bus_link::BusLink;
#[cfg(test)]
pub(crate) use direct::ProcessMemory;
pub use doorbell::Doorbell;
pub use events::Event;
pub use line::Line;
pub use maps::{Map, maps};
pub use open_device::OpenDevice;
pub use options::{Layout, Options};
pub use rings::RingPair;
