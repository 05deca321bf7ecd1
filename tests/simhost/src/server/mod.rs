//! The server: a thread for each guest around a simulation of its own, over the wire; in this process or on a path.

mod bridge;
mod control;
mod door;
mod guest;
mod listener;
mod service;
mod wake;
mod wire_door;

pub use bridge::{Bridges, Target};
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
use crate::plain::PlainAddr;
use crate::{Config, Error, Memory};
use bridge::Publisher;
use guest::GuestThread;
use listener::Arrivals;
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
    /// How long a host goes on looking into the rings before it sleeps, and guests need not signal meanwhile. Not at all
    /// unless it is said: it takes a processor.
    pub busy_poll: Duration,
    /// What leads from guests to sockets of this machine, and from those to guests.
    pub bridges: Bridges,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            monitor_latency: Duration::from_micros(100),
            faults: Vec::new(),
            guests: 64,
            busy_poll: Duration::ZERO,
            bridges: Bridges::default(),
        }
    }
}

/// A running server. Dropping it ends all its threads and lets go of all its guests.
#[derive(Debug)]
pub struct Server {
    stopping: Arc<Stopping>,
    guests: Receiver<Control>,
    thread: Option<JoinHandle<()>>,
    publisher: Option<Publisher>,
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
    pub fn in_process(mut config: Config, settings: ServerSettings) -> Result<(Self, Control, OwnedFd), Error> {
        let (host, guest) = pair()?;
        let (stopping, guests) = (Stopping::new()?, unbounded());
        let (control, commands) = Control::new(Arc::clone(&stopping.wake));
        let publisher = bridge(&settings, &mut config, &control)?;
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
        Ok((Self { stopping, guests: guests.1, thread: Some(thread), publisher: Some(publisher) }, control, guest))
    }

    /// A host for one guest behind a door of the caller's, which `door` makes: whoever brings something for it from
    /// another thread wakes the host's thread by the [`Wake`] that it is given. The simulation stays, for the oracles, when
    /// the guest has gone.
    ///
    /// # Errors
    /// What `door` says; [`Error::System`] when there are no descriptors or threads.
    pub fn behind<D: Door + Send + 'static>(
        mut config: Config,
        settings: ServerSettings,
        door: impl FnOnce(&Arc<Wake>) -> Result<D, Error>,
    ) -> Result<(Self, Control<D::Memory>), Error> {
        let (stopping, (_, guests)) = (Stopping::new()?, unbounded());
        let (control, commands) = Control::new(Arc::clone(&stopping.wake));
        let publisher = bridge(&settings, &mut config, &control)?;
        let door = door(&stopping.wake)?;
        let seen = Arc::clone(&stopping);
        let work = move || Service::new(door, config, settings, commands).run(&seen.wake, &seen, true);
        let thread = spawn("simhost-guest", work)?;
        Ok((Self { stopping, guests, thread: Some(thread), publisher: Some(publisher) }, control))
    }

    /// Hosts for all guests that connect to a path: each has one of its own. The seed of the first is that of the
    /// config, and each further one's is one more.
    ///
    /// # Errors
    /// [`Error::Link`] and [`Error::Listen`] when something can't be listened on; [`Error::System`].
    pub fn listen(path: impl AsRef<Path>, mut config: Config, settings: ServerSettings) -> Result<Self, Error> {
        let listener = HostListener::bind(path.as_ref())?;
        let stopping = Stopping::new()?;
        let (arrivals, guests) = unbounded();
        let seen = Arc::clone(&stopping);
        settings.bridges.configure(&mut config);
        let (publisher, there) = Publisher::start(&settings.bridges)?;
        let work = move || listener::run(&listener, &config, &settings, &seen, &Arrivals { arrivals, there });
        let thread = spawn("simhost-listen", work)?;
        Ok(Self { stopping, guests, thread: Some(thread), publisher: Some(publisher) })
    }

    /// Where it listens for [`Bridges::published`], in that order, with ports that were chosen.
    #[must_use]
    pub fn published(&self) -> &[PlainAddr] {
        self.publisher.as_ref().map_or(&[], Publisher::addresses)
    }

    /// The next guest that has connected, for each once; `None` when there is none in time.
    #[must_use]
    pub fn next_guest(&self, timeout: Duration) -> Option<Control> {
        self.guests.recv_timeout(timeout).ok()
    }

    /// Ends all threads and waits for them. Also done by drop.
    pub fn stop(&mut self) {
        self.publisher = None;
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

/// Bridges for the one guest of a server.
fn bridge<M: Memory + 'static>(
    settings: &ServerSettings,
    config: &mut Config,
    control: &Control<M>,
) -> Result<Publisher, Error> {
    settings.bridges.configure(config);
    settings.bridges.serve(control)?;
    let (publisher, guests) = Publisher::start(&settings.bridges)?;
    guests.add(control.clone());
    Ok(publisher)
}

/// Starts a thread.
fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    let thread = Builder::new().name(name.to_owned()).spawn(work);
    thread.map_err(|error| Error::System { what: "start a thread", error })
}
