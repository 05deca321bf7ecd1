//! What comes and goes: the difference between what was offered and what sysfs shows.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::look::Present;
use super::entry::{Entry, Key, Life};
use super::{Effect, Host};
use crate::message::{HostMessage, OfferChannel};

impl<D: Clone, P> Host<D, P> {
    /// Rescinds what is not there any more, then offers what is new. What could not be looked at stays as it is. What has
    /// a relid that is not released and closed yet is held back: the release leads to another look. What has ended is not
    /// new, however long sysfs shows it.
    pub(super) fn present(&mut self, present: &[Present], unread: &BTreeSet<String>) {
        if !self.requested {
            return;
        }
        let is_gone = |entry: &&Entry<D>| !(unread.contains(&entry.device.name) || self.is_present(entry, present));
        let gone: Vec<u32> = self.entries.values().filter(is_gone).map(relid).collect();
        for relid in gone {
            self.depart(relid);
        }
        if unread.is_empty() {
            self.ended.retain(|ended| present.iter().any(|present| present.incarnation == *ended));
        }
        for present in present {
            let relid = present.offer.relid;
            if !self.entries.contains_key(&relid) && !self.ended.contains(&present.incarnation) {
                self.offer(present, present.offer.clone(), None);
            }
            if self.live(relid).is_some_and(|entry| matches!(entry.life, Life::Open { .. })) {
                for subchannel in &present.subchannels {
                    if !self.entries.contains_key(&subchannel.relid) {
                        self.offer(present, subchannel.clone(), Some(relid));
                    }
                }
            }
        }
        if std::mem::take(&mut self.delivering) {
            self.say(HostMessage::AllOffersDelivered);
        }
    }

    fn is_present(&self, entry: &Entry<D>, present: &[Present]) -> bool {
        let relid = entry.primary.unwrap_or(entry.offer.relid);
        let found = present.iter().find(|present| present.offer.relid == relid);
        found.is_some_and(|found| {
            let listed = || found.subchannels.iter().any(|subchannel| subchannel.relid == entry.offer.relid);
            found.incarnation == entry.incarnation && (entry.primary.is_none() || listed())
        })
    }

    fn offer(&mut self, present: &Present, offer: OfferChannel, primary: Option<u32>) {
        let key = Key(self.next_key);
        self.next_key = self.next_key.wrapping_add(1);
        let entry = Entry {
            key,
            offer: offer.clone(),
            device: Arc::clone(&present.device),
            incarnation: present.incarnation,
            primary,
            rescinded: false,
            released: false,
            ring: None,
            torn_down: false,
            life: Life::Closed,
        };
        self.entries.insert(offer.relid, entry);
        self.say(HostMessage::Offer(Box::new(offer)));
    }

    /// Rescinds an offer, once: its memory goes first, then its subchannels are told of, then itself.
    pub(super) fn depart(&mut self, relid: u32) {
        let Some(entry) = self.entries.get_mut(&relid).filter(|entry| !entry.rescinded) else { return };
        entry.rescinded = true;
        if let Life::Open { device } = &entry.life {
            self.out.push(Effect::Revoke(device.clone()));
        }
        // The executor did not want it and has forgotten it.
        let silent = entry.released;
        for subchannel in self.subchannels(relid) {
            self.depart(subchannel);
        }
        if silent {
            self.remove_if_over(relid);
        } else {
            self.say(HostMessage::Rescind { relid });
        }
    }
}

fn relid<D>(entry: &Entry<D>) -> u32 {
    entry.offer.relid
}
