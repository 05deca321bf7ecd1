//! VM sockets for tokio: the same streams and listeners, awaited instead of waited for, on any of its runtimes.
//!
//! A stream of a bus has a descriptor for each side, so that two tasks wait at once for different things; no thread stands
//! behind any of them. Whatever is cancelled has taken nothing away.

mod connect;
mod listener;
mod source;
mod split;
mod stream;

pub use connect::VmConnect;
pub use listener::VmListener;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::VmStream;
