//! The connection: where it stands, and how it is made. Versions are offered from the best downwards, as Linux does; after
//! a suspend (or a silence) the one that was spoken comes first.

use vmbus::message::{
    ConnectionState, ContactTarget, Features, GuestMessage, InitiateContact, Version, VersionResponse,
};

use super::input::Ticket;
use super::logging::{complain, note};
use super::{Action, Agreed, Answer, Core, Due, Refusal};
use crate::Announcement;
use crate::timers::TimerKey;

/// Where messages go before the host says otherwise.
const FIRST_CONNECTION: u32 = 1;

/// A wait for an answer about the connection. Without a ticket, it timed out.
#[derive(Debug, Clone, Default)]
pub(super) struct Asked {
    pub(super) ticket: Option<Ticket>,
    pub(super) timer: Option<TimerKey>,
}

/// Where the connection stands.
#[derive(Debug, Clone)]
pub(super) enum Phase {
    /// There is none.
    Idle,
    /// A version is offered, its answer is awaited; the others are still to be tried, the next one last.
    Contacting { asked: Asked, version: Version, others: Vec<Version>, resuming: bool },
    /// The offers are requested and come in.
    Requesting(Asked),
    /// All offers of the beginning have come.
    Connected,
    /// Goodbye is said. Nothing is posted, and nothing taken but the answer.
    Unloading { asked: Asked, suspending: bool },
    /// Goodbye is answered, to come back later.
    Suspended,
    /// The host is gone, for good.
    Lost,
}

/// The connection.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    pub(super) phase: Phase,
    agreed: Option<Agreed>,
    /// What was spoken last, or offered without an answer: tried first.
    first: Option<Version>,
    /// Other monitor pages were asked for.
    pub(super) modifying: Option<Asked>,
    /// The host is to send no more messages.
    pub(super) pausing: Option<Asked>,
    /// Messages are paused, or being paused.
    pub(super) paused: bool,
}

impl Connection {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Idle, agreed: None, first: None, modifying: None, pausing: None, paused: false }
    }

    pub(super) fn takes_offers(&self) -> bool {
        matches!(self.phase, Phase::Requesting(_) | Phase::Connected)
    }

    pub(super) fn may_post(&self) -> bool {
        matches!(self.phase, Phase::Contacting { .. } | Phase::Requesting(_) | Phase::Connected)
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.phase, Phase::Lost)
    }

    /// What both sides agreed on, while channels can be offered.
    pub(super) fn agreed(&self) -> Option<Agreed> {
        self.agreed.filter(|_| self.takes_offers())
    }

    /// The version that is spoken; the lowest there is, without a connection.
    pub(super) fn version(&self) -> Version {
        self.agreed().map_or(Version(0), |agreed| agreed.version)
    }

    pub(super) fn has(&self, features: Features) -> bool {
        self.agreed().is_some_and(|agreed| agreed.features.contains(features))
    }

    /// Whether there is a connection that speaks at least this version.
    pub(super) fn needs(&self, needed: Version) -> Result<(), Refusal> {
        let spoken = self.agreed().ok_or(Refusal::NotConnected)?.version;
        if spoken >= needed { Ok(()) } else { Err(Refusal::TooOld { needed, spoken }) }
    }

    /// For messages to people: "the connection is ...".
    pub(super) fn name(&self) -> &'static str {
        match &self.phase {
            Phase::Idle => "not made",
            Phase::Contacting { .. } | Phase::Requesting(_) => "being made",
            Phase::Connected => "made",
            Phase::Unloading { .. } => "being ended",
            Phase::Suspended => "suspended",
            Phase::Lost => "lost",
        }
    }

    /// The waits that are about the connection itself.
    pub(super) fn waits(&self) -> impl Iterator<Item = &Asked> {
        let phase = match &self.phase {
            Phase::Contacting { asked, .. } | Phase::Requesting(asked) | Phase::Unloading { asked, .. } => Some(asked),
            _ => None,
        };
        phase.into_iter().chain(&self.modifying).chain(&self.pausing)
    }
}

impl Core {
    /// A connection is wanted: the first one, or again after a suspend.
    pub(super) fn connect(&mut self, ticket: Ticket, resuming: bool, out: &mut Vec<Action>) -> Result<(), Refusal> {
        match (&self.connection.phase, resuming) {
            (Phase::Idle, false) | (Phase::Suspended, true) => {}
            (Phase::Lost, _) => return Err(Refusal::NotConnected),
            _ => return Err(Refusal::Connection(self.connection.name())),
        }
        let mut others = self.versions();
        let asked = Asked { ticket: Some(ticket), timer: None };
        match others.pop() {
            Some(version) => self.contact(asked, version, others, resuming, out),
            None => return Err(self.no_version()),
        }
        Ok(())
    }

    /// What is offered to the host, best last; before all, what was spoken before.
    fn versions(&self) -> Vec<Version> {
        let least = if self.limits.allowed.is_some() { Version::V5_2 } else { Version(0) };
        let oldest = self.limits.oldest.max(least);
        let fits = |version: &Version| (oldest..=self.limits.newest).contains(version);
        let first = self.connection.first;
        let others = Version::ALL.into_iter().rev().filter(fits).filter(|version| first != Some(*version));
        others.chain(first).collect()
    }

    fn no_version(&self) -> Refusal {
        Refusal::Version { newest: self.limits.newest, oldest: self.limits.oldest }
    }

    /// Offers a version to the host.
    fn contact(
        &mut self,
        mut asked: Asked,
        version: Version,
        others: Vec<Version>,
        resuming: bool,
        out: &mut Vec<Action>,
    ) {
        asked.timer = Some(self.wait(Due::Contact));
        let us = &self.limits.contact;
        let mut features = if version >= Version::V6_0 { self.limits.features } else { Features::empty() };
        features.set(Features::CLIENT_ID, features.contains(Features::CLIENT_ID) && us.client.is_some());
        let target = if version >= Version::V5_0 {
            ContactTarget::Source { sint: us.sint, vtl: us.vtl, features }
        } else {
            ContactTarget::InterruptPage(us.interrupt_page)
        };
        let contact = InitiateContact {
            version,
            target_vp: us.target_vp,
            target,
            parent_to_child_monitor: us.parent_to_child_monitor,
            child_to_parent_monitor: us.child_to_parent_monitor,
            client: us.client.filter(|_| features.contains(Features::CLIENT_ID)),
        };
        self.counters.contacts += 1;
        self.connection.phase = Phase::Contacting { asked, version, others, resuming };
        self.post(GuestMessage::InitiateContact(contact), out);
    }

    /// The host speaks the version, or not.
    pub(super) fn on_version(&mut self, response: &VersionResponse, out: &mut Vec<Action>) {
        let Phase::Contacting { asked, version, others, resuming } = &mut self.connection.phase else {
            self.counters.stale_answers += 1;
            complain!(self, "answer to a contact that was not awaited");
            return;
        };
        let (version, resuming) = (*version, *resuming);
        let (mut asked, mut others) = (std::mem::take(asked), std::mem::take(others));
        self.stop(asked.timer.take());
        if !response.supported {
            note!(self, "the host does not speak {version}");
            if let Some(next) = others.pop() {
                return self.contact(asked, next, others, resuming, out);
            }
            return self.no_contact(asked, resuming, self.no_version(), out);
        }
        if response.state != ConnectionState::SUCCESSFUL {
            complain!(self, "the host speaks {version}, and does not connect: state {}", response.state.0);
            return self.no_contact(asked, resuming, Refusal::Contact(response.state), out);
        }
        let features = if version >= Version::V6_0 { response.features.unwrap_or_default() } else { Features::empty() };
        let agreed = Agreed {
            version,
            features: features & self.limits.features,
            message_connection: if version >= Version::V5_0 { response.selected } else { FIRST_CONNECTION },
        };
        asked.timer = Some(self.wait(Due::Offers));
        self.counters.connections += 1;
        self.connection.agreed = Some(agreed);
        self.connection.first = Some(version);
        self.connection.phase = Phase::Requesting(asked);
        note!(self, "connected, version {version}, features {:?}", agreed.features);
        out.push(Action::Connected(agreed));
        self.post(GuestMessage::RequestOffers, out);
    }

    /// No connection came about.
    fn no_contact(&mut self, asked: Asked, resuming: bool, refusal: Refusal, out: &mut Vec<Action>) {
        self.connection.phase = if resuming { Phase::Suspended } else { Phase::Idle };
        self.stop(asked.timer);
        out.extend(asked.ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(refusal))));
    }

    /// The host says nothing to a version. It may yet: so that one is the first to be offered again.
    pub(super) fn contact_timed_out(&mut self, out: &mut Vec<Action>) {
        let silent = self.silent();
        let Phase::Contacting { asked, version, resuming, .. } = &mut self.connection.phase else { return };
        let (asked, version, resuming) = (std::mem::take(asked), *version, *resuming);
        complain!(self, "the host does not answer to {version}");
        self.connection.first = Some(version);
        self.no_contact(asked, resuming, silent, out);
    }

    /// The offers of the beginning have all come.
    pub(super) fn on_all_offers(&mut self, out: &mut Vec<Action>) {
        let Phase::Requesting(asked) = &mut self.connection.phase else {
            self.counters.unexpected += 1;
            complain!(self, "all offers delivered, while the connection is {}", self.connection.name());
            return;
        };
        let Asked { ticket, timer } = std::mem::take(asked);
        self.connection.phase = Phase::Connected;
        self.stop(timer);
        out.push(Action::Announce(Announcement::AllArrived));
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Done)));
    }

    /// The host does not come to the end of its offers. What there is can be used; the end may yet come.
    pub(super) fn offers_timed_out(&mut self, out: &mut Vec<Action>) {
        let silent = self.silent();
        let Phase::Requesting(asked) = &mut self.connection.phase else { return };
        let ticket = asked.ticket.take();
        complain!(self, "the host does not say that all offers are delivered");
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(silent))));
    }
}
