//! What a dispatcher is told, and how it sleeps without missing any of it.
//!
//! Looking costs one load per turn. A sender writes the eventfd only when the dispatcher may be asleep: each side sets
//! its own flag, then a full fence, then looks at the other's.

use super::mutation::{Mutant, Mutation};
use super::orders::Order;
use super::sync::{AtomicBool, Event, Ordering, Queue, fence};
use crate::Error;

/// The queue of one dispatcher. Anyone may post; one thread takes.
#[derive(Debug)]
pub struct Mailbox {
    orders: Queue<Order>,
    /// There may be something in the queue.
    pending: AtomicBool,
    /// The dispatcher sleeps or is about to.
    asleep: AtomicBool,
    /// Ends the sleep.
    pub(super) event: Event,
    mutant: Mutant,
}

impl Mailbox {
    /// An empty one.
    ///
    /// # Errors
    /// There is no descriptor to be had.
    pub fn new(mutant: Mutant) -> Result<Self, Error> {
        Ok(Self {
            orders: Queue::new(),
            pending: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            event: Event::new()?,
            mutant,
        })
    }

    /// Posts an order, from any thread. Orders of one thread are taken in their order.
    pub fn post(&self, order: Order) {
        self.orders.push(order);
        if self.mutant.lacks(Mutation::PendingStored) {
            self.pending.store(true, Ordering::Release);
        } else {
            // An exchange, for a store would hide another sender's from whoever takes the flag down: that one would see
            // our order, and not theirs.
            self.pending.swap(true, Ordering::AcqRel);
        }
        if !self.mutant.lacks(Mutation::SendUnfenced) {
            fence(Ordering::SeqCst);
        }
        if self.asleep.load(Ordering::Relaxed) {
            self.event.set();
        }
    }

    /// Whether there is something to take: one load.
    #[inline(always)]
    pub(super) fn has_mail(&self) -> bool {
        self.pending.load(Ordering::Acquire)
    }

    /// Before orders are taken one by one, until there is none.
    pub(super) fn open(&self) {
        if self.mutant.lacks(Mutation::OpenedByStore) {
            self.pending.store(false, Ordering::Relaxed);
        } else {
            // An exchange: a sender whose flag we take down here has put its order where we look next.
            self.pending.swap(false, Ordering::AcqRel);
        }
    }

    /// The next order.
    pub(super) fn take(&self) -> Option<Order> {
        self.orders.pop()
    }

    /// Says that the dispatcher is about to sleep. `false`: it must not, there is mail.
    #[must_use]
    pub fn lie_down(&self) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        if !self.mutant.lacks(Mutation::SleepUnfenced) {
            fence(Ordering::SeqCst);
        }
        if self.pending.load(Ordering::Relaxed) {
            self.asleep.store(false, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Says that it is awake again, and takes note of the event that woke it, if one did.
    pub fn get_up(&self, woken: bool) {
        self.asleep.store(false, Ordering::Relaxed);
        if woken {
            self.event.clear();
        }
    }

    /// Ends a sleep as an interrupt does: what a model does in the place of the interrupt's eventfd.
    #[cfg(any(test, loom, shuttle))]
    pub fn interrupt(&self) {
        self.event.set();
    }

    /// Sleeps on orders and interrupts: what a model does in the place of epoll.
    #[cfg(any(test, loom, shuttle))]
    pub fn sleep(&self) {
        if self.lie_down() {
            let woken = self.event.wait(None);
            self.get_up(woken.unwrap_or(true));
        }
    }
}
