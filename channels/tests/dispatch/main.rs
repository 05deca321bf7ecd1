//! Dispatchers: turn by turn without a thread, and with their threads over a link of shared pages.
#![cfg(not(any(loom, shuttle)))]

mod link;
mod serve;
mod threads;
mod turns;
