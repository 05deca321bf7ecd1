//! The timer wheel against a plain list.

use std::time::Duration;

use super::*;
use crate::mutation;

/// A small stream of numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }
}

/// The plain list: what it says expires, expires.
#[derive(Default)]
struct Plain(Vec<(Duration, u64, TimerKey)>);

impl Plain {
    fn due(&mut self, now: Duration) -> Vec<u64> {
        let mut due: Vec<_> = self.0.iter().filter(|(at, ..)| *at <= now).map(|(_, name, _)| *name).collect();
        due.sort_unstable();
        self.0.retain(|(at, ..)| *at > now);
        due
    }
}

/// One seed's life of a wheel. An error is the first difference from the list.
fn live(seed: u64, steps: u64) -> Result<(), String> {
    let mut random = Random(seed);
    let (mut wheel, mut plain, mut now) = (Wheel::new(), Plain::default(), Duration::ZERO);
    let mut expired = Vec::new();
    for name in 0..steps {
        match random.below(10) {
            0..5 => {
                // Deadlines of every size, in whole ticks so that both round alike.
                let bits = random.below(40);
                let deadline = now + Duration::from_millis(1 + random.below(1 << bits));
                plain.0.push((deadline, name, wheel.insert(deadline, name)));
            }
            5..7 => {
                let place = usize::try_from(random.below(plain.0.len().max(1) as u64)).unwrap_or(0);
                if place < plain.0.len() {
                    let (_, _, key) = plain.0.swap_remove(place);
                    wheel.cancel(key);
                    wheel.cancel(key);
                }
            }
            _ => {
                let bits = random.below(38);
                now += Duration::from_millis(random.below(1 << bits));
                expired.clear();
                wheel.advance(now, &mut expired);
                let mut names: Vec<_> = expired.iter().map(|(_, name)| *name).collect();
                names.sort_unstable();
                let due = plain.due(now);
                if names != due {
                    return Err(format!("seed {seed}, step {name}: {names:?} expired and not {due:?}"));
                }
            }
        }
        let first = plain.0.iter().map(|(at, ..)| *at).min();
        let deadline = wheel.deadline();
        let fits = match (first, deadline) {
            (None, None) => true,
            (Some(first), Some(deadline)) => deadline <= first && deadline > now,
            _ => false,
        };
        if !fits || wheel.len() != plain.0.len() {
            return Err(format!(
                "seed {seed}, step {name}: deadline {deadline:?} for {first:?}, {} timers",
                wheel.len()
            ));
        }
    }
    Ok(())
}

#[test]
fn the_wheel_is_a_list() {
    for seed in 0..300 {
        assert_eq!(live(seed, 400), Ok(()));
    }
}

#[test]
fn a_cancelled_timer_that_stays_is_noticed() {
    assert!(mutation::with(Mutation::LeakTimer, || (0..10).any(|seed| live(seed, 400).is_err())));
}

#[test]
fn timers_are_never_early_and_at_most_a_tick_late() {
    let mut expired = Vec::new();
    for (deadline, early, late) in
        [(1_000, 999, 1_000), (1_001, 1_999, 2_000), (0, 999, 1_000), (65_000, 64_999, 65_000)]
    {
        let mut wheel = Wheel::new();
        wheel.insert(Duration::from_micros(deadline), ());
        wheel.advance(Duration::from_micros(early), &mut expired);
        assert!(expired.is_empty(), "{deadline} at {early}");
        wheel.advance(Duration::from_micros(late), &mut expired);
        assert_eq!(expired.drain(..).count(), 1, "{deadline} at {late}");
        assert_eq!((wheel.len(), wheel.deadline()), (0, None));
    }
}

#[test]
fn a_key_of_the_past_names_nothing() {
    let mut wheel = Wheel::new();
    let old = wheel.insert(Duration::from_millis(5), 1);
    wheel.cancel(old);
    wheel.insert(Duration::from_millis(5), 2);
    wheel.cancel(old);
    let mut expired = Vec::new();
    wheel.advance(Duration::from_millis(5), &mut expired);
    assert_eq!(expired.into_iter().map(|(_, name)| name).collect::<Vec<_>>(), [2]);
}

/// Time beyond anything: nothing overflows, and the wheel goes on.
#[test]
fn far_times_are_times() {
    let mut wheel = Wheel::new();
    let mut expired = Vec::new();
    wheel.insert(Duration::MAX, 1);
    wheel.insert(Duration::from_secs(1 << 40), 2);
    wheel.advance(Duration::from_secs(1 << 41), &mut expired);
    assert_eq!(expired.len(), 1);
    wheel.advance(Duration::MAX, &mut expired);
    assert_eq!((expired.len(), wheel.len()), (2, 0));
    wheel.insert(Duration::MAX, 3);
    assert_eq!(wheel.len(), 1);
}

/// What the wheel costs does not depend on how many timers run: it holds as much memory as it held timers at its fullest.
#[test]
fn timers_that_come_and_go_leave_no_room_behind() {
    let mut wheel = Wheel::new();
    let mut expired = Vec::new();
    for round in 0..100_000_u64 {
        let now = Duration::from_millis(round);
        let keys = [10_000, 20, 70].map(|ahead| wheel.insert(now + Duration::from_millis(ahead), ()));
        wheel.cancel(keys[0]);
        wheel.cancel(keys[1]);
        expired.clear();
        wheel.advance(now, &mut expired);
    }
    assert!(wheel.len() <= 71 && wheel.capacity() <= 256, "{} timers in {}", wheel.len(), wheel.capacity());
}
