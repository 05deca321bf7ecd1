//! The owner's share of a channel, which closes it: waiting, or by its drop, without.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam_channel::RecvTimeoutError;

use super::hold::{Hold, Reason};
use crate::control::Command;
use crate::executor::{Event, Reply};
use crate::{Error, here};

/// An owner's share of a channel. Its drop closes the channel for everybody, waiting for nobody.
#[derive(Debug)]
pub(super) struct Owner {
    hold: Arc<Hold>,
    /// What the drop says.
    closes: bool,
    /// One of two shares, the last of which closes.
    half: bool,
}

impl Owner {
    pub(super) fn new(hold: Arc<Hold>) -> Self {
        Self { hold, closes: true, half: false }
    }

    /// A share for another user.
    pub(super) fn share(&self) -> Arc<Hold> {
        Arc::clone(&self.hold)
    }

    /// Makes two shares of one; the channel is closed when both have gone.
    pub(super) fn halve(&mut self) -> Self {
        self.half = true;
        Self { hold: Arc::clone(&self.hold), closes: self.closes, half: true }
    }

    /// Closes the channel for everybody, and waits until the host has let go of its memory. Rings and whatever else
    /// reaches that must be gone on this side.
    ///
    /// # Errors
    /// [`Error::InUse`] when others are left for as long as a host may take; [`Error::Silent`]; [`Error::Callback`],
    /// without waiting. It is closed all the same. Of two halves, the first goes without any of this.
    pub(super) fn close(mut self) -> Result<(), Error> {
        let Some(queue) = self.hold.queue().cloned() else { return Ok(()) };
        if self.half {
            if !self.hold.leave() {
                self.closes = false;
                return Ok(());
            }
            self.half = false;
        }
        here::may_wait("close")?;
        self.closes = false;
        self.hold.end(Reason::Closed);
        let (id, device) = (self.hold.id(), self.hold.device().to_owned());
        let users = Arc::downgrade(&self.hold);
        let closed = queue.begin(|to| Event::Command(Command::Close(id), Reply::Done(to)));
        drop(self);
        let Ok(closed) = closed else { return Ok(()) };
        loop {
            match closed.recv_timeout(queue.patience()) {
                // Gone, with its device or with the bus: that is closed enough.
                Ok(Err(error)) if error.is_rescinded() || error.is_ended() || matches!(error, Error::Gone(_)) => {
                    return Ok(());
                }
                Ok(outcome) => return outcome,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => match users.strong_count() {
                    // The host's turn, which the executor puts an end to.
                    0 => {}
                    _ => return Err(Error::InUse { device }),
                },
            }
        }
    }
}

impl Deref for Owner {
    type Target = Hold;

    fn deref(&self) -> &Hold {
        &self.hold
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Whoever else ended it has seen to the rest.
        if self.closes
            && (!self.half || self.hold.leave())
            && self.hold.end(Reason::Closed)
            && let Some(queue) = self.hold.queue()
        {
            queue.tell(Event::Command(Command::Close(self.hold.id()), Reply::Nobody));
        }
    }
}
