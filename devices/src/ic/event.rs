//! What a user of an integration component hears of.

use std::fmt;

use super::negotiate::{Agreed, BadOffer};
use super::wire::{MessageType, Status};
use super::{fcopy, heartbeat, kvp, shutdown, timesync, vss};

/// Something happened.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Host and guest agreed on versions, maybe not for the first time.
    Agreed(Agreed),
    /// The host offered versions, and none is known here: it will ask for nothing.
    NothingInCommon,
    /// The host asked whether this guest is alive, and was told.
    Heartbeat(heartbeat::Beat),
    /// The host wants this guest down.
    Shutdown(shutdown::Notice),
    /// The host told the time.
    Time(timesync::Notice),
    /// The host read or wrote keys.
    Kvp(kvp::Notice),
    /// The host had file systems frozen or thawed.
    Vss(vss::Notice),
    /// The host copied a file, or not.
    Copy(fcopy::Notice),
    /// Something was not taken, or not done.
    Ignored(Ignored),
}

/// What was ignored, or answered by no more than a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ignored {
    /// A packet too short for a message's frame; not answered.
    Short {
        /// Its bytes.
        bytes: usize,
    },
    /// A packet longer than any message; not answered.
    Long {
        /// Its bytes.
        bytes: usize,
    },
    /// A packet of another type than in-band data; not answered.
    PacketType(u16),
    /// Offered versions that make no sense; answered as "none in common".
    Offer(BadOffer),
    /// A message of another component, or of none.
    Kind(MessageType),
    /// A request before versions were agreed on.
    NotAgreed,
    /// A request that was answered by a failure.
    Refused(Status),
    /// The host made no room for an answer, which is dropped.
    NoRoom,
}

impl fmt::Display for Ignored {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short { bytes } => write!(formatter, "a packet of {bytes} bytes, too short for a message"),
            Self::Long { bytes } => write!(formatter, "a packet of {bytes} bytes, longer than any message"),
            Self::PacketType(kind) => write!(formatter, "a packet of type {kind}"),
            Self::Offer(why) => write!(formatter, "{why}"),
            Self::Kind(kind) => write!(formatter, "a message of type {}", kind.0),
            Self::NotAgreed => formatter.write_str("a request before versions were agreed on"),
            Self::Refused(status) => write!(formatter, "a request that failed with {status}"),
            Self::NoRoom => formatter.write_str("an answer that the host made no room for"),
        }
    }
}

/// How often what happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Offers of versions that ended in an agreement.
    pub agreements: u64,
    /// Offers of versions without any in common, or that made no sense.
    pub disagreements: u64,
    /// Requests that were done.
    pub done: u64,
    /// Requests that failed, of unknown types, or before the agreement.
    pub refused: u64,
    /// Packets that were none of the protocol.
    pub malformed: u64,
    /// Answers that the host made no room for.
    pub dropped: u64,
}

impl Counters {
    /// Counts what was ignored, and says whether it is worth a line in the log: the 1st, 2nd, 4th, 8th ... of its kind.
    pub(super) fn count(&mut self, ignored: Ignored) -> bool {
        let counter = match ignored {
            Ignored::Short { .. } | Ignored::Long { .. } | Ignored::PacketType(_) => &mut self.malformed,
            Ignored::Offer(_) => &mut self.disagreements,
            Ignored::Kind(_) | Ignored::NotAgreed | Ignored::Refused(_) => &mut self.refused,
            Ignored::NoRoom => &mut self.dropped,
        };
        *counter = counter.saturating_add(1);
        counter.is_power_of_two()
    }
}

/// How a service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// What was spoken last, if it came to that.
    pub agreed: Option<Agreed>,
    /// What was counted.
    pub counters: Counters,
}
