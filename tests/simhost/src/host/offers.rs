//! Offers and rescinds: the host's half of a channel's life, and the guest's release.

use std::collections::VecDeque;

use vmbus::message::{Features, HostMessage, OfferChannel, OfferFlags};

use super::channel::{Channel, State};
use super::{Host, OfferId};
use crate::{DeviceSpec, Error, Memory, ViolationKind};

impl<M: Memory> Host<M> {
    /// Offers a device: now, or when the guest asks for offers, or when it has released the offer of that instance before.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::Duplicate`] if the instance is offered already (unless the configuration allows that).
    pub fn offer(&mut self, spec: DeviceSpec) -> Result<OfferId, Error> {
        if self.channels.len() >= self.slots.len().saturating_sub(1) {
            return Err(Error::Full { limit: self.config.limits.relids });
        }
        let there =
            |other: &Channel<M::Ring>| is_namesake(other, &spec) && (!other.state.is_rescinded() || other.reoffer);
        if !self.config.careless && self.channels.values().any(there) {
            return Err(Error::Duplicate { instance: spec.instance });
        }
        let id = self.add(spec);
        if self.connection.offers_sent {
            self.offer_when_free(id);
        }
        Ok(id)
    }

    /// Offers a device now, or in the moment in which the last offer of its instance is released: for Linux two channels
    /// with one instance are a bug of the host, and it keeps the second one's relid for ever.
    fn offer_when_free(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get(&id) else { return };
        let before = |other: &Channel<M::Ring>| is_namesake(other, &channel.spec) && other.state.is_rescinded();
        let waits = !self.config.careless && self.channels.values().any(before);
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.waits = waits;
        }
        if !waits {
            self.offer_now(id);
        }
    }

    /// Offers a subchannel of a device, which has one more of them, until its primary channel is closed.
    ///
    /// # Errors
    /// [`Error::NoOffer`] if there is no such offer; [`Error::Full`].
    pub fn offer_subchannel(&mut self, primary: OfferId) -> Result<OfferId, Error> {
        let spec = self.channels.get(&primary).map(|channel| channel.spec.clone());
        let spec = spec.ok_or(Error::NoOffer)?;
        let same = |other: &&Channel<M::Ring>| (other.spec.class, other.spec.instance) == (spec.class, spec.instance);
        let highest = self.channels.values().filter(same).map(|channel| channel.spec.subchannel_index).max();
        let id = self.offer(spec.subchannel(highest.unwrap_or(0).saturating_add(1)))?;
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.passing = true;
        }
        Ok(id)
    }

    /// The subchannels of a device that are the guest's, if this is its primary channel: the last one first.
    fn subchannels(&self, primary: OfferId) -> Vec<OfferId> {
        let Some(spec) = self.channels.get(&primary).map(|channel| &channel.spec) else { return Vec::new() };
        if spec.subchannel_index != 0 {
            return Vec::new();
        }
        let same = |other: &DeviceSpec| (other.class, other.instance) == (spec.class, spec.instance);
        let mut all: Vec<_> = self.channels.iter().collect();
        all.retain(|(_, other)| other.spec.subchannel_index != 0 && same(&other.spec));
        all.retain(|(_, other)| other.relid.is_some() && !other.state.is_rescinded());
        all.sort_by_key(|(_, other)| std::cmp::Reverse(other.spec.subchannel_index));
        all.into_iter().map(|(id, _)| *id).collect()
    }

    /// A channel is closed. If it is a primary channel: subchannels that were offered meanwhile are of that open, and go.
    pub(super) fn end_subchannels(&mut self, closed: OfferId) {
        for id in self.subchannels(closed) {
            if self.channels.get(&id).is_some_and(|channel| channel.passing)
                && let Err(error) = self.rescind_one(id)
            {
                log::debug!(target: "vmbus::simhost", "a subchannel stays: {error}");
            }
        }
    }

    /// Takes a channel back, and before a primary channel its subchannels. The guest is told if it knows of it.
    ///
    /// # Errors
    /// [`Error::NoOffer`]; [`Error::State`] if it is rescinded already.
    pub fn rescind(&mut self, id: OfferId) -> Result<(), Error> {
        let subchannels = if self.config.careless { Vec::new() } else { self.subchannels(id) };
        subchannels.into_iter().try_for_each(|id| self.rescind_one(id))?;
        self.rescind_one(id)
    }

    fn rescind_one(&mut self, id: OfferId) -> Result<(), Error> {
        let channel = self.channels.get_mut(&id).ok_or(Error::NoOffer)?;
        channel.reoffer = false;
        let Some(relid) = channel.relid else {
            self.end(id);
            return Ok(());
        };
        let before = std::mem::replace(&mut channel.state, State::Rescinded);
        match before {
            State::Rescinded => return Err(Error::State { relid, state: "rescinded" }),
            // The rings go: from here on the host does not touch the guest's memory.
            State::Open(_) => channel.device_closed(),
            State::Hidden | State::Offered | State::Opening(..) => {}
        }
        self.revoke_gpadls(relid, id);
        // What was being worked on for the old offer must not happen to the next one.
        self.pending.retain(|_, pending| !pending.is_about(id));
        let sequence = self.send(HostMessage::Rescind { relid });
        self.counters.rescinds += 1;
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.rescinded_at = sequence;
        }
        Ok(())
    }

    /// Takes a device back: its subchannels first, then the primary channel.
    ///
    /// # Errors
    /// [`Error::NoOffer`].
    pub fn rescind_device(&mut self, id: OfferId) -> Result<(), Error> {
        let channel = self.channels.get(&id).ok_or(Error::NoOffer)?;
        let device = (channel.spec.class, channel.spec.instance);
        let mut all: Vec<_> = self.channels.iter().collect();
        all.retain(|(_, other)| (other.spec.class, other.spec.instance) == device && !other.state.is_rescinded());
        all.sort_by_key(|(_, other)| std::cmp::Reverse(other.spec.subchannel_index));
        let ids: Vec<_> = all.into_iter().map(|(id, _)| *id).collect();
        ids.into_iter().try_for_each(|id| self.rescind_one(id))
    }

    /// Takes a channel back and offers it again, on the same relid, in the moment in which the guest releases it. The
    /// subchannels of a primary channel do not come again.
    ///
    /// # Errors
    /// As [`rescind`](Self::rescind).
    pub fn reoffer(&mut self, id: OfferId) -> Result<(), Error> {
        if self.channels.get(&id).is_some_and(|channel| channel.relid.is_none()) {
            return Ok(());
        }
        self.rescind(id)?;
        if let Some(channel) = self.channels.get_mut(&id) {
            channel.reoffer = true;
        }
        Ok(())
    }

    /// Notes a device that is not offered yet.
    pub(super) fn add(&mut self, spec: DeviceSpec) -> OfferId {
        let id = OfferId(self.number());
        let channel = Channel {
            device: Some((spec.maker)()),
            spec,
            relid: None,
            monitor: None,
            state: State::Hidden,
            reoffer: false,
            passing: false,
            waits: false,
            rescinded_at: 0,
            refused: VecDeque::new(),
            again: false,
            random: self.random.fork(id.0),
        };
        self.channels.insert(id, channel);
        id
    }

    /// Gives a device a relid and offers it.
    pub(super) fn offer_now(&mut self, id: OfferId) {
        let Some(relid) = self.free_relids.first().copied() else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        self.free_relids.remove(&relid);
        channel.relid = Some(relid);
        channel.monitor = if channel.spec.monitored { self.free_monitors.pop_first() } else { None };
        self.offer_on(id, relid);
    }

    /// Offers a device on the relid that it has.
    fn offer_on(&mut self, id: OfferId, relid: u32) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        channel.state = State::Offered;
        channel.refused.clear();
        let spec = &channel.spec;
        let mut flags = spec.flags;
        if !self.connection.protocol.has(Features::CONFIDENTIAL_CHANNELS) {
            flags &= !(OfferFlags::CONFIDENTIAL_RING_BUFFER | OfferFlags::CONFIDENTIAL_EXTERNAL_MEMORY);
        }
        let offer = OfferChannel {
            class: spec.class,
            instance: spec.instance,
            flags,
            mmio_megabytes: spec.mmio_megabytes,
            mmio_megabytes_optional: spec.mmio_megabytes_optional,
            user_defined: spec.user_defined,
            subchannel_index: spec.subchannel_index,
            relid,
            monitor_id: channel.monitor,
            is_dedicated: true,
            connection_id: relid,
        };
        if let Some(slot) = self.slots.get_mut(index(relid)) {
            slot.channel = Some(id);
            slot.offers += 1;
            slot.released = 0;
        }
        self.counters.offers += 1;
        self.send(HostMessage::Offer(Box::new(offer)));
    }

    /// The relid, and the monitor id, of a channel that is the guest's no longer.
    pub(super) fn free_relid(&mut self, id: OfferId) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if let Some(monitor) = channel.monitor.take() {
            self.free_monitors.insert(monitor);
        }
        if let Some(relid) = channel.relid.take() {
            self.free_relids.insert(relid);
            if let Some(slot) = self.slots.get_mut(index(relid)) {
                slot.channel = None;
            }
        }
    }

    pub(super) fn relid_released(&mut self, relid: u32) {
        let Some(slot) = self.slots.get_mut(index(relid)) else {
            return self.violation(ViolationKind::NotOffered, Some(relid), "RELID_RELEASED".into());
        };
        if slot.offers == 0 {
            return self.violation(ViolationKind::NotOffered, Some(relid), "RELID_RELEASED".into());
        }
        let Some(id) = slot.channel else {
            slot.released = slot.released.saturating_add(1);
            return self.violation(ViolationKind::ReleasedTwice, Some(relid), String::new());
        };
        match self.channels.get(&id).map(|channel| &channel.state) {
            Some(State::Open(_) | State::Opening(..)) => {
                return self.violation(ViolationKind::ReleasedOpen, Some(relid), "it is still open".into());
            }
            Some(State::Rescinded) => {}
            _ => self.violation(ViolationKind::ReleasedUnasked, Some(relid), "nobody rescinded it".into()),
        }
        if let Some(slot) = self.slots.get_mut(index(relid)) {
            slot.released = slot.released.saturating_add(1);
        }
        self.counters.released += 1;
        let left = self.gpadls.drop_channel(id);
        if left != 0 {
            self.violation(ViolationKind::ReleasedWithGpadls, Some(relid), format!("{left} are up"));
        }
        self.release(id, relid);
    }

    fn release(&mut self, id: OfferId, relid: u32) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        if channel.reoffer {
            channel.reoffer = false;
            channel.device = Some((channel.spec.maker)());
            return self.offer_on(id, relid);
        }
        let rescinded = channel.state.is_rescinded();
        channel.state = State::Hidden;
        self.free_relid(id);
        if !rescinded {
            return;
        }
        self.end(id);
        let waiting: Vec<_> = self.channels.iter().filter(|(_, other)| other.waits).map(|(id, _)| *id).collect();
        waiting.into_iter().for_each(|id| self.offer_when_free(id));
    }

    /// The channel that a message is about; the checker hears of a relid that is none.
    pub(super) fn named(&mut self, relid: u32, what: &str) -> Option<OfferId> {
        let slot = self.slots.get(index(relid)).copied().unwrap_or_default();
        if slot.channel.is_none() {
            let kind = if slot.offers == 0 { ViolationKind::NotOffered } else { ViolationKind::AfterRelease };
            self.violation(kind, Some(relid), what.into());
        }
        slot.channel
    }

    /// Whether the channel is rescinded; the checker hears of it if the guest could know.
    pub(super) fn is_gone(&mut self, id: OfferId, what: &str) -> bool {
        let Some(channel) = self.channels.get(&id) else { return true };
        let (gone, relid, at) = (channel.state.is_rescinded(), channel.relid, channel.rescinded_at);
        if gone && at <= self.heard {
            self.violation(ViolationKind::AfterRescind, relid, what.into());
        }
        gone
    }
}

/// Whether both are primary channels with one instance: Linux looks at nothing else.
fn is_namesake<R>(channel: &Channel<R>, spec: &DeviceSpec) -> bool {
    let primary = channel.spec.subchannel_index == 0 && spec.subchannel_index == 0;
    primary && channel.spec.instance == spec.instance
}

/// A relid as an index.
pub(super) fn index(relid: u32) -> usize {
    usize::try_from(relid).unwrap_or(usize::MAX)
}
