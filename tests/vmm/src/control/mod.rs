//! The control socket: a scenario outside drives the host by JSON lines.

pub mod wire;
