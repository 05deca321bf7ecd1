//! Dispatchers: turn by turn without a thread, and with their threads over a link of shared pages.
#![cfg(not(any(loom, shuttle)))]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests may panic")]

mod alarms;
mod link;
mod serve;
mod threads;
mod timers;
mod turns;
