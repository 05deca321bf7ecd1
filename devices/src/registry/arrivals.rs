//! Where devices come from: the bus, or a test's hand.

use std::time::Duration;

use crossbeam_channel::Receiver;
use vmbus_channels::{Announcement, Subscription};

/// A source of announcements in order.
pub trait Arrivals: Send + 'static {
    /// What to wait for. Asked for again after [`disconnected`](Self::disconnected).
    fn receiver(&self) -> &Receiver<Announcement>;

    /// What it means that the receiver is disconnected.
    fn disconnected(&mut self) -> Disconnected;
}

/// Why there is nothing to receive any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum Disconnected {
    /// Not for this reason: here is one more.
    One(Announcement),
    /// Some were missed. Everything that is present follows anew, up to `AllArrived`.
    Lagged,
    /// The bus has ended, and all devices with it.
    Ended,
}

impl Arrivals for Subscription {
    fn receiver(&self) -> &Receiver<Announcement> {
        Self::receiver(self)
    }

    fn disconnected(&mut self) -> Disconnected {
        match self.next(Some(Duration::ZERO)) {
            Ok(Some(announcement)) => Disconnected::One(announcement),
            Ok(None) | Err(vmbus_channels::Error::Lagged) => Disconnected::Lagged,
            Err(error) => {
                log::info!(target: "vmbus::registry", "no more devices: {error}");
                Disconnected::Ended
            }
        }
    }
}

impl Arrivals for Receiver<Announcement> {
    fn receiver(&self) -> &Receiver<Announcement> {
        self
    }

    /// Its senders are gone, and so is everything.
    fn disconnected(&mut self) -> Disconnected {
        Disconnected::Ended
    }
}
