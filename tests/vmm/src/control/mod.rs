//! The control socket: a scenario outside drives the host by JSON lines.

mod call;
mod faults;
mod lines;
mod serve;
mod settings;
mod until;
pub mod wire;

pub use call::Host;
pub use serve::Serving;
pub use settings::{config, server_settings};

#[cfg(test)]
mod tests;
