//! What anybody may ask of a registry, from any thread; and a driver's place in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use vmbus_channels::ChannelId;

use super::input::{DriverId, Input};
use super::inside::Inside;
use super::mutation::{Mutations, mutated};
use super::sync::queue::{self, Post};
use super::{Counters, DeviceEntry, Driver};
use crate::Error;

/// Registries of this process, numbered.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// A handle to a registry. It does not keep it from ending; then all calls say [`Error::RegistryEnded`].
#[derive(Clone)]
pub struct Handle {
    inputs: Post<Input>,
    number: u64,
    mutations: Mutations,
}

impl Handle {
    pub(super) fn new(inputs: Post<Input>, mutations: Mutations) -> Self {
        Self { inputs, number: NUMBER.fetch_add(1, Ordering::Relaxed), mutations }
    }

    /// Registers a driver. Devices that are there already are probed, each once, and so is each that comes. Returns
    /// at once; [`settle`](Self::settle) waits for the probes. May be called from callbacks.
    ///
    /// # Errors
    /// [`Error::RegistryEnded`].
    pub fn register(&self, driver: impl Driver) -> Result<Registration, Error> {
        let (name, ids) = (driver.name(), driver.ids());
        let driver: Arc<dyn Driver> = Arc::new(driver);
        let id = self.ask(|reply| Input::Register(driver, name, ids, reply))?;
        Ok(Registration { handle: self.clone(), id })
    }

    /// Every device there is, and those that departed and are still being removed. May be called from callbacks.
    ///
    /// # Errors
    /// [`Error::RegistryEnded`].
    pub fn devices(&self) -> Result<Vec<DeviceEntry>, Error> {
        self.ask(Input::List)
    }

    /// What was counted so far. May be called from callbacks.
    ///
    /// # Errors
    /// [`Error::RegistryEnded`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.ask(Input::Count)
    }

    /// Has a device that nobody drives probed once more, by every driver that matches, until one drives it. Nothing
    /// happens to one that is driven. May be called from callbacks.
    ///
    /// # Errors
    /// [`Error::NoDevice`] when it is not there; [`Error::RegistryEnded`].
    pub fn reprobe(&self, channel: ChannelId) -> Result<(), Error> {
        self.ask(|reply| Input::Reprobe(channel, reply))?
    }

    /// Waits until everything heard so far has had its consequences: no probe, removal, or work is due or running.
    /// Timers that are armed don't count.
    ///
    /// # Errors
    /// [`Error::Callback`] in a callback of a driver; [`Error::RegistryEnded`].
    pub fn settle(&self) -> Result<(), Error> {
        self.may_wait("settle")?;
        self.ask(Input::Settle)
    }

    /// Announces devices by hand.
    #[cfg(any(test, feature = "mutations"))]
    pub fn announce(&self, announcement: vmbus_channels::Announcement) {
        self.post(Input::Announced(announcement));
    }

    /// As if the bus had cut us off: everything present is to be announced anew.
    #[cfg(any(test, feature = "mutations"))]
    pub fn announce_lag(&self) {
        self.post(Input::Lagged);
    }

    /// `false`: the registry has ended.
    pub(super) fn post(&self, input: Input) -> bool {
        self.inputs.post(input)
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn mutations(&self) -> Mutations {
        self.mutations
    }

    fn ask<T>(&self, question: impl FnOnce(Post<T>) -> Input) -> Result<T, Error> {
        let (reply, answer) = queue::queue();
        self.post(question(reply));
        // Also if it was not received: then nobody has the other end.
        answer.wait().ok_or(Error::RegistryEnded)
    }

    fn may_wait(&self, what: &'static str) -> Result<(), Error> {
        let refused = Inside::is(self.number) && !mutated!(self.mutations, WaitInCallback);
        if refused { Err(Error::Callback { what }) } else { Ok(()) }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Handle").field("number", &self.number).finish_non_exhaustive()
    }
}

/// A driver's place in a registry. The end is [`unregister`](Self::unregister); dropping this begins the same and
/// waits for nobody.
#[derive(Debug)]
#[must_use = "the driver is unregistered when this is dropped"]
pub struct Registration {
    handle: Handle,
    id: DriverId,
}

impl Registration {
    /// Takes all devices from the driver, then drops it. When this returns, no callback, timer, work item or wake-up
    /// of the driver runs, and none will. A second call finds nothing to do.
    ///
    /// Its devices go to other drivers that match.
    ///
    /// # Errors
    /// [`Error::Callback`] in a callback of any driver of this registry, also under a [`Use`](super::Use): it would
    /// wait for itself, or for one that waits for it. The driver stays registered.
    pub fn unregister(&self) -> Result<(), Error> {
        self.handle.may_wait("unregister")?;
        match self.handle.ask(|reply| Input::Unregister(self.id, Some(reply))) {
            // The registry has ended, and all drivers before it.
            Ok(()) | Err(Error::RegistryEnded) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.handle.post(Input::Unregister(self.id, None));
    }
}
