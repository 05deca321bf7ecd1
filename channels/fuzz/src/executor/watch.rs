//! What must hold of everything that the control core has its shell do.

use std::collections::{BTreeMap, BTreeSet};

use vmbus::message::{GpadlId, GuestMessage, HostMessage, Protocol};
use vmbus_channels::control::{Action, Answer, Input, Ticket};
use vmbus_channels::{Announcement, ChannelId};

/// Somebody has the channel open.
struct Held {
    relid: u32,
    ring: GpadlId,
    revoked: bool,
    /// The connection that its number belonged to is over.
    severed: bool,
}

/// A dispatcher has the channel in its map.
struct Mapped {
    relid: u32,
    processor: u32,
    retiring: bool,
    severed: bool,
}

/// Memory that is shared with the host.
struct Shared {
    relid: u32,
    /// The host has said, or it follows from what it said, that it does not reach the memory.
    let_go: bool,
    torn_down: bool,
    severed: bool,
}

/// Looks at everything that goes in and comes out.
#[derive(Default)]
pub(super) struct Watch {
    tickets: BTreeSet<Ticket>,
    /// Offered by the host since the connection was made, and not released since.
    owed: BTreeSet<u32>,
    held: BTreeMap<ChannelId, Held>,
    mapped: BTreeMap<ChannelId, Mapped>,
    shared: BTreeMap<GpadlId, Shared>,
    announced: BTreeSet<ChannelId>,
    /// Every channel that ever arrived.
    pub(super) channels: Vec<ChannelId>,
    /// Relid and number of each open that was posted.
    pub(super) opens: Vec<(u32, u32)>,
    /// Every GPADL that was ever shared, and whose.
    pub(super) all_gpadls: Vec<(u32, GpadlId)>,
    pub(super) protocol: Protocol,
    /// By relid: the number of the last open that was posted.
    awaited: BTreeMap<u32, u32>,
    /// The result that came just now.
    result: Option<(u32, u32)>,
    lost: bool,
}

impl Watch {
    pub(super) fn tickets(&self) -> usize {
        self.tickets.len()
    }

    pub(super) fn gpadls(&self) -> usize {
        self.shared.len()
    }

    pub(super) fn announced(&self) -> usize {
        self.announced.len()
    }

    pub(super) fn owed(&self) -> Vec<u32> {
        self.owed.iter().copied().collect()
    }

    pub(super) fn held(&self) -> Vec<ChannelId> {
        self.held.keys().copied().collect()
    }

    pub(super) fn retiring(&self) -> Vec<ChannelId> {
        self.mapped.iter().filter(|(_, mapped)| mapped.retiring).map(|(id, _)| *id).collect()
    }

    pub(super) fn is_held(&self, id: ChannelId) -> bool {
        self.held.contains_key(&id)
    }

    pub(super) fn is_retiring(&self, id: ChannelId) -> bool {
        self.mapped.get(&id).is_some_and(|mapped| mapped.retiring)
    }

    /// The connection is over, and all numbers with it.
    pub(super) fn sever(&mut self) {
        self.owed.clear();
        self.held.values_mut().for_each(|held| held.severed = true);
        self.mapped.values_mut().for_each(|mapped| mapped.severed = true);
        self.shared.values_mut().for_each(|shared| shared.severed = true);
        self.protocol = Protocol::NONE;
    }

    /// Takes note of what is about to happen.
    pub(super) fn hear(&mut self, input: &Input) {
        self.result = None;
        match input {
            Input::Command(ticket, _) => assert!(self.tickets.insert(*ticket), "{ticket:?} is not new"),
            Input::Message(message) => self.hear_host(message),
            Input::Lost => {
                self.lost = true;
                self.let_go(|_, _| true);
                self.sever();
            }
            Input::Unreferenced(id) => drop(self.held.remove(id)),
            Input::Retired(id) => self.mapped.retain(|mapped, at| mapped != id || !at.retiring),
            Input::ShareFailed(gpadl) => drop(self.shared.remove(gpadl)),
            Input::AnnounceFailed(id) => drop(self.announced.remove(id)),
            _ => {}
        }
    }

    fn hear_host(&mut self, message: &HostMessage) {
        match message {
            HostMessage::Offer(offer) => drop(self.owed.insert(offer.relid)),
            HostMessage::Rescind { relid } => self.let_go(|_, shared| shared.relid == *relid && !shared.severed),
            HostMessage::GpadlTorndown { gpadl } => self.let_go(|id, _| id == *gpadl),
            HostMessage::GpadlCreated { gpadl, status, .. } if !status.is_success() => {
                self.let_go(|id, _| id == *gpadl);
            }
            HostMessage::OpenResult { relid, open_id, .. } => self.result = Some((*relid, *open_id)),
            HostMessage::UnloadResponse => self.let_go(|_, _| true),
            _ => {}
        }
    }

    fn let_go(&mut self, which: impl Fn(GpadlId, &Shared) -> bool) {
        for (id, shared) in &mut self.shared {
            shared.let_go |= which(*id, shared);
        }
    }

    /// Looks at something that is to be done.
    pub(super) fn see(&mut self, action: &Action) {
        match action {
            Action::Post(message) => self.see_post(message),
            Action::Share { relid, gpadl, .. } => {
                let shared = Shared { relid: *relid, let_go: false, torn_down: false, severed: false };
                assert!(self.shared.insert(*gpadl, shared).is_none(), "{gpadl:?} is shared already");
                self.all_gpadls.push((*relid, *gpadl));
            }
            Action::Unshare(gpadl) => {
                let Some(shared) = self.shared.remove(gpadl) else { panic!("{gpadl:?} is freed, and not shared") };
                assert!(shared.let_go, "{gpadl:?} is freed, and the host may still reach it");
                assert!(!self.held.values().any(|held| held.ring == *gpadl), "{gpadl:?} is freed, and a ring in use");
            }
            Action::Opened { ticket, channel, relid, ring, processor } => {
                self.answered(*ticket);
                let awaited = self.awaited.remove(relid).map(|open_id| (*relid, open_id));
                assert!(awaited.is_some() && awaited == self.result, "{:?} opened {awaited:?}", self.result);
                assert!(self.shared.contains_key(ring), "opened without a ring");
                let held = Held { relid: *relid, ring: *ring, revoked: false, severed: false };
                assert!(self.held.insert(*channel, held).is_none(), "{channel} is open already");
                let mapped = Mapped { relid: *relid, processor: *processor, retiring: false, severed: false };
                assert!(self.mapped.insert(*channel, mapped).is_none(), "{channel} is in a map already");
            }
            Action::Retire { channel, relid, processor } => {
                let mapped = self.mapped.get_mut(channel).filter(|mapped| !mapped.retiring);
                let Some(mapped) = mapped else { panic!("{channel} is retired, and in no map") };
                assert_eq!((mapped.relid, mapped.processor), (*relid, *processor));
                mapped.retiring = true;
            }
            Action::Move { channel, relid, from, to } => {
                let mapped = self.mapped.get_mut(channel).filter(|mapped| !mapped.retiring);
                let Some(mapped) = mapped else { panic!("{channel} moves, and is in no map") };
                assert_eq!((mapped.relid, mapped.processor), (*relid, *from));
                mapped.processor = *to;
            }
            Action::Forget { channel, processor, .. } => {
                let there = self.mapped.get(channel).is_some_and(|at| !at.retiring && at.processor == *processor);
                assert!(!there, "processor {processor} is to forget {channel}, which it has");
            }
            Action::Revoke(channel) => {
                let Some(held) = self.held.get_mut(channel) else { panic!("{channel} is revoked, and nobody's") };
                assert!(!std::mem::replace(&mut held.revoked, true), "{channel} is revoked twice");
            }
            Action::Answer(ticket, answer) => {
                self.answered(*ticket);
                match answer {
                    Answer::Channel(id) => assert!(self.announced.contains(id), "a channel that nobody has heard of"),
                    Answer::Shared(gpadl) => assert!(self.shared.contains_key(gpadl), "a buffer that is not there"),
                    _ => {}
                }
            }
            Action::Announce(Announcement::Arrived(offer)) => {
                assert!(!self.channels.contains(&offer.id), "{} arrives a second time", offer.id);
                self.channels.push(offer.id);
                self.announced.insert(offer.id);
            }
            Action::Announce(Announcement::Departed(offer)) => {
                assert!(self.announced.remove(&offer.id), "{} departs, and was not there", offer.id);
            }
            Action::Announce(_) => {}
            Action::Connected(agreed) => {
                self.owed.clear();
                self.protocol = Protocol::new(agreed.version, agreed.features);
            }
        }
    }

    fn answered(&mut self, ticket: Ticket) {
        assert!(self.tickets.remove(&ticket), "{ticket:?} is answered, and nobody asked (any more)");
    }

    fn see_post(&mut self, message: &GuestMessage) {
        assert!(!self.lost, "{message:?} is posted to nobody");
        if let Err(error) = message.encode(self.protocol) {
            panic!("{message:?} is posted: {error}");
        }
        match message {
            GuestMessage::Open(open) => self.see_open(open.relid, open.open_id),
            GuestMessage::OpenReserved { relid, .. } => self.see_open(*relid, 0),
            GuestMessage::Close { relid } => self.not_in_use(*relid, "closed"),
            GuestMessage::GpadlTeardown { gpadl, .. } => {
                let Some(shared) = self.shared.get_mut(gpadl) else { panic!("{gpadl:?} is torn down, and not shared") };
                assert!(!std::mem::replace(&mut shared.torn_down, true), "{gpadl:?} is torn down twice");
            }
            GuestMessage::RelidReleased { relid } => {
                assert!(self.owed.remove(relid), "relid {relid} is released once more than it was offered");
                self.not_in_use(*relid, "released");
                let memory = self.shared.values().any(|shared| shared.relid == *relid && !shared.severed);
                assert!(!memory, "relid {relid} is released before its memory");
            }
            GuestMessage::InitiateContact(contact) => {
                assert!(self.protocol.version.is_none(), "{contact:?} while there is a connection");
            }
            _ => {}
        }
    }

    fn see_open(&mut self, relid: u32, open_id: u32) {
        self.opens.push((relid, open_id));
        self.awaited.insert(relid, open_id);
    }

    fn not_in_use(&self, relid: u32, what: &str) {
        let held = self.held.iter().find(|(_, held)| held.relid == relid && !held.severed);
        assert!(held.is_none(), "relid {relid} is {what}, and somebody holds it");
        let mapped = self.mapped.iter().find(|(_, mapped)| mapped.relid == relid && !mapped.severed);
        assert!(mapped.is_none(), "relid {relid} is {what}, and a dispatcher has it");
    }
}
