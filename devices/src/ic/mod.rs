//! Integration components: what a Hyper-V host asks of its guests' operating systems.
//!
//! `wire` is the frame of all messages, `negotiate` the choice of versions, `session` what a packet gets as an answer, and
//! `service` the loop that joins a [`Component`] and a channel. The components themselves answer requests.

pub mod component;
mod event;
pub mod fcopy;
pub mod heartbeat;
pub mod hook;
pub mod kvp;
pub mod negotiate;
mod registered;
mod service;
pub mod session;
pub mod shutdown;
pub mod timesync;
pub mod vss;
pub mod wire;

pub use component::{Component, Ending, Profile};
pub use event::{Counters, Event, Ignored, Summary};
pub use fcopy::FileCopy;
pub use heartbeat::Heartbeat;
pub use kvp::Kvp;
pub use registered::ComponentDriver;
pub use service::{Service, Settings};
pub use shutdown::Shutdown;
pub use timesync::TimeSync;
pub use vss::Vss;

use wire::Version;

const VERSION_1_0: Version = Version::new(1, 0);
const VERSION_3_0: Version = Version::new(3, 0);

/// Versions of the framework that most components know.
const FRAMEWORKS: &[Version] = &[VERSION_3_0, VERSION_1_0];
