//! Dynamic Memory: the host takes memory from this guest, and gives it back.
//!
//! `wire` is bytes and messages, `state` what follows from what, `report` the memory figures, `pages` the pages
//! that are out of use, and `driver` the loop that joins them over a channel.

mod driver;
mod event;
pub mod pages;
pub mod ranges;
mod registered;
pub mod report;
pub mod state;
mod transport;
pub mod wire;

pub use driver::Balloon;
pub use event::{Counters, Event, Ignored, Summary};
pub use registered::BalloonDriver;
pub use state::{Failure, Limit, Settings};
