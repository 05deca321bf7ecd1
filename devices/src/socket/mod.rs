//! VM sockets: what an application sees. Streams and listeners that are used like those of std, over three families.
//!
//! Addresses are `addr`, the framing of byte pipes is `frame`, names and who waits for what are `endpoint`.

pub mod addr;
pub mod endpoint;
pub mod frame;

pub use addr::{ParseAddrError, VmSocketAddr};
