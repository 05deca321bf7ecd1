//! The same sockets for tokio: nothing blocks, nothing takes a thread.
//!
//! A stream of a bus has one descriptor that becomes readable for either of its directions; each direction watches a
//! duplicate of its own, so that two tasks never take each other's wake-up. Methods are named as tokio's Unix sockets have
//! them. What is not here, such as addresses and errors, is that of the streams that block: see [`VmStream::stream`].

mod connect;
mod listener;
mod ready;
mod split;
mod stream;

pub use listener::VmListener;
pub use split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use stream::VmStream;
