//! Waiting for devices and for files that appear late: subscribe, look, wait, look again.
//!
//! Some files come without an announcement (`ring` does, and so does a node in `/dev`), and in a container the
//! announcements may not come at all: so a look is also due after a pause, which grows up to half a second.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::{Event, Monitor};
use crate::Error;
use crate::bind::UIO_DRIVER;
use crate::sysfs::{Bus, Device};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Where hints to look again come from.
pub(crate) trait Hints {
    /// Waits up to `pause`; whether there was a hint.
    fn hint(&mut self, pause: Duration) -> Result<bool, Error>;
}

impl Hints for Monitor {
    fn hint(&mut self, pause: Duration) -> Result<bool, Error> {
        let end = Instant::now() + pause;
        while let Some(event) = self.next(Some(end.saturating_duration_since(Instant::now())))? {
            let relevant = match event {
                Event::Uevent(uevent) => uevent.concerns_vmbus(),
                Event::Lost => true,
            };
            if relevant {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Where there is no netlink: only the pauses.
struct Pauses;

impl Hints for Pauses {
    fn hint(&mut self, pause: Duration) -> Result<bool, Error> {
        thread::sleep(pause);
        Ok(false)
    }
}

/// The machine's announcements, subscribed to from here on.
pub(crate) fn hints() -> Box<dyn Hints> {
    match Monitor::open() {
        Ok(monitor) => Box::new(monitor),
        Err(error) => {
            log::debug!(target: "vmbus::uevent", "waiting without announcements: {error}");
            Box::new(Pauses)
        }
    }
}

/// Calls `look` until it finds something or `timeout` has passed; at least once, and once more at the end.
pub(crate) fn wait_until<T>(
    hints: &mut dyn Hints,
    timeout: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<Option<T>, Error> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(found) = look()? {
            return Ok(Some(found));
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(None);
        }
        pause = if hints.hint(pause.min(left))? { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
    }
}

/// What a wait for a UIO device has seen last.
#[derive(Clone, Copy)]
enum Stage {
    NoDevice,
    NotBound,
    NoNode,
}

impl Bus {
    /// Waits until `selector` names a device, and returns it.
    ///
    /// # Errors
    /// [`Error::Timeout`]; what [`Bus::find`] returns, but for "no such device (yet)" and "no bus (yet)".
    pub fn wait_for_device(&self, selector: &str, timeout: Duration) -> Result<Device, Error> {
        let found = wait_until(&mut *hints(), timeout, || self.look_for(selector))?;
        found.ok_or_else(|| timed_out(selector, Stage::NoDevice, timeout))
    }

    /// Waits until `selector` names a device that is bound to `uio_hv_generic` and whose node in `/dev` is there.
    ///
    /// # Errors
    /// As [`wait_for_device`](Self::wait_for_device).
    pub fn wait_for_uio(&self, selector: &str, timeout: Duration) -> Result<(Device, PathBuf), Error> {
        self.wait_for_uio_with(&mut *hints(), selector, timeout, || Ok(()))
    }

    /// The same, as long as `goes_on` says so before each look.
    pub(crate) fn wait_for_uio_with(
        &self,
        hints: &mut dyn Hints,
        selector: &str,
        timeout: Duration,
        goes_on: impl Fn() -> Result<(), Error>,
    ) -> Result<(Device, PathBuf), Error> {
        let mut stage = Stage::NoDevice;
        let found = wait_until(hints, timeout, || {
            goes_on()?;
            let found = self.uio_or_stage(selector)?;
            Ok(found.map_err(|reached| stage = reached).ok())
        })?;
        found.ok_or_else(|| timed_out(selector, stage, timeout))
    }

    /// One look for a device as [`wait_for_uio`](Self::wait_for_uio) waits for, for who waits by other means. `waited`
    /// is for the error alone.
    ///
    /// # Errors
    /// As [`wait_for_uio`](Self::wait_for_uio).
    pub fn look_for_uio(&self, selector: &str, waited: Duration) -> Result<(Device, PathBuf), Error> {
        self.uio_or_stage(selector)?.map_err(|stage| timed_out(selector, stage, waited))
    }

    fn uio_or_stage(&self, selector: &str) -> Result<Result<(Device, PathBuf), Stage>, Error> {
        let Some(device) = self.look_for(selector)? else { return Ok(Err(Stage::NoDevice)) };
        let uio = device.uio.as_ref().filter(|_| device.driver.as_deref() == Some(UIO_DRIVER));
        let Some(node) = uio.map(|uio| self.path("dev").join(uio)) else { return Ok(Err(Stage::NotBound)) };
        Ok(if node.exists() { Ok((device, node)) } else { Err(Stage::NoNode) })
    }

    /// Waits until the channel `relid` of `device` is there and has its `ring` file; returns the device as it is then.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Rescinded`] where the device goes away meanwhile.
    pub fn wait_for_ring(&self, device: &Device, relid: u32, timeout: Duration) -> Result<Device, Error> {
        let found = wait_until(&mut *hints(), timeout, || {
            let device = self.refresh(device)?;
            let ready = device.channel(relid).is_some_and(|channel| channel.ring.is_some());
            Ok(ready.then_some(device))
        })?;
        found.ok_or_else(|| Error::Timeout {
            device: device.name.clone(),
            waiting_for: format!("channels/{relid}/ring"),
            timeout,
            hint: "subchannels come only when the host was asked for them, and `ring` only while uio_hv_generic has the device",
        })
    }

    /// `find`, where "not there" is an answer.
    fn look_for(&self, selector: &str) -> Result<Option<Device>, Error> {
        match self.find(selector) {
            Ok(device) => Ok(Some(device)),
            Err(Error::NotFound { .. } | Error::NoBus { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn timed_out(selector: &str, stage: Stage, timeout: Duration) -> Error {
    let (waiting_for, hint) = match stage {
        Stage::NoDevice => ("the device", "`vmbusctl list` shows what the host offers"),
        Stage::NotBound => ("a UIO device for it", "bind it with `vmbusctl bind`"),
        Stage::NoNode => ("its node in /dev", "is devtmpfs mounted on /dev, and does no rule of udev rename the node?"),
    };
    Error::Timeout { device: selector.to_owned(), waiting_for: waiting_for.to_owned(), timeout, hint }
}
