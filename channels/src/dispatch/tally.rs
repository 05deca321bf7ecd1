//! What a dispatcher counts: written by it alone, so that counting needs no read-modify-write; read by anyone.

use core::sync::atomic::{AtomicU64, Ordering};

use super::Counters;

/// A count with one writer.
#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    #[inline(always)]
    pub(super) fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    pub(super) fn less(&self) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(1), Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The counts of one dispatcher.
#[derive(Debug, Default)]
pub struct Tally {
    pub(super) events: Count,
    pub(super) stray_events: Count,
    pub(super) forwarded_events: Count,
    pub(super) stale: Count,
    pub(super) panics: Count,
    pub(super) corrupt: Count,
    pub(super) dead: Count,
    pub(super) packets: Count,
    pub(super) timers: Count,
    pub(super) sleeps: Count,
    pub(super) entries: Count,
    pub(super) markers: Count,
}

impl Tally {
    /// A number that changes with whatever comes in.
    pub(super) fn seen(&self) -> u64 {
        self.events.value().wrapping_add(self.packets.value())
    }

    /// Adds these counts to `sum`.
    pub fn add_to(&self, sum: &mut Counters) {
        sum.events += self.events.value();
        sum.stray_events += self.stray_events.value();
        sum.forwarded_events += self.forwarded_events.value();
        sum.stale += self.stale.value();
        sum.panics += self.panics.value();
        sum.corrupt += self.corrupt.value();
        sum.dead += self.dead.value();
        sum.packets += self.packets.value();
        sum.timers += self.timers.value();
        sum.sleeps += self.sleeps.value();
        sum.entries += self.entries.value();
        sum.markers += self.markers.value();
    }
}
