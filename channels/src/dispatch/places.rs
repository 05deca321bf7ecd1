//! What a dispatcher knows of each relid beside what to call: whose it is, and where it went.

use std::any::Any;
use std::collections::VecDeque;

use super::orders::Order;
use crate::ChannelId;

/// What a relid is to a dispatcher.
#[derive(Default)]
pub(super) enum Place {
    /// Nothing.
    #[default]
    Empty,
    /// A channel, which also has a target unless it has ended by itself.
    Here(Resident),
    /// A channel that was here and is at another processor now. What still arrives here is sent after it.
    Left { id: ChannelId, to: usize },
    /// A channel that is on its way here, and the orders that wait for it.
    Expected { id: ChannelId, waiting: VecDeque<Order> },
}

/// A channel that is here. Its parts are dropped in this order, after its target.
pub(super) struct Resident {
    pub(super) id: ChannelId,
    pub(super) hold: Option<Box<dyn Any + Send>>,
}

/// What to do with an event for which there is no target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stray {
    /// Count it.
    Nobody,
    /// Send it after the channel.
    Forward(ChannelId, usize),
    /// It will be looked after, or needs it no more.
    Drop,
}

/// What all relids are to a dispatcher.
pub(super) struct Places(Box<[Place]>);

impl Places {
    pub(super) fn new(relids: usize) -> Self {
        Self((0..relids).map(|_| Place::Empty).collect())
    }

    pub(super) fn get(&self, relid: usize) -> &Place {
        self.0.get(relid).unwrap_or(&Place::Empty)
    }

    pub(super) fn get_mut(&mut self, relid: usize) -> Option<&mut Place> {
        self.0.get_mut(relid)
    }

    /// Puts something into a place and returns what was there.
    pub(super) fn replace(&mut self, relid: usize, place: Place) -> Place {
        self.0.get_mut(relid).map_or(Place::Empty, |old| std::mem::replace(old, place))
    }

    /// Who owns the relid here, if somebody does.
    pub(super) fn resident(&self, relid: usize) -> Option<ChannelId> {
        match self.get(relid) {
            Place::Here(resident) => Some(resident.id),
            _ => None,
        }
    }

    pub(super) fn stray(&self, relid: usize) -> Stray {
        match self.get(relid) {
            Place::Empty => Stray::Nobody,
            Place::Left { id, to } => Stray::Forward(*id, *to),
            Place::Here(_) | Place::Expected { .. } => Stray::Drop,
        }
    }
}
