//! The link for the control executor: it plays a host, with what the kernel shows and does.
//!
//! `host` decides, `player` is the thread that carries it out, `look` reads sysfs, `workers` do what may block.

mod held;
mod host;
mod inbox;
mod look;
mod player;
mod workers;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::Error;
use crate::direct::DirectSource;
use crate::link::{Interrupts, Link, Port, Share, Sink};
use crate::memory::Mapping;
use crate::message::{GpadlId, GuestMessage};
use crate::sysfs::Bus;
use crate::uevent::{Announcements, Monitor};
use held::Held;
use inbox::{Inbox, Request};
use player::Player;

use super::Options;
use super::direct::ProcessMemory;

/// Ports that wait to be asked for, by their ring.
type Ports = Arc<Mutex<BTreeMap<GpadlId, Result<Port, Error>>>>;

/// The link to the host through the kernel, for all devices that are bound to `uio_hv_generic`, now or later.
///
/// The kernel owns the channels, so this plays the host towards the executor:
///
/// - A device that user space can open is *offered*, with what sysfs shows of it: class, instance, relid, monitor id.
///   What the host sent along (`user_defined`, flags, connection id) is not shown and stays zero.
/// - When it is unbound or the host takes it back, it is *rescinded*, once. Its memory is revoked before that is said.
///   A device that can't be looked at, as by a process that has no descriptors left, stays what it was.
/// - Sharing a ring is answered at once: the memory is the kernel's, of the kernel's size. `Open` opens `/dev/uioN` on
///   a worker. The answer is always a success; if the device could not be opened, [`port`](Link::port) returns why, as
///   [`Error::Busy`], [`Error::Permission`] or what else it is.
/// - Tearing the ring's GPADL down closes the device, on a worker. `GpadlTorndown` means that its descriptor is closed,
///   so it also waits for who still holds a [`Line`](crate::link::Line) of it.
/// - Subchannels are offered while their primary is open. They go when it closes.
/// - A relid is offered again when its former offer is released and everything of it is closed.
/// - Memory for packets with GPA ranges is this process's own, pinned: see [`Pinner::open`](crate::memory::Pinner::open)
///   for what that needs.
/// - Buffers can't be shared, channels not be moved, and services not be connected to: such requests fail.
///
/// The version that host and kernel agreed on is not shown by the kernel. This link takes the first that the executor
/// proposes.
#[derive(Debug)]
pub struct BusLink {
    bus: Bus,
    options: Options,
    announcements: Option<Box<dyn Announcements>>,
    ports: Ports,
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl BusLink {
    /// The link to the devices of a bus. Nothing happens before [`start`](Link::start).
    ///
    /// # Errors
    /// [`Error::Io`] when there are no descriptors left.
    pub fn new(bus: Bus) -> Result<Self, Error> {
        Self::with_options(bus, Options::default())
    }

    /// The same, with a say in how devices are opened.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_options(bus: Bus, options: Options) -> Result<Self, Error> {
        let monitor = Monitor::open().map_err(|error| {
            log::warn!(target: "vmbus::uio", "devices are looked for twice a second: {error}");
        });
        Self::over(bus, options, monitor.ok().map(|monitor| Box::new(monitor) as Box<dyn Announcements>))
    }

    /// The same, with another source of announcements than the kernel, or none. They are hints to look, no more.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn over(bus: Bus, options: Options, announcements: Option<Box<dyn Announcements>>) -> Result<Self, Error> {
        Ok(Self { bus, options, announcements, ports: Ports::default(), inbox: Inbox::new()?, thread: None })
    }

    fn ask(&self, request: Request) -> Result<(), Error> {
        if self.thread.is_none() || !self.inbox.put(request) {
            return Err(Error::Disconnected { why: "the link to the kernel has ended".to_owned() });
        }
        Ok(())
    }
}

impl Link for BusLink {
    fn start(&mut self, sink: Sink) -> Result<(), Error> {
        let announcements = self.announcements.take();
        let ports = Arc::clone(&self.ports);
        let player = Player::new(self.bus.clone(), self.options, announcements, ports, self.inbox.clone(), sink);
        let thread = std::thread::Builder::new().name("vmbus-uio".to_owned()).spawn(move || player.run());
        self.thread = Some(thread.map_err(|error| Error::io("start", "the thread of the UIO link", error))?);
        Ok(())
    }

    fn post(&mut self, message: &GuestMessage) -> Result<(), Error> {
        self.ask(Request::Said(message.clone()))
    }

    fn share(&mut self, relid: u32, gpadl: GpadlId, what: Share) -> Result<(), Error> {
        self.ask(Request::Shared { relid, gpadl, what })
    }

    fn unshare(&mut self, gpadl: GpadlId) {
        let port = lock(&self.ports).remove(&gpadl);
        drop(port);
    }

    fn port(&mut self, relid: u32, ring: GpadlId) -> Result<Port, Error> {
        let port = lock(&self.ports).remove(&ring);
        port.unwrap_or_else(|| Err(Error::Rescinded { device: format!("with relid {relid}") }))
    }

    fn buffer(&mut self, gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        Err(Error::Unsupported {
            device: format!("with buffer {}", gpadl.0),
            what: "uio_hv_generic shares no buffers for a process".to_owned(),
            hint: "only the buffers that the kernel made when it was bound can be used".to_owned(),
        })
    }

    fn direct_memory(&self) -> Option<Arc<dyn DirectSource>> {
        Some(Arc::new(ProcessMemory::default()))
    }

    fn processors(&self) -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn interrupts(&mut self, _processor: usize) -> Option<Interrupts> {
        None
    }

    /// Closes what is open and ends the thread. By now the sink may not block any more. Waits a few seconds for closes
    /// in the kernel; one that takes longer goes on by itself.
    fn stop(&mut self) {
        self.inbox.put(Request::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "vmbus::uio", "the thread of the UIO link panicked");
        }
        let ports = std::mem::take(&mut *lock(&self.ports));
        drop(ports);
    }
}

impl Drop for BusLink {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(ports: &Ports) -> MutexGuard<'_, BTreeMap<GpadlId, Result<Port, Error>>> {
    ports.lock().unwrap_or_else(PoisonError::into_inner)
}
