//! How a conversation with a controller begins, as a state machine: what the host said goes in, what to say comes out.

use super::wire::{Completion, GuestPacket, Version};
use vmbus::message::Status;

/// What host and guest have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The version.
    pub version: Version,
    /// The most that the host takes in one request, in bytes; never zero.
    pub max_transfer_bytes: u32,
    /// Subchannels that the host will offer.
    pub subchannels: u16,
}

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The channel isn't open yet.
    Closed,
    /// The first word was said.
    Beginning,
    /// A version was asked for; `rest` are those to try next.
    Version {
        /// Asked for.
        asked: Version,
        /// Still to try.
        rest: &'static [Version],
    },
    /// The controller's properties were asked for.
    Properties(Version),
    /// The last word was said; so many subchannels could be had.
    Ending(Agreed),
    /// Subchannels were asked for.
    Subchannels(Agreed),
    /// Requests may be sent.
    Running(Agreed),
    /// It is over.
    Failed,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The channel is open.
    Opened,
    /// What was said is completed.
    Completed(Completion),
    /// It was not, in time.
    Silent,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Say this.
    Say(GuestPacket),
    /// Begin to work.
    Run(Agreed),
    /// Give up.
    Fail(Negotiation),
}

/// Why host and guest can't agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Negotiation {
    /// The host said nothing.
    #[error("the host did not answer to {0}")]
    Silent(&'static str),
    /// The host said no.
    #[error("the host refused {what}: status {status:#010x}")]
    Refused {
        /// What.
        what: &'static str,
        /// Its reason.
        status: u32,
    },
    /// The host speaks no version that is spoken here.
    #[error("the host speaks no version of the storage protocol from 4.2 to 6.2")]
    Version,
    /// Something happened that can't.
    #[error("the conversation is out of order")]
    Order,
}

/// The beginning of a conversation with one host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Machine {
    /// Subchannels that are wanted.
    wanted: u16,
    versions: &'static [Version],
    state: State,
}

impl Machine {
    /// Before anything happened: asks for these versions, in this order.
    #[must_use]
    pub const fn new(versions: &'static [Version], wanted: u16) -> Self {
        Self { wanted, versions, state: State::Closed }
    }

    /// Where the conversation is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What a packet is to be built by now.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self.state {
            State::Properties(version) => version,
            State::Ending(agreed) | State::Subchannels(agreed) | State::Running(agreed) => agreed.version,
            // Each host takes the shortest packets until more is known.
            _ => Version::V4_2,
        }
    }

    /// Goes on.
    #[must_use]
    pub fn step(self, input: Input) -> (Self, Action) {
        let (state, action) = match (self.state, input) {
            (State::Closed, Input::Opened) => (State::Beginning, Action::Say(GuestPacket::Begin)),
            (state, Input::Silent) => silent(state),
            (State::Beginning, Input::Completed(answer)) => match refused("to begin", answer.status) {
                Some(failed) => failed,
                None => self.ask(self.versions),
            },
            (State::Version { asked, rest }, Input::Completed(answer)) => match answer.status.is_success() {
                true => (State::Properties(asked), Action::Say(GuestPacket::QueryProperties)),
                false => self.ask(rest),
            },
            (State::Properties(version), Input::Completed(answer)) => match refused("its properties", answer.status) {
                Some(failed) => failed,
                None => self.properties(version, &answer),
            },
            (State::Ending(agreed), Input::Completed(answer)) => match refused("to end the beginning", answer.status) {
                Some(failed) => failed,
                None if agreed.subchannels == 0 => run(agreed),
                None => (State::Subchannels(agreed), Action::Say(GuestPacket::CreateSubchannels(agreed.subchannels))),
            },
            // One channel does as well.
            (State::Subchannels(agreed), Input::Completed(answer)) => match answer.status.is_success() {
                true => run(agreed),
                false => run(Agreed { subchannels: 0, ..agreed }),
            },
            (State::Closed | State::Running(_) | State::Failed, _) | (_, Input::Opened) => fail(Negotiation::Order),
        };
        (Self { state, ..self }, action)
    }

    fn ask(&self, versions: &'static [Version]) -> (State, Action) {
        match versions {
            [asked, rest @ ..] => {
                (State::Version { asked: *asked, rest }, Action::Say(GuestPacket::QueryVersion(*asked)))
            }
            [] => fail(Negotiation::Version),
        }
    }

    fn properties(&self, version: Version, answer: &Completion) -> (State, Action) {
        let properties = answer.properties();
        let most = properties.max_transfer_bytes.get();
        let can = version >= Version::V5_1 && properties.flags.get() & 1 != 0;
        let subchannels = if can { properties.subchannels.get().min(self.wanted) } else { 0 };
        // A host that says nothing takes what every host takes.
        let max_transfer_bytes = if most == 0 { LEAST_TRANSFER_BYTES } else { most };
        let agreed = Agreed { version, max_transfer_bytes, subchannels };
        (State::Ending(agreed), Action::Say(GuestPacket::End))
    }
}

/// What a host takes in one request that does not say how much.
pub const LEAST_TRANSFER_BYTES: u32 = 64 * 1024;

fn run(agreed: Agreed) -> (State, Action) {
    (State::Running(agreed), Action::Run(agreed))
}

fn fail(why: Negotiation) -> (State, Action) {
    (State::Failed, Action::Fail(why))
}

fn refused(what: &'static str, status: Status) -> Option<(State, Action)> {
    (!status.is_success()).then(|| fail(Negotiation::Refused { what, status: status.0 }))
}

fn silent(state: State) -> (State, Action) {
    fail(Negotiation::Silent(match state {
        State::Beginning => "the first word",
        State::Version { .. } => "a version",
        State::Properties(_) => "the question for its properties",
        State::Ending(_) => "the last word",
        // One channel does as well.
        State::Subchannels(agreed) => return run(Agreed { subchannels: 0, ..agreed }),
        State::Closed | State::Running(_) | State::Failed => return fail(Negotiation::Order),
    }))
}

#[cfg(test)]
mod tests;
