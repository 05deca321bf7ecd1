//! The host of Dynamic Memory: agrees on a version, listens to status reports, takes pages and gives them back.
//!
//! Format: drivers/hv/hv_balloon.c of Linux 6.12. Messages are a header {type: u16, size: u16, transaction: u32} and a
//! body, in-band; a page range is one word, start in bits 0-39 and count above.

mod format;
mod held;

pub use format::{Incoming, PageRange};
pub use held::Held;

use std::collections::VecDeque;

use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::Error;
use format::Outgoing;

/// Ranges in one unballoon request.
const RANGES_AT_MOST: usize = 500;
/// Messages that wait for room.
const WAITING_AT_MOST: usize = 4096;

/// How a Dynamic Memory host behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicMemorySettings {
    /// Versions that it accepts: major in the upper 16 bits.
    pub versions: Vec<u32>,
    /// It wants no status reports (2.0).
    pub suppresses_status: bool,
    /// Told in an info message (from 1.0 on): pages that the guest will ever have.
    pub max_pages: Option<u64>,
}

impl Default for DynamicMemorySettings {
    fn default() -> Self {
        Self { versions: vec![0x2_0000, 0x1_0000, 3], suppresses_status: false, max_pages: None }
    }
}

/// Where the protocol is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Version,
    Capabilities,
    Running,
}

/// The host of Dynamic Memory. Commands: `balloon PAGES`, `unballoon PAGES`, `unballoon all`, `target PAGES` (takes or
/// gives back until it has so many), `hot-add START COUNT`. Pages can be told as MiB: `balloon 64MiB`.
#[derive(Debug)]
pub struct DynamicMemory {
    settings: DynamicMemorySettings,
    stage: Stage,
    version: u32,
    held: Held,
    waiting: VecDeque<Vec<u8>>,
    transaction: u32,
    /// Pages asked for and not answered in full; a guest is asked for one thing at a time.
    wanted: Option<u32>,
    /// Requests that are next.
    queue: VecDeque<Request>,
    /// An unballoon that is not answered.
    unballooning: bool,
    hot_adding: Option<u32>,
    asked: u64,
    given_back: u64,
    reports: u64,
    available: u64,
    committed: u64,
    hot_added: u64,
}

#[derive(Debug, Clone, Copy)]
enum Request {
    Balloon(u32),
    Unballoon(u64),
    Target(u64),
    HotAdd(PageRange),
}

impl DynamicMemory {
    /// A host that waits for its guest's version.
    #[must_use]
    pub fn new(settings: DynamicMemorySettings) -> Self {
        Self {
            settings,
            stage: Stage::Version,
            version: 0,
            held: Held::default(),
            waiting: VecDeque::new(),
            transaction: 0,
            wanted: None,
            queue: VecDeque::new(),
            unballooning: false,
            hot_adding: None,
            asked: 0,
            given_back: 0,
            reports: 0,
            available: 0,
            committed: 0,
            hot_added: 0,
        }
    }

    fn say(&mut self, message: &Outgoing) {
        self.transaction = self.transaction.wrapping_add(1);
        if self.waiting.len() < WAITING_AT_MOST {
            self.waiting.push_back(message.to_bytes(self.transaction));
        }
    }

    fn flush(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        while let Some(bytes) = self.waiting.front() {
            match port.send(&OutgoingPacket::in_band(0), bytes) {
                Ok(()) => {}
                Err(Error::Write(WriteError::Full { .. })) => return Ok(()),
                Err(error) => return Err(error),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// The next request, when the guest owes nothing.
    fn next_request(&mut self) {
        let busy = self.wanted.is_some() || self.unballooning || self.hot_adding.is_some();
        if self.stage != Stage::Running || busy {
            return;
        }
        match self.queue.pop_front() {
            Some(Request::Balloon(pages)) => self.balloon(pages),
            Some(Request::Unballoon(pages)) => self.unballoon(pages),
            Some(Request::Target(pages)) => {
                let held = self.held.pages();
                match u32::try_from(pages.saturating_sub(held)) {
                    Ok(0) => self.unballoon(held.saturating_sub(pages)),
                    more => self.balloon(more.unwrap_or(u32::MAX)),
                }
            }
            Some(Request::HotAdd(range)) => {
                self.hot_adding = Some(range.count);
                self.say(&Outgoing::HotAdd { range });
            }
            None => {}
        }
    }

    fn balloon(&mut self, pages: u32) {
        self.wanted = Some(pages);
        self.asked += u64::from(pages);
        self.say(&Outgoing::Balloon { pages });
    }

    fn unballoon(&mut self, pages: u64) {
        let ranges = self.held.take(pages);
        if ranges.is_empty() {
            return;
        }
        self.unballooning = true;
        self.given_back += ranges.iter().map(|range| u64::from(range.count)).sum::<u64>();
        let chunks = ranges.chunks(RANGES_AT_MOST);
        let last = chunks.len().saturating_sub(1);
        for (index, chunk) in chunks.enumerate() {
            self.say(&Outgoing::Unballoon { more: index != last, ranges: chunk.to_vec() });
        }
    }

    fn take(&mut self, message: Incoming, port: &mut dyn Port) {
        match (self.stage, message) {
            (Stage::Version, Incoming::VersionRequest { version, last }) => {
                let accepted = self.settings.versions.contains(&version);
                self.say(&Outgoing::VersionResponse { accepted });
                if accepted {
                    (self.version, self.stage) = (version, Stage::Capabilities);
                } else if last {
                    port.violation(format!("no version in common: {version:#x} was the last"));
                }
            }
            (Stage::Capabilities, Incoming::Capabilities { .. }) => {
                let suppress_status = self.settings.suppresses_status && self.version >= 0x2_0000;
                self.say(&Outgoing::CapabilitiesResponse { accepted: true, suppress_status });
                if let Some(pages) = self.settings.max_pages.filter(|_| self.version >= 0x1_0000) {
                    self.say(&Outgoing::Info { pages });
                }
                self.stage = Stage::Running;
            }
            (Stage::Running, Incoming::Status { available, committed }) => {
                self.reports += 1;
                (self.available, self.committed) = (available, committed);
            }
            (Stage::Running, Incoming::BalloonResponse { more, ranges }) => self.ballooned(more, &ranges, port),
            (Stage::Running, Incoming::UnballoonResponse) if self.unballooning => self.unballooning = false,
            (Stage::Running, Incoming::HotAddResponse { pages, success }) => match self.hot_adding.take() {
                Some(most) if pages <= most => self.hot_added += if success { u64::from(pages) } else { 0 },
                other => port.violation(format!("{pages} pages hot-added of {other:?}")),
            },
            (stage, message) => port.violation(format!("{message:?} in stage {stage:?}")),
        }
    }

    fn ballooned(&mut self, more: bool, ranges: &[PageRange], port: &mut dyn Port) {
        let Some(mut left) = self.wanted else {
            return port.violation("a balloon response that nobody asked for".into());
        };
        for range in ranges {
            match left.checked_sub(range.count) {
                None => port.violation(format!("{range:?}: {left} pages were left to take")),
                Some(rest) if range.count != 0 && self.held.insert(*range) => left = rest,
                Some(_) => port.violation(format!("{range:?} is empty, or not the guest's to give")),
            }
        }
        self.wanted = more.then_some(left);
    }
}

/// A number of pages, as it is or in MiB.
fn pages_of(text: &str) -> Option<u64> {
    match text.strip_suffix("MiB") {
        Some(mebibytes) => mebibytes.parse::<u64>().ok()?.checked_mul(256),
        None => text.parse().ok(),
    }
}

impl Device for DynamicMemory {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        self.next_request();
        self.flush(port)?;
        while self.waiting.len() < WAITING_AT_MOST / 2 {
            let Some(descriptor) = port.receive(&mut payload)? else { break };
            match Incoming::parse(&payload) {
                Some(message) if descriptor.kind() == PacketType::IN_BAND => self.take(message, port),
                _ => port.violation(format!("{:?} of {} bytes is no message", descriptor.kind(), payload.len())),
            }
            self.next_request();
            self.flush(port)?;
        }
        Ok(())
    }

    fn closed(&mut self) {
        // A guest that closes the channel has its pages back: hosts give them when the guest says hello again.
        *self = Self::new(self.settings.clone());
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        const NONSENSE: Error = Error::Nonsense(
            "it takes: balloon N, unballoon N, unballoon all, target N, hot-add START COUNT; N are pages, or as 64MiB",
        );
        let mut words = words.split_ascii_whitespace();
        let (verb, number) = (words.next(), words.next());
        let request = match (verb, number) {
            (Some("balloon"), Some(pages)) => {
                Request::Balloon(pages_of(pages).and_then(|pages| u32::try_from(pages).ok()).ok_or(NONSENSE)?)
            }
            (Some("target"), Some(pages)) => Request::Target(pages_of(pages).ok_or(NONSENSE)?),
            (Some("unballoon"), Some("all")) => Request::Unballoon(u64::MAX),
            (Some("unballoon"), Some(pages)) => Request::Unballoon(pages_of(pages).ok_or(NONSENSE)?),
            (Some("hot-add"), Some(start)) => {
                let start = start.parse().map_err(|_| NONSENSE)?;
                let count = words.next().and_then(|count| count.parse().ok()).ok_or(NONSENSE)?;
                Request::HotAdd(PageRange { start, count })
            }
            _ => return Err(NONSENSE),
        };
        if self.queue.len() < WAITING_AT_MOST {
            self.queue.push_back(request);
        }
        Ok(())
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("version", self.version.into()),
            ("running", u64::from(self.stage == Stage::Running)),
            ("reports", self.reports),
            ("available", self.available),
            ("committed", self.committed),
            ("asked", self.asked),
            ("ballooned", self.held.pages()),
            ("given_back", self.given_back),
            ("hot_added", self.hot_added),
            ("owed", u64::from(self.wanted.is_some() || self.unballooning || self.hot_adding.is_some())),
        ]
    }
}

#[cfg(test)]
mod tests;
