//! The ghost: it knows from inputs and actions alone who can reach what, and says which rule a step broke.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;
use vmbus::link::Share;
use vmbus::message::{GpadlId, HostMessage, Version};
use vmbus_channels::control::{Action, Answer, Command, Core, Input, Ticket};
use vmbus_channels::{Announcement, ChannelId, Offer};

/// What the host was asked, and has not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Ask {
    Contact(Version),
    Offers,
    Gpadl(u32, GpadlId),
    Open(u32, u32),
    Teardown(GpadlId),
    Move(u32),
    CloseReserved(u32),
    Unload,
    Socket(Uuid, Uuid),
    Modify,
    Pause,
}

/// A channel as the ghost sees it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) offer: Offer,
    pub(crate) announced: bool,
    pub(crate) condemned: bool,
    /// Its number ended with the connection.
    pub(crate) severed: bool,
    pub(crate) rescinded: bool,
    pub(crate) referenced: bool,
    pub(crate) mapped: bool,
    pub(crate) retiring: bool,
    pub(crate) revoked: bool,
    pub(crate) processor: u32,
    /// Maps that forward for it.
    pub(crate) forwarding: BTreeSet<u32>,
    /// The host has it open, as far as it said.
    pub(crate) host_open: bool,
}

impl Seen {
    pub(super) fn in_use(&self) -> bool {
        self.referenced || self.mapped
    }
}

/// Memory as the ghost sees it.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) channel: ChannelId,
    pub(crate) is_ring: bool,
    pub(crate) created: bool,
    pub(crate) torn: bool,
    /// The host can reach it.
    pub(crate) host: bool,
    /// Somebody here was handed it, and has not given it back.
    pub(crate) user: bool,
}

/// What a ticket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// An answer of the host about a channel: a rescind ends it.
    Host(ChannelId),
    /// The end of a channel's users.
    Close(ChannelId),
    /// Something about the connection.
    Connection,
}

/// The ghost. See `watch`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ghost {
    /// It judges by inputs and actions alone, and does not ask the core about its insides.
    pub(crate) blind: bool,
    pub(crate) lost: bool,
    /// Offers are taken.
    pub(crate) connected: bool,
    pub(super) unloading: bool,
    version: Option<Version>,
    /// Numbers that are the guest's: offered, not released.
    pub(crate) relids: BTreeMap<u32, bool>,
    pub(crate) channels: BTreeMap<ChannelId, Seen>,
    pub(crate) memory: BTreeMap<GpadlId, Memory>,
    pub(crate) tickets: BTreeMap<Ticket, Waits>,
    pub(crate) asks: Vec<Ask>,
    ever: BTreeSet<ChannelId>,
    pub(crate) offers: u64,
    pub(crate) released: u64,
    pub(crate) refused: u64,
}

pub(super) type Verdict = Result<(), String>;

impl Ghost {
    /// Watches one step. An error is the rule that it broke.
    pub(crate) fn watch(&mut self, input: &Input, actions: &[Action], core: &Core) -> Verdict {
        let offered = self.hear(input)?;
        for action in actions {
            self.see(action).map_err(|what| format!("{what} (in {action:?})"))?;
        }
        // A host of that age is left without a word.
        if matches!(input, Input::Command(_, Command::Unload)) && self.connected && self.version < Some(Version::V3_0) {
            self.goodbye();
        }
        if let Some(relid) = offered {
            let live = |seen: &Seen| seen.offer.relid == relid && !seen.severed;
            let known = self.channels.values().any(live);
            ensure(known == self.relids.contains_key(&relid), || {
                format!("relid {relid}: offered, neither there nor released")
            })?;
        }
        self.settle()?;
        if self.blind { Ok(()) } else { core.check_invariants() }
    }

    /// The relid of an offer that has to become a channel, or to be released, in this step.
    fn hear(&mut self, input: &Input) -> Result<Option<u32>, String> {
        match input {
            Input::Message(message) => return Ok(self.hear_host(message)),
            Input::Command(ticket, command) => {
                let waits = match command {
                    Command::Open(id, _) | Command::OpenReserved(id, ..) | Command::CreateGpadl(id, _) => {
                        Waits::Host(*id)
                    }
                    Command::TearDownGpadl(id, gpadl) => {
                        if let Some(memory) = self.memory.get_mut(gpadl) {
                            memory.user = false;
                        }
                        Waits::Host(*id)
                    }
                    Command::Move(id, _) => Waits::Host(*id),
                    Command::Close(id) => Waits::Close(*id),
                    _ => Waits::Connection,
                };
                let fresh = self.tickets.insert(*ticket, waits).is_none();
                ensure(fresh, || format!("{ticket:?} is used twice by the test"))?;
            }
            Input::Lost => {
                self.lost = true;
                self.connected = false;
                self.cut();
                self.asks.clear();
            }
            Input::Unreferenced(id) => self.let_go(*id, |seen| seen.referenced = false),
            Input::Retired(id) => self.let_go(*id, |seen| (seen.mapped, seen.retiring) = (false, false)),
            Input::ShareFailed(gpadl) => {
                self.memory.remove(gpadl);
                self.asks.retain(|ask| !matches!(ask, Ask::Gpadl(_, asked) if asked == gpadl));
            }
            Input::AnnounceFailed(id) => {
                if let Some(seen) = self.channels.get_mut(id).filter(|seen| seen.announced) {
                    (seen.announced, seen.condemned) = (false, true);
                }
            }
            Input::Malformed(_) | Input::Elapsed => {}
        }
        Ok(None)
    }

    fn let_go(&mut self, id: ChannelId, change: impl FnOnce(&mut Seen)) {
        let Some(seen) = self.channels.get_mut(&id) else { return };
        change(seen);
        if !seen.in_use() {
            self.memory.values_mut().filter(|memory| memory.channel == id).for_each(|memory| memory.user = false);
        }
    }

    /// Numbers are over, memory is not.
    pub(super) fn goodbye(&mut self) {
        self.unloading = true;
        self.connected = false;
        self.channels.values_mut().for_each(|seen| seen.severed = true);
        self.relids.clear();
        self.asks.clear();
    }

    /// The host reaches nothing of what there is so far.
    fn cut(&mut self) {
        self.memory.values_mut().for_each(|memory| memory.host = false);
        self.channels.values_mut().for_each(|seen| seen.severed = true);
        self.relids.clear();
    }

    fn hear_host(&mut self, message: &HostMessage) -> Option<u32> {
        match message {
            HostMessage::Offer(offer) if self.connected && !self.relids.contains_key(&offer.relid) => {
                self.relids.insert(offer.relid, false);
                self.offers += 1;
                return Some(offer.relid);
            }
            HostMessage::Rescind { relid } if self.connected => {
                let known = self.channels.values_mut().find(|seen| seen.offer.relid == *relid && !seen.severed);
                if let (Some(seen), Some(rescinded)) = (known, self.relids.get_mut(relid)) {
                    *rescinded = true;
                    seen.rescinded = true;
                    let id = seen.offer.id;
                    self.memory
                        .values_mut()
                        .filter(|memory| memory.channel == id)
                        .for_each(|memory| memory.host = false);
                }
            }
            HostMessage::GpadlCreated { relid, gpadl, status } => {
                let asked = self.take(Ask::Gpadl(*relid, *gpadl));
                if let Some(memory) = self.memory.get_mut(gpadl).filter(|memory| asked && !memory.created) {
                    memory.created = true;
                    memory.host &= status.is_success();
                }
            }
            HostMessage::GpadlTorndown { gpadl } => {
                if self.take(Ask::Teardown(*gpadl))
                    && let Some(memory) = self.memory.get_mut(gpadl)
                {
                    memory.host = false;
                }
            }
            HostMessage::OpenResult { relid, open_id, status } => {
                let opened = self.take(Ask::Open(*relid, *open_id)) && status.is_success();
                let open = |seen: &&mut Seen| seen.offer.relid == *relid && !seen.severed && !seen.rescinded;
                self.channels.values_mut().filter(open).for_each(|seen| seen.host_open |= opened);
            }
            HostMessage::VersionResponse(_) => self.asks.retain(|ask| !matches!(ask, Ask::Contact(_))),
            HostMessage::AllOffersDelivered => drop(self.take(Ask::Offers)),
            HostMessage::UnloadResponse if self.take(Ask::Unload) => {
                self.unloading = false;
                self.cut();
                self.asks.clear();
            }
            HostMessage::CloseReservedResponse { relid } => drop(self.take(Ask::CloseReserved(*relid))),
            HostMessage::ModifyChannelResponse { relid, .. } => drop(self.take(Ask::Move(*relid))),
            HostMessage::TlConnectResult { endpoint, service, .. } => drop(self.take(Ask::Socket(*endpoint, *service))),
            HostMessage::ModifyConnectionResponse { .. } => drop(self.take(Ask::Modify)),
            HostMessage::PauseResponse => drop(self.take(Ask::Pause)),
            _ => {}
        }
        None
    }

    fn take(&mut self, ask: Ask) -> bool {
        let found = self.asks.iter().position(|asked| *asked == ask);
        found.map(|place| self.asks.remove(place)).is_some()
    }

    fn see(&mut self, action: &Action) -> Verdict {
        match action {
            Action::Post(message) => self.see_post(message),
            Action::Share { relid, gpadl, what } => {
                let channel = self.live(*relid).ok_or("memory shared for a channel that is not there")?.offer.id;
                let is_ring = matches!(what, Share::Ring { .. });
                let memory = Memory { channel, is_ring, created: false, torn: false, host: true, user: false };
                self.asks.push(Ask::Gpadl(*relid, *gpadl));
                ensure(self.memory.insert(*gpadl, memory).is_none(), || "a GPADL's number is used twice".into())
            }
            Action::Unshare(gpadl) => {
                let memory = self.memory.remove(gpadl).ok_or("unknown memory freed")?;
                let id = memory.channel;
                ensure(!memory.host, || "memory freed that the host reaches".into())?;
                ensure(!memory.user, || "memory freed that somebody here reaches".into())?;
                let used = self.channels.get(&id).is_some_and(|seen| seen.in_use() && memory.is_ring);
                ensure(!used, || "a ring freed that is in use".into())
            }
            Action::Opened { ticket, channel, relid, ring, processor } => {
                self.answered(*ticket)?;
                let seen = self.channels.get_mut(channel).ok_or("a channel opened that is not there")?;
                ensure(seen.offer.relid == *relid && !seen.in_use() && seen.host_open, || {
                    "a channel handed out that the host has not opened".into()
                })?;
                ensure(!seen.rescinded && !seen.severed, || "a departed channel handed out".into())?;
                (seen.referenced, seen.mapped, seen.processor) = (true, true, *processor);
                let memory = self.memory.get_mut(ring).ok_or("a ring handed out that is not there")?;
                memory.user = true;
                ensure(memory.host && memory.channel == *channel, || "the wrong ring".into())
            }
            Action::Retire { channel, processor, .. } => {
                let seen = self.channels.get_mut(channel).ok_or("an unknown channel retired")?;
                ensure(seen.mapped && !seen.retiring && seen.processor == *processor, || "retired wrongly".into())?;
                seen.retiring = true;
                Ok(())
            }
            Action::Move { channel, from, to, .. } => {
                let seen = self.channels.get_mut(channel).ok_or("an unknown channel moved")?;
                ensure(seen.mapped && !seen.retiring && seen.processor == *from, || "moved wrongly".into())?;
                seen.processor = *to;
                seen.forwarding.insert(*from);
                seen.forwarding.remove(to);
                Ok(())
            }
            Action::Forget { channel, processor, .. } => {
                let seen = self.channels.get_mut(channel).ok_or("forgotten, and unknown")?;
                ensure(seen.forwarding.remove(processor), || "a map is to forget what it does not know".into())
            }
            Action::Revoke(id) => {
                let seen = self.channels.get_mut(id).ok_or("an unknown channel revoked")?;
                ensure(seen.referenced && !seen.revoked, || "revoked, and nobody holds it".into())?;
                seen.revoked = true;
                Ok(())
            }
            Action::Answer(ticket, answer) => {
                if let Answer::Shared(gpadl) = answer {
                    let memory = self.memory.get_mut(gpadl).ok_or("an unknown buffer handed out")?;
                    memory.user = true;
                    ensure(memory.host && memory.created, || "a buffer handed out that is not shared".into())?;
                }
                self.answered(*ticket)
            }
            Action::Announce(announcement) => self.see_announcement(announcement),
            Action::Connected(agreed) => {
                self.connected = true;
                self.version = Some(agreed.version);
                Ok(())
            }
        }
    }

    fn answered(&mut self, ticket: Ticket) -> Verdict {
        ensure(self.tickets.remove(&ticket).is_some(), || format!("{ticket:?} is answered twice"))
    }

    pub(super) fn live(&self, relid: u32) -> Option<&Seen> {
        self.channels.values().find(|seen| seen.offer.relid == relid && !seen.severed)
    }

    fn see_announcement(&mut self, announcement: &Announcement) -> Verdict {
        match announcement {
            Announcement::Arrived(offer) => {
                ensure(self.ever.insert(offer.id), || "a name is used again".into())?;
                ensure(self.relids.get(&offer.relid) == Some(&false), || "arrived without an offer".into())?;
                ensure(self.live(offer.relid).is_none(), || "arrived while the former one is there".into())?;
                let seen = Seen {
                    offer: offer.clone(),
                    announced: true,
                    condemned: false,
                    severed: false,
                    rescinded: false,
                    referenced: false,
                    mapped: false,
                    retiring: false,
                    revoked: false,
                    processor: 0,
                    forwarding: BTreeSet::new(),
                    host_open: false,
                };
                self.channels.insert(offer.id, seen);
            }
            Announcement::Departed(offer) => {
                let seen = self.channels.get_mut(&offer.id).ok_or("departed without an arrival")?;
                ensure(std::mem::take(&mut seen.announced), || "departed twice".into())?;
                ensure(seen.offer == *offer, || "departed as another".into())?;
            }
            _ => {}
        }
        Ok(())
    }
}

pub(super) fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}
