//! A simulated host in this process, and a bus that is connected to it over the wire link.

use std::time::Duration;

use anyhow::Context;
use vmbus::wire::{self, WireLink};
use vmbus_channels::{Settings, Vmbus};
use vmbus_simhost::server::{Control, Server, ServerSettings};
use vmbus_simhost::{Config, Violation};

/// How long anything may take that takes no time at all: beyond it something hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// Memory of the simulated guest; only what is used takes room.
const MEMORY_BYTES: u64 = 1 << 30;

/// Both sides.
pub(crate) struct Simulated {
    // The guest's side first: it says goodbye to a host that is still there.
    pub(crate) bus: Vmbus,
    pub(crate) host: Control,
    server: Server,
}

impl Simulated {
    /// Starts the host and connects to it. One dispatcher for each of `processors`.
    pub(crate) fn start(mut config: Config, processors: usize) -> anyhow::Result<Self> {
        config.processors = u32::try_from(processors).context("too many processors")?;
        let (server, host, socket) =
            Server::in_process(config, ServerSettings::default()).context("cannot start the simulated host")?;
        let settings = wire::Settings { processors, memory_bytes: MEMORY_BYTES };
        let link = WireLink::over(socket, settings).context("cannot connect to the simulated host")?;
        // The simulated host needs its turn on the same processors.
        let mut settings = Settings::default();
        settings.dispatch.pinned = false;
        let bus = Vmbus::start(Box::new(link), settings).context("cannot start the bus")?;
        Ok(Self { bus, host, server })
    }

    /// Says goodbye, ends all threads, and tells what the guest did wrong in the host's eyes.
    pub(crate) fn finish(mut self) -> anyhow::Result<Vec<Violation>> {
        self.bus.shutdown().context("the bus did not end in order")?;
        let violations = self.host.violations().context("the simulated host has ended")?;
        self.server.stop();
        Ok(violations)
    }
}

/// Processors of this machine that this process may use, at most 64.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(64))
}
