//! Memory shared with the kernel, the host, or a device: mappings that can be taken back at any time.
//!
//! The only unsafe code of this crate is in this folder (mapping calls, the bus-error handler, handing addresses to
//! `vmbus-ringbuf`). No reference to shared bytes is ever made: they are reached through atomics only.
#![expect(unsafe_code, reason = "mappings and bus errors can't be handled without; each block carries its proof")]

mod fault;
mod mapping;
mod pages;
mod pinned;
mod ring;
#[cfg(test)]
mod tests;

pub use fault::bus_errors_answered;
pub use mapping::{Mapping, Piece};
pub use pages::map_pages;
pub use pinned::{Pinned, PinnedPages, Pinner};
pub use ring::{Ring, map_mirrored, map_ring_pages};
pub(crate) use ring::{contiguous, map_ring_pair};
