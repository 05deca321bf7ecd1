//! The whole stack in one process: the executor over the wire link, and the simulated host at the other end.
//!
//! ```text
//!     host  ->  ringbuf  <-  vmbus  <-  channels  <-  devices  <-  application
//!                              ^                         ^
//!                              +---- tests/simhost ------+
//!                                          ^ tests: you are here
//! ```
//!
//! A [`Stack`] is a bus with its host. A test drives the bus as an application does, the host by its [`Control`], and
//! asks [`Stack::faults`] at the end what either side has to complain about. A failing seed's messages are in the text
//! of the complaint.
//!
//! ```
//! use vmbus_simhost::{Config, DeviceSpec};
//! use vmbus_tests::Stack;
//!
//! let stack = Stack::start(Config::seeded(1).with_device(DeviceSpec::echo(1)))?;
//! assert_eq!(stack.bus.offers()?.len(), 1);
//! assert_eq!(stack.end()?, Vec::<String>::new());
//! # Ok::<(), vmbus_tests::Error>(())
//! ```
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use vmbus::message::Version;
use vmbus::wire::{Settings as Wire, WireLink};
use vmbus_channels::{Counters, Settings, Vmbus};
use vmbus_simhost::{Config, Control, Server, ServerSettings};

/// Longer than anything takes; for when it goes wrong.
pub const LONG: Duration = Duration::from_secs(30);

/// Any side's error.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// A bus with its host, in this process.
#[derive(Debug)]
pub struct Stack {
    /// The guest.
    pub bus: Vmbus,
    /// The host's handle.
    pub control: Control,
    /// The host's threads.
    pub server: Server,
}

impl Stack {
    /// Starts both, with what the host is like; two processors, 256 MiB of guest memory, of which only what is used takes room.
    ///
    /// # Errors
    /// As [`Server::in_process`], [`WireLink::over`] and [`Vmbus::start`].
    pub fn start(config: Config) -> Result<Self, Error> {
        Self::start_with(config, ServerSettings::default(), Settings::default())
    }

    /// The same with settings.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(config: Config, server: ServerSettings, settings: Settings) -> Result<Self, Error> {
        let (server, control, socket) = Server::in_process(config, server)?;
        let link = WireLink::over(socket, Wire { processors: 2, memory_bytes: 256 << 20 })?;
        let bus = Vmbus::start(Box::new(link), settings)?;
        Ok(Self { bus, control, server })
    }

    /// What either side has to complain about when nothing is under way: violations that the host saw, GPADLs that are
    /// up, and what the guest still holds for channels that are gone.
    ///
    /// # Errors
    /// The host or the bus has ended.
    pub fn faults(&self) -> Result<Vec<String>, Error> {
        let mut faults = Vec::new();
        if !self.control.wait_quiet(LONG)? {
            faults.push("the host waits for something".to_owned());
        }
        faults.extend(self.control.violations()?.iter().map(ToString::to_string));
        // What the host has said may not have been taken note of yet.
        let deadline = Instant::now() + LONG;
        let (guest, differences) = loop {
            let guest = self.bus.counters()?;
            let differences = self.differences(&guest)?;
            if differences.is_empty() || Instant::now() > deadline {
                break (guest, differences);
            }
            std::thread::yield_now();
        };
        faults.extend(differences);
        if guest.waiting != 0 {
            faults.push(format!("{} commands wait", guest.waiting));
        }
        if !faults.is_empty() {
            faults.push(self.control.trace()?);
        }
        Ok(faults)
    }

    /// In what guest and host disagree.
    fn differences(&self, guest: &Counters) -> Result<Vec<String>, Error> {
        let (offered, theirs) = self.control.with(|simulation| {
            let host = simulation.host();
            (host.offered(), host.live_gpadls().len())
        })?;
        let up = offered.iter().filter(|offer| offer.relid.is_some()).count();
        let pairs = [("channels", guest.channels, up), ("GPADLs", guest.gpadls, theirs)];
        let differ = pairs.into_iter().filter(|(_, ours, theirs)| u64::try_from(*theirs) != Ok(*ours));
        Ok(differ.map(|(what, ours, theirs)| format!("{ours} {what} in the guest, {theirs} in the host")).collect())
    }

    /// Asks for [`faults`](Self::faults), then ends both, and asks what was left open.
    ///
    /// # Errors
    /// As [`faults`](Self::faults) and [`Vmbus::shutdown`].
    pub fn end(mut self) -> Result<Vec<String>, Error> {
        let mut faults = self.faults()?;
        // Before 3.0 there is no goodbye.
        let goodbyes = u64::from(self.bus.version()? >= Version::V3_0);
        self.bus.shutdown()?;
        let counters = self.control.counters()?;
        if (counters.unloads, counters.left_open, counters.left_gpadls) != (goodbyes, 0, 0) {
            faults.push(format!("left behind: {counters:?}"));
        }
        self.server.stop();
        Ok(faults)
    }
}
