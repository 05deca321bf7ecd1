//! One channel: its state at the host, and who here still holds it. The two are kept apart on purpose.

use vmbus::message::GpadlId;

use super::Answer;
use super::input::{OpenSettings, Ticket};
use super::table::Device;
use crate::timers::TimerKey;
use crate::{ChannelId, Offer};

/// Where a channel is between the host and us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// On offer; nothing is shared with the host.
    Offered,
    /// Opening, first half: the ring is shared, GPADL_CREATED is awaited. Without a ticket: in quarantine.
    Sharing(Opening),
    /// Opening, second half: OPEN is posted, its result is awaited. Without a ticket: in quarantine.
    Requested(Opening, u32),
    /// Open, here and at the host.
    Open,
    /// Closing: the dispatcher and whoever holds a reference are to let go. The host knows nothing of it yet.
    Draining,
    /// Closing a reserved channel: CLOSE_RESERVED is posted, its answer is awaited.
    ClosingReserved,
    /// Closing: CLOSE is posted; the host is to let go of all memory. With its timer run out: in quarantine.
    TearingDown,
    /// The host took it back, or the connection ended. It is released when nobody here holds it any more.
    Departed,
}

impl State {
    /// For messages to people: "the channel is ...".
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Offered => "not open",
            Self::Sharing(opening) | Self::Requested(opening, _) if opening.ticket.is_none() => {
                "in quarantine: the host never answered an open"
            }
            Self::Sharing(_) | Self::Requested(..) => "being opened",
            Self::Open => "open",
            Self::Draining => "being closed, and still in use",
            Self::ClosingReserved | Self::TearingDown => "being closed",
            Self::Departed => "gone",
        }
    }
}

/// An open that waits for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Opening {
    /// Who asked. `None` after the wait timed out: nobody wants the channel any more.
    pub(super) ticket: Option<Ticket>,
    pub(super) settings: OpenSettings,
    pub(super) timer: Option<TimerKey>,
}

/// Whether a dispatcher has the channel in its map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mapped {
    No,
    Yes,
    /// `Retire` was said, `Retired` not yet.
    Retiring,
}

/// A move to another processor that the host has not confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moving {
    pub(super) from: u32,
    pub(super) to: u32,
    /// `None` after the wait timed out.
    pub(super) ticket: Option<Ticket>,
    pub(super) timer: Option<TimerKey>,
}

/// One channel.
#[derive(Debug, Clone)]
pub(super) struct Channel {
    pub(super) offer: Offer,
    pub(super) state: State,
    /// Subscribers were told of its arrival, and not yet of its departure.
    pub(super) announced: bool,
    /// It could not be made visible: it is given back as soon as it is not open.
    pub(super) condemned: bool,
    /// Its number ended with the connection: nothing is posted about it any more.
    pub(super) severed: bool,
    /// Departed with the connection, and the host has not confirmed that it let go of the memory.
    pub(super) host_reaches: bool,
    /// `Opened` was said, `Unreferenced` not yet.
    pub(super) referenced: bool,
    pub(super) mapped: Mapped,
    /// In whose map.
    pub(super) processor: u32,
    /// Processors whose maps forward stray interrupts to where the channel went.
    pub(super) forwarding: Vec<u32>,
    pub(super) moving: Option<Moving>,
    /// Interrupt source, if opened as a reserved channel.
    pub(super) reserved: Option<u32>,
    pub(super) ring: Option<GpadlId>,
    /// GPADLs other than the ring.
    pub(super) buffers: Vec<GpadlId>,
    /// Who waits until the channel is closed, and what they are told then.
    pub(super) closers: Vec<(Ticket, Answer)>,
    pub(super) close_timer: Option<TimerKey>,
}

impl Channel {
    /// A channel that was just offered, not announced yet.
    pub(super) fn new(offer: Offer) -> Self {
        Self {
            offer,
            state: State::Offered,
            announced: false,
            condemned: false,
            severed: false,
            host_reaches: false,
            referenced: false,
            mapped: Mapped::No,
            processor: 0,
            forwarding: Vec::new(),
            moving: None,
            reserved: None,
            ring: None,
            buffers: Vec::new(),
            closers: Vec::new(),
            close_timer: None,
        }
    }

    pub(super) fn id(&self) -> ChannelId {
        self.offer.id
    }

    pub(super) fn relid(&self) -> u32 {
        self.offer.relid
    }

    pub(super) fn device(&self) -> Device {
        (self.offer.class, self.offer.instance, self.offer.subchannel_index)
    }

    pub(super) fn is_departed(&self) -> bool {
        self.state == State::Departed
    }

    pub(super) fn has_gpadls(&self) -> bool {
        self.ring.is_some() || !self.buffers.is_empty()
    }

    /// All GPADLs, in the order in which they are torn down: the ring is last.
    pub(super) fn gpadls(&self) -> impl Iterator<Item = GpadlId> {
        self.buffers.iter().copied().chain(self.ring)
    }

    /// Tickets that wait at the channel itself (not at its buffers).
    pub(super) fn tickets(&self) -> usize {
        let opening = match &self.state {
            State::Sharing(opening) | State::Requested(opening, _) => usize::from(opening.ticket.is_some()),
            _ => 0,
        };
        let moving = usize::from(self.moving.as_ref().is_some_and(|moving| moving.ticket.is_some()));
        opening + moving + self.closers.len()
    }
}
