//! One side of a connection, for many threads: nobody sleeps with its lock.
//!
//! Who sleeps takes the side's half of the channel along. Who comes meanwhile waits until it is back, with a limit of its
//! own; and who needs it for a moment asks for it, and has it before anybody sleeps with it again.

use std::ops::{Deref, DerefMut};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Instant;

/// What a side has, of which somebody who sleeps may have taken a half of a channel along.
pub(super) trait Lends {
    /// Whether that is so now.
    fn is_away(&self) -> bool;
}

/// One side, behind its lock.
#[derive(Debug)]
pub(super) struct Side<T> {
    content: Mutex<Content<T>>,
    /// The half is back, or somebody who asked for it has had it.
    changed: Condvar,
}

/// A side, and who waits for it.
#[derive(Debug)]
pub(super) struct Content<T> {
    side: T,
    /// Threads that wait for a change.
    waiting: u32,
    /// Threads that need the half for a moment.
    asking: u32,
}

/// A side that is held. Only for a moment: do not sleep with it.
pub(super) type Held<'a, T> = MutexGuard<'a, Content<T>>;

impl<T> Deref for Content<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.side
    }
}

impl<T> DerefMut for Content<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.side
    }
}

impl<T: Lends> Content<T> {
    /// Whether the half is here, and may be taken along.
    pub(super) fn is_free(&self) -> bool {
        !self.side.is_away() && self.asking == 0
    }
}

impl<T: Lends> Side<T> {
    pub(super) fn new(side: T) -> Self {
        Self { content: Mutex::new(Content { side, waiting: 0, asking: 0 }), changed: Condvar::new() }
    }

    /// The side, with or without its half.
    pub(super) fn lock(&self) -> Held<'_, T> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, unless somebody has it.
    pub(super) fn try_lock(&self) -> Option<Held<'_, T>> {
        match self.content.try_lock() {
            Ok(held) => Some(held),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        &mut self.content.get_mut().unwrap_or_else(PoisonError::into_inner).side
    }

    /// Waits until the half is here and may be taken along; `false`: not by then.
    pub(super) fn returned<'a>(&self, mut held: Held<'a, T>, deadline: Option<Instant>) -> (Held<'a, T>, bool) {
        let mut in_time = true;
        while in_time && !held.is_free() {
            (held, in_time) = self.wait(held, deadline);
        }
        (held, in_time)
    }

    /// Whoever slept has brought the half back: those who asked for it have it first.
    pub(super) fn brought_back<'a>(&self, mut held: Held<'a, T>) -> Held<'a, T> {
        self.tell(&held);
        while held.asking != 0 {
            (held, _) = self.wait(held, None);
        }
        held
    }

    /// Does something with a side whose half is here. `wake` ends the sleep of whoever has it.
    pub(super) fn ask<R>(&self, wake: impl Fn(), work: impl FnOnce(&mut T) -> R) -> R {
        let mut held = self.lock();
        held.asking += 1;
        while held.side.is_away() {
            wake();
            (held, _) = self.wait(held, None);
        }
        let done = work(&mut held.side);
        held.asking -= 1;
        self.tell(&held);
        done
    }

    /// Tells those who wait, if there are any: that takes a system call.
    fn tell(&self, held: &Held<'_, T>) {
        if held.waiting != 0 {
            self.changed.notify_all();
        }
    }

    fn wait<'a>(&self, mut held: Held<'a, T>, deadline: Option<Instant>) -> (Held<'a, T>, bool) {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        held.waiting += 1;
        let (mut held, in_time) = match left {
            Some(left) if left.is_zero() => (held, false),
            Some(left) => (self.changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0, true),
            None => (self.changed.wait(held).unwrap_or_else(PoisonError::into_inner), true),
        };
        held.waiting -= 1;
        (held, in_time)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// A half that is a number.
    struct Number(Option<u32>);

    impl Lends for Number {
        fn is_away(&self) -> bool {
            self.0.is_none()
        }
    }

    #[test]
    fn who_waits_for_the_half_keeps_to_its_own_time() {
        let side = Side::new(Number(Some(1)));
        let half = side.lock().0.take();
        let limit = Duration::from_millis(20);
        let start = Instant::now();
        let (mut held, in_time) = side.returned(side.lock(), Some(start + limit));
        assert!(!in_time && start.elapsed() >= limit);
        assert_eq!(held.waiting, 0);
        held.0 = half;
        let (held, in_time) = side.returned(side.brought_back(held), Some(start));
        assert!(in_time && held.is_free(), "it is here, whatever the time");
    }

    #[test]
    fn who_asked_has_it_before_it_is_taken_along_again() {
        let side = Side::new(Number(Some(1)));
        let half = side.lock().0.take();
        let (wake, woken) = channel();
        std::thread::scope(|scope| {
            let asks = scope.spawn(|| side.ask(|| wake.send(()).unwrap(), |number| number.0.take().unwrap()));
            woken.recv().unwrap();
            let mut held = side.lock();
            held.0 = half;
            // It takes the number away for good: who brought it back finds that it was there first.
            let held = side.brought_back(held);
            assert!(held.is_away());
            drop(held);
            assert_eq!(asks.join().unwrap(), 1);
        });
    }

    #[test]
    fn all_who_wait_have_their_turn() {
        let side = Side::new(Number(Some(0)));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let (mut held, _) = side.returned(side.lock(), None);
                        let number = held.0.take().unwrap();
                        drop(held);
                        std::thread::yield_now();
                        let mut held = side.lock();
                        held.0 = Some(number + 1);
                        drop(side.brought_back(held));
                    }
                });
            }
        });
        assert_eq!(side.lock().0, Some(1600));
    }
}
