//! What goes out: bytes that wait to be sent, and those that were sent and are not acknowledged.

use std::collections::VecDeque;

use super::Nonsense;
use super::incoming::count;
use crate::multiplex::wire::{DATA_BYTES, Mode};

/// The sending side of a stream.
#[derive(Debug)]
pub(super) struct Outgoing {
    mode: Mode,
    /// From `base` on.
    buffer: VecDeque<u8>,
    capacity: usize,
    /// Everything before this place is acknowledged, or, of a plain stream, sent.
    base: u64,
    /// Place of the next byte to send on this link.
    next: u64,
    /// Everything before this place was sent on some link.
    sent: u64,
    /// Everything before this place may be sent.
    limit: u64,
    end: End,
}

/// How far the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// More may be written.
    Open,
    /// Nothing more is written; the end is to be sent on this link.
    Said,
    /// It was sent on this link.
    Sent,
    /// It was heard.
    Heard,
}

/// Something to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many bytes from this place on.
    Data(u64, usize),
    /// The end, at this place.
    End(u64),
}

impl Outgoing {
    pub(super) fn new(mode: Mode, capacity: usize) -> Self {
        Self { mode, buffer: VecDeque::new(), capacity, base: 0, next: 0, sent: 0, limit: 0, end: End::Open }
    }

    /// Takes bytes in, as many as there is room for; `None`: the end was said.
    pub(super) fn write(&mut self, data: &[u8]) -> Option<usize> {
        if self.end != End::Open {
            return None;
        }
        let bytes = data.len().min(self.capacity - self.buffer.len());
        self.buffer.extend(data.get(..bytes).unwrap_or_default());
        Some(bytes)
    }

    /// Says the end. Whether it is new.
    pub(super) fn end(&mut self) -> bool {
        let new = self.end == End::Open;
        self.end = self.end.max(End::Said);
        new
    }

    /// Place behind the last byte that was written: that of the end, once there is one.
    fn written(&self) -> u64 {
        self.base + count(self.buffer.len())
    }

    /// Whether everything was heard there, the end included. Of a plain stream, sent.
    pub(super) fn is_done(&self) -> bool {
        self.end >= if self.mode == Mode::Plain { End::Sent } else { End::Heard }
    }

    /// Whether everything that was written was heard there, or, of a plain stream, sent.
    pub(super) fn is_settled(&self) -> bool {
        self.buffer.is_empty()
    }

    /// What is to be sent next.
    pub(super) fn next(&self) -> Option<Piece> {
        let bytes = self.written().min(self.limit).saturating_sub(self.next);
        if bytes != 0 {
            let bytes = usize::try_from(bytes).unwrap_or(DATA_BYTES).min(DATA_BYTES);
            return Some(Piece::Data(self.next, bytes));
        }
        (self.end == End::Said && self.next == self.written()).then_some(Piece::End(self.next))
    }

    /// The bytes of a piece, in two parts.
    pub(super) fn bytes(&self, piece: Piece) -> (&[u8], &[u8]) {
        let Piece::Data(from, bytes) = piece else { return (&[], &[]) };
        let start = usize::try_from(from.saturating_sub(self.base)).unwrap_or(usize::MAX);
        let (first, second) = self.buffer.as_slices();
        let from_first = first.get(start..).unwrap_or_default();
        let from_first = from_first.get(..bytes).unwrap_or(from_first);
        let start = start.saturating_sub(first.len());
        let from_second = second.get(start..).and_then(|rest| rest.get(..bytes - from_first.len()));
        (from_first, from_second.unwrap_or_default())
    }

    /// A piece was sent on this link.
    pub(super) fn sent(&mut self, piece: Piece) {
        match piece {
            Piece::Data(from, bytes) => {
                self.next = from + count(bytes);
                self.sent = self.sent.max(self.next);
                if self.mode == Mode::Plain {
                    self.buffer.drain(..bytes.min(self.buffer.len()));
                    self.base = self.next;
                }
            }
            Piece::End(place) => {
                self.end = self.end.max(End::Sent);
                self.sent = self.sent.max(place + 1);
            }
        }
    }

    /// On a new link everything that is not acknowledged is sent again.
    pub(super) fn rewind(&mut self) {
        self.next = self.base;
        if self.end == End::Sent {
            self.end = End::Said;
        }
    }

    /// What the other side says of our bytes. Whether anything has changed.
    pub(super) fn heard(&mut self, acknowledged: u64, limit: u64) -> Result<bool, Nonsense> {
        let mut news = limit > self.limit;
        self.limit = self.limit.max(limit);
        if self.mode == Mode::Plain || acknowledged <= self.base {
            return Ok(news);
        }
        if acknowledged > self.sent {
            return Err(Nonsense::Acknowledgement);
        }
        let written = self.written();
        if acknowledged > written && self.end != End::Heard {
            // Only the end is behind what was written.
            (self.end, news) = (End::Heard, true);
        }
        let heard = acknowledged.min(written) - self.base;
        if heard != 0 {
            let bytes = usize::try_from(heard).unwrap_or(usize::MAX).min(self.buffer.len());
            self.buffer.drain(..bytes);
            (self.base, news) = (acknowledged.min(written), true);
        }
        self.next = self.next.max(self.base);
        Ok(news)
    }

    /// Nobody will send what is here.
    pub(super) fn discard(&mut self) {
        self.buffer = VecDeque::new();
        self.next = self.base;
        self.end = End::Heard;
    }
}
