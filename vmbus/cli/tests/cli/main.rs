//! The program as users and service managers see it, over made-up machines.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod balloon;
mod bench;
mod commands;
mod machines;
mod process;
mod simulated;
mod sockets;
mod watch;
