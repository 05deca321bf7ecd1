//! VM sockets: streams and listeners that are used like those of std, over three families.
//!
//! A [`VmStream`] is a socket of the kernel or a `connection` over a channel: `inbound` and `outbound` with the framing of
//! `frame`. [`Sockets`] join a bus with `endpoint`s, the threads that wait for the host, and who lingers.

pub mod addr;
mod arrivals;
mod connect;
mod connection;
pub mod endpoint;
mod error;
mod family;
pub mod frame;
mod kernel;
mod linger;
mod listener;
mod place;
mod sockets;
mod stream;
#[cfg(all(feature = "tokio", not(loom)))]
pub mod tokio;
mod workers;

pub use addr::{ParseAddrError, VmSocketAddr};
pub use connect::{VmCloser, VmConnect};
pub use family::Family;
pub use listener::{Incoming, VmListener};
pub use place::{Place, ToPlace};
pub use sockets::{SocketSettings, Sockets};
pub use stream::VmStream;

use vmbus::message::OfferFlags;
use vmbus_channels::Offer;

/// Whether a channel is a hvsock connection rather than a device.
fn is_socket(offer: &Offer) -> bool {
    offer.flags.contains(OfferFlags::TLNPI_PROVIDER)
}
