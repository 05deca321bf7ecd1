//! Where sockets are: a bus, its endpoints, and what serves them; or the kernel.

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use uuid::Uuid;
use vmbus::class::Class;
use vmbus::message::Version;
use vmbus_channels::{ChannelId, Offer, OpenOptions, Placement, Vmbus};

use super::addr::{self, CID_ANY, CID_HOST, PORT_ANY};
use super::arrivals::Arrivals;
use super::connection::{Connection, Ends};
use super::endpoint::{self, Endpoints, Owner, Refused};
use super::frame::{RING_BYTES_LEAST, RING_BYTES_MOST};
use super::linger::Linger;
use super::workers::Workers;
use super::{Family, Place, VmSocketAddr, error};

/// Bytes of a ring's control page.
const CONTROL_BYTES: u32 = 4096;
/// The first port that connects are given here; those below are for services.
const FIRST_EPHEMERAL: u32 = 1024;

/// How sockets of a bus behave.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SocketSettings {
    /// Bytes of each ring of a connection: from 24 KiB to 256 KiB, as in Linux. Hosts before 5.0 get 24 KiB.
    pub ring_bytes: u32,
    /// How long a connection that nobody uses any more waits until the peer has read what was written.
    pub linger: Duration,
    /// Endpoints at most: listeners and connections.
    pub endpoints: usize,
    /// On which kind of processor connections are to be: those of the bus that are for one channel each, while there are
    /// any, save whoever reads a wake-up.
    pub placement: Placement,
    /// Over so many processors with dispatchers the others are spread.
    pub processors: u32,
    /// How long a read that finds nothing goes on looking before it sleeps, and the peer need not interrupt meanwhile. Not
    /// at all unless it is said: it takes a processor.
    pub busy_poll: Duration,
}

impl Default for SocketSettings {
    /// 256 KiB, eight seconds, 4096 endpoints; a processor of its own if one is free, otherwise the first.
    fn default() -> Self {
        let (ring_bytes, linger) = (RING_BYTES_MOST, Duration::from_secs(8));
        Self {
            ring_bytes,
            linger,
            endpoints: 4096,
            placement: Placement::Direct,
            processors: 1,
            busy_poll: Duration::ZERO,
        }
    }
}

/// A name that is had until the drop.
pub(super) type LocalName = Owner<OfBus>;

/// What passes through the endpoints of a bus.
#[derive(Debug)]
pub(super) enum OfBus {}

impl endpoint::Kind for OfBus {
    type Incoming = Connection;
    type Outcome = Connected;
    type Bell = EventBell;
}

/// What came of a connect.
#[derive(Debug)]
pub(super) struct Connected {
    pub(super) result: io::Result<Connection>,
    /// The name that an unsuccessful one had: whoever waits keeps it from others until it has heard.
    pub(super) _name: Option<LocalName>,
}

/// An event that is readable while something waits.
#[derive(Debug)]
pub(super) struct EventBell(pub(super) OwnedFd);

impl EventBell {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }
}

impl endpoint::Bell for EventBell {
    fn ring(&self, waits: bool) {
        let _ = if waits {
            rustix::io::write(&self.0, &1_u64.to_ne_bytes())
        } else {
            rustix::io::read(&self.0, &mut [0; 8])
        };
    }
}

/// Where sockets are. Clones are the same.
#[derive(Clone)]
pub struct Sockets {
    pub(super) host: Host,
}

/// Who carries the sockets.
#[derive(Clone)]
pub(super) enum Host {
    Kernel,
    Bus(Arc<OfOneBus>),
}

/// The sockets of one bus.
pub(super) struct OfOneBus {
    pub(super) family: Family,
    pub(super) bus: Vmbus,
    pub(super) endpoints: Endpoints<OfBus>,
    pub(super) workers: Workers,
    pub(super) linger: Arc<Linger>,
    settings: SocketSettings,
    rings: OnceLock<u32>,
    next_port: AtomicU32,
    next_processor: AtomicU32,
    arrivals: Mutex<Option<Arrivals>>,
}

impl fmt::Debug for Sockets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Sockets").field("family", &self.family()).finish_non_exhaustive()
    }
}

impl fmt::Debug for OfOneBus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OfOneBus").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Sockets {
    /// The kernel's AF_VSOCK: what an address is of that says nothing else.
    #[must_use]
    pub fn kernel() -> Self {
        Self { host: Host::Kernel }
    }

    /// hvsock connections of a bus on the wire link.
    #[must_use]
    pub fn hvsock(bus: &Vmbus, settings: SocketSettings) -> Self {
        Self::of_bus(Family::Hvsock, bus, settings)
    }

    /// Byte pipes that devices of a bus offer, on any link. The service is the device's instance, or its class.
    #[must_use]
    pub fn pipes(bus: &Vmbus, settings: SocketSettings) -> Self {
        Self::of_bus(Family::Pipe, bus, settings)
    }

    fn of_bus(family: Family, bus: &Vmbus, settings: SocketSettings) -> Self {
        let of_one_bus = OfOneBus {
            family,
            bus: bus.clone(),
            endpoints: Endpoints::new(settings.endpoints),
            workers: Workers::new(),
            linger: Arc::new(Linger::new(settings.linger)),
            settings,
            rings: OnceLock::new(),
            next_port: AtomicU32::new(FIRST_EPHEMERAL),
            next_processor: AtomicU32::new(0),
            arrivals: Mutex::new(None),
        };
        Self { host: Host::Bus(Arc::new(of_one_bus)) }
    }

    /// An address here, to connect or bind to.
    #[must_use]
    pub fn at(&self, addr: impl Into<VmSocketAddr>) -> Place {
        Place { sockets: self.clone(), addr: addr.into() }
    }

    /// What carries them.
    #[must_use]
    pub fn family(&self) -> Family {
        match &self.host {
            Host::Kernel => Family::Vsock,
            Host::Bus(bus) => bus.family,
        }
    }

    /// Endpoints that are there now: listeners, connections, and those that are closing. Of the kernel's nobody knows.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        match &self.host {
            Host::Kernel => 0,
            Host::Bus(bus) => bus.endpoints.in_use(),
        }
    }

    /// Ends all listeners and connects in progress, for all clones, and lets go of connections that linger. Those that
    /// are in use go on.
    pub fn shutdown(&self) {
        if let Host::Bus(bus) = &self.host {
            bus.endpoints.end();
            bus.linger.end();
            let arrivals = bus.arrivals.lock().unwrap_or_else(PoisonError::into_inner).take();
            drop(arrivals);
        }
    }
}

impl OfOneBus {
    /// Listens to what the host offers, from the first listener on.
    pub(super) fn watch(self: &Arc<Self>) -> io::Result<()> {
        let mut arrivals = self.arrivals.lock().unwrap_or_else(PoisonError::into_inner);
        if arrivals.is_none() {
            let subscription = self.bus.subscribe().map_err(error::of_channel)?;
            *arrivals = Some(Arrivals::start(subscription, Arc::downgrade(self))?);
        }
        Ok(())
    }

    /// A port that nobody has, by `take`, which is asked for one after the other.
    fn any_port(&self, mut take: impl FnMut(Uuid, EventBell) -> Result<LocalName, Refused>) -> io::Result<LocalName> {
        loop {
            let port = self.next_port.fetch_add(1, Ordering::Relaxed);
            if !(FIRST_EPHEMERAL..=addr::PORT_MOST).contains(&port) {
                self.next_port.store(FIRST_EPHEMERAL, Ordering::Relaxed);
                continue;
            }
            match take(addr::service_of(port), EventBell::new()?) {
                // There are more ports than endpoints.
                Err(Refused::Taken) => {}
                outcome => return Ok(outcome?),
            }
        }
    }

    /// A name for this end of a connection.
    pub(super) fn ephemeral(&self) -> io::Result<LocalName> {
        self.any_port(|name, bell| self.endpoints.reserve(name, bell))
    }

    /// Binds an address, and listens.
    pub(super) fn bind(self: &Arc<Self>, addr: VmSocketAddr, backlog: usize) -> io::Result<LocalName> {
        self.watch()?;
        let bind = |name, bell| self.endpoints.bind(name, bell, |endpoint| endpoint.listen(backlog));
        let bound = match (addr, addr.service_id()) {
            (VmSocketAddr::Port { port: PORT_ANY, .. }, _) | (_, None) => self.any_port(bind)?,
            (_, Some(service)) => bind(service, EventBell::new()?)?,
        };
        if self.family == Family::Pipe {
            // Devices that are there already.
            for offer in
                self.bus.offers().map_err(error::of_channel)?.iter().filter(|offer| is_pipe(offer, bound.name()))
            {
                self.arrived(offer);
            }
        }
        Ok(bound)
    }

    /// How a connection's channel is opened.
    fn options(&self) -> OpenOptions {
        let ring = *self.rings.get_or_init(|| match self.bus.version() {
            Ok(version) if version >= Version::V5_0 => {
                self.settings.ring_bytes.clamp(RING_BYTES_LEAST, RING_BYTES_MOST) & !4095
            }
            _ => RING_BYTES_LEAST,
        });
        let bytes = ring + CONTROL_BYTES;
        let mut options = OpenOptions { outgoing_bytes: bytes, incoming_bytes: bytes, ..OpenOptions::default() };
        options.placement = self.settings.placement;
        let next = self.next_processor.fetch_add(1, Ordering::Relaxed);
        options.processor = next % self.settings.processors.max(1);
        options
    }

    /// Opens a channel as a connection.
    pub(super) fn open(&self, channel: ChannelId, ends: Ends) -> io::Result<Connection> {
        let channel = self.bus.open(channel, self.options()).map_err(error::of_channel)?;
        Connection::new(channel, ends, self.settings.busy_poll, Arc::clone(&self.linger))
    }

    /// Connects: waits for the host.
    pub(super) fn connect(&self, addr: VmSocketAddr, name: Uuid) -> io::Result<Connection> {
        let service = addr.service_id().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let local = VmSocketAddr::of_service(CID_ANY, name);
        let peer = VmSocketAddr::of_service(CID_HOST, service);
        let ends = || Ends { family: self.family, local, peer };
        if self.family == Family::Hvsock {
            let channel = self.bus.tl_connect(name, service, None).map_err(error::of_channel)?;
            return self.open(channel, ends());
        }
        let mut refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        for offer in self.bus.offers().map_err(error::of_channel)?.iter().filter(|offer| is_pipe(offer, service)) {
            match self.open(offer.id, ends()) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => refused = error,
                outcome => return outcome,
            }
        }
        Err(refused)
    }

    /// A channel has arrived: perhaps a connection for somebody who listens.
    pub(super) fn arrived(self: &Arc<Self>, offer: &Offer) {
        let Some(listener) = self.listener_of(offer) else { return };
        let (me, offer) = (Arc::downgrade(self), offer.clone());
        // The host is waited for elsewhere: it may have more to say meanwhile.
        let opened = self.workers.run(move || {
            let Some(me) = Weak::upgrade(&me) else { return };
            let local = VmSocketAddr::of_service(CID_ANY, listener.name());
            let peer = VmSocketAddr::of_service(CID_HOST, offer.instance);
            match me.open(offer.id, Ends { family: me.family, local, peer }) {
                // Not wanted any more: its drop closes it, and the host hears of it.
                Ok(connection) => drop(listener.deliver(connection.waiting())),
                Err(error) => {
                    log::debug!(target: "vmbus::socket", "a connection to {local} did not come about: {error}")
                }
            }
        });
        if let Err(error) = opened {
            log::warn!(target: "vmbus::socket", "a connection waits until the host takes it back: {error}");
        }
    }

    fn listener_of(&self, offer: &Offer) -> Option<endpoint::Held<OfBus>> {
        let Class(class) = offer.class;
        if self.family == Family::Hvsock {
            // Behind the kind of pipe, four bytes: whether the guest is the one who accepts.
            let for_us = offer.user_defined.get(4).is_some_and(|accept| *accept != 0);
            let is_socket = super::is_socket(offer);
            return self.endpoints.look_up(class).filter(|_| is_socket && for_us);
        }
        let by_class = || self.endpoints.look_up(class).filter(|_| is_pipe(offer, class));
        self.endpoints.look_up(offer.instance).filter(|_| is_pipe(offer, offer.instance)).or_else(by_class)
    }

    /// The bus has ended, or will not say what arrives any more.
    pub(super) fn over(&self) {
        self.endpoints.end();
    }
}

/// Whether a device's channel is the pipe that is meant.
fn is_pipe(offer: &Offer, service: Uuid) -> bool {
    let Class(class) = offer.class;
    offer.subchannel_index == 0 && !super::is_socket(offer) && (offer.instance == service || class == service)
}
