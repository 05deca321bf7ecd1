//! What a link of a channel group carries: its channel's sender, which all its connections share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use super::Turnstile;
use crate::{Dispatched, Error, Offer};

/// A link's channel, as its connections share it, and what the protocol keeps for the link.
///
/// Nobody waits for the sender: [`drive`](Self::drive) has a round of work done, here or by whoever is at it.
#[derive(Debug)]
pub struct Port<S> {
    offer: Offer,
    turnstile: Turnstile,
    /// Touched by who is in the turnstile only, once it is open: the lock is always free.
    channel: Mutex<Option<Dispatched>>,
    /// It is to be closed.
    shut: AtomicBool,
    state: S,
}

impl<S> Port<S> {
    pub(super) fn new(offer: Offer, state: S) -> Self {
        let channel = Mutex::new(None);
        Self { offer, turnstile: Turnstile::default(), channel, shut: AtomicBool::new(false), state }
    }

    /// What the host offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// What the protocol keeps for the link.
    #[must_use]
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Whether the link was cleared: what is sent from now on goes nowhere.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.shut.load(Ordering::SeqCst)
    }

    /// Has a round of `work` done with the sender, by this thread or by the one that is at it: every caller must bring the
    /// same work. What was done before this call is seen by the round. Waits for nobody.
    ///
    /// Before the channel is open, and after it is closed, there is no sender, and nothing is done.
    pub fn drive(&self, mut work: impl FnMut(&mut Dispatched)) {
        self.turnstile.pass(|| {
            let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_shut() {
                // Closes it, without waiting.
                let closed = channel.take();
                drop(channel);
                drop(closed);
            } else if let Some(channel) = channel.as_mut() {
                work(channel);
            }
        });
    }

    /// The channel is open.
    pub(super) fn open(&self, channel: Dispatched) {
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(channel);
        if self.is_shut() {
            // It may have been shut while there was nothing to close.
            self.shut();
        }
    }

    /// Closes the channel and waits until the host has let go of it, if nobody is sending. Otherwise it is closed as by
    /// [`shut`](Self::shut).
    ///
    /// # Errors
    /// As [`Dispatched::close`].
    pub(super) fn close(&self) -> Result<(), Error> {
        self.shut.store(true, Ordering::SeqCst);
        let mut closed = None;
        self.turnstile.pass(|| {
            let mut channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            closed = closed.take().or_else(|| channel.take());
        });
        closed.map_or(Ok(()), Dispatched::close)
    }

    /// Closes the channel, now or as soon as whoever is sending has finished. Waits for neither of them, nor for the host.
    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.drive(|_| {});
    }
}
