//! Announcements in order, for who wants to know what comes and goes.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

use crate::executor::{Event, Queue};
use crate::{Announcement, Error};

/// Everything that is present, then every change in order. See [`Vmbus::subscribe`](crate::Vmbus::subscribe).
///
/// One who does not read is cut off after [`Settings::unread`](crate::Settings::unread) announcements; it reads what
/// there is, then [`Error::Lagged`] once, then everything present anew. It does not keep the bus from ending.
#[derive(Debug)]
pub struct Subscription {
    announcements: Receiver<Announcement>,
    /// Tells the executor that somebody listens.
    listens: Arc<()>,
    queue: Queue,
}

impl Subscription {
    pub(crate) fn new(queue: Queue) -> Result<Self, Error> {
        let (announcements, listens) = queue.ask("subscribe", Event::Subscribe)?;
        Ok(Self { announcements, listens, queue })
    }

    /// The next announcement, waiting up to `timeout` or without limit if it is `None`; `Ok(None)` when the time is
    /// over.
    ///
    /// # Errors
    /// [`Error::Lagged`], which is not the end: from here on the subscription starts anew. [`Error::Ended`],
    /// [`Error::Lost`], [`Error::Panicked`]: the bus has ended. [`Error::Callback`].
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Announcement>, Error> {
        let heard = match timeout {
            Some(timeout) => self.announcements.recv_timeout(timeout),
            None => self.announcements.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(announcement) => Ok(Some(announcement)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            // Cut off, or the end, in which case nobody answers.
            Err(RecvTimeoutError::Disconnected) => {
                let (announcements, listens) = self.queue.ask("Subscription::next", Event::Subscribe)?;
                (self.announcements, self.listens) = (announcements, listens);
                Err(Error::Lagged)
            }
        }
    }

    /// What [`next`](Self::next) reads from, for `crossbeam_channel::select!`. Once it is disconnected, call `next`,
    /// which says why, and take the receiver anew.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Announcement> {
        &self.announcements
    }
}
