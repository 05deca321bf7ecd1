//! The link that speaks real messages to a host process: over a Unix socket, with guest memory in a memfd.

mod line;

pub use line::Line;
