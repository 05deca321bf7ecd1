//! Processors without a dispatcher, and which channel has each. Given out before the host is asked to open, since that
//! message says where its interrupts go; given back when the channel has no user left, or was not opened.

use std::sync::Arc;

use vmbus::link::Link;

use crate::ChannelId;
use crate::control::Ticket;
use crate::dispatch::{Direct, DirectProcessor};

/// Who has a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Nobody.
    Free,
    /// A channel that is being opened.
    Opening(Ticket),
    /// A channel that is open.
    Open(ChannelId),
}

#[derive(Debug)]
struct Place {
    number: u32,
    processor: Arc<DirectProcessor>,
    taken: Taken,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct DirectProcessors(Vec<Place>);

impl DirectProcessors {
    /// All processors of the link from this number on, as far as they have interrupts of their own.
    pub(super) fn new(link: &mut dyn Link, first: usize) -> Self {
        let found = (first..link.processors()).filter_map(|number| {
            let processor = Arc::new(DirectProcessor::new(link.interrupts(number)?));
            Some(Place { number: u32::try_from(number).ok()?, processor, taken: Taken::Free })
        });
        Self(found.collect())
    }

    /// Takes a free one for a channel that is to be opened.
    pub(super) fn take(&mut self, ticket: Ticket) -> Option<u32> {
        let place = self.0.iter_mut().find(|place| place.taken == Taken::Free)?;
        place.taken = Taken::Opening(ticket);
        Some(place.number)
    }

    /// The channel of this ticket is open. Its place, if it has one.
    pub(super) fn opened(&mut self, ticket: Ticket, channel: ChannelId, relid: u32) -> Option<Direct> {
        let place = self.0.iter_mut().find(|place| place.taken == Taken::Opening(ticket))?;
        place.taken = Taken::Open(channel);
        // What is left of whoever was here: flags of other relids, which nobody minds, and interrupts that are on their
        // way, for which the newcomer looks once and finds nothing.
        Some(Direct::new(Arc::clone(&place.processor), usize::try_from(relid).ok()?))
    }

    /// The channel of this ticket was not opened.
    pub(super) fn failed(&mut self, ticket: Ticket) {
        self.give_back(Taken::Opening(ticket));
    }

    /// The channel has no user any more.
    pub(super) fn left(&mut self, channel: ChannelId) {
        self.give_back(Taken::Open(channel));
    }

    /// Whether a channel has one.
    pub(super) fn has(&self, channel: ChannelId) -> bool {
        self.0.iter().any(|place| place.taken == Taken::Open(channel))
    }

    fn give_back(&mut self, taken: Taken) {
        self.0.iter_mut().filter(|place| place.taken == taken).for_each(|place| place.taken = Taken::Free);
    }
}
