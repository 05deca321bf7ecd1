//! Each integration component's driver against its simulated host, over the whole stack.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod fcopy;
mod heartbeat;
mod kvp;
mod registered;
mod shutdown;
mod timesync;
mod vss;
mod world;
