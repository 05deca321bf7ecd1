//! The protocol as a state machine: what happened goes in, what to do comes out, and nothing else happens here.
//!
//! Negotiation has a deadline, as in the kernel driver; what comes out of order is counted and ignored, except
//! that a second balloon request waits for the first one's end.

mod inflate;

pub use inflate::Inflation;

use super::report::Memory;
use super::wire::{GuestMessage, HostMessage, Info, PageRange, StatusReport, Version};
use core::time::Duration;

/// What the driver is told by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Pages of 4 KiB that must stay available to the guest whatever the host asks for.
    pub floor_pages: u64,
    /// Pages that are taken at once, when that many are wanted.
    pub chunk_pages: u32,
    /// Pages of 4 KiB in one page of this system: all counts are multiples of it.
    pub granule_pages: u32,
    /// From one status report to the next; hosts expect one second.
    pub status_interval: Duration,
    /// How long the host may be silent in each half of the negotiation; five seconds in the kernel driver.
    pub host_timeout: Duration,
    /// Announce hot-add, though it will be refused: for hosts that insist on the bit.
    pub announce_hot_add: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            floor_pages: 0,
            chunk_pages: 512,
            granule_pages: 1,
            status_interval: Duration::from_secs(1),
            host_timeout: Duration::from_secs(5),
            announce_hot_add: false,
        }
    }
}

/// What happened; times are since any fixed moment and never run backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The channel is open.
    Opened,
    /// The host said something.
    Message(HostMessage),
    /// Time went by.
    Elapsed,
    /// The answer to [`Action::Measure`].
    Measured(Memory),
    /// The answer to [`Action::Take`]: these pages are out of use.
    Taken(Vec<PageRange>),
    /// The other answer to [`Action::Take`]: there was no memory for that many pages.
    NotTaken,
    /// The answer to [`Action::Release`].
    Released {
        /// Pages that are in use again.
        pages: u64,
        /// As in the action.
        last: bool,
    },
}

/// What to do, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this under this transaction number.
    Send(u32, GuestMessage),
    /// Read the memory figures: answer with [`Event::Measured`].
    Measure,
    /// Take this many pages out of use: answer with [`Event::Taken`] or [`Event::NotTaken`].
    Take(u32),
    /// Put pages that the host doesn't know of back into use; no answer.
    Undo(Vec<PageRange>),
    /// Put pages that the host named back into use: answer with [`Event::Released`].
    Release {
        /// As the host named them: it may merge, split and reorder what it got, or be wrong.
        ranges: Vec<PageRange>,
        /// The transaction ends with them.
        last: bool,
    },
    /// Tell the user.
    Notify(Notice),
    /// Close the channel: it is over.
    Fail(Failure),
}

/// What a user may want to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Host and guest agreed.
    Negotiated {
        /// What they speak.
        version: Version,
        /// Whether the host wants status reports.
        status_reports: bool,
    },
    /// A status report goes out.
    Status(StatusReport),
    /// A balloon request is done.
    Ballooned {
        /// Pages that the host asked for.
        requested: u64,
        /// Pages that it got.
        pages: u64,
        /// Why it didn't get all of them.
        limit: Option<Limit>,
    },
    /// An unballoon transaction is done.
    Deflated {
        /// Pages that are in use again.
        pages: u64,
    },
    /// The host offered memory that a process can't add.
    HotAddRefused {
        /// Pages that it offered.
        pages: u32,
    },
    /// The host said something worth knowing.
    Info(Info),
    /// Something came that has no place in this state; it was ignored.
    Unexpected(&'static str),
}

/// What stopped a balloon request early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The floor: the protocol's own or the user's.
    Floor,
    /// The kernel had no page to give.
    Memory,
}

/// Why it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// No answer in time.
    #[error("the host did not answer the {0} in time")]
    Silent(&'static str),
    /// Not one of [`Version::OFFERED`] was accepted.
    #[error("the host accepts none of the Dynamic Memory versions 2.0, 1.0 and 0.3")]
    NoVersion,
    /// The host wants other capabilities.
    #[error("the host refused the guest's Dynamic Memory capabilities")]
    Capabilities,
}

/// Where the conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// The channel isn't open yet.
    Closed,
    /// A version was asked for; `rest` are those to try next.
    Version {
        /// Asked for.
        asked: Version,
        /// Still to try.
        rest: &'static [Version],
        /// When to give up.
        deadline: Duration,
    },
    /// Capabilities were sent.
    Capabilities {
        /// Agreed.
        version: Version,
        /// When to give up.
        deadline: Duration,
    },
    /// Agreed: status reports go out and requests are served.
    Running {
        /// Agreed.
        version: Version,
        /// When the next status report is due, unless the host wants none.
        status_due: Option<Duration>,
        /// The balloon request being served.
        inflation: Option<Inflation>,
        /// Pages of the unballoon transaction being served.
        deflated: u64,
    },
    /// It is over.
    Failed,
}

/// The conversation with one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    settings: Settings,
    state: State,
    transaction: u32,
}

impl Machine {
    /// Before anything happened.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, state: State::Closed, transaction: 0 }
    }

    /// Where the conversation is.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When to come back with [`Event::Elapsed`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Version { deadline, .. } | State::Capabilities { deadline, .. } => Some(*deadline),
            State::Running { status_due, .. } => *status_due,
            State::Closed | State::Failed => None,
        }
    }

    /// Goes on with `event`, which happened at `now`.
    #[must_use]
    pub fn step(mut self, now: Duration, event: Event) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let state = core::mem::replace(&mut self.state, State::Failed);
        self.state = match state {
            State::Closed => self.closed(now, event, &mut actions),
            State::Version { asked, rest, deadline } => {
                self.version(now, &event, (asked, rest, deadline), &mut actions)
            }
            State::Capabilities { version, deadline } => self.capabilities(now, &event, version, deadline, &mut actions),
            State::Running { version, status_due, inflation, deflated } => {
                let mut running = Running { version, status_due, inflation, deflated };
                running.step(&mut self, now, event, &mut actions);
                let Running { version, status_due, inflation, deflated } = running;
                State::Running { version, status_due, inflation, deflated }
            }
            State::Failed => State::Failed,
        };
        (self, actions)
    }

    fn closed(&mut self, now: Duration, event: Event, actions: &mut Vec<Action>) -> State {
        if event != Event::Opened {
            unexpected(&event, actions);
            return State::Closed;
        }
        self.ask(&Version::OFFERED, now.saturating_add(self.settings.host_timeout), actions)
    }

    /// Asks for the first of `versions`; one deadline covers all of them, as in the kernel driver.
    fn ask(&mut self, versions: &'static [Version], deadline: Duration, actions: &mut Vec<Action>) -> State {
        let Some((asked, rest)) = versions.split_first() else {
            actions.push(Action::Fail(Failure::NoVersion));
            return State::Failed;
        };
        self.send(GuestMessage::VersionRequest { version: *asked, last: rest.is_empty() }, actions);
        State::Version { asked: *asked, rest, deadline }
    }

    fn version(
        &mut self,
        now: Duration,
        event: &Event,
        (asked, rest, deadline): (Version, &'static [Version], Duration),
        actions: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Message(HostMessage::VersionResponse { accepted: true }) => {
                let hot_add_alignment = self.settings.announce_hot_add.then_some(HOT_ADD_ALIGNMENT);
                self.send(GuestMessage::Capabilities { balloon: true, hot_add_alignment }, actions);
                let deadline = now.saturating_add(self.settings.host_timeout);
                return State::Capabilities { version: asked, deadline };
            }
            Event::Message(HostMessage::VersionResponse { accepted: false }) => {
                return self.ask(rest, deadline, actions);
            }
            Event::Elapsed if now >= deadline => {
                actions.push(Action::Fail(Failure::Silent("version request")));
                return State::Failed;
            }
            Event::Elapsed => {}
            other => unexpected(other, actions),
        }
        State::Version { asked, rest, deadline }
    }

    fn capabilities(
        &mut self,
        now: Duration,
        event: &Event,
        version: Version,
        deadline: Duration,
        actions: &mut Vec<Action>,
    ) -> State {
        match event {
            Event::Message(HostMessage::CapabilitiesResponse { accepted: true, suppress_status }) => {
                let status_reports = !(*suppress_status && version >= Version::V2_0);
                actions.push(Action::Notify(Notice::Negotiated { version, status_reports }));
                let status_due = status_reports.then_some(now);
                return State::Running { version, status_due, inflation: None, deflated: 0 };
            }
            Event::Message(HostMessage::CapabilitiesResponse { accepted: false, .. }) => {
                actions.push(Action::Fail(Failure::Capabilities));
                return State::Failed;
            }
            Event::Elapsed if now >= deadline => {
                actions.push(Action::Fail(Failure::Silent("capabilities report")));
                return State::Failed;
            }
            Event::Elapsed => {}
            other => unexpected(other, actions),
        }
        State::Capabilities { version, deadline }
    }

    /// Sends `message` under the next number; the first one is 1.
    fn send(&mut self, message: GuestMessage, actions: &mut Vec<Action>) {
        self.transaction = self.transaction.wrapping_add(1);
        actions.push(Action::Send(self.transaction, message));
    }
}

/// log2 of the MiB that hot-added memory is aligned to: 128 MiB, Linux' smallest memory block on x86-64.
const HOT_ADD_ALIGNMENT: u8 = 7;

/// What [`State::Running`] holds, while a step works on it.
struct Running {
    version: Version,
    status_due: Option<Duration>,
    inflation: Option<Inflation>,
    deflated: u64,
}

impl Running {
    fn step(&mut self, machine: &mut Machine, now: Duration, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Elapsed if self.status_due.is_some_and(|due| now >= due) => actions.push(Action::Measure),
            Event::Elapsed => {}
            Event::Measured(memory) => {
                self.report(machine, now, &memory, actions);
                self.inflate(machine, |inflation, settings| inflation.measured(settings, &memory), actions);
            }
            Event::Taken(ranges) => self.inflate(machine, |inflation, _| inflation.taken(ranges), actions),
            Event::NotTaken => self.inflate(machine, |inflation, settings| inflation.not_taken(settings), actions),
            Event::Released { pages, last } => {
                self.deflated = self.deflated.saturating_add(pages);
                if last {
                    machine.send(GuestMessage::UnballoonResponse, actions);
                    actions.push(Action::Notify(Notice::Deflated { pages: core::mem::take(&mut self.deflated) }));
                }
            }
            Event::Message(message) => self.message(machine, message, actions),
            Event::Opened => unexpected(&event, actions),
        }
    }

    fn message(&mut self, machine: &mut Machine, message: HostMessage, actions: &mut Vec<Action>) {
        match message {
            HostMessage::BalloonRequest { pages } => match &mut self.inflation {
                Some(running) => {
                    running.queue(pages);
                    actions.push(Action::Notify(Notice::Unexpected("balloon request during another one")));
                }
                none => {
                    *none = Some(Inflation::new(pages, &machine.settings));
                    actions.push(Action::Measure);
                }
            },
            HostMessage::UnballoonRequest { more, ranges } => {
                actions.push(Action::Release { ranges, last: !more });
            }
            HostMessage::HotAddRequest { range, .. } => {
                // Success with no pages: a lasting refusal. Failure would make the host try again and again.
                machine.send(GuestMessage::HotAddResponse { pages: 0, success: true }, actions);
                actions.push(Action::Notify(Notice::HotAddRefused { pages: range.count }));
            }
            HostMessage::Info(info) if self.version >= Version::V1_0 => {
                actions.push(Action::Notify(Notice::Info(info)));
            }
            other => unexpected(&Event::Message(other), actions),
        }
    }
}

/// Names an event that has no place in the state it came in.
fn unexpected(event: &Event, actions: &mut Vec<Action>) {
    let what = match event {
        Event::Message(HostMessage::VersionResponse { .. }) => "version response",
        Event::Message(HostMessage::CapabilitiesResponse { .. }) => "capabilities response",
        Event::Message(HostMessage::BalloonRequest { .. }) => "balloon request",
        Event::Message(HostMessage::UnballoonRequest { .. }) => "unballoon request",
        Event::Message(HostMessage::HotAddRequest { .. }) => "hot-add request",
        Event::Message(HostMessage::Info(_)) => "info message",
        _ => return,
    };
    actions.push(Action::Notify(Notice::Unexpected(what)));
}

#[cfg(test)]
mod tests;
