//! A simulated host in this process, and a bus that is connected to it over the wire link.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use vmbus::class::Class;
use vmbus::wire::{self, WireLink};
use vmbus_channels::{Settings, Vmbus};
use vmbus_simhost::device::{DynamicMemorySettings, Echo, Pipe, PipeSettings};
use vmbus_simhost::server::{Control, Server, ServerSettings};
use vmbus_simhost::{Config, DeviceSpec, Violation};

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

/// A bus that is connected to a host process which listens on a path.
pub(crate) fn connect(path: &Path) -> anyhow::Result<Vmbus> {
    let settings = wire::Settings { processors: processors(), memory_bytes: MEMORY_BYTES };
    let link = WireLink::connect(path, settings).with_context(|| format!("cannot connect to {}", path.display()))?;
    Vmbus::start(Box::new(link), Settings::default()).with_context(|| format!("no answer from {}", path.display()))
}

/// A host with one device of each class that there is, and this many echo devices.
pub(crate) fn with_devices(config: Config, echo: u64) -> Config {
    let mut config = config
        .with_device(DeviceSpec::pipe(0, PipeSettings { echoes: true, ..PipeSettings::default() }))
        .with_device(DeviceSpec::dynamic_memory(DynamicMemorySettings::default()));
    config.devices.extend((0..echo).map(DeviceSpec::echo));
    config
}

/// What a class is called where simulated devices are shown: two classes are this host's own.
pub(crate) fn title(class: Class) -> &'static str {
    match class {
        Echo::CLASS => "echo",
        Pipe::CLASS => "byte pipe",
        Class::DYNAMIC_MEMORY => "dynamic memory",
        class => class.title(),
    }
}

/// Processors of this machine that this process may use, at most 64.
pub(crate) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get().min(64))
}
