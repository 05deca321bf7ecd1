//! More queues: asked for, offered, opened, and filled by the hash of each frame.

use super::adapter::Adapter;
use super::queue::Queue;
use super::wire::nvsp::Version;
use super::wire::oid::Oid;
use super::wire::scale;
use crate::Error;
use std::sync::Arc;
use std::time::Instant;
use vmbus_channels::{Announcement, Offer, Subscription, Vmbus};

/// Queues that any adapter has at most, the first one included.
const MOST_QUEUES: u32 = 64;

impl Adapter {
    /// Makes more queues, so that there are `queues` with the first one, and lets the host fill all of them. Fewer come when
    /// the host can't have so many, or offers fewer in time.
    ///
    /// # Errors
    /// [`Failure`](super::Failure) when the host refuses, or answers nonsense; as [`Vmbus::open`]. What was opened until then is closed.
    pub fn add_queues(&mut self, vmbus: &Vmbus, queues: u32) -> Result<Vec<Queue>, Error> {
        let more = queues.min(self.facts().most_queues).min(MOST_QUEUES).saturating_sub(1);
        if more == 0 || self.facts().version < Version::V5 {
            return Ok(Vec::new());
        }
        // Before they are asked for: they may be there before the answer is.
        let mut announcements = vmbus.subscribe()?;
        let granted = self.ask_subchannels(more)?;
        let offers = self.offered(&mut announcements, granted)?;
        let mut added = Vec::with_capacity(offers.len());
        for offer in offers {
            let channel = vmbus.open(offer.id, self.settings.open.clone())?;
            added.push(Queue::new(channel, Arc::clone(&self.queue.shared), offer.subchannel_index));
        }
        // The numbers that there are: they need not follow each other.
        let table: Vec<u16> = std::iter::once(0).chain(added.iter().map(Queue::index)).collect();
        let parameters = scale::parameters(&table, &self.settings.key);
        self.set(Oid::RECEIVE_SCALE_PARAMETERS, &parameters)?;
        Ok(added)
    }

    /// So many subchannels of this adapter, or as many as come in time.
    fn offered(&self, announcements: &mut Subscription, count: u32) -> Result<Vec<Offer>, Error> {
        let (id, start) = (self.queue.channel.id(), Instant::now());
        let count = usize::try_from(count).unwrap_or(0);
        let mut offers: Vec<Offer> = Vec::with_capacity(count);
        while offers.len() < count {
            let left = self.settings.host_timeout.saturating_sub(start.elapsed());
            match announcements.next(Some(left)) {
                Ok(Some(Announcement::Arrived(offer))) if offer.primary == Some(id) => offers.push(offer),
                Ok(Some(Announcement::Departed(offer))) => offers.retain(|other| other.id != offer.id),
                Ok(Some(_)) => {}
                // Everything present follows anew.
                Err(vmbus_channels::Error::Lagged) => offers.clear(),
                Ok(None) => {
                    log::warn!(
                        target: "vmbus::net",
                        "device {}: {} of {count} subchannels came in time", self.queue.device(), offers.len()
                    );
                    break;
                }
                Err(error) => return Err(error.into()),
            }
        }
        offers.sort_by_key(|offer| offer.subchannel_index);
        Ok(offers)
    }
}
