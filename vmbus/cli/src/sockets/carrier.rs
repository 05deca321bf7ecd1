//! Who carries the VM sockets of a command, as `--link` says: the kernel, a host process, a simulated host, UIO devices.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use vmbus::Error;
use vmbus::uio::BusLink;
use vmbus_channels::Vmbus;
use vmbus_devices::socket::{Place, SocketSettings, Sockets, VmListener, VmStream};
use vmbus_simhost::Config;

use super::address::VmAddress;
use super::error::of_vm_socket;
use crate::context::Context;
use crate::link::{Link, SocketLink};
use crate::simulated::{self, Simulated};

/// How long a connect may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether all was delivered, should no channel's end say so.
const LOOK: Duration = Duration::from_millis(20);

/// Who carries VM sockets.
pub(crate) struct Carrier {
    sockets: Sockets,
    bus: Option<Vmbus>,
    simulated: Option<Simulated>,
    /// How long what was written may take to be read, once nobody uses a stream any more.
    linger: Duration,
}

/// What is to be done with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Connect(VmAddress),
    Listen(VmAddress),
}

impl Carrier {
    /// Gets ready for this.
    pub(crate) fn open(context: &Context, link: &SocketLink, wishes: &[Wish]) -> anyhow::Result<Self> {
        let settings = SocketSettings::default();
        let linger = settings.linger;
        let (bus, simulated) = match link {
            SocketLink::Kernel => {
                return Ok(Self { sockets: Sockets::kernel(), bus: None, simulated: None, linger });
            }
            SocketLink::Uio => {
                let bus =
                    Vmbus::start(Box::new(BusLink::new(context.bus.clone())?), vmbus_channels::Settings::default())?;
                return Ok(Self { sockets: Sockets::pipes(&bus, settings), bus: Some(bus), simulated: None, linger });
            }
            SocketLink::Wire(Link::Path(path)) => (simulated::connect(path)?, None),
            SocketLink::Wire(Link::Sim) => {
                let simulated = Simulated::start(echoes_at(wishes)?, 1)?;
                (simulated.bus.clone(), Some(simulated))
            }
        };
        Ok(Self { sockets: Sockets::hvsock(&bus, settings), bus: Some(bus), simulated, linger })
    }

    fn place(&self, addr: impl Into<vmbus_devices::socket::VmSocketAddr>) -> Place {
        self.sockets.at(addr)
    }

    /// Connects; how long that may take is the caller's, or half a minute.
    pub(crate) fn connect(&self, addr: VmAddress, timeout: Option<Duration>) -> std::io::Result<VmStream> {
        VmStream::connect_timeout(self.place(addr.to_connect()), timeout.unwrap_or(CONNECT_WITHIN))
    }

    /// Listens.
    pub(crate) fn listen(&self, addr: VmAddress) -> Result<VmListener, Error> {
        let listener = VmListener::bind(self.place(addr.to_listen()));
        listener.map_err(|error| of_vm_socket("listen on", addr.to_listen().to_string(), error))
    }

    /// Calls this when the bus has ended: by itself, or because it was [`finish`](Self::finish)ed. The kernel does not end.
    pub(crate) fn when_over(&self, over: impl FnOnce(vmbus_channels::Error) + Send + 'static) -> anyhow::Result<()> {
        let Some(bus) = &self.bus else { return Ok(()) };
        let mut changes = bus.subscribe()?;
        let watch = move || {
            loop {
                match changes.next(None) {
                    Ok(_) | Err(vmbus_channels::Error::Lagged) => {}
                    Err(error) => return over(error),
                }
            }
        };
        std::thread::Builder::new().name("bus".to_owned()).spawn(watch).context("cannot start a thread")?;
        Ok(())
    }

    /// Ends it, once peers have read what was written on streams that nobody uses any more: they have a while for that.
    pub(crate) fn finish(self) {
        let Some(bus) = self.bus else { return };
        if let Err(error) = wait_until_closed(&bus, self.linger) {
            log::debug!("what was written may not have been read: {error}");
        }
        self.sockets.shutdown();
        let ended = match self.simulated {
            Some(simulated) => simulated.finish().map(drop),
            None => bus.shutdown().map_err(Into::into),
        };
        if let Err(error) = ended {
            log::debug!("the bus did not end in order: {error:#}");
        }
    }
}

/// A simulated host that echoes wherever somebody connects.
fn echoes_at(wishes: &[Wish]) -> Result<Config, Error> {
    let mut config = Config::seeded(1);
    for wish in wishes {
        match wish {
            Wish::Connect(addr) => config.services.extend(addr.service()),
            Wish::Listen(_) => {
                let why =
                    "is a host of this process alone, which connects to nobody; run `vmbusctl sim --publish ...` as a \
                           process of its own, and name its path"
                        .to_owned();
                return Err(Error::Selector { selector: "sim".to_owned(), why });
            }
        }
    }
    Ok(config)
}

/// Waits until no channel is open.
fn wait_until_closed(bus: &Vmbus, linger: Duration) -> Result<(), vmbus_channels::Error> {
    let deadline = Instant::now() + linger;
    let mut changes = bus.subscribe()?;
    while bus.counters()?.open != 0 {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        // Each end of a channel is announced; what was announced before is read in passing.
        match changes.next(Some(left.min(LOOK))) {
            Ok(_) | Err(vmbus_channels::Error::Lagged) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
