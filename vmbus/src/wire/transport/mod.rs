//! Frames between guest and host, over a Unix socket that keeps their boundaries (`SOCK_SEQPACKET`).
//!
//! The guest's first frame is a hello that carries its memory and its eventfds. The host answers welcome, or why not.
//! From then on each frame is one control message: posted by the guest to a connection id, or sent by the host to a
//! virtual processor. Nothing else is sent; signals go through shared pages and eventfds. The end of the socket is the
//! end of the connection.

mod frame;
mod outbox;
mod socket;

pub use frame::{FromGuest, FromHost, Hello, MAGIC, MAX_FRAME_BYTES, TRANSPORT_VERSION};
pub use socket::pair;

pub(super) use frame::Frame;
pub(super) use outbox::Outbox;
pub(super) use socket::{Buffer, Received, connect, is_eventfd, listen, receive, receive_with, send_with};
