//! Dynamic Memory: the host takes memory from this guest, and gives it back.

pub mod pages;
pub mod ranges;
pub mod report;
pub mod state;
pub mod wire;
