//! What a sample of the host's time is worth: a step without a clock.

use std::time::{Duration, SystemTime};

use super::Sample;

/// What is done to the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Discipline {
    /// Nothing: somebody else keeps it.
    #[default]
    Report,
    /// It is set: when the host orders it, and when a sample shows that it is far off.
    Step,
    /// Small differences are made up for by its speed; what is more is set.
    Slew,
}

/// How the time is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// What is done.
    pub discipline: Discipline,
    /// Differences below this are left alone.
    pub tolerance: Duration,
    /// Up to this, speed makes up for a difference.
    pub slew_at_most: Duration,
    /// From this on, a mere sample has the clock set.
    pub step_at_least: Duration,
    /// From this on, a mere sample is believed when the next one says the same.
    pub confirm_at_least: Duration,
}

impl Default for Settings {
    /// Report only; 1 ms, 500 ms, 5 s (as Linux has it), an hour.
    fn default() -> Self {
        Self {
            discipline: Discipline::Report,
            tolerance: Duration::from_millis(1),
            slew_at_most: Duration::from_millis(500),
            step_at_least: Duration::from_secs(5),
            confirm_at_least: Duration::from_secs(3600),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// All is well, or not this component's to mend.
    Nothing,
    /// Set the clock ahead by so many nanoseconds, or back.
    Step(i64),
    /// Make up for so many.
    Slew(i64),
    /// The sample can't be right.
    Rejected(Rejected),
}

/// What is wrong with a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rejected {
    /// A time before 2000 or after 2200.
    Date,
    /// A leap second is near, or the host's own clock is not synchronised.
    Leap(u8),
    /// Sent more than ten minutes ago, or later than now.
    Stale,
    /// Far off, and nothing has confirmed it yet.
    Unconfirmed,
}

/// Units of 100 ns from 1601 to 1970.
const EPOCH: u64 = 116_444_736_000_000_000;
/// Units in a second.
const SECOND: u64 = 10_000_000;
/// 2000 and 2200 in seconds since 1970.
const DATES: std::ops::Range<u64> = 946_684_800..7_258_118_400;
/// The oldest sample.
const AGE_AT_MOST: u64 = 600 * SECOND;
/// By how much two samples may differ that say the same.
const SAME_NS: u64 = 1_000_000_000;

/// Judges samples, each by itself and by the one before.
#[derive(Debug, Clone)]
pub struct Judge {
    settings: Settings,
    /// The offset of a sample that needs to be confirmed.
    unconfirmed: Option<i64>,
}

impl Judge {
    /// Before the first.
    #[must_use]
    pub const fn new(settings: Settings) -> Self {
        Self { settings, unconfirmed: None }
    }

    /// The next sample is the first.
    pub fn forget(&mut self) {
        self.unconfirmed = None;
    }

    /// How far the host is ahead, and what to do about it. `reference` is the reference counter now, if it is known.
    pub fn judge(&mut self, sample: Sample, now: SystemTime, reference: Option<u64>) -> (Option<i64>, Verdict) {
        let since_1970 = sample.host_time.saturating_sub(EPOCH);
        if !DATES.contains(&(since_1970 / SECOND)) {
            return (None, Verdict::Rejected(Rejected::Date));
        }
        let age = match (reference, sample.reference) {
            (Some(now), Some(then)) => now.checked_sub(then).filter(|age| *age <= AGE_AT_MOST),
            _ => Some(0),
        };
        let Some(age) = age else { return (None, Verdict::Rejected(Rejected::Stale)) };
        // Both are below 2^63 for the dates that are let in.
        let host_ns = i128::from(since_1970 + age) * 100;
        let guest_ns = match now.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => i128::try_from(since.as_nanos()).unwrap_or(i128::MAX),
            Err(before) => -i128::try_from(before.duration().as_nanos()).unwrap_or(i128::MAX),
        };
        let Ok(offset) = i64::try_from(host_ns.saturating_sub(guest_ns)) else {
            return (None, Verdict::Rejected(Rejected::Date));
        };
        (Some(offset), self.decide(sample, offset))
    }

    fn decide(&mut self, sample: Sample, offset: i64) -> Verdict {
        let before = self.unconfirmed.take();
        if sample.leap != 0 {
            return Verdict::Rejected(Rejected::Leap(sample.leap));
        }
        let far = Duration::from_nanos(offset.unsigned_abs());
        let Settings { discipline, tolerance, slew_at_most, step_at_least, confirm_at_least } = self.settings;
        if discipline == Discipline::Report || far < tolerance || !(sample.sync || sample.sample) {
            return Verdict::Nothing;
        }
        if discipline == Discipline::Slew && far <= slew_at_most {
            return Verdict::Slew(offset);
        }
        if sample.sync {
            return Verdict::Step(offset);
        }
        if far >= confirm_at_least && before.is_none_or(|before| before.abs_diff(offset) > SAME_NS) {
            self.unconfirmed = Some(offset);
            return Verdict::Rejected(Rejected::Unconfirmed);
        }
        if far >= step_at_least { Verdict::Step(offset) } else { Verdict::Nothing }
    }
}
