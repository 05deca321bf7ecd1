//! The protocol as a state machine: what happened goes in, what to do comes out, and nothing else happens here.
//!
//! Negotiation has a deadline, as in the kernel driver; what comes out of order is counted and ignored, except
//! that a second balloon request waits for the first one's end.

mod events;
mod inflate;
mod running;

pub use events::{Action, Failure, Input, Limit, Notice};
pub use inflate::Inflation;
use running::Running;

use super::wire::{GuestMessage, HostMessage, Version};
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

    /// When to come back with [`Input::Elapsed`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match &self.state {
            State::Version { deadline, .. } | State::Capabilities { deadline, .. } => Some(*deadline),
            State::Running { status_due, .. } => *status_due,
            State::Closed | State::Failed => None,
        }
    }

    /// Goes on with `input`, which happened at `now`.
    #[must_use]
    pub fn step(mut self, now: Duration, input: Input) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let state = core::mem::replace(&mut self.state, State::Failed);
        self.state = match state {
            State::Closed => self.closed(now, input, &mut actions),
            State::Version { asked, rest, deadline } => {
                self.version(now, &input, (asked, rest, deadline), &mut actions)
            }
            State::Capabilities { version, deadline } => {
                self.capabilities(now, &input, version, deadline, &mut actions)
            }
            State::Running { version, status_due, inflation, deflated } => {
                let mut running = Running { version, status_due, inflation, deflated };
                running.step(&mut self, now, input, &mut actions);
                let Running { version, status_due, inflation, deflated } = running;
                State::Running { version, status_due, inflation, deflated }
            }
            State::Failed => State::Failed,
        };
        (self, actions)
    }

    fn closed(&mut self, now: Duration, input: Input, actions: &mut Vec<Action>) -> State {
        if input != Input::Opened {
            unexpected(&input, actions);
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
        input: &Input,
        (asked, rest, deadline): (Version, &'static [Version], Duration),
        actions: &mut Vec<Action>,
    ) -> State {
        match input {
            Input::Message(HostMessage::VersionResponse { accepted: true }) => {
                let hot_add_alignment = self.settings.announce_hot_add.then_some(HOT_ADD_ALIGNMENT);
                self.send(GuestMessage::Capabilities { balloon: true, hot_add_alignment }, actions);
                let deadline = now.saturating_add(self.settings.host_timeout);
                return State::Capabilities { version: asked, deadline };
            }
            Input::Message(HostMessage::VersionResponse { accepted: false }) => {
                return self.ask(rest, deadline, actions);
            }
            Input::Elapsed if now >= deadline => {
                actions.push(Action::Fail(Failure::Silent("version request")));
                return State::Failed;
            }
            Input::Elapsed => {}
            other => unexpected(other, actions),
        }
        State::Version { asked, rest, deadline }
    }

    fn capabilities(
        &mut self,
        now: Duration,
        input: &Input,
        version: Version,
        deadline: Duration,
        actions: &mut Vec<Action>,
    ) -> State {
        match input {
            Input::Message(HostMessage::CapabilitiesResponse { accepted: true, suppress_status }) => {
                let status_reports = !(*suppress_status && version >= Version::V2_0);
                actions.push(Action::Notify(Notice::Negotiated { version, status_reports }));
                let status_due = status_reports.then_some(now);
                return State::Running { version, status_due, inflation: None, deflated: 0 };
            }
            Input::Message(HostMessage::CapabilitiesResponse { accepted: false, .. }) => {
                actions.push(Action::Fail(Failure::Capabilities));
                return State::Failed;
            }
            Input::Elapsed if now >= deadline => {
                actions.push(Action::Fail(Failure::Silent("capabilities report")));
                return State::Failed;
            }
            Input::Elapsed => {}
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

/// Names an input that has no place in the state it came in.
fn unexpected(input: &Input, actions: &mut Vec<Action>) {
    let what = match input {
        Input::Message(HostMessage::VersionResponse { .. }) => "version response",
        Input::Message(HostMessage::CapabilitiesResponse { .. }) => "capabilities response",
        Input::Message(HostMessage::BalloonRequest { .. }) => "balloon request",
        Input::Message(HostMessage::UnballoonRequest { .. }) => "unballoon request",
        Input::Message(HostMessage::HotAddRequest { .. }) => "hot-add request",
        Input::Message(HostMessage::Info(_)) => "info message",
        _ => return,
    };
    actions.push(Action::Notify(Notice::Unexpected(what)));
}

#[cfg(test)]
mod tests;
