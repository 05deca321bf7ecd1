//! Log lines that a host can cause: few, and those left out are counted.

use std::time::Duration;

use super::Core;

/// Where the lines go.
pub(super) const TARGET: &str = "vmbus::control";

/// Complaints that may be written at once; they come back one by one.
const COMPLAINTS: u32 = 10;
const COMPLAINT_EVERY: Duration = Duration::from_millis(200);
/// The same for lines about the regular life of channels.
const NOTES: u32 = 2000;
const NOTE_EVERY: Duration = Duration::from_millis(1);

/// A bucket of permissions to write a line.
#[derive(Debug, Clone)]
struct Bucket {
    level: u32,
    full: u32,
    every: Duration,
    since: Duration,
}

impl Bucket {
    fn new(full: u32, every: Duration) -> Self {
        Self { level: full, full, every, since: Duration::ZERO }
    }

    fn take(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.since).as_micros() / self.every.as_micros().max(1);
        if passed > 0 {
            let passed = u32::try_from(passed).unwrap_or(u32::MAX);
            self.level = self.level.saturating_add(passed).min(self.full);
            self.since = now;
        }
        let may = self.level > 0;
        self.level = self.level.saturating_sub(1);
        may
    }
}

/// Who may write a line now.
#[derive(Debug, Clone)]
pub(super) struct Throttle {
    complaints: Bucket,
    notes: Bucket,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self { complaints: Bucket::new(COMPLAINTS, COMPLAINT_EVERY), notes: Bucket::new(NOTES, NOTE_EVERY) }
    }
}

impl Core {
    /// Whether a line of this level is to be written now.
    pub(super) fn may_log(&mut self, level: log::Level) -> bool {
        if !log::log_enabled!(target: TARGET, level) {
            return false;
        }
        let bucket = if level <= log::Level::Warn { &mut self.throttle.complaints } else { &mut self.throttle.notes };
        let may = bucket.take(self.now);
        if !may {
            self.counters.suppressed_lines += 1;
        }
        may
    }
}

/// Writes a line about the host's doings, unless there were too many.
macro_rules! complain {
    ($core:expr, $($text:tt)+) => {
        if $core.may_log(log::Level::Warn) {
            log::warn!(target: $crate::control::logging::TARGET, $($text)+);
        }
    };
}

/// Writes a line about the life of a channel, unless there were too many.
macro_rules! note {
    ($core:expr, $($text:tt)+) => {
        if $core.may_log(log::Level::Debug) {
            log::debug!(target: $crate::control::logging::TARGET, $($text)+);
        }
    };
}

pub(super) use {complain, note};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_holds_and_fills_again() {
        let mut bucket = Bucket::new(2, Duration::from_millis(10));
        let mut at = |ms| bucket.take(Duration::from_millis(ms));
        assert_eq!([at(0), at(0), at(0), at(9)], [true, true, false, false]);
        assert_eq!([at(10), at(11), at(1000), at(1000), at(1000)], [true, false, true, true, false]);
    }
}
