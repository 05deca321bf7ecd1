//! What the fuzz targets of vmbus-channels run. The unit tests of that crate run it, too (`fuzz_tests.rs`).

#![forbid(unsafe_code)]

pub mod completions;
pub mod executor;
