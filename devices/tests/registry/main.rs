//! The registry with real threads: R4, and the life of devices.
#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::unwrap_used, reason = "tests")]

mod failures;
mod life;
mod order;
mod r4;
mod r4_1;
mod support;
mod told;
