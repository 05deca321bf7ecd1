//! The control plane: the core by itself, with answers made up at once; and the whole stack over the wire link, with the
//! simulated host at its other end.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::{
    ConnectionState, GuestMessage, HostMessage, OfferChannel, OfferFlags, Status, Version, VersionResponse,
};
use vmbus::wire::{self, WireLink};
use vmbus_channels::control::{Action, Answer, Command, Core, Input, Limits, OpenSettings, Ticket};
use vmbus_channels::{Announcement, ChannelId, OpenOptions, Settings, Vmbus};
use vmbus_simhost::server::{Control, Server, ServerSettings};
use vmbus_simhost::{Config, DeviceSpec};

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

/// The bus, over the wire link, with the simulated host in this process.
struct Stack {
    bus: Vmbus,
    host: Control,
    _server: Server,
}

impl Stack {
    fn new() -> Self {
        let config = Config { processors: 1, ..Config::seeded(1) }.with_device(DeviceSpec::echo(1));
        let (server, host, socket) = Server::in_process(config, ServerSettings::default()).unwrap();
        let settings = wire::Settings { processors: 1, ..wire::Settings::default() };
        let link = WireLink::over(socket, settings).unwrap();
        let bus = Vmbus::start(Box::new(link), Settings::default()).unwrap();
        Self { bus, host, _server: server }
    }

    fn open_close(&self, id: ChannelId) {
        self.bus.open(id, OpenOptions::default()).unwrap().close().unwrap();
    }
}

/// Open and close over the whole stack; per cycle.
pub(crate) fn stack_open_close() -> Race {
    let stack = Stack::new();
    let id = stack.bus.offers().unwrap()[0].id;
    each(move || stack.open_close(id))
}

/// Messages over the whole stack, in cycles of open and close; per message that the host sent.
pub(crate) fn stack_messages() -> Race {
    let stack = Stack::new();
    let id = stack.bus.offers().unwrap()[0].id;
    Box::new(move |times| {
        let counted = || stack.host.counters().unwrap();
        let before = counted();
        let start = std::time::Instant::now();
        let mut messages = 0;
        while messages < times {
            stack.open_close(id);
            let after = counted();
            messages = after.messages_in + after.messages_out - before.messages_in - before.messages_out;
        }
        start.elapsed().mul_f64(times as f64 / messages as f64)
    })
}
