//! A network adapter: frames between this guest and the host's switch.
//!
//! `wire` is bytes and messages, `negotiation` what is agreed on at the begin, `sections` and `intake` who has which
//! part of the shared buffers, `queue` one channel with its frames, and `adapter` all queues and what is asked of the host.

mod adapter;
mod begin;
mod bytes;
mod control;
mod intake;
mod learn;
pub mod negotiation;
mod queue;
mod sections;
mod settings;
mod shared;
mod statistics;
mod subchannels;
pub mod wire;

pub use adapter::{Adapter, Notice};
pub use begin::{Facts, Link};
pub use intake::Held;
pub use negotiation::Failure;
pub use queue::Queue;
pub use settings::Settings;
pub use statistics::Statistics;
pub use wire::info::{Network, ReceiveChecksum, ReceiveInfo, Segmentation, TransmitChecksum, TransmitInfo, VlanTag};
pub use wire::nvsp::Version;
pub use wire::offload::Offloads;
pub use wire::oid::{Oid, PacketFilter};
pub use wire::rndis::Packet;
