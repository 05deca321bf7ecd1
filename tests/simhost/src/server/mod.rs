//! The server: a thread for each guest around a simulation of its own, over the wire; in this process or on a path.

mod control;
mod door;
mod guest;
mod listener;
mod service;
mod wake;
mod wire_door;

pub use control::{Control, Expected, Sim};
pub use door::Door;
pub use wake::Wake;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use vmbus::wire::transport::pair;
use vmbus::wire::{Arrival, HostListener};

use crate::fault::Rule;
use crate::{Config, Error};
use guest::GuestThread;
use service::Service;

/// How the server goes about it, apart from what its hosts are like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// How often monitor pages are looked at, while any channel has a monitor id.
    pub monitor_latency: Duration,
    /// Faults from the start.
    pub faults: Vec<Rule>,
    /// Guests at a time.
    pub guests: usize,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { monitor_latency: Duration::from_micros(100), faults: Vec::new(), guests: 64 }
    }
}

/// A running server. Dropping it ends all its threads and lets go of all its guests.
#[derive(Debug)]
pub struct Server {
    stopping: Arc<Stopping>,
    guests: Receiver<Control>,
    thread: Option<JoinHandle<()>>,
}

/// What tells the server's threads to end.
#[derive(Debug)]
struct Stopping {
    flag: AtomicBool,
    /// Of the listening thread, or of the one guest's.
    wake: Arc<Wake>,
}

impl Stopping {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }
}

impl Server {
    /// A host for one guest in this process, which gets the other end of the socket. Its simulation stays, for the
    /// oracles, when the guest has gone.
    ///
    /// # Errors
    /// [`Error::Link`] or [`Error::System`] when there are no descriptors or threads.
    pub fn in_process(config: Config, settings: ServerSettings) -> Result<(Self, Control, OwnedFd), Error> {
        let (host, guest) = pair()?;
        let (stopping, guests) = (Stopping::new()?, unbounded());
        let (control, commands) = Control::new(Arc::clone(&stopping.wake));
        let work = GuestThread {
            arrival: Arrival::over(host),
            config,
            settings,
            commands,
            wake: Arc::clone(&stopping.wake),
            stopping: Arc::clone(&stopping),
            lingers: true,
        };
        let thread = spawn("simhost-guest", move || work.run())?;
        Ok((Self { stopping, guests: guests.1, thread: Some(thread) }, control, guest))
    }

    /// A host for one guest behind a door of the caller's, which `door` makes: whoever brings something for it from
    /// another thread wakes the host's thread by the [`Wake`] that it is given. The simulation stays, for the oracles, when
    /// the guest has gone.
    ///
    /// # Errors
    /// What `door` says; [`Error::System`] when there are no descriptors or threads.
    pub fn behind<D: Door + Send + 'static>(
        config: Config,
        settings: ServerSettings,
        door: impl FnOnce(&Arc<Wake>) -> Result<D, Error>,
    ) -> Result<(Self, Control<D::Memory>), Error> {
        let (stopping, (_, guests)) = (Stopping::new()?, unbounded());
        let (control, commands) = Control::new(Arc::clone(&stopping.wake));
        let door = door(&stopping.wake)?;
        let seen = Arc::clone(&stopping);
        let work = move || Service::new(door, config, settings, commands).run(&seen.wake, &seen, true);
        let thread = spawn("simhost-guest", work)?;
        Ok((Self { stopping, guests, thread: Some(thread) }, control))
    }

    /// Hosts for all guests that connect to a path: each has one of its own. The seed of the first is that of the
    /// config, and each further one's is one more.
    ///
    /// # Errors
    /// [`Error::Link`] when the path can't be listened on; [`Error::System`].
    pub fn listen(path: impl AsRef<Path>, config: Config, settings: ServerSettings) -> Result<Self, Error> {
        let listener = HostListener::bind(path.as_ref())?;
        let stopping = Stopping::new()?;
        let (arrivals, guests) = unbounded();
        let seen = Arc::clone(&stopping);
        let work = move || listener::run(&listener, &config, &settings, &seen, &arrivals);
        let thread = spawn("simhost-listen", work)?;
        Ok(Self { stopping, guests, thread: Some(thread) })
    }

    /// The next guest that has connected, for each once; `None` when there is none in time.
    #[must_use]
    pub fn next_guest(&self, timeout: Duration) -> Option<Control> {
        self.guests.recv_timeout(timeout).ok()
    }

    /// Ends all threads and waits for them. Also done by drop.
    pub fn stop(&mut self) {
        self.stopping.flag.store(true, Ordering::Release);
        self.stopping.wake.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "vmbus::simhost", "a thread of the simulated host panicked");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Stopping {
    fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self { flag: AtomicBool::new(false), wake: Arc::new(Wake::new()?) }))
    }
}

/// Starts a thread.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Error::System { what: "start a thread", error })
}
