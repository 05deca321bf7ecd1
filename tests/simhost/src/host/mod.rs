//! The host as a state machine: guest messages and signals in, messages and interrupts out, no input or output of its
//! own. How channels live and die follows OpenVMM's vmbus_server; where that is lenient, the checker is told.

mod channel;
mod close;
mod connection;
mod gpadls;
mod hvsock;
mod monitor;
mod offers;
mod open;
mod oracle;
mod turn;

pub use channel::OfferId;
pub use hvsock::{Asked, hvsock_service};
pub use oracle::{Counters, Ended, Offered};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use vmbus::message::{GuestMessage, HostMessage, Message, Protocol};

use crate::fault::Kind;
use crate::violation::Checker;
use crate::{Config, Memory, Random, ViolationKind};
use channel::{Channel, Completion, Slot};
use connection::Connection;
use gpadls::Gpadls;

/// What comes out of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A message for the guest.
    Message {
        /// Counts up from 1; see [`Host::heard`].
        sequence: u64,
        /// What was agreed on when it was said: what it is to be encoded by.
        protocol: Protocol,
        /// The message.
        message: HostMessage,
    },
    /// An interrupt: set the flag of the processor and raise it.
    Interrupt {
        /// Virtual processor.
        processor: u32,
        /// Event flag, below 2048.
        flag: u32,
    },
}

/// A simulated host for one guest, which lives in `memory`.
#[derive(Debug)]
pub struct Host<M: Memory> {
    config: Config,
    memory: M,
    now: Duration,
    random: Random,
    connection: Connection,
    /// All that is offered or will be, by the number of the offer.
    channels: BTreeMap<OfferId, Channel<M::Ring>>,
    /// By relid.
    slots: Vec<Slot>,
    free_relids: BTreeSet<u32>,
    free_monitors: BTreeSet<u8>,
    gpadls: Gpadls,
    /// What takes its time.
    pending: BTreeMap<(Duration, u64), Completion>,
    out: VecDeque<Output>,
    /// The interrupts in `out`.
    interrupts: BTreeSet<(u32, u32)>,
    /// Messages kept back while the guest has paused us.
    held: VecDeque<HostMessage>,
    next_number: u64,
    /// Rings are looked into without being asked, see [`poll_rings`](Self::poll_rings).
    polls: bool,
    sequence: u64,
    heard: u64,
    checker: Checker,
    counters: Counters,
    ended: VecDeque<Ended>,
}

impl<M: Memory> Host<M> {
    /// A host that waits for its guest's hello.
    #[must_use]
    pub fn new(config: Config, memory: M) -> Self {
        let relids = config.limits.relids.min(2047);
        let mut host = Self {
            memory,
            now: Duration::ZERO,
            random: Random::new(config.seed).fork(1),
            connection: Connection::default(),
            channels: BTreeMap::new(),
            slots: (0..=relids).map(|_| Slot::default()).collect(),
            free_relids: (1..=relids).collect(),
            free_monitors: (0..128).collect(),
            gpadls: Gpadls::default(),
            pending: BTreeMap::new(),
            out: VecDeque::new(),
            interrupts: BTreeSet::new(),
            held: VecDeque::new(),
            next_number: 0,
            polls: false,
            sequence: 0,
            heard: 0,
            checker: Checker::new(config.limits.violations, config.tolerated.clone()),
            counters: Counters::default(),
            ended: VecDeque::new(),
            config,
        };
        for spec in host.config.devices.clone() {
            host.add(spec);
        }
        host
    }

    /// The guest posted these bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        match GuestMessage::parse(bytes, self.connection.protocol) {
            Ok(message) => self.message(&message),
            // It may be said by a guest that has not heard the answer to its hello.
            Err(_) if Message::try_from(bytes).is_ok_and(|message| Kind(message.kind()) == Kind::UNLOAD) => {
                self.message(&GuestMessage::Unload);
            }
            Err(error) => {
                self.counters.messages_in += 1;
                let kind = match (self.connection.protocol.version, self.connection.unloaded) {
                    (None, false) => ViolationKind::BeforeContact,
                    (None, true) => ViolationKind::AfterUnload,
                    (Some(_), _) => ViolationKind::Malformed,
                };
                self.violation(kind, None, error.to_string());
            }
        }
    }

    /// The guest posted this message.
    pub fn message(&mut self, message: &GuestMessage) {
        self.counters.messages_in += 1;
        if let GuestMessage::InitiateContact(contact) = message {
            return self.contact(contact);
        }
        if self.connection.protocol.version.is_none() {
            let kind = match (message, self.connection.unloaded) {
                (GuestMessage::Unload, true) => ViolationKind::UnloadTwice,
                // Nobody heard its hello, or it was refused.
                (GuestMessage::Unload, false) => return,
                (_, true) => ViolationKind::AfterUnload,
                (_, false) => ViolationKind::BeforeContact,
            };
            return self.violation(kind, None, format!("{message:?}"));
        }
        match message {
            GuestMessage::RequestOffers => self.request_offers(),
            GuestMessage::Open(open) => self.open(open),
            GuestMessage::Close { relid } => self.close(*relid, false),
            GuestMessage::GpadlHeader(header) => self.gpadl_header(header),
            GuestMessage::GpadlBody(body) => self.gpadl_body(body),
            GuestMessage::GpadlTeardown { relid, gpadl } => self.gpadl_teardown(*relid, *gpadl),
            GuestMessage::RelidReleased { relid } => self.relid_released(*relid),
            GuestMessage::Unload => self.unload(),
            GuestMessage::OpenReserved { relid, target_vp: _, target_sint: _, ring, downstream_offset_pages } => {
                self.open_reserved(*relid, *ring, *downstream_offset_pages);
            }
            GuestMessage::CloseReserved { relid, .. } => self.close(*relid, true),
            GuestMessage::TlConnect { endpoint, service, silo } => self.tl_connect(*endpoint, *service, *silo),
            GuestMessage::ModifyChannel { relid, target_vp } => self.modify(*relid, *target_vp),
            GuestMessage::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor } => {
                self.modify_connection(*parent_to_child_monitor, *child_to_parent_monitor);
            }
            GuestMessage::Pause => self.pause(),
            GuestMessage::Resume => self.resume(),
            other => self.violation(ViolationKind::Unsupported, None, format!("{other:?}")),
        }
    }

    /// Time passes; it never runs backwards. Carries out what was due.
    pub fn elapsed(&mut self, now: Duration) {
        self.now = self.now.max(now);
        while let Some(entry) = self.pending.first_entry() {
            if entry.key().0 > self.now {
                break;
            }
            let completion = entry.remove();
            self.complete(completion);
        }
        self.due_turns();
    }

    /// When [`elapsed`](Self::elapsed) has something to do, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let pending = self.pending.keys().next().map(|(due, _)| *due);
        let devices = self.channels.values().filter_map(Channel::deadline).min();
        [pending, devices].into_iter().flatten().min()
    }

    /// What comes out next.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.out.pop_front();
        if let Some(Output::Interrupt { processor, flag }) = &output {
            self.interrupts.remove(&(*processor, *flag));
        }
        output
    }

    /// The guest has taken note of all messages up to this sequence number. Optional: it lets the checker tell a
    /// guest that acts against what it knows from one that could not know yet.
    pub fn heard(&mut self, sequence: u64) {
        self.heard = self.heard.max(sequence);
    }

    /// What the host is like.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Changes what the host is like, from now on: versions from the guest's next hello on, services, latencies, refusals,
    /// what is tolerated. What a host has from the start (seed, devices, relids) stays as it was.
    pub fn configure(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
        self.checker.tolerate(self.config.tolerated.clone());
    }

    /// What was agreed on: what messages are to be encoded and parsed by.
    #[must_use]
    pub const fn protocol(&self) -> Protocol {
        self.connection.protocol
    }

    /// The processor that the guest wants its messages on.
    #[must_use]
    pub const fn message_processor(&self) -> u32 {
        self.connection.processor
    }

    /// The guest's memory.
    pub const fn memory(&self) -> &M {
        &self.memory
    }

    /// The host's time.
    #[must_use]
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// Sends a message, or keeps it back while paused. Returns its sequence number.
    fn send(&mut self, message: HostMessage) -> u64 {
        if self.out.len() + self.held.len() >= self.config.limits.messages {
            self.violation(ViolationKind::Deaf, None, format!("dropped: {message:?}"));
            return self.sequence;
        }
        if self.connection.paused {
            self.held.push_back(message);
            return self.sequence + u64::try_from(self.held.len()).unwrap_or(u64::MAX);
        }
        self.sequence += 1;
        self.counters.messages_out += 1;
        let protocol = self.connection.protocol;
        self.out.push_back(Output::Message { sequence: self.sequence, protocol, message });
        self.sequence
    }

    fn interrupt(&mut self, processor: u32, flag: u32) {
        self.counters.interrupts += 1;
        if self.interrupts.insert((processor, flag)) {
            self.out.push_back(Output::Interrupt { processor, flag });
        }
    }

    fn violation(&mut self, kind: ViolationKind, relid: Option<u32>, text: String) {
        self.checker.record(self.now, kind, relid, text);
    }

    /// A number that this host has not used yet.
    fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// Carries a thing out after a time between none and `latency`: at once if that is zero.
    fn later(&mut self, latency: Duration, completion: Completion) {
        if latency.is_zero() {
            return self.complete(completion);
        }
        let span = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        let due = self.now + Duration::from_nanos(self.random.below(span.saturating_add(1)));
        let number = self.number();
        self.pending.insert((due, number), completion);
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Open(id) => self.open_done(id),
            Completion::Gpadl(gpadl) => self.gpadl_done(gpadl),
            Completion::Teardown(gpadl) => self.teardown_done(gpadl),
            Completion::Modify(id) => self.modify_done(id),
            Completion::Unaccepted(id) => self.unaccepted(id),
        }
    }
}
