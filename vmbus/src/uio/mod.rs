//! The link to a host through `uio_hv_generic`: the kernel owns the channel's life, this process owns its rings.
//!
//! A [`Link`] is one open device. It hands out rings ([`Link::rings`]), signals the host ([`Link::ring`]), and reports
//! interrupts and the end of the device ([`Link::wait`]). Its teardown order: users of the rings stop, the mappings
//! of subchannels go, then the others, and the file descriptor closes last.

mod doorbell;
mod events;
mod line;
mod link;
mod maps;
mod node;
mod options;
mod rings;
mod shared;
mod watcher;

pub use doorbell::Doorbell;
pub use events::Event;
pub use line::Line;
pub use link::Link;
pub use maps::{Map, maps};
pub use options::{Layout, Options};
pub use rings::RingPair;
