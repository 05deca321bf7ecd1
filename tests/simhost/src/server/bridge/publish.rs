//! Sockets of this machine that lead to listeners in guests.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use uuid::Uuid;

use super::{Bridges, Places, carry};
use crate::memory::MappedMemory;
use crate::plain::{Bell, Plain, PlainAddr, PlainListener};
use crate::server::{Control, spawn};
use crate::{Error, Memory};

/// The guests that are there, in the order in which they came.
#[derive(Debug)]
pub(in crate::server) struct Guests<M: Memory = MappedMemory>(Arc<Mutex<Vec<Control<M>>>>);

impl<M: Memory> Clone for Guests<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<M: Memory + 'static> Guests<M> {
    /// One more has come.
    pub(in crate::server) fn add(&self, guest: Control<M>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(guest);
    }

    /// Some have gone: they are forgotten.
    pub(in crate::server) fn forget_gone(&self) {
        // Whoever takes orders is there; this one is none.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|guest| guest.when(|_| true).is_ok());
    }

    /// The first that is there; those before it are forgotten.
    fn first(&self) -> Option<Control<M>> {
        loop {
            let first = self.0.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()?;
            // Not with the lock held: a guest that has not said its hello is waited for.
            if first.counters().is_ok() {
                return Some(first);
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|guest| !guest.is_same(&first));
        }
    }
}

/// Listens until it is dropped.
#[derive(Debug)]
pub(in crate::server) struct Publisher {
    bell: Arc<Bell>,
    threads: Vec<JoinHandle<()>>,
    addresses: Vec<PlainAddr>,
}

impl Publisher {
    /// Listens on everything that is to be published.
    ///
    /// # Errors
    /// [`Error::Listen`]; [`Error::System`].
    pub(in crate::server) fn start<M: Memory + 'static>(bridges: &Bridges) -> Result<(Self, Guests<M>), Error> {
        let bell = Bell::new().map_err(|error| Error::System { what: "create an eventfd", error })?;
        let guests = Guests(Arc::default());
        let mut publisher = Self { bell: Arc::new(bell), threads: Vec::new(), addresses: Vec::new() };
        for (addr, service) in &bridges.published {
            let failed = |error| Error::Listen { addr: addr.to_string(), error };
            let listener = PlainListener::bind(addr).map_err(failed)?;
            publisher.addresses.push(listener.local().map_err(failed)?);
            let (bell, guests, service) = (Arc::clone(&publisher.bell), guests.clone(), *service);
            publisher.threads.push(spawn("simhost-publish", move || listen(&listener, &bell, &guests, service))?);
        }
        Ok((publisher, guests))
    }

    /// Where it listens, in the order in which that was asked for.
    pub(in crate::server) fn addresses(&self) -> &[PlainAddr] {
        &self.addresses
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.bell.ring();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!(target: "vmbus::simhost", "a listening thread panicked");
            }
        }
    }
}

fn listen<M: Memory + 'static>(listener: &PlainListener, bell: &Bell, guests: &Guests<M>, service: Uuid) {
    let places = Places::default();
    loop {
        let plain = match listener.accept(bell) {
            Ok(plain) => plain,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => return,
            Err(error) => {
                log::warn!(target: "vmbus::simhost", "listening ends: {error}");
                return;
            }
        };
        let Some(place) = places.take() else {
            plain.reset();
            continue;
        };
        let guests = guests.clone();
        let work = move || {
            if let Err(error) = connect_into(&guests, service, plain) {
                log::debug!(target: "vmbus::simhost", "no connection into a guest: {error}");
            }
            drop(place);
        };
        if let Err(error) = spawn("simhost-connect", work) {
            log::warn!(target: "vmbus::simhost", "a connection is dropped: {error}");
        }
    }
}

fn connect_into<M: Memory + 'static>(guests: &Guests<M>, service: Uuid, plain: Plain) -> Result<(), Error> {
    let Some(guest) = guests.first() else {
        plain.reset();
        return Err(Error::GuestGone);
    };
    carry::over(Arc::new(plain), guest.waker(), |conduit| {
        guest.with(move |simulation| simulation.host().connect_with(service, conduit).map(drop))?
    })
}
