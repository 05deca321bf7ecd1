//! Many byte streams over one device's channels: each is on one link at a time, and moves when that dies.
//!
//! A [`Multiplex`] opens a primary channel and its subchannels as a group; [`Multiplex::connect`] makes a [`Stream`].
//! `flow` is one stream without threads (pure), `streams` what the group's links carry, `pump` how streams share a link.

mod error;
mod flow;
mod multiplexer;
mod pump;
mod settings;
mod stream;
mod streams;
pub mod wire;

pub use multiplexer::Multiplex;
pub use settings::Settings;
pub use stream::Stream;
pub use wire::Mode;
