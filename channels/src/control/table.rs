//! The table of channels: a slab whose slots have generations, an index by relid, an index by device.

use std::collections::HashMap;

use slab::Slab;
use uuid::Uuid;
use vmbus::class::Class;

use super::channel::Channel;
use super::limits::MAX_RELIDS;
use crate::ChannelId;
use crate::mutation::{self, Mutation};

/// What stays the same of a channel when the host offers it again: class, instance, subchannel index.
pub(super) type Device = (Class, Uuid, u16);

/// All channels, from their offer to their release.
#[derive(Debug, Clone)]
pub(super) struct Table {
    slots: Slab<Channel>,
    /// Of each slot that ever was: what its next content is called. As long as the slab was at its fullest.
    generations: Vec<u32>,
    /// Who has the number: one load. A departed channel keeps it until it is released; a severed one has lost it. As long
    /// as the highest number that ever was, so at most [`MAX_RELIDS`].
    relids: Vec<Option<ChannelId>>,
    /// Which channel is which device's. Only those that have not departed.
    devices: HashMap<Device, ChannelId>,
    limit: usize,
}

impl Table {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            slots: Slab::new(),
            generations: Vec::new(),
            relids: Vec::new(),
            devices: HashMap::new(),
            limit: limit.min(u32::MAX as usize),
        }
    }

    /// Puts a channel into a free slot, under a name that no channel had before. `None`: the table is full.
    pub(super) fn insert(&mut self, make: impl FnOnce(ChannelId) -> Channel) -> Option<ChannelId> {
        if self.slots.len() >= self.limit {
            return None;
        }
        let entry = self.slots.vacant_entry();
        let key = entry.key();
        if self.generations.len() <= key {
            self.generations.resize(key + 1, 0);
        }
        let id = ChannelId { index: u32::try_from(key).ok()?, generation: *self.generations.get(key)? };
        entry.insert(make(id));
        Some(id)
    }

    /// Empties a slot. Its next content has another name (the same one after 2^32 of them).
    pub(super) fn free(&mut self, id: ChannelId) {
        if self.get(id).is_none() || mutation::is(Mutation::LeakSlot) {
            return;
        }
        self.slots.try_remove(id.index as usize);
        if let Some(generation) = self.generations.get_mut(id.index as usize)
            && !mutation::is(Mutation::ReuseGeneration)
        {
            *generation = generation.wrapping_add(1);
        }
    }

    pub(super) fn get(&self, id: ChannelId) -> Option<&Channel> {
        self.slots.get(id.index as usize).filter(|channel| channel.id() == id)
    }

    pub(super) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel> {
        self.slots.get_mut(id.index as usize).filter(|channel| channel.id() == id)
    }

    /// The channel that has this number, departed or not.
    pub(super) fn at_relid(&self, relid: u32) -> Option<ChannelId> {
        self.relids.get(relid as usize).copied().flatten()
    }

    /// Whether the number can belong to a channel at all.
    pub(super) fn is_relid(relid: u32) -> bool {
        relid != 0 && relid < MAX_RELIDS
    }

    pub(super) fn bind_relid(&mut self, relid: u32, id: ChannelId) {
        if !Self::is_relid(relid) {
            return;
        }
        if self.relids.len() <= relid as usize {
            self.relids.resize(relid as usize + 1, None);
        }
        if let Some(place) = self.relids.get_mut(relid as usize) {
            *place = Some(id);
        }
    }

    /// Gives the number up, if it is this channel's.
    pub(super) fn unbind_relid(&mut self, relid: u32, id: ChannelId) {
        if let Some(place) = self.relids.get_mut(relid as usize)
            && *place == Some(id)
        {
            *place = None;
        }
    }

    pub(super) fn device(&self, device: &Device) -> Option<ChannelId> {
        self.devices.get(device).copied()
    }

    pub(super) fn bind_device(&mut self, device: Device, id: ChannelId) {
        self.devices.insert(device, id);
    }

    /// Gives the device up, if it is this channel's.
    pub(super) fn unbind_device(&mut self, device: &Device, id: ChannelId) {
        if self.devices.get(device) == Some(&id) {
            self.devices.remove(device);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Channel> {
        self.slots.iter().map(|(_, channel)| channel)
    }

    /// All names, so that the table can be changed while going through them.
    pub(super) fn ids(&self) -> Vec<ChannelId> {
        self.iter().map(Channel::id).collect()
    }

    /// Numbers and devices that are taken, for the invariants.
    pub(super) fn bound(
        &self,
    ) -> (impl Iterator<Item = (usize, ChannelId)>, impl Iterator<Item = (&Device, ChannelId)>) {
        let relids = self.relids.iter().enumerate().filter_map(|(relid, place)| Some((relid, (*place)?)));
        (relids, self.devices.iter().map(|(device, id)| (device, *id)))
    }

    /// What the table has allocated, in entries: slots, generations, devices.
    #[cfg(test)]
    pub(super) fn capacity(&self) -> (usize, usize, usize) {
        (self.slots.capacity(), self.generations.capacity(), self.devices.capacity())
    }
}
