//! One stream on the host's side: gives back what it gets, and judges what the guest does.

use std::collections::VecDeque;

use super::format::{ACKNOWLEDGE, DATA, DATA_BYTES, END, Header, OPEN};

/// A stream of the guest.
#[derive(Debug)]
pub(super) struct Flow {
    id: u64,
    /// Whether its bytes are numbered.
    numbered: bool,
    /// Which device's channel it is on.
    pub(super) link: u64,
    /// How often it has moved.
    moves: u32,
    capacity: u64,
    /// Place of the next byte to come; the end counts as one.
    expected: u64,
    /// Place of the byte that must come next on this link, if it is not what was acknowledged there.
    next_here: Option<u64>,
    ended: bool,
    /// What came and was not heard back by the guest, from `base` on.
    waiting: VecDeque<u8>,
    base: u64,
    /// Place of the next byte to send back on this link.
    next: u64,
    sent: u64,
    /// How far the guest lets us send.
    limit: u64,
    end_sent: bool,
    end_heard: bool,
    owes_open: bool,
    owes_acknowledgement: bool,
    /// The limit that the guest was told last.
    announced: u64,
}

/// What a frame brought, for counters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Brought {
    /// Bytes that are new.
    pub(super) new: u64,
    /// Bytes that had come on another link.
    pub(super) again: u64,
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

impl Flow {
    /// The guest opens a stream.
    pub(super) fn new(header: &Header, link: u64, capacity: u64) -> Self {
        Self {
            id: header.stream,
            numbered: header.sequence != 0,
            link,
            moves: header.moves,
            capacity,
            expected: 0,
            next_here: None,
            ended: false,
            waiting: VecDeque::new(),
            base: 0,
            next: 0,
            sent: 0,
            limit: header.limit,
            end_sent: false,
            end_heard: false,
            owes_open: true,
            owes_acknowledgement: false,
            announced: 0,
        }
    }

    pub(super) fn is_numbered(&self) -> bool {
        self.numbered
    }

    /// The guest says that it is on this link now.
    pub(super) fn moved(&mut self, header: &Header, link: u64) -> Result<(), &'static str> {
        if header.moves < self.moves {
            // It has moved once more since, and that came first.
            return Ok(());
        }
        if header.moves == self.moves {
            return Err("it moves, and is there already");
        }
        (self.link, self.moves, self.next_here) = (link, header.moves, None);
        self.heard(header)?;
        // What it has not heard is sent again.
        self.next = self.base;
        self.end_sent = self.end_heard;
        if header.kind == OPEN {
            self.owes_open = true;
        }
        self.owes_acknowledgement = true;
        Ok(())
    }

    /// What every frame says.
    fn heard(&mut self, header: &Header) -> Result<(), &'static str> {
        self.limit = self.limit.max(header.limit);
        if !self.numbered {
            return if header.acknowledged == 0 { Ok(()) } else { Err("a plain stream acknowledges") };
        }
        let end = self.base + count(self.waiting.len());
        if header.acknowledged > self.sent {
            return Err("it acknowledges what was not sent");
        }
        self.end_heard |= header.acknowledged > end;
        let heard = header.acknowledged.min(end).saturating_sub(self.base);
        self.waiting.drain(..usize::try_from(heard).unwrap_or(0));
        self.base += heard;
        self.next = self.next.max(self.base);
        self.look_at_limit();
        Ok(())
    }

    /// A frame of the stream.
    pub(super) fn take(&mut self, header: &Header, data: &[u8], link: u64) -> Result<Brought, &'static str> {
        let mut brought = Brought::default();
        if header.moves < self.moves {
            return Ok(brought);
        }
        if header.moves > self.moves || link != self.link {
            return Err("it is on a link that it did not move to");
        }
        self.heard(header)?;
        let place = if self.numbered { header.sequence } else { self.expected };
        match header.kind {
            DATA => {
                brought = self.data(place, data)?;
                self.owes_acknowledgement = true;
            }
            END => {
                if place.checked_add(1) == Some(self.expected) && self.ended {
                    // Said again on another link.
                    self.owes_acknowledgement = true;
                    return Ok(brought);
                }
                if self.ended || place != self.expected {
                    return Err("an end in another place than behind what came");
                }
                (self.ended, self.expected) = (true, self.expected + 1);
                self.owes_acknowledgement = true;
            }
            ACKNOWLEDGE => {}
            _ => return Err("a frame of a kind that guests do not send"),
        }
        Ok(brought)
    }

    fn data(&mut self, place: u64, data: &[u8]) -> Result<Brought, &'static str> {
        if data.is_empty() {
            return Err("data without data");
        }
        if place > self.expected {
            return Err("bytes were lost");
        }
        if self.next_here.is_some_and(|next| place < next) {
            return Err("bytes came twice on one link");
        }
        let behind = place + count(data.len());
        self.next_here = Some(behind);
        if behind > self.told_limit() {
            return Err("more bytes than it may send");
        }
        let known = usize::try_from(self.expected - place).unwrap_or(usize::MAX);
        let new = data.get(known..).unwrap_or_default();
        if self.ended && !new.is_empty() {
            return Err("bytes behind the end");
        }
        // What comes again must be what came.
        let start = place.checked_sub(self.base).and_then(|start| usize::try_from(start).ok());
        if let Some(start) = start.filter(|_| self.numbered && !self.ended) {
            let before = self.waiting.iter().skip(start).take(known.min(data.len()));
            if !before.eq(data.get(..known.min(data.len())).unwrap_or_default()) {
                return Err("other bytes in a place that has come before");
            }
        }
        self.waiting.extend(new);
        self.expected += count(new.len());
        Ok(Brought { new: count(new.len()), again: count(data.len() - new.len()) })
    }

    /// A guest that is at its limit waits to hear of a new one.
    fn look_at_limit(&mut self) {
        self.owes_acknowledgement |= self.told_limit() - self.announced >= self.capacity.div_ceil(2);
    }

    fn told_limit(&self) -> u64 {
        self.base + self.capacity
    }

    /// The next frame to the guest. `holds`: no data for now.
    pub(super) fn next(&self, holds: bool) -> Option<(Header, Vec<u8>)> {
        let header = Header {
            moves: self.moves,
            stream: self.id,
            acknowledged: if self.numbered { self.expected } else { 0 },
            limit: self.told_limit(),
            ..Header::default()
        };
        if self.owes_open {
            return Some((Header { kind: OPEN, ..header }, Vec::new()));
        }
        let end = self.base + count(self.waiting.len());
        let bytes = end.min(self.limit).saturating_sub(self.next).min(count(DATA_BYTES));
        let sequence = if self.numbered { self.next } else { 0 };
        if bytes != 0 && !holds {
            let start = usize::try_from(self.next - self.base).unwrap_or(usize::MAX);
            let bytes = usize::try_from(bytes).unwrap_or(0);
            let data: Vec<u8> = self.waiting.iter().skip(start).take(bytes).copied().collect();
            let bytes = u16::try_from(bytes).unwrap_or(0);
            return Some((Header { kind: DATA, bytes, sequence, ..header }, data));
        }
        if self.ended && !self.end_sent && self.next == end && !holds {
            return Some((Header { kind: END, sequence, ..header }, Vec::new()));
        }
        self.owes_acknowledgement.then_some((Header { kind: ACKNOWLEDGE, ..header }, Vec::new()))
    }

    /// A frame is on its way.
    pub(super) fn sent(&mut self, header: &Header) {
        self.owes_acknowledgement = false;
        self.announced = header.limit;
        match header.kind {
            OPEN => self.owes_open = false,
            DATA => {
                self.next += u64::from(header.bytes);
                self.sent = self.sent.max(self.next);
                if !self.numbered {
                    self.waiting.drain(..usize::from(header.bytes).min(self.waiting.len()));
                    self.base = self.next;
                    self.look_at_limit();
                }
            }
            END => {
                self.end_sent = true;
                self.sent = self.sent.max(self.next + 1);
            }
            _ => {}
        }
    }

    /// Whether there is something to send.
    pub(super) fn owes(&self, holds: bool) -> bool {
        let end = self.base + count(self.waiting.len());
        let data = end.min(self.limit) > self.next || self.ended && !self.end_sent && self.next == end;
        self.owes_open || self.owes_acknowledgement || data && !holds
    }
}
