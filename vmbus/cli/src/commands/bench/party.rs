//! The two kinds of socket that are compared: the same services behind both, in the same other process.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use vmbus::wire::{self, WireLink};
use vmbus_channels::{Settings, Vmbus};
use vmbus_devices::socket::addr::CID_HOST;
use vmbus_devices::socket::{SocketSettings, Sockets, VmSocketAddr, VmStream};

use crate::simulated::PATIENCE;

/// What the other process does with a connection.
#[derive(Debug, Clone, Copy)]
pub(super) enum Service {
    /// Takes what it is sent, and answers the end by its own.
    Sink,
    /// Sends it back, and the end as well.
    Echo,
}

impl Service {
    pub(super) const ALL: [Self; 2] = [Self::Sink, Self::Echo];

    /// The VM socket port.
    pub(super) const fn port(self) -> u32 {
        match self {
            Self::Sink => 1,
            Self::Echo => 2,
        }
    }

    /// The Unix socket.
    pub(super) fn path(self, folder: &Path) -> PathBuf {
        folder.join(match self {
            Self::Sink => "sink",
            Self::Echo => "echo",
        })
    }
}

/// A stream of either kind.
pub(super) trait Stream: Read + Write {
    /// Says that nothing more comes.
    fn end(&self) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for VmStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// A kind of socket.
pub(super) trait Party {
    /// What errors call it.
    fn name(&self) -> &'static str;

    /// A new connection to a service.
    fn connect(&self, service: Service) -> io::Result<Box<dyn Stream>>;
}

/// Unix stream sockets.
pub(super) struct Unix {
    folder: PathBuf,
}

impl Unix {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }
}

impl Party for Unix {
    fn name(&self) -> &'static str {
        "Unix socket"
    }

    fn connect(&self, service: Service) -> io::Result<Box<dyn Stream>> {
        Ok(Box::new(UnixStream::connect(service.path(&self.folder))?))
    }
}

/// Where the host listens for guests: one that sleeps, and one that polls.
pub(super) const BLOCKING: &str = "wire";
pub(super) const POLLING: &str = "polling";

/// How long who polls goes on with it. Longer than a round trip, and much shorter than what comes between two rounds.
pub(super) const BUSY_POLL: Duration = Duration::from_millis(2);

/// Connections at a time that have a processor of their own: that of the round trips, and that of another race.
const DIRECT: usize = 3;
/// Memory of the guest.
const MEMORY_BYTES: u64 = 64 << 20;

/// VM sockets over the wire link.
pub(super) struct Vm {
    name: &'static str,
    sockets: Sockets,
    bus: Vmbus,
}

impl Vm {
    /// Both sides sleep when there is nothing to do.
    pub(super) fn blocking(folder: &Path) -> anyhow::Result<Self> {
        Self::new("VM socket", &folder.join(BLOCKING), Duration::ZERO)
    }

    /// Both sides look for a while before they sleep.
    pub(super) fn polling(folder: &Path) -> anyhow::Result<Self> {
        Self::new("polling VM socket", &folder.join(POLLING), BUSY_POLL)
    }

    fn new(name: &'static str, path: &Path, busy_poll: Duration) -> anyhow::Result<Self> {
        let link_settings = wire::Settings { processors: 1 + DIRECT, memory_bytes: MEMORY_BYTES };
        let link =
            WireLink::connect(path, link_settings).with_context(|| format!("cannot connect to {}", path.display()))?;
        let mut settings = Settings::default();
        settings.dispatch.direct = DIRECT;
        // The other process needs its turn on the same processors.
        settings.dispatch.pinned = false;
        let bus =
            Vmbus::start(Box::new(link), settings).with_context(|| format!("no answer from {}", path.display()))?;
        let mut settings = SocketSettings::default();
        settings.busy_poll = busy_poll;
        Ok(Self { name, sockets: Sockets::hvsock(&bus, settings), bus })
    }
}

impl Party for Vm {
    fn name(&self) -> &'static str {
        self.name
    }

    fn connect(&self, service: Service) -> io::Result<Box<dyn Stream>> {
        let to = self.sockets.at(VmSocketAddr::from((CID_HOST, service.port())));
        // No timeouts of reads and writes: the Unix sockets have none, and a timer for each sleep costs its time.
        Ok(Box::new(VmStream::connect_timeout(to, PATIENCE)?))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.sockets.shutdown();
        if let Err(error) = self.bus.shutdown() {
            log::debug!(target: "vmbus::bench", "the bus did not end in order: {error}");
        }
    }
}
