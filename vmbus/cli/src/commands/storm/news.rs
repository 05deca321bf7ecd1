//! Announcements, sorted by device: one thread reads the subscription, each worker waits for its own device.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use anyhow::{Context, bail};
use uuid::Uuid;
use vmbus_channels::{Announcement, Error, Offer, Subscription};

/// What a worker hears of its device.
#[derive(Debug)]
pub(super) enum News {
    Arrived(Offer),
    Departed(Offer),
}

/// One worker's share of the announcements.
#[derive(Debug)]
pub(super) struct Inbox {
    news: Receiver<News>,
    patience: Duration,
}

impl Inbox {
    /// The next announcement of the worker's device.
    pub(super) fn next(&self) -> anyhow::Result<News> {
        let heard = self.news.recv_timeout(self.patience);
        heard.with_context(|| format!("nothing was announced for {} s", self.patience.as_secs()))
    }

    /// The offer, which must be the next announcement.
    pub(super) fn arrival(&self) -> anyhow::Result<Offer> {
        match self.next()? {
            News::Arrived(offer) => Ok(offer),
            News::Departed(offer) => bail!("relid {} departed without an arrival before", offer.relid),
        }
    }

    /// The departure of that offer, which must be the next announcement.
    pub(super) fn departure(&self, of: &Offer) -> anyhow::Result<()> {
        match self.next()? {
            News::Departed(offer) if offer.id == of.id => Ok(()),
            other => bail!("channel {} should have departed, but this was announced: {other:?}", of.id),
        }
    }
}

/// Starts the thread. It ends with the bus.
pub(super) fn sort(
    mut subscription: Subscription,
    devices: &[Uuid],
    patience: Duration,
) -> anyhow::Result<(JoinHandle<anyhow::Result<()>>, Vec<Inbox>)> {
    let mut senders: HashMap<Uuid, Sender<News>> = HashMap::new();
    let mut inboxes = Vec::new();
    for device in devices {
        let (sender, news) = channel();
        senders.insert(*device, sender);
        inboxes.push(Inbox { news, patience });
    }
    let thread = Builder::new().name("storm-news".to_owned()).spawn(move || {
        loop {
            let (news, instance) = match subscription.next(None) {
                Ok(Some(Announcement::Arrived(offer))) => (News::Arrived(offer.clone()), offer.instance),
                Ok(Some(Announcement::Departed(offer))) => (News::Departed(offer.clone()), offer.instance),
                Ok(_) => continue,
                Err(Error::Ended) => return Ok(()),
                Err(error) => return Err(error).context("the subscription failed"),
            };
            if let Some(sender) = senders.get(&instance) {
                // A worker that failed is gone, and its device's end concerns nobody.
                let _ = sender.send(news);
            }
        }
    });
    Ok((thread.context("cannot start a thread")?, inboxes))
}
