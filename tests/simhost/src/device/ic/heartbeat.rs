//! The host's heartbeat: asks at an interval, and knows by the numbers whether each beat was answered once.

use std::time::Duration;

use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version, long, word};

/// How it asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatSettings {
    /// From one beat to the next, if the answer has come.
    pub interval: Duration,
    /// The first number.
    pub first: u64,
    /// Bytes behind the number.
    pub extra_bytes: usize,
}

impl Default for HeartbeatSettings {
    /// As Hyper-V: every two seconds, 40 bytes.
    fn default() -> Self {
        Self { interval: Duration::from_secs(2), first: 0, extra_bytes: 32 }
    }
}

/// The host's heartbeat. Commands: `beat` asks now.
#[derive(Debug)]
pub struct HeartbeatHost {
    settings: HeartbeatSettings,
    due: Option<Duration>,
    number: u64,
    state: u64,
    beats: u64,
}

impl HeartbeatHost {
    /// One that begins when versions are agreed on.
    #[must_use]
    pub const fn new(settings: HeartbeatSettings) -> Self {
        Self { settings, due: None, number: settings.first, state: 0, beats: 0 }
    }
}

impl Part for HeartbeatHost {
    const KIND: u16 = 1;
    const CLASS: Class = Class::HEARTBEAT;
    const VERSIONS: &'static [Version] = &[(1, 0), (3, 0)];

    fn agreed(&mut self, _: Version, now: Duration) {
        self.due = Some(now);
    }

    fn next(&mut self, now: Duration) -> Option<(u8, Vec<u8>)> {
        self.due.filter(|due| *due <= now)?;
        self.due = Some(now + self.settings.interval);
        let mut body = self.number.to_le_bytes().to_vec();
        body.resize(8 + self.settings.extra_bytes, 0);
        Some((ASKS, body))
    }

    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String> {
        let (asked, told) = (long(request, 0), long(answer, 0));
        if status != 0 || told != asked.map(|number| number.wrapping_add(1)) {
            return Err(format!("heartbeat {asked:?} was answered by {told:?}, status {status:#x}"));
        }
        self.number = told.unwrap_or_default().wrapping_add(1);
        self.state = word(answer, 8).unwrap_or_default().into();
        self.beats += 1;
        Ok(())
    }

    fn closed(&mut self) {
        self.due = None;
    }

    fn deadline(&self) -> Option<Duration> {
        self.due
    }

    fn command(&mut self, words: &str) -> bool {
        if words == "beat" {
            self.due = self.due.map(|_| Duration::ZERO);
        }
        words == "beat"
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("beats", self.beats), ("applications", self.state)]
    }
}
