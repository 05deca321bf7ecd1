//! The control plane's core by itself, with answers made up at once. The whole stack is measured in `tests/benches`: this
//! crate knows no host.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, GuestMessage, HostMessage, OfferChannel, OfferFlags, Status, Version, VersionResponse,
};
use vmbus_channels::control::{Action, Answer, Command, Core, Input, Limits, OpenSettings, Ticket};
use vmbus_channels::{Announcement, ChannelId};

use super::{Race, each};

/// The core, a host that says yes to everything, and dispatchers and users that let go at once.
pub(crate) struct Alone {
    core: Core,
    inputs: VecDeque<Input>,
    out: Vec<Action>,
    arrived: Option<ChannelId>,
    /// Messages, both ways.
    pub(crate) messages: u64,
    done: u64,
}

impl Alone {
    /// Connected, with one channel offered.
    pub(crate) fn new() -> Self {
        let core = Core::new(Limits { newest: Version::V5_3, ..Limits::default() });
        let (inputs, out) = (VecDeque::new(), Vec::new());
        let mut alone = Self { core, inputs, out, arrived: None, messages: 0, done: 0 };
        alone.run(Input::Command(Ticket(0), Command::Connect));
        alone.offer();
        assert_eq!(alone.done, 1);
        alone
    }

    fn offer(&mut self) {
        self.run(Input::Message(HostMessage::Offer(Box::new(OfferChannel {
            class: Class(Uuid::from_u128(1)),
            instance: Uuid::from_u128(2),
            flags: OfferFlags::empty(),
            mmio_megabytes: 0,
            mmio_megabytes_optional: 0,
            user_defined: [0; 120],
            subchannel_index: 0,
            relid: 1,
            monitor_id: None,
            is_dedicated: true,
            connection_id: 0x1_0001,
        }))));
    }

    /// Feeds an input, and all that follows from it.
    fn run(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            self.messages += u64::from(matches!(input, Input::Message(_)));
            self.core.step(Duration::ZERO, input, &mut self.out);
            let mut out = std::mem::take(&mut self.out);
            for action in out.drain(..) {
                self.carry_out(action);
            }
            self.out = out;
        }
    }

    fn carry_out(&mut self, action: Action) {
        let answer = match action {
            Action::Post(message) => {
                self.messages += 1;
                reply(&message).map(Input::Message)
            }
            Action::Share { relid, gpadl, .. } => {
                self.messages += 1;
                Some(Input::Message(HostMessage::GpadlCreated { relid, gpadl, status: Status::SUCCESS }))
            }
            Action::Retire { channel, .. } => {
                self.inputs.push_back(Input::Retired(channel));
                Some(Input::Unreferenced(channel))
            }
            Action::Announce(Announcement::Arrived(offer)) => {
                self.arrived = Some(offer.id);
                None
            }
            Action::Answer(_, answer) => {
                assert!(!matches!(answer, Answer::Failed(_)), "{answer:?}");
                self.done += 1;
                None
            }
            _ => None,
        };
        self.inputs.extend(answer);
    }

    /// Opens the channel and closes it.
    pub(crate) fn open_close(&mut self) {
        let Some(id) = self.arrived else { return };
        let settings =
            OpenSettings { outgoing_bytes: 8192, incoming_bytes: 8192, processor: 0, user_defined: [0; 120] };
        self.run(Input::Command(Ticket(1), Command::Open(id, settings)));
        self.run(Input::Command(Ticket(2), Command::Close(id)));
    }

    /// Rescinds the channel and offers it again.
    pub(crate) fn rescind_offer(&mut self) {
        self.run(Input::Message(HostMessage::Rescind { relid: 1 }));
        self.offer();
    }
}

fn reply(message: &GuestMessage) -> Option<HostMessage> {
    match message {
        GuestMessage::InitiateContact(_) => Some(HostMessage::VersionResponse(VersionResponse {
            supported: true,
            state: ConnectionState::SUCCESSFUL,
            selected: 1,
            features: None,
        })),
        GuestMessage::RequestOffers => Some(HostMessage::AllOffersDelivered),
        GuestMessage::Open(open) => {
            Some(HostMessage::OpenResult { relid: open.relid, open_id: open.open_id, status: Status::SUCCESS })
        }
        GuestMessage::GpadlTeardown { gpadl, .. } => Some(HostMessage::GpadlTorndown { gpadl: *gpadl }),
        _ => None,
    }
}

/// Open and close with the core alone; per cycle.
pub(crate) fn core_open_close() -> Race {
    let mut alone = Alone::new();
    each(move || alone.open_close())
}

/// Messages with the core alone, in cycles of rescind and offer; per message.
pub(crate) fn core_messages() -> Race {
    let mut alone = Alone::new();
    Box::new(move |times| {
        let before = alone.messages;
        let start = std::time::Instant::now();
        while alone.messages - before < times {
            alone.rescind_offer();
        }
        start.elapsed().mul_f64(times as f64 / (alone.messages - before) as f64)
    })
}
