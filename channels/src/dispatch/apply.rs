//! How a dispatcher carries out its orders.
//!
//! A channel that moves is expected at its new place before it leaves the old one, and what is ordered about it there
//! waits until it has come. So orders take effect in the order in which the executor gave them, whichever dispatcher
//! each went to, and nobody waits for another.

use std::collections::VecDeque;

use super::dispatcher::Dispatcher;
use super::mutation::Mutation;
use super::orders::Order;
use super::places::{Place, Resident};
use super::sync::contained;
use super::{Entry, Flags, Report};
use crate::ChannelId;

impl<F: Flags> Dispatcher<F> {
    /// Carries out an order, or keeps it until the channel it is about has arrived.
    pub(super) fn apply(&mut self, order: Order) {
        let relid = order.relid().unwrap_or_default();
        if let Some(Place::Expected { waiting, .. }) = self.places.get_mut(relid)
            && !matches!(order, Order::Arrive(..) | Order::Poke(..) | Order::Stop)
        {
            waiting.push_back(order);
            return;
        }
        match order {
            Order::Insert(relid, id, entry) => self.insert(relid, id, entry),
            Order::Retire(relid, id, via) => self.retire(relid, id, via),
            Order::Expect(relid, id) => self.expect(relid, id),
            Order::Leave(relid, id, to) => self.leave(relid, id, to),
            Order::Arrive(relid, id, entry) => self.arrive(relid, id, entry),
            Order::Settle(relid, id) => self.settle(relid, id),
            Order::Poke(relid, id) => self.poke(relid, id),
            Order::Stop => self.stopping = true,
        }
    }

    fn insert(&mut self, relid: usize, id: ChannelId, entry: Entry) {
        if relid >= self.role.relids || self.places.resident(relid).is_some() {
            return self.stale("insert", relid, id);
        }
        self.remove_marker(relid);
        if !self.lacks(Mutation::FlagKept) {
            // Of whoever had this relid, or of this channel already; which, nobody can tell. So it is taken away, and
            // the channel is looked after below without it.
            self.flags.take_one(relid);
        }
        self.settle_in(relid, id, entry);
    }

    /// Puts an entry into its place and looks after it.
    fn settle_in(&mut self, relid: usize, id: ChannelId, entry: Entry) {
        let Entry { target, source, hold } = entry;
        if let Some(target) = target {
            if let Some(source) = source {
                self.lines.watch(relid, source);
            }
            self.targets.put(relid, target);
        }
        let hold = hold.filter(|_| !self.lacks(Mutation::HoldDropped));
        self.places.replace(relid, Place::Here(Resident { id, hold }));
        self.tally.entries.add(1);
        if !self.lacks(Mutation::NotAsked) {
            // Its time may have come while it was on its way.
            self.ask(relid);
        }
        if !self.lacks(Mutation::NoLook) {
            self.event(relid);
        }
    }

    fn retire(&mut self, relid: usize, id: ChannelId, mut via: Vec<usize>) {
        if !via.is_empty() {
            // A place where it was: what is flagged here is flagged for nobody.
            let next = via.remove(0);
            if matches!(self.places.get(relid), Place::Left { id: other, .. } if *other == id) {
                self.remove_marker(relid);
                if !self.lacks(Mutation::FlagKept) {
                    self.flags.take_one(relid);
                }
            }
            self.post(next, Order::Retire(relid, id, via));
            return;
        }
        if !self.is_resident(relid, id) {
            return self.stale("retirement", relid, id);
        }
        if self.lacks(Mutation::AnsweredEarly) {
            (self.role.reports)(Report::Retired(id));
        }
        self.drop_target(relid, None);
        let place = self.places.replace(relid, Place::Empty);
        self.tally.entries.less();
        let _ = contained(|| drop(place));
        if !self.lacks(Mutation::FlagKept) {
            self.flags.take_one(relid);
        }
        if !self.lacks(Mutation::AnsweredEarly) {
            (self.role.reports)(Report::Retired(id));
        }
    }

    fn expect(&mut self, relid: usize, id: ChannelId) {
        if relid >= self.role.relids || self.places.resident(relid).is_some() {
            return self.stale("announced arrival", relid, id);
        }
        self.remove_marker(relid);
        if !self.lacks(Mutation::FlagKept) {
            // As in `insert`; it is looked after when it arrives.
            self.flags.take_one(relid);
        }
        self.places.replace(relid, Place::Expected { id, waiting: VecDeque::new() });
    }

    fn leave(&mut self, relid: usize, id: ChannelId, to: usize) {
        if !self.is_resident(relid, id) {
            return self.stale("move", relid, id);
        }
        self.ready.remove(relid);
        self.silence(relid);
        let source = self.lines.unwatch(relid);
        let target = self.targets.take(relid);
        // What is flagged here stays flagged: it is found, and sent on.
        let left = if self.lacks(Mutation::NoMarker) { Place::Empty } else { Place::Left { id, to } };
        let Place::Here(Resident { hold, .. }) = self.places.replace(relid, left) else { return };
        self.tally.entries.less();
        if !self.lacks(Mutation::NoMarker) {
            self.tally.markers.add(1);
        }
        // Without a target if it has ended by itself: what it holds is still kept until it is retired.
        self.post(to, Order::Arrive(relid, id, Entry { target, source, hold }));
    }

    fn arrive(&mut self, relid: usize, id: ChannelId, entry: Entry) {
        let expected = matches!(self.places.get(relid), Place::Expected { id: other, .. } if *other == id);
        if !expected {
            return self.stale("arrival", relid, id);
        }
        let Place::Expected { waiting, .. } = self.places.replace(relid, Place::Empty) else { return };
        self.settle_in(relid, id, entry);
        for order in waiting {
            self.apply(order);
        }
    }

    fn settle(&mut self, relid: usize, id: ChannelId) {
        let Place::Left { id: other, .. } = self.places.get(relid) else { return };
        if *other != id {
            return;
        }
        if self.flags.take_one(relid) && !self.lacks(Mutation::MarkerDropsFlag) {
            self.stray_one(relid);
        }
        self.remove_marker(relid);
    }

    fn poke(&mut self, relid: usize, id: ChannelId) {
        match self.places.get(relid) {
            Place::Here(resident) if resident.id == id || self.lacks(Mutation::GenerationIgnored) => self.event(relid),
            Place::Left { id: other, to } if *other == id => self.post(*to, Order::Poke(relid, id)),
            // It is looked after when it arrives.
            Place::Expected { id: other, .. } if *other == id => {}
            _ => self.stale("event", relid, id),
        }
    }

    fn is_resident(&self, relid: usize, id: ChannelId) -> bool {
        self.places.resident(relid).is_some_and(|other| other == id || self.lacks(Mutation::GenerationIgnored))
    }

    /// Empties a place that holds a marker.
    fn remove_marker(&mut self, relid: usize) {
        if matches!(self.places.get(relid), Place::Left { .. }) {
            self.places.replace(relid, Place::Empty);
            self.tally.markers.less();
        }
    }

    #[cold]
    fn stale(&mut self, what: &str, relid: usize, id: ChannelId) {
        self.tally.stale.add(1);
        log::debug!(target: "vmbus::dispatch", "processor {}: stale {what} of channel {id}, relid {relid}", self.role.number);
    }
}
