//! The way in: one dispatcher per processor, each with a relid map of its own, from an event flag to a callback.
//!
//! Nothing is shared on that way: a map is changed only by its dispatcher, between two events, as it is told to by
//! orders. So a lookup is one load, and after [`Report::Retired`] no callback of that channel runs or is under way.

mod alarms;
mod apply;
mod bells;
mod direct;
mod dispatcher;
mod entry;
mod flags;
mod lines;
mod mailbox;
mod mutation;
mod notifier;
mod orders;
mod places;
mod ready;
pub mod receive;
mod report;
mod roster;
mod served;
mod settings;
pub mod sync;
mod tally;
mod team;
mod thread;

pub(crate) use bells::{Bells, Half};
pub(crate) use direct::{Direct, DirectProcessor};
pub use entry::{Attention, Entry, Progress, Serve};
pub use lines::Source;
pub use notifier::Notifier;
pub use report::{Counters, Ending, Report};
pub use served::{Bell, Handler, Served};
pub use settings::Settings;
pub use team::Dispatchers;

/// Relids that a map has room for, with 0, which is nobody's. What one interrupt source has flags for.
pub const RELIDS: usize = 2048;

/// What dispatchers are made of, for benches and models. No part of what applications use.
pub mod parts {
    pub use super::bells::{Bells, Half};
    pub use super::direct::OneFlag;
    pub use super::dispatcher::{Dispatcher, Reports, Role};
    pub use super::flags::{Flags, NoFlags, OwnFlags, PageFlags};
    pub use super::lines::Lines;
    pub use super::mailbox::Mailbox;
    pub use super::mutation::{Mutant, Mutation};
    pub use super::orders::Order;
    pub use super::ready::ReadyList;
    pub use super::roster::Roster;
    pub use super::tally::Tally;

    /// A name that no table has given.
    #[must_use]
    pub fn channel_id(index: u32, generation: u32) -> crate::ChannelId {
        crate::ChannelId { index, generation }
    }
}

use flags::Flags;
