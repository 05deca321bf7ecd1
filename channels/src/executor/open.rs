//! From an open that the host granted to a handle: the one place where references to a channel begin.

use std::sync::{Arc, Weak};

use vmbus::class::Class;
use vmbus::link::Port;
use vmbus::message::{GpadlId, Version};

use super::reply::{Reply, Waiting};
use super::run::Executor;
use crate::channel::{Dispatched, Hold, Way};
use crate::control::{Command, Core, Input, OpenSettings, Ticket};
use crate::dispatch::Entry;
use crate::{Channel, ChannelId, Error, Offer, Placement};

impl Executor {
    /// Makes the handle, puts the channel into its map, and answers, in this order: the host may have sent already, and
    /// what it flagged meanwhile is looked after when the channel enters the map.
    ///
    /// Whatever fails, the last reference is given back: by `Hold`, once there is one, and here before that.
    pub(super) fn opened(&mut self, ticket: Ticket, channel: ChannelId, relid: u32, ring: GpadlId, processor: u32) {
        let direct = self.direct.opened(ticket, channel, relid);
        let Some(Waiting { reply, .. }) = self.waiting.remove(&ticket) else {
            self.direct.left(channel);
            self.following.push_back(Input::Unreferenced(channel));
            return;
        };
        let way = match (direct, &reply) {
            (Some(direct), _) => Some(Way::Direct(direct)),
            (None, Reply::Dispatched(..)) => Some(Way::Told),
            (None, _) => None,
        };
        let (outgoing, incoming, hold) = match self.hold(channel, relid, ring, way) {
            Ok(ends) => ends,
            Err(error) => {
                self.direct.left(channel);
                reply.fail(error);
                self.following.push_back(Input::Unreferenced(channel));
                return;
            }
        };
        self.open.insert(channel, Arc::downgrade(&hold));
        match reply {
            Reply::Channel(to, _) => {
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

    /// Chooses the processor of a channel that is to be opened, and checks what the application has chosen. Those without
    /// dispatchers are nobody's to name.
    pub(super) fn place(&mut self, ticket: Ticket, command: &mut Command, reply: &Reply) -> Result<(), Error> {
        // Hosts before Windows 8 interrupt processor 0, whatever they are asked for.
        let targeted = |core: &Core| core.agreed().is_some_and(|agreed| agreed.version >= Version::V3_0);
        match command {
            Command::Open(_, OpenSettings { processor, .. }) | Command::Move(_, processor)
                if *processor >= self.shared_processors =>
            {
                Err(Error::Argument("there is no such processor"))
            }
            Command::Open(_, settings) => {
                if matches!(reply, Reply::Channel(_, Placement::Direct)) && targeted(&self.core) {
                    settings.processor = self.direct.take(ticket).unwrap_or(settings.processor);
                }
                Ok(())
            }
            Command::Move(channel, _) if self.direct.has(*channel) => Err(Error::State {
                device: self.offers.get(channel).map(|offer| offer.device()).unwrap_or_default(),
                state: "on a processor of its own",
                hint: "close it, then open it again with Placement::Shared",
            }),
            _ => Ok(()),
        }
    }

    /// Whether a channel is open and its owner waits for interrupts by himself.
    fn is_alone(&self, channel: ChannelId) -> bool {
        self.open.get(&channel).and_then(Weak::upgrade).is_some_and(|hold| matches!(hold.way(), Way::Alone))
    }

    fn hold(&mut self, channel: ChannelId, relid: u32, ring: GpadlId, way: Option<Way>) -> Result<Ends, Error> {
        let offer = self.offers.get(&channel).cloned().ok_or(Error::Gone(channel))?;
        let Port { outgoing, incoming, line } = self.link.port(relid, ring)?;
        if line.descriptor().is_some() && offer.primary.is_some_and(|primary| self.is_alone(primary)) {
            let hint = "close it, then open it again with open_dispatched";
            return Err(Error::State {
                device: offer.device(),
                state: "open with an owner who waits by himself",
                hint,
            });
        }
        let way = way.unwrap_or_else(|| {
            let told = is_one_of_many(&offer) || line.descriptor().is_none();
            if told { Way::Told } else { Way::Alone }
        });
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
