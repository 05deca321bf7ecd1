//! A host with faults and a trace around it: what threads and single-threaded schedulers drive.

use std::collections::VecDeque;
use std::time::Duration;

use vmbus::message::{GuestMessage, Message, Protocol};

use crate::fault::{Effect, Faults, Faulty, Kind, RingFault, Rule, Target, corrupt_ring};
use crate::trace::{Event, Trace};
use crate::{Config, Host, Memory, OfferId, Output, Random};

/// Lines of trace that are kept.
const TRACE_LINES: usize = 4096;

/// What arrives at the guest.
#[expect(clippy::large_enum_variant, reason = "messages are most of what there is; each in a box would cost more")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// A message, in bytes: faults may have left it none.
    Message {
        /// The host's number for it; for [`Simulation::heard`].
        sequence: u64,
        /// By what it is to be parsed.
        protocol: Protocol,
        /// The bytes.
        message: Message,
    },
    /// An interrupt: set the flag of the processor and raise it.
    Interrupt {
        /// Virtual processor.
        processor: u32,
        /// Event flag, below 2048.
        flag: u32,
    },
}

/// What the guest does.
#[expect(clippy::large_enum_variant, reason = "as for deliveries")]
#[derive(Debug, Clone)]
enum Act {
    Post(Message, Protocol),
    Signal(u32),
    Monitor(u8),
}

impl Faulty for Delivery {
    fn is(&self, target: Target) -> bool {
        match (self, target) {
            (Self::Message { .. }, Target::AnyHost) | (Self::Interrupt { .. }, Target::Interrupt) => true,
            (Self::Message { message, .. }, Target::Host(kind)) => Kind(message.kind()) == kind,
            _ => false,
        }
    }

    fn message(&mut self) -> Option<(&mut Message, Protocol)> {
        match self {
            Self::Message { message, protocol, .. } => Some((message, *protocol)),
            Self::Interrupt { .. } => None,
        }
    }
}

impl Faulty for Act {
    fn is(&self, target: Target) -> bool {
        match (self, target) {
            (Self::Post(..), Target::AnyGuest) | (Self::Signal(_) | Self::Monitor(_), Target::Signal) => true,
            (Self::Post(message, _), Target::Guest(kind)) => Kind(message.kind()) == kind,
            _ => false,
        }
    }

    fn message(&mut self) -> Option<(&mut Message, Protocol)> {
        match self {
            Self::Post(message, protocol) => Some((message, *protocol)),
            Self::Signal(_) | Self::Monitor(_) => None,
        }
    }
}

/// A host with faults and a trace around it. The same seed and the same calls give the same trace, byte for byte.
#[derive(Debug)]
pub struct Simulation<M: Memory> {
    host: Host<M>,
    outward: Faults<Delivery>,
    inward: Faults<Act>,
    ring_rules: Vec<Rule>,
    random: Random,
    ready: VecDeque<Delivery>,
    trace: Trace,
    ring_faults: u64,
}

impl<M: Memory> Simulation<M> {
    /// Without faults, until [`set_faults`](Self::set_faults).
    #[must_use]
    pub fn new(config: Config, memory: M) -> Self {
        let random = Random::new(config.seed);
        Self {
            outward: Faults::new(random.fork(2)),
            inward: Faults::new(random.fork(3)),
            random: random.fork(4),
            ring_rules: Vec::new(),
            ready: VecDeque::new(),
            trace: Trace::new(config.seed, TRACE_LINES),
            ring_faults: 0,
            host: Host::new(config, memory),
        }
    }

    /// The host itself: commands and oracles. What a command makes it say comes out of [`poll`](Self::poll).
    pub const fn host(&mut self) -> &mut Host<M> {
        &mut self.host
    }

    /// The trace.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Adds a remark to the trace.
    pub fn note(&mut self, text: impl Into<String>) {
        self.trace.record(self.host.now(), Event::Note(text.into()));
    }

    /// These rules hold from now on, instead of those before. What they have kept back stays so.
    pub fn set_faults(&mut self, rules: &[Rule]) {
        let of = |wanted: fn(Target) -> bool| rules.iter().copied().filter(|rule| wanted(rule.target)).collect();
        self.outward.set(of(|target| matches!(target, Target::Host(_) | Target::AnyHost | Target::Interrupt)));
        self.inward.set(of(|target| matches!(target, Target::Guest(_) | Target::AnyGuest | Target::Signal)));
        self.ring_rules = of(|target| target == Target::Ring);
    }

    /// Switches the rules about one target off.
    pub fn switch_off(&mut self, target: Target) {
        self.outward.rules_mut().retain(|rule| rule.target != target);
        self.inward.rules_mut().retain(|rule| rule.target != target);
        self.ring_rules.retain(|rule| rule.target != target);
    }

    /// Faults so far.
    #[must_use]
    pub const fn faults_applied(&self) -> u64 {
        self.outward.applied() + self.inward.applied() + self.ring_faults
    }

    /// The guest posted a message, as it would be encoded.
    pub fn message(&mut self, message: &GuestMessage) {
        match message.encode(self.host.protocol()) {
            Ok(encoded) => self.post(&encoded),
            // A message that is not there under what was agreed on: the host sees it as it was meant.
            Err(error) => {
                self.note(format!("guest -> host  {message:?}, which can't be encoded: {error}"));
                self.host.message(message);
            }
        }
    }

    /// The guest posted these bytes.
    pub fn post(&mut self, message: &Message) {
        let act = Act::Post(*message, self.host.protocol());
        self.act(act);
    }

    /// The guest signalled; see [`Host::signal`].
    pub fn signal(&mut self, number: u32) {
        self.act(Act::Signal(number));
    }

    /// The guest set a monitor bit.
    pub fn monitored(&mut self, monitor: u8) {
        self.act(Act::Monitor(monitor));
    }

    /// Looks for signals in the monitor page, where the guest's memory is all that there is of it.
    pub fn poll_monitor(&mut self) {
        for monitor in self.host.take_monitors() {
            self.monitored(monitor);
        }
    }

    /// The guest has taken note of all messages up to this one; see [`Host::heard`]. Means nothing while faults keep
    /// messages back.
    pub fn heard(&mut self, sequence: u64) {
        self.host.heard(sequence);
    }

    /// The guest is gone, and what is under way with it. Another may come; see [`Host::guest_gone`].
    pub fn guest_gone(&mut self) {
        self.host.guest_gone();
        self.ready.clear();
        self.outward.forget();
        self.inward.forget();
        self.note("the guest is gone");
    }

    fn act(&mut self, act: Act) {
        if self.inward.are_none() {
            return self.carry_out(act);
        }
        let now = self.host.now();
        let trace = &mut self.trace;
        let acts = self.inward.apply(now, act, &mut |text| trace.record(now, Event::Note(text)));
        acts.into_iter().for_each(|act| self.carry_out(act));
    }

    fn carry_out(&mut self, act: Act) {
        let now = self.host.now();
        match act {
            Act::Post(message, protocol) => {
                self.trace.record(now, Event::Posted(message, protocol));
                self.host.bytes(message.as_ref());
            }
            Act::Signal(number) => {
                self.trace.record(now, Event::Signal { number, monitored: false });
                self.host.signal(number);
            }
            Act::Monitor(monitor) => {
                self.trace.record(now, Event::Signal { number: monitor.into(), monitored: true });
                self.host.monitored(monitor);
            }
        }
    }

    /// Time passes.
    pub fn elapsed(&mut self, now: Duration) {
        self.host.elapsed(now);
        let now = self.host.now();
        for act in self.inward.due(now) {
            self.carry_out(act);
        }
        let due = self.outward.due(now);
        self.ready.extend(due);
    }

    /// When [`elapsed`](Self::elapsed) has something to do, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        [self.host.deadline(), self.inward.deadline(), self.outward.deadline()].into_iter().flatten().min()
    }

    /// Whether nothing is under way, in the host or on the way from or to it.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.host.is_quiet() && self.ready.is_empty() && self.inward.kept() + self.outward.kept() == 0
    }

    /// What arrives at the guest next.
    pub fn poll(&mut self) -> Option<Delivery> {
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                self.record(&delivery);
                return Some(delivery);
            }
            let output = self.host.poll_output()?;
            let delivery = match output {
                Output::Message { sequence, protocol, message } => match message.encode(protocol) {
                    Ok(message) => Delivery::Message { sequence, protocol, message },
                    Err(error) => {
                        self.note(format!("not to be said: {message:?}: {error}"));
                        continue;
                    }
                },
                Output::Interrupt { processor, flag } => {
                    self.spoil_ring(flag);
                    Delivery::Interrupt { processor, flag }
                }
            };
            if self.outward.are_none() {
                self.record(&delivery);
                return Some(delivery);
            }
            let now = self.host.now();
            let trace = &mut self.trace;
            let all = self.outward.apply(now, delivery, &mut |text| trace.record(now, Event::Note(text)));
            self.ready.extend(all);
        }
    }

    fn record(&mut self, delivery: &Delivery) {
        let event = match delivery {
            Delivery::Message { message, protocol, .. } => Event::Delivered(*message, *protocol),
            Delivery::Interrupt { processor, flag } => Event::Interrupt { processor: *processor, flag: *flag },
        };
        self.trace.record(self.host.now(), event);
    }

    /// The guest is about to look into a ring.
    fn spoil_ring(&mut self, flag: u32) {
        for index in 0..self.ring_rules.len() {
            let Some(rule) = self.ring_rules.get_mut(index) else { return };
            if rule.left == Some(0) || !self.random.chance(u32::from(rule.permille), 1000) {
                continue;
            }
            let Some(id) = self.host.offer_on_relid(flag) else { return };
            rule.left = rule.left.map(|left| left.saturating_sub(1));
            let fault = match rule.effect {
                Effect::Corrupt => RingFault::Data,
                _ => self.random.pick(&RingFault::ALL).copied().unwrap_or(RingFault::WriteIndex),
            };
            self.spoil(id, fault);
        }
    }

    /// Spoils the rings of a channel now; see [`corrupt_ring`]. Whether it was open.
    pub fn spoil(&mut self, id: OfferId, fault: RingFault) -> bool {
        let done = corrupt_ring(&self.host, id, fault, &mut self.random).is_ok();
        if done {
            self.ring_faults += 1;
            self.note(format!("{fault:?} of {id:?} spoiled"));
        }
        done
    }
}
