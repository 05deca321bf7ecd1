//! A bus with the simulated host behind it, for tests of the programs.

use std::time::{Duration, Instant};

use vmbus::wire::{Settings as Wire, WireLink};
use vmbus_channels::{Offer, Settings, Vmbus};
use vmbus_simhost::{Config, Control, OfferId, Server, ServerSettings};

use crate::bus::{self, Selector};

/// Longer than anything takes; for when it goes wrong.
pub(crate) const LONG: Duration = Duration::from_secs(30);

/// A bus with its host, in this process.
pub(crate) struct Stack {
    pub(crate) vmbus: Vmbus,
    pub(crate) control: Control,
    _server: Server,
}

impl Stack {
    pub(crate) fn start(config: Config) -> Self {
        let (server, control, socket) = Server::in_process(config, ServerSettings::default()).unwrap();
        let link = WireLink::over(socket, Wire { processors: 2, memory_bytes: 256 << 20 }).unwrap();
        let vmbus = Vmbus::start(Box::new(link), Settings::default()).unwrap();
        Self { vmbus, control, _server: server }
    }

    /// The only device of the host that is called so.
    pub(crate) fn find(&self, selector: &str) -> Offer {
        bus::find(&self.vmbus, &Selector::resolve(selector).unwrap(), LONG).unwrap()
    }

    /// How the host calls the channel on this relid.
    pub(crate) fn id(&self, relid: u32) -> OfferId {
        self.control.with(move |simulation| simulation.host().offer_on_relid(relid)).unwrap().unwrap()
    }

    /// Waits until a number of a device is at least this.
    pub(crate) fn await_count(&self, id: OfferId, name: &'static str, at_least: u64) {
        let came = self.control.wait_for(LONG, move |simulation| simulation.host().count(id, name) >= at_least);
        assert!(came.unwrap(), "{name} did not come to {at_least}");
    }

    /// Nothing is left open, and the host has seen nothing wrong.
    #[track_caller]
    pub(crate) fn end(self) {
        // What was dropped closes by itself.
        let start = Instant::now();
        let mut counters = self.vmbus.counters().unwrap();
        while (counters.open, counters.gpadls) != (0, 0) && start.elapsed() < LONG {
            std::thread::yield_now();
            counters = self.vmbus.counters().unwrap();
        }
        assert_eq!((counters.open, counters.gpadls), (0, 0), "{counters:?}");
        assert!(self.control.wait_quiet(LONG).unwrap(), "{}", self.control.trace().unwrap());
        let violations = self.control.violations().unwrap();
        assert!(violations.is_empty(), "{violations:?}\n{}", self.control.trace().unwrap());
        self.vmbus.shutdown().unwrap();
    }
}
