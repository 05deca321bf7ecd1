//! The bus as applications use it: a handle to the executor, whose calls wait for its answers.

mod settings;

pub use settings::{OpenOptions, Settings};

use uuid::Uuid;
use vmbus::class::Class;
use vmbus::link::Link;
use vmbus::message::Version;

use crate::{Channel, ChannelId, Dispatched, Error, Handler, Offer, Subscription};

/// A connection to the host. Clones are the same connection; so are the channels opened through it, which keep it.
/// Its end is [`shutdown`](Self::shutdown), or the drop of the last clone and channel, which waits for nobody.
///
/// Calls that wait are refused with [`Error::Callback`] on the threads that they would wait for: the executor's and
/// the dispatchers', where [`Handler`]s run.
#[derive(Debug, Clone)]
pub struct Vmbus {}

impl Vmbus {
    /// Starts the executor over a link, agrees on a version with the host, and waits until everything that is there
    /// has been offered.
    ///
    /// # Errors
    /// The link can't be started; [`Error::Version`], [`Error::Silent`], [`Error::Lost`].
    pub fn start(link: Box<dyn Link>, settings: Settings) -> Result<Self, Error> {
        let _ = (link, settings);
        Err(Error::Ended)
    }

    /// The version of the protocol that was agreed on.
    #[must_use]
    pub fn version(&self) -> Version {
        Version(0)
    }

    /// What the host offers now.
    ///
    /// # Errors
    /// The bus has ended; [`Error::Callback`].
    pub fn offers(&self) -> Result<Vec<Offer>, Error> {
        Err(Error::Ended)
    }

    /// The primary channels of a class.
    ///
    /// # Errors
    /// As [`offers`](Self::offers). None is not an error.
    pub fn of_class(&self, class: Class) -> Result<Vec<Offer>, Error> {
        let _ = class;
        Err(Error::Ended)
    }

    /// The primary channel of a device by its instance id, which it keeps across rescinds and resumes.
    ///
    /// # Errors
    /// [`Error::NotFound`]; as [`offers`](Self::offers).
    pub fn find(&self, instance: Uuid) -> Result<Offer, Error> {
        let _ = instance;
        Err(Error::Ended)
    }

    /// Announcements from now on: first everything that is present as `Arrived`, then `AllArrived`, then changes in order.
    ///
    /// # Errors
    /// As [`offers`](Self::offers).
    pub fn subscribe(&self) -> Result<Subscription, Error> {
        Err(Error::Ended)
    }

    /// Opens a channel whose owner receives by itself: see [`Channel`].
    ///
    /// # Errors
    /// [`Error::Gone`], rescinded ([`Error::is_rescinded`]), [`Error::State`] when it is open already,
    /// [`Error::Host`], [`Error::Silent`], [`Error::Memory`], [`Error::Argument`]; as [`offers`](Self::offers).
    pub fn open(&self, channel: ChannelId, options: OpenOptions) -> Result<Channel, Error> {
        let _ = (channel, options);
        Err(Error::Ended)
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
        let _ = (channel, options, handler);
        Err(Error::Ended)
    }

    /// Moves the interrupts of an open channel to another processor, without losing one.
    ///
    /// # Errors
    /// [`Error::Argument`] for a processor that there is not or a host that can't; as [`open`](Self::open).
    pub fn move_channel(&self, channel: ChannelId, processor: u32) -> Result<(), Error> {
        let _ = (channel, processor);
        Err(Error::Ended)
    }

    /// Says goodbye to the host for a while: every channel departs, and open ones end as if they were rescinded.
    ///
    /// # Errors
    /// As [`offers`](Self::offers); [`Error::Silent`].
    pub fn suspend(&self) -> Result<(), Error> {
        Err(Error::Ended)
    }

    /// Contacts the host again after [`suspend`](Self::suspend), and waits until everything has been offered.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn resume(&self) -> Result<(), Error> {
        Err(Error::Ended)
    }

    /// Asks the host for a connection to a hvsock service. Success is an offer with `endpoint` in its user-defined
    /// bytes, which a subscription sees; this call waits for neither.
    ///
    /// # Errors
    /// As [`offers`](Self::offers).
    pub fn tl_connect(&self, endpoint: Uuid, service: Uuid, silo: Option<Uuid>) -> Result<(), Error> {
        let _ = (endpoint, service, silo);
        Err(Error::Ended)
    }

    /// Says goodbye to the host, ends all threads of the bus and joins them. Channels that are still open end with
    /// [`Error::Ended`]. A second call does nothing.
    ///
    /// # Errors
    /// [`Error::Callback`]; [`Error::Silent`] when the host did not say goodbye, and [`Error::Panicked`]; everything is
    /// ended all the same.
    pub fn shutdown(&self) -> Result<(), Error> {
        Err(Error::Ended)
    }
}
