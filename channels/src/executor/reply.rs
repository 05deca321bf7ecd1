//! Who waits for the answer to a command, and what is made of it.

use std::fmt;
use std::sync::Arc;

use vmbus::memory::Ring;

use super::queue::Answers;
use crate::channel::{Dispatched, Hold};
use crate::control::{Command, Refusal};
use crate::dispatch::Entry;
use crate::{Buffer, Channel, ChannelId, Error, Offer, Placement};

/// What errors call the bus as a whole.
pub(super) const BUS: &str = "(the bus)";

/// Who waits for the answer to a command.
#[derive(Debug)]
pub(crate) enum Reply {
    /// Nobody.
    Nobody,
    /// Somebody who wants it done.
    Done(Answers<()>),
    /// Somebody who wants a channel that he receives from himself, on such a processor.
    Channel(Answers<Channel>, Placement),
    /// Somebody who wants a channel whose packets go to a handler.
    Dispatched(Answers<Dispatched>, MakeEntry),
    /// Somebody who wants a buffer of a channel that he holds.
    Buffer(Answers<Buffer>, Arc<Hold>),
    /// Somebody who wants a connection to a service.
    Connected(Answers<ChannelId>),
    /// Somebody, or nobody, who wants the bus to end.
    Stopped(Option<Answers<()>>),
}

type Make = dyn FnOnce(Ring, Arc<Hold>) -> Result<Entry, Error> + Send;

/// A handler that waits for its channel: makes what the dispatcher calls.
pub(crate) struct MakeEntry(pub(crate) Box<Make>);

impl fmt::Debug for MakeEntry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Handler")
    }
}

impl Reply {
    /// Says that it did not work.
    pub(super) fn fail(self, error: Error) {
        // A receiver that is gone has stopped to care.
        match self {
            Self::Nobody => {}
            Self::Done(to) => drop(to.send(Err(error))),
            Self::Channel(to, _) => drop(to.send(Err(error))),
            Self::Dispatched(to, _) => drop(to.send(Err(error))),
            Self::Buffer(to, _) => drop(to.send(Err(error))),
            Self::Connected(to) => drop(to.send(Err(error))),
            Self::Stopped(to) => drop(to.map(|to| to.send(Err(error)))),
        }
    }
}

/// A command on its way.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) reply: Reply,
    /// The channel that it is about, as it was offered.
    offer: Option<Arc<Offer>>,
    /// What the host is to do.
    what: &'static str,
}

impl Waiting {
    pub(super) fn new(reply: Reply, command: &Command, offer: Option<Arc<Offer>>) -> Self {
        let what = match command {
            Command::Connect => "answer the first message and deliver its offers",
            Command::Resume => "answer the first message again and deliver its offers",
            Command::Suspend | Command::Unload => "say goodbye",
            Command::Open(..) | Command::OpenReserved(..) => "open the channel",
            Command::Close(_) => "close the channel",
            Command::CreateGpadl(..) => "share a buffer",
            Command::TearDownGpadl(..) => "give a buffer back",
            Command::Move(..) => "move the channel",
            Command::TlConnect { .. } => "connect",
            _ => "answer",
        };
        Self { reply, offer, what }
    }

    pub(super) fn fail(self, error: Error) {
        self.reply.fail(error);
    }

    /// Says why the control plane refused.
    pub(super) fn refuse(self, refusal: Refusal) {
        let device = self.offer.as_deref().map_or_else(|| BUS.to_owned(), Offer::device);
        self.reply.fail(Error::refused(refusal, &device, self.what));
    }
}
