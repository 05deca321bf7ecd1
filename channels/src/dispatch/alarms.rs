//! When the channels of one dispatcher want to be called, and the calls.
//!
//! A channel is asked for its deadline when it comes and behind each turn, and has at most one alarm, which may be
//! too early: then it is asked again, so that a deadline that moves on with each packet costs nothing. All of it is the
//! dispatcher's own, and an alarm goes with its channel: what is retired can't be called, and nobody is left to ask it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::dispatcher::Dispatcher;
use super::mutation::Mutation;
use super::sync::contained;
use super::{Ending, Flags};
use crate::timers::{TimerKey, Wheel};

/// When channels want to be called, by relid.
pub(super) struct Alarms {
    /// What the wheel's time counts from.
    origin: Instant,
    wheel: Wheel<usize>,
    set: BTreeMap<usize, (Instant, TimerKey)>,
    /// Kept for its allocation.
    rung: Vec<(TimerKey, usize)>,
}

impl Alarms {
    /// Nobody wants to be called. Ticks begin at `origin`; until then it is always then.
    pub(super) fn new(origin: Instant) -> Self {
        Self { origin, wheel: Wheel::new(), set: BTreeMap::new(), rung: Vec::new() }
    }

    /// Whether nobody wants to be called.
    pub(super) fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// How many want to be called.
    pub(super) fn len(&self) -> usize {
        self.set.len()
    }

    /// Rings for this channel at this time, or before: who is then not due is asked again.
    pub(super) fn set(&mut self, relid: usize, deadline: Option<Instant>) {
        let Some(deadline) = deadline else { return };
        if let Some((at, key)) = self.set.get(&relid).copied() {
            if at <= deadline {
                return;
            }
            self.wheel.cancel(key);
        }
        let key = self.wheel.insert(deadline.saturating_duration_since(self.origin), relid);
        self.set.insert(relid, (deadline, key));
    }

    /// Does not ring for this channel.
    pub(super) fn cancel(&mut self, relid: usize) {
        if let Some((_, key)) = self.set.remove(&relid) {
            self.wheel.cancel(key);
        }
    }

    /// When to look next: not later than the first deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        self.wheel.deadline().and_then(|next| self.origin.checked_add(next))
    }

    /// Takes those whose time has come, and their alarms away. To be given back.
    fn ring(&mut self, now: Instant) -> Vec<(TimerKey, usize)> {
        let mut rung = std::mem::take(&mut self.rung);
        self.wheel.advance(now.saturating_duration_since(self.origin), &mut rung);
        for (_, relid) in &rung {
            self.set.remove(relid);
        }
        rung
    }
}

impl<F: Flags> Dispatcher<F> {
    /// Calls those whose time has come. Where nobody wants to be called, the clock is not looked at.
    pub(super) fn ring(&mut self, clock: impl FnOnce() -> Instant) {
        if self.alarms.is_empty() {
            return;
        }
        let now = clock();
        let mut rung = self.alarms.ring(now);
        for (_, relid) in rung.drain(..) {
            self.call(relid, now);
        }
        self.alarms.rung = rung;
    }

    /// How long there is to sleep until somebody wants to be called. `None`: nobody does, and the clock is not looked at.
    pub(super) fn time_left(&self, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        self.alarms.next().map(|next| next.saturating_duration_since(clock()))
    }

    /// The same dispatcher, whose timers' ticks begin at another time, for clocks that are a number.
    #[must_use]
    pub fn ticking_from(mut self, origin: Instant) -> Self {
        self.alarms = Alarms::new(origin);
        self
    }

    /// Channels that want to be called at some time.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.alarms.len()
    }

    /// An alarm has rung for a channel.
    fn call(&mut self, relid: usize, now: Instant) {
        if !self.lacks(Mutation::CalledBlind) {
            // What lies in the ring came before: an answer that is there is no silence.
            self.serve_one(relid);
        }
        let Some(target) = self.targets.get_mut(relid) else { return };
        if contained(|| target.deadline()).flatten().is_none_or(|deadline| now < deadline) {
            // The turn has set the alarm anew.
            return;
        }
        self.tally.timers.add(1);
        match contained(|| target.timer(now)) {
            Some(Ok(())) => {
                // What the turn has set is over.
                self.alarms.cancel(relid);
                self.ask(relid);
            }
            Some(Err(ending)) => self.end(relid, ending),
            None => self.end(relid, Ending::Panicked),
        }
    }

    /// Nobody is called for what was asked of this relid so far.
    pub(super) fn silence(&mut self, relid: usize) {
        if !self.lacks(Mutation::AlarmKept) {
            self.alarms.cancel(relid);
        }
    }

    /// Asks a channel when it wants to be called.
    pub(super) fn ask(&mut self, relid: usize) {
        let Some(target) = self.targets.get_mut(relid) else { return };
        match contained(|| target.deadline()) {
            Some(deadline) => self.alarms.set(relid, deadline),
            None => self.end(relid, Ending::Panicked),
        }
    }
}
