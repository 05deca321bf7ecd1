//! What a packet of the host gets as an answer: a step without I/O, the same for all components.

use std::time::Duration;

use zerocopy::FromBytes;

use super::component::{Component, Tell};
use super::event::{Counters, Event, Ignored, Summary};
use super::negotiate::{Agreed, negotiate};
use super::wire::{Flags, Header, MessageType, PipeHeader, Status};

/// Bytes that an answer to a negotiation says it has: the counts and one version of each kind.
const NEGOTIATED_BYTES: u16 = 16;

/// The conversation of one component with its host.
pub struct Session {
    component: Box<dyn Component>,
    agreed: Option<Agreed>,
    counters: Counters,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = self.component.profile().name;
        formatter
            .debug_struct("Session")
            .field("component", &name)
            .field("agreed", &self.agreed)
            .finish_non_exhaustive()
    }
}

/// What to do with a packet's bytes after they were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// They are the answer now: send them under the number that the packet had, then say so.
    Answer,
    /// Nothing.
    Silence,
}

impl Session {
    /// Before anything was said.
    #[must_use]
    pub fn new(component: Box<dyn Component>) -> Self {
        Self { component, agreed: None, counters: Counters::default() }
    }

    /// The component.
    pub fn component(&mut self) -> &mut dyn Component {
        &mut *self.component
    }

    /// Takes a message and makes an answer of it, of the same length. A host gets an answer to all that has a header and
    /// asks for one.
    pub fn packet(&mut self, now: Duration, bytes: &mut [u8], tell: Tell<'_>) -> Outcome {
        let length = bytes.len();
        let Some((header, body)) = split(bytes) else {
            self.ignore(Ignored::Short { bytes: length }, tell);
            return Outcome::Silence;
        };
        // Samples of the time come without any flag from some hosts, which then don't read answers.
        let asks = Flags::from_bits_retain(header.flags).intersects(Flags::TRANSACTION | Flags::REQUEST);
        let status = match (MessageType(header.kind.get()), self.agreed) {
            (MessageType::NEGOTIATE, _) => {
                self.negotiate(body, tell);
                header.body_bytes = NEGOTIATED_BYTES.into();
                Status::OK
            }
            (kind, _) if kind != self.component.profile().kind => {
                self.ignore(Ignored::Kind(kind), tell);
                Status::FAIL
            }
            (_, None) => {
                self.ignore(Ignored::NotAgreed, tell);
                Status::FAIL
            }
            (_, Some(agreed)) => {
                let status = self.component.request(now, agreed.message, body, tell);
                if status.is_ok() || status == Status::NO_MORE_ITEMS {
                    self.counters.done = self.counters.done.saturating_add(1);
                } else {
                    self.ignore(Ignored::Refused(status), tell);
                }
                status
            }
        };
        header.status = status.0.into();
        header.flags = Flags::ANSWER.bits();
        if asks { Outcome::Answer } else { Outcome::Silence }
    }

    fn negotiate(&mut self, body: &mut [u8], tell: Tell<'_>) {
        let profile = self.component.profile();
        match negotiate(profile.known, body) {
            Ok(agreed) => {
                self.agreed = agreed;
                if let Some(agreed) = agreed {
                    self.counters.agreements = self.counters.agreements.saturating_add(1);
                    self.component.agreed(agreed.message);
                    tell(Event::Agreed(agreed));
                } else {
                    self.counters.disagreements = self.counters.disagreements.saturating_add(1);
                    log::warn!(target: "vmbus::ic", "{}: the host knows no version that is known here", profile.name);
                    tell(Event::NothingInCommon);
                }
            }
            Err(why) => {
                self.agreed = None;
                self.ignore(Ignored::Offer(why), tell);
            }
        }
    }

    /// Counts what was ignored, and says so.
    pub fn ignore(&mut self, ignored: Ignored, tell: Tell<'_>) {
        if self.counters.count(ignored) {
            let name = self.component.profile().name;
            log::warn!(target: "vmbus::ic", "{name}: {ignored} (shown at powers of two)");
        }
        tell(Event::Ignored(ignored));
    }

    /// What came of it so far.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { agreed: self.agreed, counters: self.counters }
    }
}

/// The message's header, and its body.
fn split(bytes: &mut [u8]) -> Option<(&mut Header, &mut [u8])> {
    let (_, message) = PipeHeader::mut_from_prefix(bytes).ok()?;
    Header::mut_from_prefix(message).ok()
}

#[cfg(test)]
mod tests;
