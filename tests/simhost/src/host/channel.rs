//! What the host knows of one channel, and what takes its time.

use std::collections::VecDeque;
use std::time::Duration;

use vmbus::message::{GpadlId, OfferFlags, OpenChannel};
use vmbus_ringbuf::{Reader, Writer};

use crate::{Device, DeviceSpec, Random};

/// Names an offer: a device that is offered, from the command to offer it until it is rescinded and released, across
/// unload and new contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfferId(pub u64);

/// Refused GPADLs of a rescinded channel that are remembered.
const REFUSED_AT_MOST: usize = 256;

/// One channel.
pub(super) struct Channel<R> {
    pub(super) spec: DeviceSpec,
    /// While it is offered to the guest.
    pub(super) relid: Option<u32>,
    pub(super) monitor: Option<u8>,
    pub(super) state: State<R>,
    pub(super) device: Option<Box<dyn Device>>,
    /// Offer it again, on the same relid, as soon as the guest has released it.
    pub(super) reoffer: bool,
    /// Not to be offered again after an unload: a connection, or a subchannel that came while it ran.
    pub(super) passing: bool,
    /// To be offered when the offer of the same instance before it is released.
    pub(super) waits: bool,
    /// The sequence number of the rescind.
    pub(super) rescinded_at: u64,
    /// GPADLs that were refused because of the rescind, newest last: the guest may take them down before it hears that.
    pub(super) refused: VecDeque<GpadlId>,
    /// More packets are waiting than one turn takes.
    pub(super) again: bool,
    /// What the device draws from.
    pub(super) random: Random,
}

/// Where a channel is in its life.
pub(super) enum State<R> {
    /// The guest does not know of it: no connection, or offers not requested.
    Hidden,
    /// Offered and closed.
    Offered,
    /// OPEN is being worked on.
    Opening(Box<OpenChannel>, OpenKind),
    /// Open.
    Open(Box<Opened<R>>),
    /// Rescinded, and not released yet.
    Rescinded,
}

/// By which of the two messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OpenKind {
    Usual,
    Reserved,
}

/// An open channel.
pub(super) struct Opened<R> {
    pub(super) reader: Reader<R>,
    pub(super) writer: Writer<R>,
    pub(super) request: OpenChannel,
    pub(super) kind: OpenKind,
    /// Where interrupts go; `None` is nowhere.
    pub(super) processor: Option<u32>,
    /// Which event flag.
    pub(super) flag: u32,
    /// A move that is under way, and one that came meanwhile.
    pub(super) moving: Option<u32>,
    pub(super) moving_next: Option<u32>,
    /// The guest broke a ring: the device gets no more turns.
    pub(super) broken: bool,
}

impl<R> std::fmt::Debug for Channel<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { spec, relid, state, .. } = self;
        write!(formatter, "{spec:?} on {relid:?} is {}", state.name())
    }
}

impl<R> State<R> {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::Offered => "offered",
            Self::Opening(..) => "opening",
            Self::Open(_) => "open",
            Self::Rescinded => "rescinded",
        }
    }

    pub(super) const fn is_rescinded(&self) -> bool {
        matches!(self, Self::Rescinded)
    }
}

impl<R> Channel<R> {
    /// When the device wants a turn.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let State::Open(opened) = &self.state else { return None };
        if opened.broken {
            return None;
        }
        if self.again { Some(Duration::ZERO) } else { self.device.as_ref()?.deadline() }
    }

    /// The connection id that the guest chose for its signals, if it did.
    pub(super) fn guest_connection(&self) -> Option<u32> {
        match &self.state {
            State::Open(opened) => opened.request.signal.map(|(connection, _)| connection),
            _ => None,
        }
    }

    /// Whether it is a hvsock connection: one that came of TL_CONNECT, or of a command to connect to the guest.
    pub(super) fn is_connection(&self) -> bool {
        self.passing && self.spec.flags.contains(OfferFlags::TLNPI_PROVIDER)
    }

    /// Remembers a GPADL that was refused because of the rescind.
    pub(super) fn note_refused(&mut self, gpadl: GpadlId) {
        if self.refused.len() >= REFUSED_AT_MOST {
            self.refused.pop_front();
        }
        self.refused.push_back(gpadl);
    }

    /// Ends the device's part, if it had one.
    pub(super) fn device_closed(&mut self) {
        self.again = false;
        if let Some(device) = &mut self.device {
            device.closed();
        }
    }
}

/// What is known of a relid.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) channel: Option<OfferId>,
    /// Offers on this connection.
    pub(super) offers: u64,
    /// Releases since the last offer.
    pub(super) released: u32,
}

/// What takes its time.
#[derive(Debug, Clone, Copy)]
pub(super) enum Completion {
    Open(OfferId),
    Gpadl(GpadlId),
    Teardown(GpadlId),
    Modify(OfferId),
    /// Nobody opened a hvsock channel.
    Unaccepted(OfferId),
}

impl Completion {
    /// Whether it is the channel's. (GPADLs have numbers of their own, and their channel's rescind sees to them.)
    pub(super) fn is_about(&self, channel: OfferId) -> bool {
        match self {
            Self::Open(id) | Self::Modify(id) | Self::Unaccepted(id) => *id == channel,
            Self::Gpadl(_) | Self::Teardown(_) => false,
        }
    }
}
