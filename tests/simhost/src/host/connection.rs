//! The connection: versions, features, monitor pages, pause, goodbye.

use std::collections::{BTreeSet, VecDeque};

use vmbus::message::{
    ConnectionState, ContactTarget, Features, HostMessage, InitiateContact, Protocol, Version, VersionResponse,
};

use super::channel::State;
use super::{Asked, Host};
use crate::{Memory, PAGE_BYTES, ViolationKind};

/// What is known of the connection.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub(super) protocol: Protocol,
    /// There was one, and the guest said goodbye.
    pub(super) unloaded: bool,
    pub(super) offers_sent: bool,
    pub(super) paused: bool,
    /// Where messages go.
    pub(super) processor: u32,
    /// Parent to child, child to parent: guest physical addresses.
    pub(super) monitors: Option<[u64; 2]>,
    /// Before 5.0.
    pub(super) interrupt_page: Option<u64>,
    /// Connections that the guest wants and somebody else decides on: all, and those not handed out yet.
    pub(super) asked: BTreeSet<Asked>,
    pub(super) asked_anew: VecDeque<Asked>,
}

impl<M: Memory> Host<M> {
    pub(super) fn contact(&mut self, contact: &InitiateContact) {
        if self.connection.protocol.version.is_some() {
            self.violation(ViolationKind::ContactTwice, None, format!("{contact:?}"));
        }
        self.disconnect();
        self.connection = Connection { processor: contact.target_vp, ..Connection::default() };
        if !self.config.versions.contains(&contact.version) {
            self.counters.contacts_refused += 1;
            self.answer_contact(None, ConnectionState::SUCCESSFUL);
            return;
        }
        let features = match contact.target {
            ContactTarget::Source { features, .. } if contact.version >= Version::V6_0 => {
                features & self.config.features
            }
            _ => Features::empty(),
        };
        let protocol = Protocol::new(contact.version, features);
        let monitors = [contact.parent_to_child_monitor, contact.child_to_parent_monitor];
        if !self.monitors_make_sense(monitors) {
            self.answer_contact(Some(protocol), ConnectionState::FAILED_UNKNOWN);
            return;
        }
        self.connection.protocol = protocol;
        self.connection.monitors = (monitors != [0, 0]).then_some(monitors);
        self.connection.interrupt_page = match contact.target {
            ContactTarget::InterruptPage(address) if address != 0 => Some(address),
            _ => None,
        };
        self.promise_latencies();
        self.counters.contacts += 1;
        self.answer_contact(Some(protocol), ConnectionState::SUCCESSFUL);
    }

    fn answer_contact(&mut self, agreed: Option<Protocol>, state: ConnectionState) {
        let version = agreed.and_then(|protocol| protocol.version);
        let selected = match version {
            Some(version) if version >= Version::V5_0 => self.config.message_connection,
            Some(version) => version.0,
            None => 0,
        };
        let features = agreed.filter(|_| version >= Some(Version::V6_0)).map(|protocol| protocol.features);
        self.send(HostMessage::VersionResponse(VersionResponse {
            supported: agreed.is_some(),
            state,
            selected,
            features,
        }));
    }

    /// Both or none, and inside of memory.
    fn monitors_make_sense(&mut self, monitors: [u64; 2]) -> bool {
        let [to_child, to_parent] = monitors;
        let inside = |address: u64| address.is_multiple_of(PAGE_BYTES) && address / PAGE_BYTES < self.memory.pages();
        let sense = monitors == [0, 0] || to_child != 0 && to_parent != 0 && to_child != to_parent;
        let sense = sense && monitors.into_iter().all(inside);
        if !sense {
            self.violation(ViolationKind::MonitorPages, None, format!("{to_child:#x} and {to_parent:#x}"));
        }
        sense
    }

    /// The pages that the connection itself has.
    pub(super) fn is_connection_page(&self, page: u64) -> bool {
        let monitors = self.connection.monitors.into_iter().flatten();
        monitors.chain(self.connection.interrupt_page).any(|address| address / PAGE_BYTES == page)
    }

    pub(super) fn unload(&mut self) {
        self.counters.unloads += 1;
        self.disconnect();
        self.send(HostMessage::UnloadResponse);
        let processor = self.connection.processor;
        self.connection = Connection { unloaded: true, processor, ..Connection::default() };
    }

    /// The guest died: nothing of its memory is touched from here on. Violations and counters stay as they are.
    pub fn guest_gone(&mut self) {
        self.disconnect();
        self.out.clear();
        self.interrupts.clear();
        self.connection = Connection { unloaded: true, ..Connection::default() };
    }

    /// Forgets all that the guest had: channels, GPADLs, relids.
    fn disconnect(&mut self) {
        self.connection.paused = false;
        self.held.clear();
        self.pending.clear();
        self.counters.left_gpadls += u64::try_from(self.gpadls.live().len()).unwrap_or(0);
        self.gpadls.clear();
        let ids: Vec<_> = self.channels.keys().copied().collect();
        for id in ids {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let before = std::mem::replace(&mut channel.state, State::Hidden);
            if matches!(before, State::Open(_)) {
                self.counters.left_open += 1;
                channel.device_closed();
            }
            let stays = !channel.passing && (!before.is_rescinded() || channel.reoffer);
            (channel.reoffer, channel.waits) = (false, false);
            self.free_relid(id);
            if !stays {
                self.end(id);
            }
        }
        for slot in &mut self.slots {
            *slot = super::Slot::default();
        }
    }

    pub(super) fn request_offers(&mut self) {
        if self.connection.offers_sent {
            return self.violation(ViolationKind::OffersRequestedTwice, None, String::new());
        }
        self.connection.offers_sent = true;
        // The same order each time, so that relids stay the same across suspend and resume, as hosts do it.
        let key = |id: &super::OfferId| {
            self.channels
                .get(id)
                .map(|channel| (channel.spec.class, channel.spec.instance, channel.spec.subchannel_index))
        };
        let mut ids: Vec<_> = self.channels.keys().copied().collect();
        ids.sort_by_key(key);
        for id in ids {
            self.offer_now(id);
        }
        self.send(HostMessage::AllOffersDelivered);
    }

    pub(super) fn modify_connection(&mut self, to_child: u64, to_parent: u64) {
        if !self.connection.protocol.has(Features::MODIFY_CONNECTION) {
            return self.violation(ViolationKind::Unsupported, None, "MODIFY_CONNECTION".into());
        }
        let sense = self.monitors_make_sense([to_child, to_parent]);
        if sense {
            self.connection.monitors = (to_child != 0).then_some([to_child, to_parent]);
        }
        let state = if sense { ConnectionState::SUCCESSFUL } else { ConnectionState::FAILED_UNKNOWN };
        self.send(HostMessage::ModifyConnectionResponse { state });
    }

    pub(super) fn pause(&mut self) {
        if !self.connection.protocol.has(Features::PAUSE_RESUME) {
            return self.violation(ViolationKind::Unsupported, None, "PAUSE".into());
        }
        if self.connection.paused {
            return self.violation(ViolationKind::Pause, None, "paused already".into());
        }
        self.send(HostMessage::PauseResponse);
        self.connection.paused = true;
    }

    pub(super) fn resume(&mut self) {
        if !self.connection.protocol.has(Features::PAUSE_RESUME) {
            return self.violation(ViolationKind::Unsupported, None, "RESUME".into());
        }
        if !self.connection.paused {
            return self.violation(ViolationKind::Pause, None, "not paused".into());
        }
        self.connection.paused = false;
        for message in std::mem::take(&mut self.held) {
            self.send(message);
        }
    }
}
