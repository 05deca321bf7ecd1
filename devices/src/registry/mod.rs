//! Drivers and devices brought together: who drives what, from a device's arrival to its removal.
//!
//! One thread has the table (`table`, a pure step) and hands tasks to workers (`worker`), which call the drivers.
//! Nothing of a driver runs under a lock, as there is none; and a removal waits for all of it.

mod arrivals;
mod context;
mod driver;
mod executor;
mod handle;
mod input;
mod inside;
mod listing;
#[cfg(any(test, feature = "mutations"))]
pub mod mutation;
#[cfg(not(any(test, feature = "mutations")))]
mod mutation;
mod operable;
mod sync;
mod table;
mod worker;

pub use arrivals::{Arrivals, Disconnected};
pub use context::{Context, Timer, Use, WakeUp};
pub use driver::{DeviceIds, Driver, Instance, Reason};
pub use handle::{Handle, Registration};
pub use listing::{Counters, DeviceEntry, DeviceState};
pub use operable::Operable;

use std::ops::Deref;

use vmbus_channels::Vmbus;

use self::executor::{Clock, Executor};
use self::input::Input;
use self::inside::Inside;
use self::mutation::{Mutations, mutated};
use self::sync::{queue, thread};
use self::table::Table;
use crate::Error;

/// How a registry is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Threads that call drivers. With two or more, one driver never has all of them at a time, so that one that is
    /// slow does not hold up the others.
    pub workers: usize,
}

impl Default for Settings {
    /// Four workers.
    fn default() -> Self {
        Self { workers: 4 }
    }
}

/// The most workers that make sense: there are no more than 2,047 channels, and few of them have something to do.
const MOST_WORKERS: usize = 256;

/// The registry of drivers. What it can do is at [`Handle`], which it derefs to and which may be cloned.
///
/// A device goes to the driver that was registered first among those that match. If that one fails, the next is
/// asked, each at most once for one arrival, as in Linux. Unlike there, a device whose driver is unregistered goes to
/// the next driver that matches, too.
///
/// The end is [`shutdown`](Self::shutdown). Dropping it begins the same and waits for nobody.
#[derive(Debug)]
pub struct Registry {
    handle: Handle,
    executor: Option<thread::JoinHandle<()>>,
}

impl Registry {
    /// Starts a registry for the devices of a bus.
    ///
    /// # Errors
    /// [`Error::Channel`] as [`Vmbus::subscribe`]; [`Error::Argument`] for no workers, or too many; [`Error::Thread`].
    pub fn start(vmbus: &Vmbus, settings: Settings) -> Result<Self, Error> {
        let arrivals = Box::new(vmbus.subscribe()?);
        Self::with(Some(arrivals), Some(vmbus.clone()), settings, Mutations::default())
    }

    /// Starts a registry for devices that somebody else announces; they can't be opened through [`Context::vmbus`].
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn over(arrivals: impl Arrivals, settings: Settings) -> Result<Self, Error> {
        Self::with(Some(Box::new(arrivals)), None, settings, Mutations::default())
    }

    /// A registry whose devices are announced by [`Handle::announce`], perhaps with a protection less.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    #[cfg(any(test, feature = "mutations"))]
    pub fn by_hand(settings: Settings, without: Option<mutation::Mutation>) -> Result<Self, Error> {
        Self::with(None, None, settings, Mutations::without(without))
    }

    fn with(
        arrivals: Option<Box<dyn Arrivals>>,
        vmbus: Option<Vmbus>,
        settings: Settings,
        mutations: Mutations,
    ) -> Result<Self, Error> {
        if !(1..=MOST_WORKERS).contains(&settings.workers) {
            return Err(Error::Argument("a driver registry has 1 to 256 workers"));
        }
        let (post, inputs) = queue::queue();
        let handle = Handle::new(post.clone(), mutations);
        let number = handle.number();
        let (tasks, waiting) = queue::queue();
        let mut workers = Vec::new();
        for index in 0..settings.workers {
            let (waiting, answers) = (waiting.clone(), post.clone());
            workers.push(spawn(format!("driver-{index}"), move || worker::serve(&waiting, &answers, number))?);
        }
        let table = Table::new(settings.workers, mutations, handle.clone(), vmbus);
        let clock = Clock::start();
        let (of_executor, in_a_row) = (handle.clone(), 0);
        let executor = Executor { table, inputs, arrivals, tasks, workers, handle: of_executor, clock, in_a_row };
        let executor = Some(spawn("drivers".to_owned(), move || executor.run())?);
        Ok(Self { handle, executor })
    }

    /// A handle, which does not keep the registry from ending.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Unregisters all drivers, with [`Reason::Shutdown`], and ends all threads of the registry. When it returns, no
    /// callback of any driver runs, and none will.
    ///
    /// # Errors
    /// [`Error::Callback`] in a callback of a driver; then this is a drop, which waits for nobody.
    pub fn shutdown(mut self) -> Result<(), Error> {
        if Inside::is(self.handle.number()) && !mutated!(self.handle.mutations(), WaitInCallback) {
            return Err(Error::Callback { what: "shutdown" });
        }
        self.handle.post(Input::Shutdown);
        if let Some(executor) = self.executor.take() {
            // A panic there would be a bug of ours, and everything has ended.
            let _ = executor.join();
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.handle.post(Input::Shutdown);
    }
}

impl Deref for Registry {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.handle
    }
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<thread::JoinHandle<()>, Error> {
    let named = name.clone();
    thread::Builder::new().name(named).spawn(body).map_err(|source| Error::Thread { name, source })
}
