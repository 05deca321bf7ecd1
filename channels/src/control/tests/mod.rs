//! Tests of the core that look inside, or that take a protection away to see that a checker notices.

#[path = "../../../tests/control_model/mod.rs"]
pub(crate) mod control_model;

mod channels;
mod connections;
mod cycles;
mod explorer;
mod mutants;
mod offers;
mod races;
mod steps;

use std::time::Duration;

use vmbus::message::{ConnectionState, Features, GpadlId, GuestMessage, HostMessage, Status, Version, VersionResponse};

use self::control_model::ghost::Ghost;
use super::{Action, Answer, Command, Core, Input, Limits, OpenSettings, Refusal, Ticket};
use crate::{Announcement, ChannelId};

/// Two pages each way.
fn settings(processor: u32) -> OpenSettings {
    OpenSettings { outgoing_bytes: 8192, incoming_bytes: 8192, processor, user_defined: [0; 120] }
}

/// A core with a ghost that watches it, and helpers to bring it somewhere.
#[derive(Debug, Clone)]
struct Bench {
    core: Core,
    ghost: Ghost,
    now: Duration,
    tickets: u64,
    /// What the last input led to.
    out: Vec<Action>,
    /// The first rule that was broken.
    broken: Option<String>,
}

impl Bench {
    /// Nothing is connected.
    fn new(limits: Limits) -> Self {
        let core = Core::new(limits);
        Self { core, ghost: Ghost::default(), now: Duration::ZERO, tickets: 0, out: Vec::new(), broken: None }
    }

    /// Connected to a host that speaks this version, with no channels.
    fn connected(version: Version) -> Self {
        let mut bench = Self::new(Limits { newest: version, processors: 4, ..Limits::default() });
        bench.command(Command::Connect);
        bench.accept();
        bench.message(HostMessage::AllOffersDelivered);
        assert_eq!(bench.answers(), [(1, Answer::Done)]);
        bench
    }

    /// The host takes the version that was offered.
    fn accept(&mut self) {
        let features = Some(Features::all());
        let response = VersionResponse { supported: true, state: ConnectionState::SUCCESSFUL, selected: 4, features };
        self.message(HostMessage::VersionResponse(response));
    }

    /// Feeds an input; a broken rule is kept.
    fn feed(&mut self, input: Input) {
        self.out.clear();
        self.core.step(self.now, input.clone(), &mut self.out);
        let verdict = self.ghost.watch(&input, &self.out, &self.core);
        if let Err(what) = verdict {
            self.broken.get_or_insert_with(|| format!("{what}, after {input:?}"));
        }
    }

    /// Panics over a broken rule.
    fn sound(&self) {
        assert_eq!(self.broken, None);
    }

    fn command(&mut self, command: Command) -> u64 {
        self.tickets += 1;
        self.feed(Input::Command(Ticket(self.tickets), command));
        self.tickets
    }

    fn message(&mut self, message: HostMessage) {
        self.feed(Input::Message(message));
    }

    fn rescind(&mut self, relid: u32) {
        self.message(HostMessage::Rescind { relid });
    }

    fn elapse(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.feed(Input::Elapsed);
    }

    /// Offers a primary channel, and returns its name.
    fn offer(&mut self, relid: u32) -> ChannelId {
        self.message(control_model::offered(control_model::offer(relid)));
        self.arrived().expect("the offer became a channel")
    }

    /// The channel that arrived in the last step.
    fn arrived(&self) -> Option<ChannelId> {
        self.out.iter().find_map(|action| match action {
            Action::Announce(Announcement::Arrived(offer)) => Some(offer.id),
            _ => None,
        })
    }

    /// The GPADL that was shared in the last step.
    fn shared(&self) -> GpadlId {
        let shared = |action: &Action| if let Action::Share { gpadl, .. } = action { Some(*gpadl) } else { None };
        self.out.iter().find_map(shared).expect("memory was shared")
    }

    /// Begins to open a channel; its ring.
    fn begin_open(&mut self, id: ChannelId) -> GpadlId {
        self.command(Command::Open(id, settings(0)));
        self.shared()
    }

    fn created(&mut self, relid: u32, gpadl: GpadlId) {
        self.message(HostMessage::GpadlCreated { relid, gpadl, status: Status::SUCCESS });
    }

    /// The number of the OPEN that was posted in the last step.
    fn open_id(&self) -> u32 {
        let asked = |message: &GuestMessage| match message {
            GuestMessage::Open(open) => Some(open.open_id),
            GuestMessage::OpenReserved { .. } => Some(0),
            _ => None,
        };
        self.posts().iter().find_map(asked).expect("an open was posted")
    }

    /// Opens a channel; its ring.
    fn open(&mut self, relid: u32, id: ChannelId) -> GpadlId {
        let ring = self.begin_open(id);
        self.created(relid, ring);
        let open_id = self.open_id();
        self.message(HostMessage::OpenResult { relid, open_id, status: Status::SUCCESS });
        assert!(self.out.iter().any(|action| matches!(action, Action::Opened { .. })), "{:?}", self.out);
        ring
    }

    /// Everybody here lets go of a channel.
    fn let_go(&mut self, id: ChannelId) {
        self.feed(Input::Retired(id));
        self.feed(Input::Unreferenced(id));
    }

    /// What was posted in the last step.
    fn posts(&self) -> Vec<GuestMessage> {
        let posted = |action: &Action| if let Action::Post(message) = action { Some(message.clone()) } else { None };
        self.out.iter().filter_map(posted).collect()
    }

    /// What was answered in the last step.
    fn answers(&self) -> Vec<(u64, Answer)> {
        let answered = |action: &Action| match action {
            Action::Answer(ticket, answer) => Some((ticket.0, answer.clone())),
            _ => None,
        };
        self.out.iter().filter_map(answered).collect()
    }

    /// How often the last step gave a number back.
    fn releases(&self, relid: u32) -> usize {
        self.posts().into_iter().filter(|message| *message == GuestMessage::RelidReleased { relid }).count()
    }

    /// The refusal that a command met at once.
    fn refused(&mut self, command: Command) -> Refusal {
        let ticket = self.command(command);
        match self.answers().as_slice() {
            [(answered, Answer::Failed(refusal))] if *answered == ticket => refusal.clone(),
            other => panic!("not refused at once: {other:?}"),
        }
    }

    /// All is over, and nothing may be left.
    fn end(&mut self) {
        self.feed(Input::Lost);
        self.sound();
        assert_eq!(self.ghost.at_the_end(&self.core), Ok(()));
    }
}
