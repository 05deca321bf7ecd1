//! What comes in: bytes in order, each once, and never more than there was room for.

use std::collections::VecDeque;

use super::Nonsense;
use crate::multiplex::wire::Mode;

/// The receiving side of a stream.
#[derive(Debug)]
pub(super) struct Incoming {
    mode: Mode,
    buffer: VecDeque<u8>,
    capacity: usize,
    /// Place of the next byte that the application reads.
    read: u64,
    /// Place of the next byte that is to come. An end counts as one.
    expected: u64,
    /// The other side has said its end.
    ended: bool,
    /// The limit that the other side was told last.
    announced: u64,
    /// Nobody reads: what comes is thrown away.
    shut: bool,
}

impl Incoming {
    pub(super) fn new(mode: Mode, capacity: usize) -> Self {
        Self { mode, buffer: VecDeque::new(), capacity, read: 0, expected: 0, ended: false, announced: 0, shut: false }
    }

    /// Everything before this place has been received.
    pub(super) fn acknowledged(&self) -> u64 {
        match self.mode {
            Mode::Numbered => self.expected,
            Mode::Plain => 0,
        }
    }

    /// Everything before this place may be sent.
    pub(super) fn limit(&self) -> u64 {
        self.read.saturating_add(count(self.capacity))
    }

    /// The other side was told the limit of now.
    pub(super) fn announce(&mut self) {
        self.announced = self.limit();
    }

    /// Whether the other side should be told how much more it may send.
    pub(super) fn is_limit_stale(&self) -> bool {
        !self.ended && self.limit() - self.announced >= count(self.capacity.div_ceil(2))
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether a read would not wait: bytes, or the end.
    pub(super) fn is_readable(&self) -> bool {
        !self.buffer.is_empty() || self.ended || self.shut
    }

    /// Bytes from a place on. Whether any of them are new.
    pub(super) fn data(&mut self, sequence: u64, data: &[u8]) -> Result<bool, Nonsense> {
        let known = match self.mode {
            Mode::Numbered => self.expected.checked_sub(sequence).ok_or(Nonsense::Gap)?,
            Mode::Plain => 0,
        };
        // What is known has come on another link already.
        let new = usize::try_from(known).ok().and_then(|known| data.get(known..)).unwrap_or_default();
        if new.is_empty() {
            return Ok(false);
        }
        if self.ended {
            return Err(Nonsense::BehindEnd);
        }
        if new.len() > self.capacity - self.buffer.len() {
            return Err(Nonsense::BeyondLimit);
        }
        if self.shut {
            self.read += count(new.len());
        } else {
            self.buffer.extend(new);
        }
        self.expected += count(new.len());
        Ok(true)
    }

    /// The end, at a place. Whether it is new.
    pub(super) fn end(&mut self, sequence: u64) -> Result<bool, Nonsense> {
        let place = match self.mode {
            Mode::Numbered => sequence,
            Mode::Plain => self.expected,
        };
        if self.ended {
            return if place.checked_add(1) == Some(self.expected) { Ok(false) } else { Err(Nonsense::BehindEnd) };
        }
        if place != self.expected {
            return Err(Nonsense::Gap);
        }
        self.ended = true;
        self.expected += 1;
        Ok(true)
    }

    /// Bytes that are kept.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes out. Nothing: there are none, or it is the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let bytes = buffer.len().min(self.buffer.len());
        for (to, from) in buffer.iter_mut().zip(self.buffer.drain(..bytes)) {
            *to = from;
        }
        self.read += count(bytes);
        bytes
    }

    /// Nobody reads any more. What comes is heard and thrown away, so that the other side can come to its end.
    pub(super) fn shut(&mut self) {
        self.read += count(self.buffer.len());
        self.shut = true;
        self.discard();
    }

    /// Nobody will read what is here.
    pub(super) fn discard(&mut self) {
        self.buffer = VecDeque::new();
    }
}

/// A length as a distance in a stream.
pub(super) fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
