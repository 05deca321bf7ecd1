//! A hierarchical timer wheel: six levels of 64 slots, a millisecond per tick. Insert and cancel are O(1); time that
//! passes costs what expires, and at most five moves per timer. Timers are never early and at most a tick late.

use std::time::Duration;

use slab::Slab;

use crate::mutation::{self, Mutation};

const LEVELS: u32 = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: u32 = 1 << SLOT_BITS;
/// Ticks that the wheel can tell apart: a little over two years. What is later is looked at again by then.
const SPAN: u64 = 1 << (SLOT_BITS * LEVELS);

/// Names a timer that runs. Never reused, so one that expired or was cancelled names nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TimerKey {
    index: usize,
    serial: u64,
}

#[derive(Debug, Clone)]
struct Entry<T> {
    due: T,
    serial: u64,
    /// When it expires, in ticks.
    at: u64,
    level: u32,
    slot: u32,
    previous: Option<usize>,
    next: Option<usize>,
}

/// Timers that each say `T` when they expire.
#[derive(Debug, Clone)]
pub(crate) struct Wheel<T> {
    entries: Slab<Entry<T>>,
    /// The first timer of each slot, level by level. Not in the wheel itself, which is moved about.
    heads: Box<[Option<usize>]>,
    /// A bit for each slot that is not empty.
    occupied: [u64; LEVELS as usize],
    /// Everything up to here has expired.
    elapsed: u64,
    serial: u64,
}

impl<T: Copy> Wheel<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: Slab::new(),
            heads: vec![None; (LEVELS * SLOTS) as usize].into_boxed_slice(),
            occupied: [0; LEVELS as usize],
            elapsed: 0,
            serial: 0,
        }
    }

    /// Timers that run.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Starts a timer. One that is due already expires with the next tick.
    pub(crate) fn insert(&mut self, deadline: Duration, due: T) -> TimerKey {
        let at = ceiling(deadline).max(self.elapsed.saturating_add(1));
        self.serial += 1;
        let serial = self.serial;
        let index = self.entries.insert(Entry { due, serial, at, level: 0, slot: 0, previous: None, next: None });
        self.link(index);
        TimerKey { index, serial }
    }

    /// Stops a timer. Nothing happens if it has expired or was stopped before.
    pub(crate) fn cancel(&mut self, key: TimerKey) {
        if mutation::is(Mutation::LeakTimer)
            || self.entries.get(key.index).is_none_or(|entry| entry.serial != key.serial)
        {
            return;
        }
        self.unlink(key.index);
        self.entries.try_remove(key.index);
    }

    /// When to look again: not later than the first timer, and not before `advance` would find something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.next().map(|(_, _, at)| Duration::from_millis(at))
    }

    /// Lets time pass, and appends what expired.
    pub(crate) fn advance(&mut self, now: Duration, expired: &mut Vec<(TimerKey, T)>) {
        let now = floor(now);
        if now.saturating_sub(self.elapsed) > SPAN {
            return self.jump(now, expired);
        }
        while let Some((level, slot, at)) = self.next() {
            if at > now {
                break;
            }
            self.elapsed = self.elapsed.max(at);
            self.empty(level, slot, expired);
        }
        self.elapsed = self.elapsed.max(now);
    }

    /// Time passes by more than the wheel holds: every timer is looked at, once.
    fn jump(&mut self, now: u64, expired: &mut Vec<(TimerKey, T)>) {
        self.elapsed = now;
        self.occupied = [0; LEVELS as usize];
        self.heads.fill(None);
        let all: Vec<_> = self.entries.iter().map(|(index, _)| index).collect();
        for index in all {
            self.expire_or_link(index, expired);
        }
    }

    /// Takes all timers out of a slot: those that are due expire, the others go to a lower level.
    fn empty(&mut self, level: u32, slot: u32, expired: &mut Vec<(TimerKey, T)>) {
        let mut cursor = self.head(level, slot).and_then(Option::take);
        if let Some(occupied) = self.occupied.get_mut(level as usize) {
            *occupied &= !(1 << slot);
        }
        while let Some(index) = cursor {
            cursor = self.entries.get(index).and_then(|entry| entry.next);
            self.expire_or_link(index, expired);
        }
    }

    /// What becomes of a timer that is in no slot.
    fn expire_or_link(&mut self, index: usize, expired: &mut Vec<(TimerKey, T)>) {
        match self.entries.get(index) {
            Some(entry) if entry.at <= self.elapsed => {
                expired.push((TimerKey { index, serial: entry.serial }, entry.due));
                self.entries.try_remove(index);
            }
            Some(_) => self.link(index),
            None => {}
        }
    }

    /// The first slot in which something is: those of a level come before those of the next. The last is its beginning.
    fn next(&self) -> Option<(u32, u32, u64)> {
        let (level, occupied) = (0..LEVELS).zip(&self.occupied).find(|(_, occupied)| **occupied != 0)?;
        let shift = SLOT_BITS * level;
        let here = digit(self.elapsed, level);
        let ahead = occupied.rotate_right(here).trailing_zeros();
        let slot = (here + ahead) % SLOTS;
        let turn = self.elapsed >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        let begin = turn + (u64::from(slot) << shift);
        // Only the last level goes around: a slot behind the present one is of the next turn.
        let begin = if here + ahead >= SLOTS { begin + SPAN } else { begin };
        Some((level, slot, begin))
    }

    /// Puts an entry into the slot that its time belongs to: the level is the highest digit in which the time differs from
    /// now.
    fn link(&mut self, index: usize) {
        let elapsed = self.elapsed;
        let Some(at) = self.entries.get(index).map(|entry| entry.at) else { return };
        // Never as far as a whole turn of the last level, so that its present slot stays empty.
        let at = at.min(elapsed + SPAN - SPAN / u64::from(SLOTS));
        let level = ((63 - ((at ^ elapsed) | 1).leading_zeros()) / SLOT_BITS).min(LEVELS - 1);
        let slot = digit(at, level);
        let Some(next) = self.head(level, slot).map(|head| head.replace(index)) else { return };
        if let Some(entry) = self.entries.get_mut(index) {
            (entry.level, entry.slot, entry.previous, entry.next) = (level, slot, None, next);
        }
        if let Some(next) = next.and_then(|next| self.entries.get_mut(next)) {
            next.previous = Some(index);
        }
        if let Some(occupied) = self.occupied.get_mut(level as usize) {
            *occupied |= 1 << slot;
        }
    }

    fn unlink(&mut self, index: usize) {
        let Some(entry) = self.entries.get(index) else { return };
        let (level, slot, previous, next) = (entry.level, entry.slot, entry.previous, entry.next);
        if let Some(next) = next.and_then(|next| self.entries.get_mut(next)) {
            next.previous = previous;
        }
        if let Some(previous) = previous.and_then(|previous| self.entries.get_mut(previous)) {
            previous.next = next;
            return;
        }
        if let Some(head) = self.head(level, slot) {
            *head = next;
        }
        if next.is_none()
            && let Some(occupied) = self.occupied.get_mut(level as usize)
        {
            *occupied &= !(1 << slot);
        }
    }

    fn head(&mut self, level: u32, slot: u32) -> Option<&mut Option<usize>> {
        self.heads.get_mut((level * SLOTS + slot) as usize)
    }

    /// What is allocated, in timers.
    #[cfg(test)]
    pub(crate) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}

/// The slot of a time at a level.
fn digit(time: u64, level: u32) -> u32 {
    (time >> (SLOT_BITS * level) & u64::from(SLOTS - 1)).try_into().unwrap_or_default()
}

fn floor(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 2).min(u64::MAX / 2)
}

fn ceiling(time: Duration) -> u64 {
    floor(time.saturating_add(Duration::from_nanos(999_999)))
}

#[cfg(test)]
mod tests;
