//! What guest and host agree on before the first frame: what happened goes in, what to do comes out.
//!
//! The order is that of the kernel's driver: version (best first), NDIS configuration and version, receive buffer, send
//! buffer. Everything the host says about the buffers is checked here, once.

use super::wire::nvsp::{Capabilities, GuestMessage, HostMessage, Status, Version};
use super::wire::rndis::PACKET_HEADER_MOST_BYTES;
use super::wire::{WireError, oid::Oid};
use core::time::Duration;

/// Bytes before a frame's payload: two addresses, a type, and a tag.
pub const FRAME_HEADER_BYTES: u32 = 18;
/// Bytes of the smallest part of a receive buffer that makes sense.
const SMALLEST_PART_BYTES: u32 = 68;
/// Bytes of the smallest section of a send buffer that a control message fits into.
const SMALLEST_SECTION_BYTES: u32 = 1024;

/// Why guest and host don't come to an agreement, or why a request has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The host refused every version.
    #[error("the host speaks no version of the network protocol that we do (1 to 6.1)")]
    NoVersion,
    /// The host did not answer in time.
    #[error("the host did not answer about the {0} in time; it may be overloaded, try again")]
    Silent(&'static str),
    /// The host said no.
    #[error("the host refused the {what}: status {status:#x}")]
    Refused {
        /// What was asked for.
        what: &'static str,
        /// Its reason.
        status: u32,
    },
    /// The host answered with something else.
    #[error("the host answered about the {0} with something else")]
    Unexpected(&'static str),
    /// The host's answer makes no sense.
    #[error("the host's answer about the {what} makes no sense: {value}")]
    Nonsense {
        /// What was asked for.
        what: &'static str,
        /// What it said.
        value: u64,
    },
    /// An answer could not be read.
    #[error("the host's answer can't be read: {0}")]
    Wire(#[from] WireError),
    /// The host does not know, or does not want to say.
    #[error("the host refused {oid}: status {status:#010x}")]
    Object {
        /// What was asked for or set.
        oid: Oid,
        /// Its reason.
        status: u32,
    },
    /// A frame that does not fit.
    #[error("a frame of {bytes} bytes does not fit, {most} do; let it be cut into shorter ones")]
    TooLong {
        /// Its bytes.
        bytes: usize,
        /// The most that fit.
        most: usize,
    },
}

/// What the guest wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wishes {
    /// Bytes of the longest payload of a frame.
    pub mtu: u32,
    /// Bytes of receive buffer.
    pub receive_bytes: u32,
    /// Bytes of send buffer.
    pub send_bytes: u32,
    /// How long the host may be silent.
    pub host_timeout: Duration,
}

/// What guest and host have agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// Spoken from now on.
    pub version: Version,
    /// Bytes of receive buffer that the host knows of.
    pub receive_bytes: u32,
    /// Bytes of each part of the receive buffer.
    pub part_bytes: u32,
    /// How many parts.
    pub parts: u32,
    /// Bytes of each section of the send buffer: a multiple of eight.
    pub section_bytes: u32,
    /// How many sections.
    pub sections: u32,
}

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The channel isn't open yet.
    Closed,
    /// A version was asked for; `rest` are those to try next.
    Version {
        /// Asked for.
        asked: Version,
        /// Still to try.
        rest: &'static [Version],
    },
    /// The receive buffer is being made.
    MakingReceive,
    /// The receive buffer was named to the host.
    Receive,
    /// The send buffer is being made.
    MakingSend,
    /// The send buffer was named to the host.
    Send,
    /// Agreed.
    Done,
    /// It is over.
    Failed,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The channel is open.
    Opened,
    /// The buffer that was asked for is there, under this number and with so many bytes.
    Made {
        /// Its number.
        gpadl: u32,
        /// Its bytes.
        bytes: u32,
    },
    /// The host answered the request that waits.
    Answer(Result<HostMessage, WireError>),
    /// Time went by.
    Elapsed,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Send this, and hear the answer.
    Ask(GuestMessage),
    /// Send this; there is no answer.
    Tell(GuestMessage),
    /// Make a receive buffer of at most so many bytes.
    MakeReceive(u32),
    /// Make a send buffer of at most so many bytes.
    MakeSend(u32),
    /// Agreed.
    Agree(Agreement),
    /// Give up.
    Fail(Failure),
}

/// The conversation with one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Negotiation {
    wishes: Wishes,
    state: State,
    deadline: Option<Duration>,
    agreed: Agreement,
    /// Bytes of send buffer.
    send_bytes: u32,
}

impl Negotiation {
    /// Before anything happened.
    #[must_use]
    pub const fn new(wishes: Wishes) -> Self {
        let agreed = Agreement {
            version: Version::V1,
            receive_bytes: 0,
            part_bytes: 0,
            parts: 0,
            section_bytes: 0,
            sections: 0,
        };
        Self { wishes, state: State::Closed, deadline: None, agreed, send_bytes: 0 }
    }

    /// Where the conversation is.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// The version that is spoken, or asked for.
    #[must_use]
    pub const fn version(&self) -> Version {
        match self.state {
            State::Version { asked, .. } => asked,
            _ => self.agreed.version,
        }
    }

    /// When to come back with [`Input::Elapsed`] at the latest.
    #[must_use]
    pub const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Goes on with `input`, which happened at `now`.
    #[must_use]
    pub fn step(mut self, now: Duration, input: Input) -> (Self, Vec<Action>) {
        let mut actions = Vec::new();
        let next = match (self.state, input) {
            (State::Closed, Input::Opened) => self.ask(now, &Version::OFFERED, &mut actions),
            (State::Version { asked, rest }, Input::Answer(answer)) => {
                self.version_answered(now, (asked, rest), answer, &mut actions)
            }
            (State::MakingReceive, Input::Made { gpadl, bytes }) => {
                self.agreed.receive_bytes = bytes;
                self.request(now, GuestMessage::ReceiveBuffer { gpadl }, &mut actions);
                Ok(State::Receive)
            }
            (State::Receive, Input::Answer(answer)) => self.receive_answered(answer, &mut actions),
            (State::MakingSend, Input::Made { gpadl, bytes }) => {
                self.send_bytes = bytes;
                self.request(now, GuestMessage::SendBuffer { gpadl }, &mut actions);
                Ok(State::Send)
            }
            (State::Send, Input::Answer(answer)) => self.send_answered(answer, &mut actions),
            (state, Input::Elapsed) if self.deadline.is_some_and(|deadline| now >= deadline) => {
                Err(Failure::Silent(asked_about(state)))
            }
            (state, _) => Ok(state),
        };
        self.state = next.unwrap_or_else(|failure| {
            actions.push(Action::Fail(failure));
            State::Failed
        });
        if !matches!(self.state, State::Version { .. } | State::Receive | State::Send) {
            self.deadline = None;
        }
        (self, actions)
    }

    /// Asks for the first of `versions`.
    fn ask(
        &mut self,
        now: Duration,
        versions: &'static [Version],
        actions: &mut Vec<Action>,
    ) -> Result<State, Failure> {
        let (asked, rest) = versions.split_first().ok_or(Failure::NoVersion)?;
        self.request(now, GuestMessage::Init(*asked), actions);
        Ok(State::Version { asked: *asked, rest })
    }

    fn request(&mut self, now: Duration, message: GuestMessage, actions: &mut Vec<Action>) {
        self.deadline = Some(now.saturating_add(self.wishes.host_timeout));
        actions.push(Action::Ask(message));
    }

    fn version_answered(
        &mut self,
        now: Duration,
        (asked, rest): (Version, &'static [Version]),
        answer: Result<HostMessage, WireError>,
        actions: &mut Vec<Action>,
    ) -> Result<State, Failure> {
        match answer? {
            HostMessage::InitComplete(Status::SUCCESS) => {}
            HostMessage::InitComplete(_) => return self.ask(now, rest, actions),
            _ => return Err(Failure::Unexpected("version")),
        }
        self.agreed.version = asked;
        if asked >= Version::V2 {
            let mut capabilities = Capabilities::IEEE_8021Q;
            if asked >= Version::V5 {
                // Without it the link's speed is not told.
                capabilities |= Capabilities::TEAMING;
            }
            let mtu = self.wishes.mtu.saturating_add(FRAME_HEADER_BYTES - 4);
            actions.push(Action::Tell(GuestMessage::NdisConfig { mtu, capabilities }));
        }
        let (major, minor) = asked.ndis();
        actions.push(Action::Tell(GuestMessage::NdisVersion { major, minor }));
        actions.push(Action::MakeReceive(self.wishes.receive_bytes.min(asked.most_receive_bytes())));
        Ok(State::MakingReceive)
    }

    fn receive_answered(
        &mut self,
        answer: Result<HostMessage, WireError>,
        actions: &mut Vec<Action>,
    ) -> Result<State, Failure> {
        const WHAT: &str = "receive buffer";
        let HostMessage::ReceiveBufferComplete { status, sections, first } = answer? else {
            return Err(Failure::Unexpected(WHAT));
        };
        if status != Status::SUCCESS {
            return Err(Failure::Refused { what: WHAT, status: status.0 });
        }
        let nonsense = |value: u64| Failure::Nonsense { what: WHAT, value };
        if sections != 1 {
            return Err(nonsense(sections.into()));
        }
        if first.offset.get() != 0 {
            return Err(nonsense(first.offset.get().into()));
        }
        let (part_bytes, parts) = (first.part_bytes.get(), first.parts.get());
        if part_bytes < SMALLEST_PART_BYTES {
            return Err(nonsense(part_bytes.into()));
        }
        if parts == 0 || u64::from(part_bytes) * u64::from(parts) > u64::from(self.agreed.receive_bytes) {
            return Err(nonsense(parts.into()));
        }
        (self.agreed.part_bytes, self.agreed.parts) = (part_bytes, parts);
        actions.push(Action::MakeSend(self.wishes.send_bytes.min(self.agreed.version.most_send_bytes())));
        Ok(State::MakingSend)
    }

    fn send_answered(
        &mut self,
        answer: Result<HostMessage, WireError>,
        actions: &mut Vec<Action>,
    ) -> Result<State, Failure> {
        const WHAT: &str = "send buffer";
        let HostMessage::SendBufferComplete { status, section_bytes } = answer? else {
            return Err(Failure::Unexpected(WHAT));
        };
        if status != Status::SUCCESS {
            return Err(Failure::Refused { what: WHAT, status: status.0 });
        }
        // Sections are written in whole words, so that two of them have none in common.
        let sections = self.send_bytes.checked_div(section_bytes).unwrap_or(0);
        if section_bytes < SMALLEST_SECTION_BYTES || !section_bytes.is_multiple_of(8) || sections == 0 {
            return Err(Failure::Nonsense { what: WHAT, value: section_bytes.into() });
        }
        (self.agreed.section_bytes, self.agreed.sections) = (section_bytes, sections);
        actions.push(Action::Agree(self.agreed));
        Ok(State::Done)
    }
}

/// What the host was asked for in a state.
const fn asked_about(state: State) -> &'static str {
    match state {
        State::Version { .. } => "version",
        State::Receive => "receive buffer",
        _ => "send buffer",
    }
}

/// Bytes of the longest frame that fits into a section, with whatever goes with it.
#[must_use]
pub const fn longest_frame(section_bytes: usize) -> usize {
    section_bytes.saturating_sub(PACKET_HEADER_MOST_BYTES)
}

#[cfg(test)]
mod tests;
