//! Doubles of ring memory for tests, of this crate and of those above it: feature `doubles`, needs std.
//!
//! [`PlainMemory`] is honest memory without unsafe code. [`HostileMemory`] changes under its user by a script of bytes,
//! so that a run can be repeated. [`drive`] has the checks that property tests and fuzz targets share.

pub mod drive;
mod hostile;
pub mod model;
mod plain;
mod script;

pub use hostile::HostileMemory;
pub use plain::PlainMemory;
pub use script::Script;
