//! Who hears of changes. One who does not read is cut off: it costs neither time nor more than a bounded memory.

use std::sync::{Arc, Weak};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{Announcement, Offer};

#[derive(Debug)]
pub(super) struct Subscribers {
    each: Vec<Subscriber>,
    /// Announcements that one may leave unread.
    unread: usize,
    /// How many were cut off.
    pub(super) lagged: u64,
}

#[derive(Debug)]
struct Subscriber {
    announcements: Sender<Announcement>,
    /// Whether anybody listens.
    listens: Weak<()>,
    /// What it found when it came does not count as unread.
    unread: usize,
}

impl Subscribers {
    pub(super) fn new(unread: usize) -> Self {
        Self { each: Vec::new(), unread: unread.max(1), lagged: 0 }
    }

    /// One more, who first hears of what is `present`.
    pub(super) fn add(&mut self, present: Vec<Offer>, all_arrived: bool) -> (Receiver<Announcement>, Arc<()>) {
        // Those who left are noticed when there is something to tell; where nothing ever is, here.
        self.each.retain(|subscriber| subscriber.listens.strong_count() != 0);
        let (announcements, receiver) = unbounded();
        let unread = self.unread.saturating_add(present.len()).saturating_add(1);
        let present = present.into_iter().map(Announcement::Arrived);
        for announcement in present.chain(all_arrived.then_some(Announcement::AllArrived)) {
            // The receiver is right here.
            let _ = announcements.send(announcement);
        }
        let listens = Arc::new(());
        self.each.push(Subscriber { announcements, listens: Arc::downgrade(&listens), unread });
        (receiver, listens)
    }

    /// Tells everybody. Who has too much unread loses the sender, finds that behind what it has, and comes again.
    pub(super) fn announce(&mut self, announcement: &Announcement) {
        let mut lagged = 0;
        self.each.retain(|subscriber| {
            if subscriber.announcements.len() >= subscriber.unread {
                lagged += 1;
                return false;
            }
            subscriber.announcements.send(announcement.clone()).is_ok()
        });
        self.lagged += lagged;
    }
}
