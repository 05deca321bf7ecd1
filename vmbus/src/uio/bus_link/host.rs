//! The host that the executor believes to speak with: a pure step from what was heard to what is to be done.
//!
//! What a host would say follows from three things: what the executor posts, what sysfs shows, and how opening and
//! closing devices went. One entry for each relid, from its offer until it is released *and* everything of it is closed.

mod entry;
mod presence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) use entry::Key;
use entry::{Entry, Life};

use super::look::Present;
use crate::link::Share;
use crate::message::{
    ConnectionState, Features, GpadlId, GuestMessage, HostMessage, InitiateContact, OpenChannel, Status, Version,
    VersionResponse,
};
use crate::sysfs::Device;

/// What happened. `D` holds an open device or subchannel, `P` is what the executor's `port` gets.
#[derive(Debug)]
pub(super) enum Heard<D, P> {
    /// The executor posted a message.
    Said(GuestMessage),
    /// The executor shared memory.
    Shared { relid: u32, gpadl: GpadlId, what: Share },
    /// All devices that user space has now, and the names of those that could not be looked at.
    Present { present: Vec<Present>, unread: BTreeSet<String> },
    /// An open ended; without a device, `port` says why.
    Opened { key: Key, device: Option<D>, port: P },
    /// An open device is gone, somebody noticed.
    Gone(Key),
    /// Everything of an open device is closed.
    Closed(Key),
}

/// What is to be done, in this order.
#[derive(Debug, PartialEq)]
pub(super) enum Effect<D, P> {
    /// Deliver this to the executor.
    Say(HostMessage),
    /// Look at sysfs; the answer is `Heard::Present`.
    Look,
    /// Open a device; the answer is `Heard::Opened`.
    Open { key: Key, device: Arc<Device>, incarnation: u64 },
    /// Map a subchannel of an open device; the answer is `Heard::Opened`.
    OpenSubchannel { key: Key, device: D, relid: u32 },
    /// The executor may ask for this port now.
    Keep { ring: GpadlId, port: P },
    /// It may not any more.
    Forget(GpadlId),
    /// Take the memory away from all who still use it.
    Revoke(D),
    /// Close it; the answer is `Heard::Closed`.
    Close { key: Key, device: D },
}

/// The host.
#[derive(Debug)]
pub(super) struct Host<D, P> {
    entries: BTreeMap<u32, Entry<D>>,
    /// Incarnations whose end somebody who had them open has seen, and which sysfs may still show: the kernel tells
    /// users first, and takes the device away then. Offered again, they would be devices that never were.
    ended: BTreeSet<u64>,
    next_key: u64,
    /// Whether offers are asked for.
    requested: bool,
    /// Whether `AllOffersDelivered` is still to be said.
    delivering: bool,
    out: Vec<Effect<D, P>>,
}

impl<D: Clone, P> Host<D, P> {
    pub(super) fn new() -> Self {
        let (entries, ended) = (BTreeMap::new(), BTreeSet::new());
        Self { entries, ended, next_key: 0, requested: false, delivering: false, out: Vec::new() }
    }

    /// The open devices, subchannels included.
    pub(super) fn open(&self) -> impl Iterator<Item = &D> {
        self.entries.values().filter_map(|entry| match &entry.life {
            Life::Open { device, .. } => Some(device),
            _ => None,
        })
    }

    /// Takes all that is open, for the end.
    pub(super) fn close_all(&mut self) -> Vec<D> {
        let take = |entry: Entry<D>| match entry.life {
            Life::Open { device, .. } => Some(device),
            _ => None,
        };
        std::mem::take(&mut self.entries).into_values().filter_map(take).collect()
    }

    /// Whether it matters what sysfs shows.
    pub(super) fn wants_looks(&self) -> bool {
        self.requested
    }

    pub(super) fn step(&mut self, heard: Heard<D, P>) -> Vec<Effect<D, P>> {
        match heard {
            Heard::Said(message) => self.said(message),
            Heard::Shared { relid, gpadl, what } => self.shared(relid, gpadl, what),
            Heard::Present { present, unread } => self.present(&present, &unread),
            Heard::Opened { key, device, port } => self.opened(key, device, port),
            Heard::Gone(key) => self.gone(key),
            Heard::Closed(key) => self.closed(key),
        }
        std::mem::take(&mut self.out)
    }

    fn said(&mut self, message: GuestMessage) {
        match message {
            GuestMessage::InitiateContact(contact) => self.say(HostMessage::VersionResponse(answer(&contact))),
            GuestMessage::RequestOffers => {
                (self.requested, self.delivering) = (true, true);
                self.out.push(Effect::Look);
            }
            GuestMessage::Open(open) => self.open_channel(&open),
            GuestMessage::GpadlTeardown { gpadl, .. } => self.tear_down(gpadl),
            GuestMessage::RelidReleased { relid } => self.released(relid),
            GuestMessage::Unload => self.unload(),
            GuestMessage::TlConnect { endpoint, service, .. } => {
                self.say(HostMessage::TlConnectResult { endpoint, service, status: Status::CONNECTION_REFUSED });
            }
            // The kernel chose the processor when the channel was offered, and has no way to change it from here.
            GuestMessage::ModifyChannel { relid, .. } => {
                self.say(HostMessage::ModifyChannelResponse { relid, status: Status::UNSUCCESSFUL });
            }
            GuestMessage::ModifyConnection { .. } => {
                let state = ConnectionState::FAILED_UNKNOWN;
                self.say(HostMessage::ModifyConnectionResponse { state });
            }
            GuestMessage::CloseReserved { relid, .. } => self.say(HostMessage::CloseReservedResponse { relid }),
            GuestMessage::Pause => self.say(HostMessage::PauseResponse),
            // A close alone changes nothing: the device closes with its ring's GPADL, which is answered.
            GuestMessage::Close { .. } => {}
            other => log::debug!(target: "vmbus::uio", "nothing comes of {other:?} on this link"),
        }
    }

    /// Ring memory is the kernel's: there is nothing to allocate, and so nothing to wait for.
    fn shared(&mut self, relid: u32, gpadl: GpadlId, what: Share) {
        let status = match (what, self.live(relid)) {
            (Share::Ring { .. }, Some(entry)) if matches!(entry.life, Life::Closed) => {
                entry.ring = Some(gpadl);
                Status::SUCCESS
            }
            _ => Status::UNSUCCESSFUL,
        };
        self.say(HostMessage::GpadlCreated { relid, gpadl, status });
    }

    fn open_channel(&mut self, open: &OpenChannel) {
        let (relid, open_id) = (open.relid, open.open_id);
        let primary = self.live(relid).and_then(|entry| entry.primary);
        let device = primary.and_then(|primary| match &self.live(primary)?.life {
            Life::Open { device, .. } => Some(device.clone()),
            _ => None,
        });
        let effect = match self.live(relid) {
            // Rescinded: hosts are silent then, and the executor does not wait.
            None => return,
            Some(entry) if matches!(entry.life, Life::Closed) && entry.ring == Some(open.ring) => {
                let key = entry.key;
                match (entry.primary, device) {
                    (None, _) => {
                        entry.life = Life::Opening { open_id, abandoned: false };
                        Some(Effect::Open { key, device: Arc::clone(&entry.device), incarnation: entry.incarnation })
                    }
                    (Some(_), Some(device)) => {
                        entry.life = Life::Opening { open_id, abandoned: false };
                        Some(Effect::OpenSubchannel { key, device, relid })
                    }
                    (Some(_), None) => None,
                }
            }
            Some(_) => None,
        };
        match effect {
            Some(effect) => self.out.push(effect),
            None => self.say(HostMessage::OpenResult { relid, open_id, status: Status::UNSUCCESSFUL }),
        }
    }

    fn opened(&mut self, key: Key, device: Option<D>, port: P) {
        let Some(entry) = self.relid(key).and_then(|relid| self.entries.get_mut(&relid)) else { return };
        let Life::Opening { open_id, abandoned } = entry.life else { return };
        let (relid, ring, wanted) = (entry.offer.relid, entry.ring, !abandoned && !entry.rescinded);
        match (device, ring.filter(|_| wanted)) {
            (Some(device), None) => {
                entry.life = Life::Closing;
                self.out.push(Effect::Close { key, device });
            }
            (None, None) => self.closed(key),
            (device, Some(ring)) => {
                let is_primary = entry.primary.is_none();
                entry.life = device.map_or(Life::Failed, |device| Life::Open { device });
                self.out.push(Effect::Keep { ring, port });
                // Also when it failed: the port says why, which a status could not.
                self.say(HostMessage::OpenResult { relid, open_id, status: Status::SUCCESS });
                if is_primary {
                    self.out.push(Effect::Look);
                }
            }
        }
    }

    /// The executor gives a ring back: nobody uses the channel any more.
    fn tear_down(&mut self, gpadl: GpadlId) {
        self.out.push(Effect::Forget(gpadl));
        let owner = self.entries.values().find(|entry| entry.ring == Some(gpadl)).map(|entry| entry.offer.relid);
        let Some(relid) = owner else { return self.say(HostMessage::GpadlTorndown { gpadl }) };
        self.close(relid);
        let Some(entry) = self.entries.get_mut(&relid) else { return };
        if matches!(entry.life, Life::Closed) {
            entry.ring = None;
            self.say(HostMessage::GpadlTorndown { gpadl });
        } else {
            entry.torn_down = true;
        }
    }

    /// Begins to close what is open of a relid, after its subchannels have gone.
    fn close(&mut self, relid: u32) {
        for subchannel in self.subchannels(relid) {
            self.depart(subchannel);
        }
        let Some(entry) = self.entries.get_mut(&relid) else { return };
        match std::mem::replace(&mut entry.life, Life::Closed) {
            Life::Closed | Life::Failed => {}
            Life::Opening { open_id, .. } => entry.life = Life::Opening { open_id, abandoned: true },
            Life::Closing => entry.life = Life::Closing,
            Life::Open { device } => {
                entry.life = Life::Closing;
                self.out.push(Effect::Close { key: entry.key, device });
            }
        }
    }

    /// Who has a device open has seen its end. One that was taken away here, as an unload does, has not ended for that.
    fn gone(&mut self, key: Key) {
        let Some(entry) = self.entries.values().find(|entry| entry.key == key) else { return };
        if entry.primary.is_none() && !entry.rescinded {
            self.ended.insert(entry.incarnation);
        }
        self.depart(entry.offer.relid);
    }

    fn closed(&mut self, key: Key) {
        let Some(relid) = self.relid(key) else { return };
        let Some(entry) = self.entries.get_mut(&relid) else { return };
        entry.life = Life::Closed;
        if std::mem::take(&mut entry.torn_down)
            && let Some(gpadl) = entry.ring.take()
            && !entry.released
        {
            self.say(HostMessage::GpadlTorndown { gpadl });
        }
        self.remove_if_over(relid);
    }

    fn released(&mut self, relid: u32) {
        let Some(entry) = self.entries.get_mut(&relid) else { return };
        entry.released = true;
        // Released although it was not rescinded: the executor does not want it. It stays, so that the next look does
        // not offer it again.
        if entry.rescinded {
            self.out.extend(entry.ring.map(Effect::Forget));
            self.close(relid);
            self.remove_if_over(relid);
        }
    }

    /// An entry goes once it is released and closed; its relid may have been taken anew meanwhile.
    fn remove_if_over(&mut self, relid: u32) {
        let over = |entry: &Entry<D>| entry.rescinded && entry.released && matches!(entry.life, Life::Closed);
        if self.entries.get(&relid).is_some_and(over) {
            self.entries.remove(&relid);
            if self.requested {
                self.out.push(Effect::Look);
            }
        }
    }

    /// The connection ends: nothing is offered any more, and what is open closes without a word about it.
    fn unload(&mut self) {
        (self.requested, self.delivering) = (false, false);
        let relids: Vec<u32> = self.entries.keys().copied().collect();
        for relid in &relids {
            let Some(entry) = self.entries.get_mut(relid) else { continue };
            (entry.rescinded, entry.released) = (true, true);
            if let Life::Open { device } = &entry.life {
                self.out.push(Effect::Revoke(device.clone()));
            }
            self.out.extend(entry.ring.map(Effect::Forget));
        }
        for relid in relids {
            self.close(relid);
            self.remove_if_over(relid);
        }
        self.say(HostMessage::UnloadResponse);
    }

    fn say(&mut self, message: HostMessage) {
        self.out.push(Effect::Say(message));
    }

    /// The entry of an offer that stands.
    fn live(&mut self, relid: u32) -> Option<&mut Entry<D>> {
        self.entries.get_mut(&relid).filter(|entry| !entry.rescinded && !entry.released)
    }

    fn relid(&self, key: Key) -> Option<u32> {
        self.entries.values().find(|entry| entry.key == key).map(|entry| entry.offer.relid)
    }

    fn subchannels(&self, primary: u32) -> Vec<u32> {
        let of = |entry: &&Entry<D>| entry.primary == Some(primary);
        self.entries.values().filter(of).map(|entry| entry.offer.relid).collect()
    }
}

/// The kernel does not show which version it has agreed on with the host, and it does not matter here: the version is
/// that between the executor and this link, which takes whatever comes first. No feature of 6.0 is there.
fn answer(contact: &InitiateContact) -> VersionResponse {
    VersionResponse {
        supported: true,
        state: ConnectionState::SUCCESSFUL,
        selected: if contact.version >= Version::V5_0 { MESSAGE_CONNECTION } else { contact.version.0 },
        features: (contact.version >= Version::V6_0).then_some(Features::empty()),
    }
}

/// The connection id that hosts choose since 5.0. Nothing is posted to it here.
const MESSAGE_CONNECTION: u32 = 4;
