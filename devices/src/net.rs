//! A network adapter: frames between this guest and the host's switch.
//!
//! `wire` is bytes and messages, `negotiation` what is agreed on at the begin, `sections`, `pages` and `intake` who
//! has which part of the shared memory, `queue` one channel with its frames, and `adapter` all queues and what is asked of the host.

mod adapter;
mod begin;
mod bytes;
mod control;
mod intake;
mod learn;
pub mod negotiation;
mod pages;
mod queue;
mod registered;
mod sections;
mod settings;
mod shared;
mod statistics;
mod subchannels;
mod transmit;
pub mod wire;

pub use adapter::{Adapter, Notice};
pub use begin::{Facts, Link};
pub use intake::Held;
pub use negotiation::Failure;
pub use queue::Queue;
pub use registered::NetworkDriver;
pub use settings::Settings;
pub use statistics::Statistics;
pub use wire::info::{Network, ReceiveChecksum, ReceiveInfo, Segmentation, TransmitChecksum, TransmitInfo, VlanTag};
pub use wire::nvsp::Version;
pub use wire::offload::Offloads;
pub use wire::oid::{Oid, PacketFilter};
pub use wire::rndis::Packet;
