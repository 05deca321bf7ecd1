//! What tests ask the host: violations, what is up, what was released, counters.

use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::GpadlId;

use super::channel::State;
use super::{Host, OfferId};
use crate::{Error, Memory, Violation, ViolationKind};

/// How often what happened. `left_open` and `left_gpadls` were up when the guest unloaded, came anew, or died.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each name is what is counted")]
pub struct Counters {
    pub messages_in: u64,
    pub messages_out: u64,
    pub contacts: u64,
    pub contacts_refused: u64,
    pub unloads: u64,
    pub left_open: u64,
    pub left_gpadls: u64,
    pub offers: u64,
    pub rescinds: u64,
    pub released: u64,
    pub opens: u64,
    pub closes: u64,
    pub moves: u64,
    pub gpadls: u64,
    pub teardowns: u64,
    pub refused: u64,
    pub interrupts: u64,
    pub signals: u64,
    pub monitor_signals: u64,
    pub stray_signals: u64,
    pub packets_in: u64,
    pub packets_out: u64,
}

/// A channel as the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offered {
    /// The offer.
    pub id: OfferId,
    /// While it is the guest's.
    pub relid: Option<u32>,
    /// What kind of device.
    pub class: Class,
    /// Which.
    pub instance: Uuid,
    /// Zero is the primary channel.
    pub subchannel_index: u16,
    /// Its monitor id, if it has one.
    pub monitor: Option<u8>,
    /// Hidden, offered, opening, open or rescinded.
    pub state: &'static str,
}

/// A channel that is no more, as it was last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What it was; `relid` is none.
    pub offer: Offered,
    /// What its device counted.
    pub report: Vec<(&'static str, u64)>,
}

/// Ended channels that are remembered.
const ENDED_AT_MOST: usize = 256;

impl<M: Memory> Host<M> {
    /// What the guest did wrong: the first ones, as many as the limits say, without those that are tolerated.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        self.checker.kept()
    }

    /// How often the guest did this, tolerated or not.
    #[must_use]
    pub fn violation_count(&self, kind: ViolationKind) -> u64 {
        self.checker.count(kind)
    }

    /// How often the guest did anything wrong that is not tolerated.
    #[must_use]
    pub fn violation_total(&self) -> u64 {
        self.checker.total()
    }

    /// GPADLs whose pages the guest must not reuse.
    #[must_use]
    pub fn live_gpadls(&self) -> Vec<GpadlId> {
        self.gpadls.live()
    }

    /// How often the guest has released this relid since it was offered last. One is right, once it is rescinded.
    #[must_use]
    pub fn released(&self, relid: u32) -> u32 {
        self.slots.get(super::offers::index(relid)).map_or(0, |slot| slot.released)
    }

    /// Whether nothing is under way: all output taken, nothing pending, nothing opening, every rescind answered.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        let settled = |state: &State<M::Ring>| !matches!(state, State::Opening(..) | State::Rescinded);
        let busy = |channel: &super::Channel<M::Ring>| channel.again || !settled(&channel.state);
        let work = self.pending.values().any(|pending| !matches!(pending, super::Completion::Unaccepted(_)));
        self.out.is_empty() && self.held.is_empty() && !work && !self.channels.values().any(busy)
    }

    /// Whether the guest is connected, and has asked for its offers and been told all of them.
    #[must_use]
    pub const fn is_connected(&self) -> bool {
        self.connection.offers_sent
    }

    /// Counters.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// All channels.
    #[must_use]
    pub fn offered(&self) -> Vec<Offered> {
        self.channels.iter().map(|(id, channel)| describe(*id, channel)).collect()
    }

    /// The channels that ended last, oldest first: rescinded and released, or gone with the guest's goodbye. What became
    /// of a hvsock connection is found here.
    pub fn ended(&self) -> impl Iterator<Item = &Ended> {
        self.ended.iter()
    }

    /// Forgets a channel, and remembers what it came to.
    pub(super) fn end(&mut self, id: OfferId) {
        let Some(channel) = self.channels.remove(&id) else { return };
        if self.ended.len() >= ENDED_AT_MOST {
            self.ended.pop_front();
        }
        let report = channel.device.as_ref().map(|device| device.report()).unwrap_or_default();
        self.ended.push_back(Ended { offer: Offered { relid: None, ..describe(id, &channel) }, report });
    }

    /// The relid of an offer, while it is the guest's.
    #[must_use]
    pub fn relid(&self, id: OfferId) -> Option<u32> {
        self.channels.get(&id)?.relid
    }

    /// The offer on a relid.
    #[must_use]
    pub fn offer_on_relid(&self, relid: u32) -> Option<OfferId> {
        self.slots.get(super::offers::index(relid))?.channel
    }

    /// Where an offer is in its life: hidden, offered, opening, open, rescinded; `None` when it is gone.
    #[must_use]
    pub fn state(&self, id: OfferId) -> Option<&'static str> {
        Some(self.channels.get(&id)?.state.name())
    }

    /// Where the interrupts of an open channel go.
    #[must_use]
    pub fn processor(&self, id: OfferId) -> Option<u32> {
        match &self.channels.get(&id)?.state {
            State::Open(opened) => opened.processor,
            _ => None,
        }
    }

    /// What the device counts, or has counted when its channel has ended (and is remembered: see [`ended`](Self::ended)).
    ///
    /// # Errors
    /// [`Error::NoOffer`].
    pub fn report(&self, id: OfferId) -> Result<Vec<(&'static str, u64)>, Error> {
        let Some(channel) = self.channels.get(&id) else {
            let ended = self.ended.iter().find(|ended| ended.offer.id == id);
            return ended.map(|ended| ended.report.clone()).ok_or(Error::NoOffer);
        };
        Ok(channel.device.as_ref().map(|device| device.report()).unwrap_or_default())
    }

    /// One of those numbers, zero where there is none.
    #[must_use]
    pub fn count(&self, id: OfferId, name: &str) -> u64 {
        let found = self.report(id).ok().and_then(|all| all.into_iter().find(|(of, _)| *of == name));
        found.map_or(0, |(_, count)| count)
    }

    /// The earliest moment at which it is known what comes next by itself: for tests that let time run.
    #[must_use]
    pub fn next_event(&self) -> Option<Duration> {
        self.deadline().map(|due| due.max(self.now()))
    }
}

fn describe<R>(id: OfferId, channel: &super::Channel<R>) -> Offered {
    Offered {
        id,
        relid: channel.relid,
        class: channel.spec.class,
        instance: channel.spec.instance,
        subchannel_index: channel.spec.subchannel_index,
        monitor: channel.monitor,
        state: channel.state.name(),
    }
}
