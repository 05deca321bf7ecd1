//! The bus as applications use it: a handle to the executor, whose calls wait for its answers.

mod settings;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

pub use settings::{Counters, OpenOptions, Placement, Settings};

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::direct::{DirectMemory, DirectSource};
use vmbus::link::Link;
use vmbus::message::{Features, Version};

use crate::channel;
use crate::control::{Agreed, Command, OpenSettings};
use crate::executor::{self, Event, MakeEntry, Queue, Reply};
use crate::{Channel, ChannelId, Dispatched, Error, Handler, Offer, Subscription, here};

/// A connection to the host. Clones are the same connection; so are the channels opened through it, which keep it.
/// Its end is [`shutdown`](Self::shutdown), or the drop of the last clone and channel, which waits for nobody.
///
/// Calls that wait are refused with [`Error::Callback`] on the threads that they would wait for: the executor's and
/// the dispatchers', where [`Handler`]s run.
#[derive(Debug, Clone)]
pub struct Vmbus {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    queue: Queue,
    /// `None`: not over this link.
    direct: Option<Arc<dyn DirectSource>>,
    /// Until it is joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The thread says goodbye and ends by itself. Nobody waits for that here.
        self.queue.tell(Event::Stop(None));
    }
}

impl Vmbus {
    /// Starts the executor over a link, agrees on a version with the host, and waits until everything that is there
    /// has been offered.
    ///
    /// # Errors
    /// The link can't be started; [`Error::Version`], [`Error::Contact`], [`Error::Silent`], [`Error::Lost`].
    pub fn start(link: Box<dyn Link>, settings: Settings) -> Result<Self, Error> {
        here::may_wait("start")?;
        let direct = link.direct_memory();
        let (queue, thread) = executor::start(link, settings)?;
        let bus = Self { inner: Arc::new(Inner { queue, direct, thread: Mutex::new(Some(thread)) }) };
        match bus.done("start", Command::Connect) {
            Ok(()) => Ok(bus),
            Err(error) => {
                // The link's threads are gone when the caller hears of it. What went wrong first is what it hears.
                let _ = bus.shutdown();
                Err(error)
            }
        }
    }

    /// What was agreed on with the host: the version of the protocol and its features.
    ///
    /// # Errors
    /// [`Error::NotConnected`] while suspended; the bus has ended; [`Error::Callback`].
    pub fn agreed(&self) -> Result<Agreed, Error> {
        self.inner.queue.ask("agreed", Event::Agreed)?.ok_or(Error::NotConnected)
    }

    /// The version of the protocol that was agreed on.
    ///
    /// # Errors
    /// As [`agreed`](Self::agreed).
    pub fn version(&self) -> Result<Version, Error> {
        Ok(self.agreed()?.version)
    }

    /// The features that were agreed on: none before 6.0.
    ///
    /// # Errors
    /// As [`agreed`](Self::agreed).
    pub fn features(&self) -> Result<Features, Error> {
        Ok(self.agreed()?.features)
    }

    /// What the host offers now.
    ///
    /// # Errors
    /// The bus has ended; [`Error::Callback`].
    pub fn offers(&self) -> Result<Vec<Offer>, Error> {
        self.inner.queue.ask("offers", Event::Offers)
    }

    /// The primary channels of a class.
    ///
    /// # Errors
    /// As [`offers`](Self::offers). None is not an error.
    pub fn of_class(&self, class: Class) -> Result<Vec<Offer>, Error> {
        let mut offers = self.offers()?;
        offers.retain(|offer| offer.class == class && offer.subchannel_index == 0);
        Ok(offers)
    }

    /// The primary channel of a device by its instance id, which it keeps across rescinds and resumes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; as [`offers`](Self::offers).
    pub fn find(&self, instance: Uuid) -> Result<Offer, Error> {
        let found = self.offers()?.into_iter().find(|offer| offer.instance == instance && offer.subchannel_index == 0);
        found.ok_or_else(|| Error::NotFound(instance.to_string()))
    }

    /// Announcements from now on: first everything that is present as `Arrived`, then `AllArrived`, then changes in order.
    ///
    /// # Errors
    /// As [`offers`](Self::offers).
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        Subscription::new(self.inner.queue.clone())
    }

    /// Opens a channel whose owner receives by itself: see [`Channel`].
    ///
    /// # Errors
    /// [`Error::Gone`], rescinded ([`Error::is_rescinded`]), [`Error::State`] when it is open already,
    /// [`Error::Host`], [`Error::Silent`], [`Error::Memory`], [`Error::Argument`]; as [`offers`](Self::offers).
    pub fn open(&self, channel: ChannelId, options: OpenOptions) -> Result<Channel, Error> {
        let (placement, command) = (options.placement, Command::Open(channel, options.into()));
        let opened = self.inner.queue.ask("open", |to| Event::Command(command, Reply::Channel(to, placement)))?;
        Ok(opened.keeping(self.clone()))
    }

    /// Opens a channel whose packets a dispatcher hands to `handler`: see [`Dispatched`].
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_dispatched(
        &self,
        channel: ChannelId,
        options: OpenOptions,
        handler: impl Handler + 'static,
    ) -> Result<Dispatched, Error> {
        let make = MakeEntry(Box::new(move |incoming, hold| channel::entry(incoming, hold, handler)));
        let command = Command::Open(channel, options.into());
        let queue = &self.inner.queue;
        let opened = queue.ask("open_dispatched", |to| Event::Command(command, Reply::Dispatched(to, make)))?;
        Ok(opened.keeping(self.clone()))
    }

    /// Takes memory that the host reaches by page numbers, for packets with GPA ranges: whole pages of zeroes. It is of no
    /// channel: keep it until the host can't use it any more.
    ///
    /// # Errors
    /// [`Error::Link`]: no memory, or this process may not pin any; [`Error::Argument`] over a link that has none.
    pub fn direct_memory(&self, bytes: usize) -> Result<DirectMemory, Error> {
        let source = self.inner.direct.as_ref();
        let source = source.ok_or(Error::Argument("this link has no memory that a host reaches by page numbers"))?;
        Ok(source.allocate(bytes)?)
    }

    /// Moves the interrupts of an open channel to another processor, without losing one.
    ///
    /// # Errors
    /// [`Error::Argument`] for a processor that there is not, [`Error::TooOld`]; as [`open`](Self::open).
    pub fn move_channel(&self, channel: ChannelId, processor: u32) -> Result<(), Error> {
        self.done("move_channel", Command::Move(channel, processor))
    }

    /// Says goodbye to the host for a while: every channel departs, and open ones end as if they were rescinded.
    ///
    /// # Errors
    /// As [`offers`](Self::offers); [`Error::Silent`].
    pub fn suspend(&self) -> Result<(), Error> {
        self.done("suspend", Command::Suspend)
    }

    /// Contacts the host again after [`suspend`](Self::suspend), and waits until everything has been offered.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn resume(&self) -> Result<(), Error> {
        self.done("resume", Command::Resume)
    }

    /// Connects to a hvsock service of the host, which offers a channel for it: open that. `endpoint` is chosen here;
    /// `silo` names a container, if any (from version 5.2 on).
    ///
    /// # Errors
    /// [`Error::Host`] when nobody listens there, [`Error::Silent`], [`Error::TooOld`]; as [`offers`](Self::offers).
    pub fn tl_connect(&self, endpoint: Uuid, service: Uuid, silo: Option<Uuid>) -> Result<ChannelId, Error> {
        let command = Command::TlConnect { endpoint, service, silo };
        self.inner.queue.ask("tl_connect", |to| Event::Command(command, Reply::Connected(to)))
    }

    /// What was counted so far; after the end, until then.
    ///
    /// # Errors
    /// [`Error::Callback`].
    pub fn counters(&self) -> Result<Counters, Error> {
        let queue = &self.inner.queue;
        match queue.ask("counters", Event::Count) {
            Err(error) => queue.last_counters().ok_or(error),
            counted => counted,
        }
    }

    /// Says goodbye to the host, ends all threads of the bus and joins them. Channels that are still open end with
    /// [`Error::Ended`]. A second call does nothing, and returns when the first has done everything.
    ///
    /// # Errors
    /// [`Error::Callback`], and nothing is ended; [`Error::Silent`] when the host did not say goodbye, and
    /// [`Error::Panicked`]: everything is ended all the same.
    pub fn shutdown(&self) -> Result<(), Error> {
        here::may_wait("shutdown")?;
        let queue = &self.inner.queue;
        let mut thread = self.inner.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = thread.take() else { return Ok(()) };
        let outcome = queue.ask("shutdown", |to| Event::Stop(Some(to)));
        // Its panics are caught: there is nothing to learn from the join.
        let _ = running.join();
        match outcome {
            // It had ended before, which is what was asked for.
            Err(Error::Ended | Error::Lost { .. }) => Ok(()),
            outcome => outcome,
        }
    }

    fn done(&self, what: &'static str, command: Command) -> Result<(), Error> {
        self.inner.queue.ask(what, |to| Event::Command(command, Reply::Done(to)))
    }
}

impl From<OpenOptions> for OpenSettings {
    fn from(options: OpenOptions) -> Self {
        let OpenOptions { outgoing_bytes, incoming_bytes, processor, user_defined, placement: _ } = options;
        Self { outgoing_bytes, incoming_bytes, processor, user_defined }
    }
}
