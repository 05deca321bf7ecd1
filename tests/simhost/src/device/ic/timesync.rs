//! The host's time: one order to set the clock at the start, then samples.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::{Uuid, uuid};
use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version};

/// 1970 in units of 100 ns since 1601.
const EPOCH: u64 = 116_444_736_000_000_000;

/// What time it is for the host, and how often it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeSyncSettings {
    /// The time since 1970 at the host's start.
    pub start: Duration,
    /// From one sample to the next.
    pub interval: Duration,
    /// Whether it wants answers: some hosts don't, and read none.
    pub asks: bool,
}

/// Tells the time. Commands: `sync`, `sample` (now), `say TIME FLAGS LEAP` (units of 100 ns since 1601).
#[derive(Debug)]
pub struct TimeSyncHost {
    settings: TimeSyncSettings,
    version: Version,
    due: Option<Duration>,
    first: bool,
    said: VecDeque<(Option<u64>, u8, u8)>,
    told: u64,
}

impl TimeSyncHost {
    /// One that begins when versions are agreed on.
    #[must_use]
    pub const fn new(settings: TimeSyncSettings) -> Self {
        Self { settings, version: (0, 0), due: None, first: true, said: VecDeque::new(), told: 0 }
    }
}

impl Part for TimeSyncHost {
    const KIND: u16 = 4;
    const CLASS: Class = Class::TIME_SYNC;
    const INSTANCE: Option<Uuid> = Some(uuid!("2dd1ce17-079e-403c-b352-a1921ee207ee"));
    const VERSIONS: &'static [Version] = &[(1, 0), (3, 0), (4, 0)];

    fn agreed(&mut self, version: Version, now: Duration) {
        (self.version, self.due, self.first) = (version, Some(now), true);
    }

    fn next(&mut self, now: Duration) -> Option<(u8, Vec<u8>)> {
        let (time, flags, leap) = match self.said.pop_front() {
            Some(said) => said,
            None => {
                self.due.filter(|due| *due <= now)?;
                self.due = Some(now + self.settings.interval);
                (None, if std::mem::take(&mut self.first) { 1 } else { 2 }, 0)
            }
        };
        let units = |time: Duration| u64::try_from(time.as_nanos() / 100).unwrap_or(u64::MAX);
        let time = time.unwrap_or_else(|| EPOCH + units(self.settings.start + now));
        self.told += 1;
        let body = if self.version >= (4, 0) {
            [&time.to_le_bytes()[..], &units(now).to_le_bytes(), &[flags, leap, 0, 0, 0, 0, 0, 0]].concat()
        } else {
            [&time.to_le_bytes()[..], &[0; 16], &[flags], &[0; 7]].concat()
        };
        Some((if self.settings.asks { ASKS } else { 0 }, body))
    }

    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String> {
        if status == 0 && answer.starts_with(request) {
            Ok(())
        } else {
            Err(format!("the time was refused: {status:#x}"))
        }
    }

    fn closed(&mut self) {
        self.due = None;
        self.said.clear();
    }

    fn deadline(&self) -> Option<Duration> {
        self.due
    }

    fn command(&mut self, words: &str) -> bool {
        let mut words = words.split_ascii_whitespace();
        let said = match words.next() {
            Some("sync") => Some((None, 1, 0)),
            Some("sample") => Some((None, 2, 0)),
            Some("say") => {
                let mut number = || words.next()?.parse::<u64>().ok();
                let time = number();
                let mut byte = || u8::try_from(number()?).ok();
                time.and_then(|time| Some((Some(time), byte()?, byte()?)))
            }
            _ => None,
        };
        if self.said.len() < 64 {
            self.said.extend(said);
        }
        said.is_some()
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("told", self.told)]
    }
}
