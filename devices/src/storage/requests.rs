//! What is under way: requests by transaction id, who waits for them, and what they hold of rings and pages.
//!
//! A request ends once: by its completion, by the end of its channel, or for its owner alone by a timeout. After a timeout
//! it keeps its place and its pages until the host is done with them. Nothing here waits but for room.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use vmbus_channels::dispatch::Ending;

use super::Failure;
use super::pool::Segment;
use super::wire::{Completion, HostPacket, MAX_PACKET_BYTES, parse};
use crate::Error;

mod pending;
mod table;

pub use pending::Pending;
pub(super) use pending::Time;
pub use table::Counters;
pub(super) use table::Kind;
use table::{End, Share, Table, Waiting};

/// The channel that the conversation began on.
pub(super) const PRIMARY: usize = 0;
/// What a request came to.
#[derive(Debug)]
pub(super) enum Answer {
    Completed(Completion, Option<Segment>),
    /// A subchannel ended; the others go on.
    LinkLost,
    Ended(Error),
}

/// What is under way at one controller.
#[derive(Debug)]
pub(super) struct Requests {
    device: String,
    table: Mutex<Table>,
    /// A request has ended, or all have.
    room: Condvar,
    /// The host has announced something, or all is over.
    changes: Condvar,
}

/// A request that has its place.
#[derive(Debug)]
pub(super) struct Begun {
    pub(super) id: u64,
    pub(super) link: usize,
    pub(super) answer: Receiver<Answer>,
}

impl Requests {
    pub(super) fn new(device: String, depth: usize) -> Arc<Self> {
        let table = Table::new(depth);
        Arc::new(Self { device, table: Mutex::new(table), room: Condvar::new(), changes: Condvar::new() })
    }

    /// One more channel, which can't be used yet; its number. The first one is the primary.
    pub(super) fn add_link(&self) -> usize {
        let mut table = self.lock();
        table.links.push(Share::default());
        table.links.len() - 1
    }

    /// The channel can be used; its ring has room for so many bytes.
    pub(super) fn open_link(&self, link: usize, room: u32) {
        if let Some(share) = self.lock().links.get_mut(link) {
            // It may have ended before anybody could use it.
            (share.room, share.open) = (room, !share.over);
        }
        self.room.notify_all();
    }

    /// Whether the channel of this number takes requests.
    pub(super) fn is_open(&self, link: usize) -> bool {
        self.lock().links.get(link).is_some_and(|share| share.open)
    }

    /// Takes a place for a request, waiting for one until `deadline`.
    pub(super) fn begin(
        &self,
        (kind, what): (Kind, &'static str),
        ring_bytes: u32,
        segment: Option<Segment>,
        Time { start, deadline }: Time,
    ) -> Result<Begun, Error> {
        let mut table = self.lock();
        let link = loop {
            if let Some(end) = table.end {
                return Err(self.error(end));
            }
            if let Some(link) = table.place(kind, ring_bytes) {
                break link;
            }
            let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return Err(self.failed(Failure::Busy { what, waited: start.elapsed() }));
            };
            (table, _) = self.room.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner);
        };
        let (reply, answer) = bounded(1);
        let full = |_| self.failed(Failure::Busy { what, waited: start.elapsed() });
        let id = table.waiting.insert(Waiting { reply: Some(reply), segment, link, ring_bytes }).map_err(full)?;
        if let Some(share) = table.links.get_mut(link) {
            share.room = share.room.saturating_sub(ring_bytes);
            share.ids.insert(id);
        }
        table.counters.sent += 1;
        Ok(Begun { id, link, answer })
    }

    /// A request could not be sent. `written`: the host may have seen it nevertheless, and keeps its pages.
    pub(super) fn unsent(&self, id: u64, written: bool) {
        let mut table = self.lock();
        let Some(waiting) = table.remove(id, false) else { return };
        match waiting.segment {
            Some(segment) if written => table.kept.push(segment),
            _ => {}
        }
        drop(table);
        self.room.notify_all();
    }

    /// Waits a little for a request to end, as when a ring is full although none of its requests should fill it.
    pub(super) fn wait_room(&self, at_most: Duration) {
        let table = self.lock();
        drop(self.room.wait_timeout(table, at_most).unwrap_or_else(PoisonError::into_inner));
    }

    /// The channel that a request was to go through is gone: of the controller that is its end, of a subchannel it is sent
    /// again by whoever waits for it.
    pub(super) fn lost(&self, begun: &Begun, what: &'static str) -> Result<(), Error> {
        self.unsent(begun.id, false);
        if begun.link == PRIMARY {
            let end = self.lock().end.unwrap_or(End::Closed);
            return Err(self.error(end));
        }
        Err(self.failed(Failure::LinkLost(what)))
    }

    /// The host has completed a request; these are the packet's bytes.
    pub(super) fn completed(&self, link: usize, id: u64, bytes: &[u8]) {
        let mut table = self.lock();
        // Of another channel, or of none: nobody's.
        if !table.links.get(link).is_some_and(|share| share.ids.contains(&id)) {
            table.counters.unknown += 1;
            return;
        }
        let Ok(HostPacket::Completed(completion)) = parse(bytes) else {
            // Whether the host is done with the pages is not known, so it is not.
            table.counters.malformed += 1;
            return;
        };
        let Some(waiting) = table.remove(id, true) else { return };
        match waiting.reply {
            Some(reply) => {
                table.counters.completed += 1;
                // Under the lock: whoever does not find the request any more finds the answer.
                let _ = reply.try_send(Answer::Completed(completion, waiting.segment));
            }
            None => {
                table.counters.late += 1;
                drop(waiting.segment);
            }
        }
        drop(table);
        self.room.notify_all();
    }

    /// The host has said something by itself.
    pub(super) fn said(&self, bytes: &[u8]) {
        let mut table = self.lock();
        match parse(bytes) {
            Ok(HostPacket::RemoveDevice | HostPacket::EnumerateBus | HostPacket::Event { .. }) => {
                table.counters.announcements += 1;
                table.changed = true;
                drop(table);
                self.changes.notify_all();
            }
            Ok(HostPacket::Completed(_)) | Err(_) => table.counters.malformed += 1,
        }
    }

    /// Something came that is no vstor packet.
    pub(super) fn malformed(&self) {
        self.lock().counters.malformed += 1;
    }

    /// The units are not what they were: as if the host had announced it.
    pub(super) fn note_change(&self) {
        self.lock().changed = true;
        self.changes.notify_all();
    }

    /// Waits until units have come or gone. `false`: they have not, in time.
    pub(super) fn wait_change(&self, timeout: Duration) -> Result<bool, Error> {
        let deadline = Instant::now().checked_add(timeout);
        let mut table = self.lock();
        loop {
            if std::mem::take(&mut table.changed) {
                return Ok(true);
            }
            if let Some(end) = table.end {
                return Err(self.error(end));
            }
            let left = deadline.map_or(timeout, |deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(false);
            }
            (table, _) = self.changes.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A channel gets no more packets: what went through it is over.
    pub(super) fn ended(&self, link: usize, why: Ending) {
        let mut table = self.lock();
        let Some(share) = table.links.get_mut(link) else { return };
        (share.open, share.over) = (false, true);
        let ids = std::mem::take(&mut share.ids);
        if link == PRIMARY && table.end.is_none() {
            table.end = Some(End::Channel(why));
        }
        // A host that took the channel back has let go of its requests. Otherwise it may not have.
        let is_done = why == Ending::Rescinded;
        for id in ids {
            let Some(waiting) = table.waiting.cancel(id) else { continue };
            if let Some(reply) = waiting.reply {
                let _ = reply.try_send(match link {
                    PRIMARY => Answer::Ended(self.error(End::Channel(why))),
                    _ => Answer::LinkLost,
                });
            }
            table.kept.extend(waiting.segment.filter(|_| !is_done));
        }
        drop(table);
        self.room.notify_all();
        self.changes.notify_all();
    }

    /// From here on no command begins. Whether this was the first to say so.
    pub(super) fn close(&self) -> bool {
        let mut table = self.lock();
        let first = table.end != Some(End::Closed);
        // A channel that has ended stays the reason.
        table.end.get_or_insert(End::Closed);
        drop(table);
        self.room.notify_all();
        self.changes.notify_all();
        first
    }

    /// Waits until the host has completed everything, but what is left to `deadline`; whether it has.
    pub(super) fn drain(&self, deadline: Instant) -> bool {
        let mut table = self.lock();
        while !table.waiting.is_empty() {
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
            let Some(left) = left else { return false };
            (table, _) = self.room.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Allows one control request although the controller is closed: the reset of a close that nobody else waits for.
    pub(super) fn begin_reset(&self, ring_bytes: u32) -> Option<Begun> {
        let mut table = self.lock();
        if table.end != Some(End::Closed) {
            return None;
        }
        let link = table.place(Kind::Control, ring_bytes)?;
        let (reply, answer) = bounded(1);
        let id = table.waiting.insert(Waiting { reply: Some(reply), segment: None, link, ring_bytes }).ok()?;
        let share = table.links.get_mut(link)?;
        share.room = share.room.saturating_sub(ring_bytes);
        share.ids.insert(id);
        Some(Begun { id, link, answer })
    }

    /// Pages are left that the host may use although their requests are no more.
    pub(super) fn keeps_pages(&self) -> bool {
        let table = self.lock();
        !table.kept.is_empty() || !table.waiting.is_empty()
    }

    pub(super) fn counters(&self) -> Counters {
        let table = self.lock();
        let under_way = u64::try_from(table.waiting.len()).unwrap_or(u64::MAX);
        Counters { under_way, ..table.counters }
    }

    pub(super) fn failed(&self, failure: Failure) -> Error {
        Error::Storage { device: self.device.clone(), failure }
    }

    /// Waits for a request's answer until `deadline`. After that its owner hears nothing of it any more.
    pub(super) fn wait(&self, begun: &Begun, what: &'static str, time: Time) -> Result<Answer, Error> {
        match begun.answer.recv_deadline(time.deadline) {
            Ok(answer) => return Ok(answer),
            Err(RecvTimeoutError::Disconnected) => return Err(self.failed(Failure::Closed)),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if self.abandon(begun.id) {
            return Err(self.failed(Failure::Timeout { what, waited: time.start.elapsed() }));
        }
        // It came in the last moment.
        begun.answer.try_recv().map_err(|_| self.failed(Failure::Closed))
    }

    /// Nobody waits for a request any more. Whether it was under way.
    fn abandon(&self, id: u64) -> bool {
        let mut table = self.lock();
        let waited = table.waiting.get_mut(id).is_some_and(|waiting| waiting.reply.take().is_some());
        table.counters.abandoned += u64::from(waited);
        waited
    }

    fn error(&self, end: End) -> Error {
        let device = self.device.clone();
        match end {
            End::Closed | End::Channel(Ending::Closed) => self.failed(Failure::Closed),
            End::Channel(Ending::Corrupt(source)) => vmbus_channels::Error::Corrupt { device, source }.into(),
            End::Channel(_) => vmbus_channels::Error::Link(vmbus::Error::Rescinded { device }).into(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most that is looked at of a packet.
pub(super) const LOOKED_AT: usize = MAX_PACKET_BYTES;

#[cfg(test)]
mod tests;
