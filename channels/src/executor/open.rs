//! From an open that the host granted to a handle: the one place where references to a channel begin.

use std::sync::{Arc, Weak};

use vmbus::class::Class;
use vmbus::link::Port;
use vmbus::message::GpadlId;

use super::reply::{Reply, Waiting};
use super::run::Executor;
use crate::channel::{Dispatched, Hold, Way};
use crate::control::{Input, Ticket};
use crate::dispatch::Entry;
use crate::{Channel, ChannelId, Error, Offer};

impl Executor {
    /// Makes the handle, puts the channel into its map, and answers, in this order: the host may have sent already, and
    /// what it flagged meanwhile is looked after when the channel enters the map.
    ///
    /// Whatever fails, the last reference is given back: by `Hold`, once there is one, and here before that.
    pub(super) fn opened(&mut self, ticket: Ticket, channel: ChannelId, relid: u32, ring: GpadlId, processor: u32) {
        let Some(Waiting { reply, .. }) = self.waiting.remove(&ticket) else {
            self.following.push_back(Input::Unreferenced(channel));
            return;
        };
        let (outgoing, incoming, hold) = match self.hold(channel, relid, ring, matches!(reply, Reply::Dispatched(..))) {
            Ok(ends) => ends,
            Err(error) => {
                reply.fail(error);
                self.following.push_back(Input::Unreferenced(channel));
                return;
            }
        };
        self.open.insert(channel, Arc::downgrade(&hold));
        match reply {
            Reply::Channel(to) => {
                let entry = hold.is_told().then(|| Entry::tell(Arc::clone(hold.bells())).on_line(hold.line().clone()));
                let built = Channel::build(outgoing, incoming, hold);
                if let (Ok(_), Some(entry)) = (&built, entry) {
                    self.enter(processor, relid, channel, entry);
                }
                let _ = to.send(built);
            }
            Reply::Dispatched(to, make) => {
                let built = Dispatched::build(outgoing, Arc::clone(&hold));
                let made = built.and_then(|built| Ok((built, (make.0)(incoming, hold)?)));
                let _ = to.send(made.map(|(built, entry)| {
                    self.enter(processor, relid, channel, entry);
                    built
                }));
            }
            reply => {
                log::error!(target: "vmbus::executor", "channel {channel} was opened for {reply:?}");
                drop((outgoing, incoming));
            }
        }
    }

    fn enter(&mut self, processor: u32, relid: u32, channel: ChannelId, entry: Entry) {
        self.mapped.insert(channel);
        self.dispatchers.insert(processor, relid, channel, entry);
    }

    /// Whether a channel is open and its owner waits for interrupts by himself.
    fn is_alone(&self, channel: ChannelId) -> bool {
        self.open.get(&channel).and_then(Weak::upgrade).is_some_and(|hold| matches!(hold.way(), Way::Alone))
    }

    fn hold(&mut self, channel: ChannelId, relid: u32, ring: GpadlId, dispatched: bool) -> Result<Ends, Error> {
        let offer = self.offers.get(&channel).cloned().ok_or(Error::Gone(channel))?;
        let Port { outgoing, incoming, line } = self.link.port(relid, ring)?;
        let told = dispatched || is_one_of_many(&offer) || line.descriptor().is_none();
        if line.descriptor().is_some() && offer.primary.is_some_and(|primary| self.is_alone(primary)) {
            let hint = "close it, then open it again with open_dispatched";
            return Err(Error::State {
                device: offer.device(),
                state: "open with an owner who waits by himself",
                hint,
            });
        }
        let way = if told { Way::Told } else { Way::Alone };
        let hold = Hold::new(offer, line, way, Some(self.queue.clone()))?;
        Ok((outgoing, incoming, Arc::new(hold)))
    }
}

/// Whether a channel may share the descriptor of its device with others. Interrupts are counted once for all of them, so
/// that two who wait by themselves would take each other's: a dispatcher listens for both.
fn is_one_of_many(offer: &Offer) -> bool {
    offer.subchannel_index != 0 || [Class::NIC, Class::SCSI].contains(&offer.class)
}

/// What a port is taken apart into.
type Ends = (vmbus::memory::Ring, vmbus::memory::Ring, Arc<Hold>);
