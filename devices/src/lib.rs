//! Drivers that speak over VMBus channels.
//!
//! ```text
//! ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                                       ^^^^^^^ you are here
//! ```
#![forbid(unsafe_code)]

pub mod balloon;
