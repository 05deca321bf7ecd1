//! What Linux does as a guest, message by message, where it differs from what a guest written by the book does. Each test
//! is named after it; the kernel is right.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod balloon;
mod channels;
#[expect(dead_code, reason = "shared by several tests, of which each needs a part")]
#[path = "../common/mod.rs"]
mod common;
mod sockets;
