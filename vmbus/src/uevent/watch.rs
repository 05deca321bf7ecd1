//! Everything that comes to the bus and goes from it, each once and in order.
//!
//! Announcements say what happened, sysfs says what is. A change is told when the first of them shows it, and the other
//! one then agrees. Looks are taken when all that was announced is told: one that ran ahead would tell things twice.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use serde::Serialize;
use uuid::Uuid;

use super::{Action, Announcements, Event, Monitor, Uevent};
use crate::Error;
use crate::class::{Class, parse_guid};
use crate::sysfs::{Bus, Device};

/// Between looks while nothing has ever been announced: in a container that may stay so.
const UNHEARD: Duration = Duration::from_millis(500);
/// Between looks otherwise.
const HEARD: Duration = Duration::from_secs(5);
/// Until the second look after announcements were lost: at the first one something may have been half done.
const AGAIN: Duration = Duration::from_millis(200);

/// What happened to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// It was there when the watch began.
    Present,
    /// The host offers it.
    Arrived,
    /// A driver has it now.
    Bound,
    /// Its driver has it no more.
    Unbound,
    /// The host took it back.
    Removed,
}

/// A device as it was when something happened to it. What could not be read any more is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Seen {
    /// Its name in sysfs.
    pub device: String,
    /// Which device of its class.
    pub instance: Option<Uuid>,
    /// What kind of device.
    pub class: Option<Class>,
    /// Its number on the bus.
    pub relid: Option<u32>,
    /// The driver that has it, or, when that ends, had it.
    pub driver: Option<String>,
    /// The UIO device that user space can open it by.
    pub uio: Option<String>,
}

/// What [`Watch::next`] brings.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// Something happened to a device.
    Device {
        /// When it was heard of.
        at: SystemTime,
        /// What.
        what: What,
        /// To which.
        seen: Seen,
    },
    /// The kernel had more to announce than the queue held. What the bus is like now was read from sysfs and follows;
    /// what came and went in between is not known.
    Lost {
        /// When that was heard of.
        at: SystemTime,
    },
}

/// Watches the bus.
#[derive(Debug)]
pub struct Watch {
    bus: Bus,
    source: Option<Box<dyn Announcements>>,
    known: BTreeMap<String, Seen>,
    changes: VecDeque<Change>,
    heard: bool,
    look_at: Instant,
    look_again: bool,
}

impl Watch {
    /// Begins to watch; what is there already comes first, as [`What::Present`]. Where the kernel can't be heard, sysfs
    /// is looked at twice a second.
    ///
    /// # Errors
    /// As [`Bus::scan`]; a bus that is not there yet has no devices.
    pub fn begin(bus: &Bus) -> Result<Self, Error> {
        let monitor = Monitor::open().map_err(|error| {
            log::warn!(target: "vmbus::uevent", "the bus is looked at twice a second: {error}");
        });
        Self::over(bus, monitor.ok().map(|monitor| Box::new(monitor) as Box<dyn Announcements>))
    }

    /// The same, with another source of announcements than the kernel, or none.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn over(bus: &Bus, source: Option<Box<dyn Announcements>>) -> Result<Self, Error> {
        let mut watch = Self {
            bus: bus.clone(),
            source,
            known: BTreeMap::new(),
            changes: VecDeque::new(),
            heard: false,
            look_at: Instant::now(),
            look_again: false,
        };
        watch.look(What::Present)?;
        Ok(watch)
    }

    /// The next change; `None` when `stop` became readable. Changes that are known already come first.
    ///
    /// # Errors
    /// The bus can't be looked at; waiting failed.
    pub fn next(&mut self, stop: BorrowedFd<'_>) -> Result<Option<Change>, Error> {
        loop {
            if self.wait(stop, Duration::ZERO)? {
                return Ok(None);
            }
            if let Some(change) = self.changes.pop_front() {
                return Ok(Some(change));
            }
            if self.listen() {
                continue;
            }
            if Instant::now() >= self.look_at {
                self.look(What::Arrived)?;
            } else if self.wait(stop, self.look_at.saturating_duration_since(Instant::now()))? {
                return Ok(None);
            }
        }
    }

    /// Hears one announcement; whether there was one.
    fn listen(&mut self) -> bool {
        let Some(source) = &mut self.source else { return false };
        match source.next_now() {
            Ok(None) => return false,
            Ok(Some(Event::Uevent(uevent))) => {
                self.heard = true;
                self.apply(&uevent);
            }
            Ok(Some(Event::Lost)) => {
                self.heard = true;
                self.changes.push_back(Change::Lost { at: SystemTime::now() });
                // What is queued is older than what was lost. Then a look, and another one.
                (self.look_at, self.look_again) = (Instant::now(), true);
            }
            Err(error) => {
                log::warn!(target: "vmbus::uevent", "the bus is looked at twice a second from now on: {error}");
                (self.source, self.heard, self.look_at) = (None, false, Instant::now());
            }
        }
        true
    }

    fn apply(&mut self, uevent: &Uevent) {
        // Somebody may have the kernel announce something again (`udevadm trigger`): that is no news.
        if uevent.subsystem.as_deref() != Some("vmbus") || uevent.properties.contains_key("SYNTH_UUID") {
            return;
        }
        let Some(name) = uevent.devpath.rsplit('/').next().filter(|name| !name.is_empty()) else { return };
        match uevent.action {
            Action::Add if !self.known.contains_key(name) => {
                let seen = match self.bus.read_device(name) {
                    // Its driver is announced next.
                    Ok(Some(device)) => Seen { driver: None, uio: None, ..Seen::of(&device) },
                    _ => Seen::announced(name, uevent),
                };
                self.arrived(What::Arrived, seen);
            }
            Action::Remove => self.removed(name),
            Action::Bind => {
                let driver = uevent.properties.get("DRIVER").cloned();
                let now = self.bus.read_device(name).ok().flatten();
                let driver = driver.or_else(|| now.as_ref()?.driver.clone());
                self.bound(name, driver, now.and_then(|device| device.uio));
            }
            Action::Unbind => self.bound(name, None, None),
            _ => {}
        }
    }

    /// Looks at sysfs, and tells what differs from what is known.
    fn look(&mut self, arrival: What) -> Result<(), Error> {
        let pause = match (std::mem::take(&mut self.look_again), self.heard) {
            (true, _) => AGAIN,
            (false, true) => HEARD,
            (false, false) => UNHEARD,
        };
        self.look_at = Instant::now() + pause;
        let scan = match self.bus.scan() {
            Err(Error::NoBus { .. }) => crate::sysfs::Scan::default(),
            scan => scan?,
        };
        let gone = |seen: &Seen| {
            let now = scan.devices.iter().find(|device| device.name == seen.device);
            // One that can't be read is there all the same; one with another number is another one.
            now.map_or_else(
                || !scan.broken.iter().any(|broken| broken.name == seen.device),
                |now| seen.relid.is_some_and(|relid| relid != now.relid),
            )
        };
        let gone: Vec<String> = self.known.values().filter(|seen| gone(seen)).map(|seen| seen.device.clone()).collect();
        for name in gone {
            self.removed(&name);
        }
        for device in &scan.devices {
            if !self.known.contains_key(&device.name) {
                let seen = Seen::of(device);
                let is_new = arrival == What::Arrived;
                self.arrived(arrival, if is_new { Seen { driver: None, uio: None, ..seen } } else { seen });
            }
            self.bound(&device.name, device.driver.clone(), device.uio.clone());
        }
        Ok(())
    }

    fn arrived(&mut self, what: What, seen: Seen) {
        self.tell(what, seen.clone());
        self.known.insert(seen.device.clone(), seen);
    }

    fn removed(&mut self, name: &str) {
        self.bound(name, None, None);
        if let Some(seen) = self.known.remove(name) {
            self.tell(What::Removed, seen);
        }
    }

    /// Takes note of a device's driver, and tells if that is news.
    fn bound(&mut self, name: &str, driver: Option<String>, uio: Option<String>) {
        let Some(seen) = self.known.get_mut(name) else { return };
        if seen.driver == driver {
            // The node comes a little later than the driver.
            seen.uio = uio.or(seen.uio.take());
            return;
        }
        let before = seen.clone();
        (seen.driver, seen.uio) = (driver, uio);
        let after = seen.clone();
        if before.driver.is_some() {
            self.tell(What::Unbound, before);
        }
        if after.driver.is_some() {
            self.tell(What::Bound, after);
        }
    }

    fn tell(&mut self, what: What, seen: Seen) {
        self.changes.push_back(Change::Device { at: SystemTime::now(), what, seen });
    }

    /// Waits up to `timeout` for something to hear; whether it is time to stop.
    fn wait(&self, stop: BorrowedFd<'_>, timeout: Duration) -> Result<bool, Error> {
        let timeout = Timespec::try_from(timeout).ok();
        let source = self.source.as_ref().map_or(stop, AsFd::as_fd);
        let mut waited =
            [PollFd::from_borrowed_fd(stop, PollFlags::IN), PollFd::from_borrowed_fd(source, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(_) => {
                let [stop, _] = &waited;
                Ok(!stop.revents().is_empty())
            }
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(Error::io("wait for", "the kernel's announcements", error)),
        }
    }
}

impl Seen {
    fn of(device: &Device) -> Self {
        Self {
            device: device.name.clone(),
            instance: Some(device.instance),
            class: Some(device.class),
            relid: Some(device.relid),
            driver: device.driver.clone(),
            uio: device.uio.clone(),
        }
    }

    /// What the announcement alone says of a device that is gone again: its name, which is the instance since 4.16, and
    /// its class, from `MODALIAS=vmbus:<32 digits>`.
    fn announced(name: &str, uevent: &Uevent) -> Self {
        let class = uevent.properties.get("MODALIAS").and_then(|alias| alias.strip_prefix("vmbus:"));
        let class = class.and_then(|digits| Uuid::try_parse(digits).ok()).map(Class);
        let (device, instance) = (name.to_owned(), parse_guid(name));
        Self { device, instance, class, relid: None, driver: None, uio: None }
    }
}

#[cfg(test)]
mod tests;
