//! The core's tests that look inside.
