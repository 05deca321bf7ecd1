//! What all channels of one adapter have in common on the host's side: buffers, their parts, and what was set.

use std::collections::VecDeque;

use super::format::{self, word};
use super::{Layer, NetworkSettings, flow};
use crate::device::Port;

/// Frames for the guest that wait in each queue.
const WAITING_AT_MOST: usize = 4096;
/// Pages of the largest buffer that is looked for.
const PAGES: u64 = 64 << 8;
const PAGE: u64 = 4096;

/// A packet of the guest: transaction id and section.
pub(super) type Cause = (u64, Option<u32>);

/// Something for the guest.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    pub(super) control: bool,
    pub(super) message: Vec<u8>,
    /// The guest's packet of this queue that is completed with it: transaction id and section.
    pub(super) completes: Option<Cause>,
}

/// A shared buffer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shared {
    pub(super) gpadl: u32,
    pub(super) bytes: u64,
}

/// One adapter, as its channels share it.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) settings: NetworkSettings,
    pub(super) version: Option<u32>,
    pub(super) receive: Option<Shared>,
    pub(super) send: Option<Shared>,
    /// Free parts of the receive buffer.
    pub(super) free: Vec<u32>,
    pub(super) parts: u32,
    pub(super) initialized: bool,
    pub(super) filter: u32,
    pub(super) link_down: bool,
    /// In units of 100 bit/s.
    pub(super) speed: u32,
    pub(super) offloads_set: Vec<u8>,
    /// Queue by hash, and the key; empty: everything goes to where it came from.
    table: Vec<u16>,
    key: Vec<u8>,
    /// What waits for each queue.
    queues: Vec<VecDeque<Outgoing>>,
    /// What is said is kept back; and what was.
    silent: bool,
    kept: Vec<Outgoing>,
    pub(super) holds: bool,
    pub(super) dropped: u64,
}

impl Adapter {
    pub(super) fn new(settings: NetworkSettings) -> Self {
        Self {
            settings,
            version: None,
            receive: None,
            send: None,
            free: Vec::new(),
            parts: 0,
            initialized: false,
            filter: 0,
            link_down: false,
            speed: 100_000_000,
            offloads_set: Vec::new(),
            table: Vec::new(),
            key: Vec::new(),
            queues: vec![VecDeque::new()],
            silent: false,
            kept: Vec::new(),
            holds: false,
            dropped: 0,
        }
    }

    /// The channel is closed: everything begins anew.
    pub(super) fn reset(&mut self) {
        let settings = std::mem::take(&mut self.settings);
        *self = Self { link_down: self.link_down, dropped: self.dropped, ..Self::new(settings) };
    }

    /// Divides a receive buffer. Its parts; `None` if it is none.
    pub(super) fn take_receive(&mut self, gpadl: u32, port: &dyn Port) -> Option<[u32; 4]> {
        let bytes = gpadl_bytes(port, gpadl).filter(|_| self.receive.is_none())?;
        let part_bytes = self.settings.part_bytes.max(1);
        let parts = u32::try_from(bytes / u64::from(part_bytes)).ok()?.min(self.settings.most_parts);
        self.receive = Some(Shared { gpadl, bytes });
        self.parts = parts;
        self.free = (0..parts).rev().collect();
        Some([0, part_bytes, parts, parts * part_bytes])
    }

    /// Notes a send buffer. Whether it is one.
    pub(super) fn take_send(&mut self, gpadl: u32, port: &dyn Port) -> bool {
        let bytes = gpadl_bytes(port, gpadl).filter(|_| self.send.is_none() && self.receive.is_some());
        self.send = bytes.map(|bytes| Shared { gpadl, bytes });
        self.send.is_some()
    }

    /// What is in a section of the send buffer.
    pub(super) fn section(&self, (section, bytes): (u32, u32), port: &dyn Port) -> Option<Vec<u8>> {
        let (send, section_bytes) = (self.send?, self.settings.section_bytes);
        let offset = u64::from(section) * u64::from(section_bytes);
        let inside = bytes <= section_bytes && offset + u64::from(section_bytes) <= send.bytes;
        let mut message = vec![0; usize::try_from(bytes).ok().filter(|_| inside)?];
        port.read_gpadl(send.gpadl, offset, &mut message).then_some(message)
    }

    /// Puts something into a queue. Whether there was room.
    pub(super) fn queue(&mut self, index: usize, mut outgoing: Outgoing) -> bool {
        if self.queues.len() <= index {
            self.queues.resize_with(index.min(usize::from(u8::MAX)) + 1, VecDeque::new);
        }
        self.settings.lie(Layer::Rndis, &mut outgoing.message);
        match self.queues.get_mut(index).filter(|queue| queue.len() < WAITING_AT_MOST) {
            Some(queue) => queue.push_back(outgoing),
            None => {
                self.dropped += 1;
                return false;
            }
        }
        true
    }

    /// A control message for the guest.
    pub(super) fn say(&mut self, kind: u32, body: &[u32], value: &[u8]) {
        let message = format::rndis(kind, body, value);
        let outgoing = Outgoing { control: true, message, completes: None };
        if !self.silent {
            self.queue(0, outgoing);
        } else if self.kept.len() < WAITING_AT_MOST {
            self.kept.push(outgoing);
        }
    }

    /// Falls silent, or says late what was kept back.
    pub(super) fn talk(&mut self, talks: bool) {
        self.silent = !talks;
        if talks {
            for outgoing in std::mem::take(&mut self.kept) {
                self.queue(0, outgoing);
            }
        }
    }

    /// A frame for the guest: to the queue that its hash says, or to `from`. Whether it will complete `cause`.
    pub(super) fn deliver(&mut self, from: u16, frame: &[u8], mut info: Vec<(u32, u32)>, cause: Option<Cause>) -> bool {
        let hash = if self.table.is_empty() { None } else { flow::hash(&self.key, frame) };
        let entry = hash.and_then(|hash| usize::try_from(hash).ok()?.checked_rem(self.table.len()));
        let index = entry.and_then(|entry| self.table.get(entry)).copied();
        info.extend(hash.map(|hash| (8, hash)));
        let index = index.unwrap_or(if self.table.is_empty() { from } else { 0 });
        // What goes to another channel leaves the completion to this one, at once.
        let completes = cause.filter(|_| index == from);
        let message = format::packet(frame, &info);
        if u32::try_from(message.len()).is_ok_and(|length| length <= self.settings.part_bytes) {
            self.queue(index.into(), Outgoing { control: false, message, completes }) && completes.is_some()
        } else {
            self.dropped += 1;
            false
        }
    }

    /// What is next for a queue.
    pub(super) fn next(&mut self, index: u16) -> Option<&Outgoing> {
        self.queues.get(usize::from(index))?.front()
    }

    /// It is taken.
    pub(super) fn taken(&mut self, index: u16) -> Option<Outgoing> {
        self.queues.get_mut(usize::from(index))?.pop_front()
    }

    /// Whether something waits for a queue, and there is a part for it.
    pub(super) fn wants_turn(&self, index: u16) -> bool {
        self.receive.is_some()
            && !self.free.is_empty()
            && self.queues.get(usize::from(index)).is_some_and(|queue| !queue.is_empty())
    }

    /// How a frame is spread over queues: parameters of NDIS. Whether they make sense.
    pub(super) fn scale(&mut self, value: &[u8]) -> bool {
        self.scaled(value).is_some()
    }

    fn scaled(&mut self, value: &[u8]) -> Option<()> {
        let half = |at: usize| Some(usize::from(u16::from_le_bytes(*value.get(at..)?.first_chunk()?)));
        let place = |index| word(value, index).and_then(|at| usize::try_from(at).ok());
        (value.first() == Some(&0x89) && half(2)? >= 40).then_some(())?;
        let table = value.get(place(4)?..)?.get(..half(12)?)?;
        let key = value.get(place(6)?..)?.get(..half(20)?)?;
        let (entries, rest) = table.as_chunks::<4>();
        let table: Option<Vec<u16>> =
            entries.iter().map(|entry| u16::try_from(u32::from_le_bytes(*entry)).ok()).collect();
        let table = table?;
        let queues = self.settings.queues;
        (rest.is_empty() && !table.is_empty() && key.len() == 40 && table.iter().all(|to| *to < queues))
            .then_some(())?;
        (self.table, self.key) = (table, key.to_vec());
        Some(())
    }
}

/// How long a buffer is: as far as it can be read. (The port does not say.)
fn gpadl_bytes(port: &dyn Port, gpadl: u32) -> Option<u64> {
    let there = |page: u64| port.read_gpadl(gpadl, page * PAGE, &mut [0]);
    let (mut low, mut high) = (0, PAGES);
    if !there(0) {
        return None;
    }
    while high - low > 1 {
        let middle = low.midpoint(high);
        if there(middle) {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some((low + 1) * PAGE)
}
