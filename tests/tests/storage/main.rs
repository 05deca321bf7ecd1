//! Disks of the simulated host through the storage driver, over the wire link: every version, every command, what goes
//! wrong, and what a host does that is not honest.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod beginning;
mod bytes;
mod hostile;
mod trouble;
mod units;
mod world;
