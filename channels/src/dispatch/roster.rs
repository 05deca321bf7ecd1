//! Where each channel is, by the orders that were given; and so which dispatcher is to be told what.

use std::collections::BTreeMap;
use std::os::fd::RawFd;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::orders::Order;
use super::{Entry, RELIDS};
use crate::ChannelId;

/// Gives orders to dispatchers. One owner; nothing waits. See [`Dispatchers`](super::Dispatchers) for what they mean.
#[derive(Debug)]
pub struct Roster {
    mail: Arc<[Mailbox]>,
    channels: BTreeMap<ChannelId, Whereabouts>,
    stale: u64,
}

#[derive(Debug)]
struct Whereabouts {
    relid: usize,
    processor: usize,
    /// Where it was, and is still sent after.
    left: Vec<usize>,
    /// All channels of a device stay with one dispatcher, which reads its descriptor.
    descriptor: Option<RawFd>,
}

impl Roster {
    /// Nothing is anywhere yet.
    #[must_use]
    pub fn new(mail: Arc<[Mailbox]>) -> Self {
        Self { mail, channels: BTreeMap::new(), stale: 0 }
    }

    /// As [`Dispatchers::insert`](super::Dispatchers::insert).
    pub fn insert(&mut self, processor: u32, relid: u32, channel: ChannelId, entry: Entry) {
        let (Some(relid), false) = (self.free_relid(relid), self.channels.contains_key(&channel)) else {
            self.stale += 1;
            return;
        };
        let descriptor = entry.descriptor();
        let neighbour = self.channels.values().find(|other| descriptor.is_some() && other.descriptor == descriptor);
        let processor = neighbour.map_or_else(|| self.processor(processor), |neighbour| neighbour.processor);
        self.channels.insert(channel, Whereabouts { relid, processor, left: Vec::new(), descriptor });
        self.post(processor, Order::Insert(relid, channel, entry));
    }

    /// As [`Dispatchers::retire`](super::Dispatchers::retire).
    pub fn retire(&mut self, channel: ChannelId) {
        let Some(Whereabouts { relid, processor, left, .. }) = self.channels.remove(&channel) else {
            self.stale += 1;
            return;
        };
        // By way of the places where it was: when it is answered, none of them knows it any more.
        let mut via = left;
        via.push(processor);
        let first = via.remove(0);
        self.post(first, Order::Retire(relid, channel, via));
    }

    /// As [`Dispatchers::move_entry`](super::Dispatchers::move_entry).
    pub fn move_entry(&mut self, channel: ChannelId, to: u32) {
        let to = self.processor(to);
        let Some(there) = self.channels.get_mut(&channel) else {
            self.stale += 1;
            return;
        };
        let (relid, from) = (there.relid, there.processor);
        if from == to || there.descriptor.is_some() {
            return;
        }
        there.processor = to;
        there.left.retain(|other| *other != to && *other != from);
        there.left.push(from);
        // It is expected before it leaves: what is ordered about it at its new place from now on waits for it there.
        self.post(to, Order::Expect(relid, channel));
        self.post(from, Order::Leave(relid, channel, to));
    }

    /// As [`Dispatchers::settle`](super::Dispatchers::settle).
    pub fn settle(&mut self, channel: ChannelId) {
        let Some(there) = self.channels.get_mut(&channel) else { return };
        let relid = there.relid;
        for processor in std::mem::take(&mut there.left) {
            self.post(processor, Order::Settle(relid, channel));
        }
    }

    /// As [`Dispatchers::poke`](super::Dispatchers::poke).
    pub fn poke(&mut self, channel: ChannelId) {
        let Some(there) = self.channels.get(&channel) else {
            self.stale += 1;
            return;
        };
        self.post(there.processor, Order::Poke(there.relid, channel));
    }

    /// Ends all dispatchers.
    pub fn stop(&mut self) {
        for mail in &*self.mail {
            mail.post(Order::Stop);
        }
        self.channels.clear();
    }

    /// Orders that named no channel, or a relid that can't be had.
    #[must_use]
    pub fn stale(&self) -> u64 {
        self.stale
    }

    fn post(&self, processor: usize, order: Order) {
        if let Some(mail) = self.mail.get(processor) {
            mail.post(order);
        }
    }

    fn processor(&self, number: u32) -> usize {
        usize::try_from(number).unwrap_or_default() % self.mail.len().max(1)
    }

    fn free_relid(&self, relid: u32) -> Option<usize> {
        let relid = usize::try_from(relid).ok()?;
        let taken = || self.channels.values().any(|other| other.relid == relid);
        (relid != 0 && relid < RELIDS && !taken()).then_some(relid)
    }
}
