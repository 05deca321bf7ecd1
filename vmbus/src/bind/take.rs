//! From the kernel's driver to `uio_hv_generic`.
//!
//! With `driver_override` (Linux 4.20 and later) the device alone matches the driver, whatever the driver's table
//! holds. `new_id` is about a whole class, at once and for devices to come: it is taken back as soon as the device
//! is bound.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use rustix::io::Errno;

use super::driver_core::{Point, Step};
use super::guard;
use super::journal::{Entry, boot_id};
use super::{BindOptions, Binder, Bound, Method, UIO_DRIVER};
use crate::Error;
use crate::sysfs::Device;
use crate::uevent::hints;

/// How long the UIO device and its node may take to appear.
const NODE_TIMEOUT: Duration = Duration::from_secs(5);
/// The kernel's own "not supported", which no libc knows.
const ENOTSUPP: i32 = 524;

impl Binder {
    pub(super) fn take(&self, device: &Device, options: BindOptions) -> Result<Bound, Error> {
        self.take_within(device, options, NODE_TIMEOUT)
    }

    /// As [`take`](Self::take), with another bound on the wait for the node.
    pub(super) fn take_within(&self, device: &Device, options: BindOptions, node: Duration) -> Result<Bound, Error> {
        let _lock = self.journal.lock()?;
        let device = self.bus.refresh(device)?;
        let arrival = self.arrival(&device);
        let earlier = self.earlier(&device)?;
        let unfinished = earlier.as_ref().is_some_and(|entry| entry.new_id || !entry.bystanders.is_empty());
        if device.driver.as_deref() == Some(UIO_DRIVER) && !unfinished {
            return self.bound(&device, arrival, node, Method::Already, earlier.and_then(Entry::into_former_driver));
        }
        self.require(&device, UIO_DRIVER)?;
        if !options.force {
            guard::refuse(&self.bus, &device)?;
        }
        let mut entry = self.plan(&device, earlier)?;
        let by_override = device.has_driver_override && !self.always_new_id;
        let method = if by_override { Method::DriverOverride } else { Method::NewId };
        let former = entry.clone().into_former_driver();
        let done = match method {
            Method::DriverOverride => self.by_override(&device, &mut entry),
            _ => self.by_class(&device, &mut entry),
        };
        done.and_then(|()| self.bound(&device, arrival, node, method, former)).map_err(|error| {
            // What a device answers that is going, or the next one under its name, is no reason; that it goes is.
            let error = self.still_there(&device, arrival).err().unwrap_or(error);
            log::warn!(target: "vmbus::bind", "device {} is given back: {error}", device.name);
            if let Err(error) = self.undo(&entry) {
                log::error!(target: "vmbus::bind", "device {} could not be given back: {error}", device.name);
            }
            error
        })
    }

    /// What differs each time that the host offers a device: the inode number of its folder. The name stays.
    fn arrival(&self, device: &Device) -> Option<u64> {
        self.bus.device_path(&device.name).metadata().ok().map(|folder| folder.ino())
    }

    /// An error if the host has taken the device back since, even if it is back. (Its override has gone with it.)
    fn still_there(&self, device: &Device, arrival: Option<u64>) -> Result<(), Error> {
        if self.arrival(device) == arrival { Ok(()) } else { Err(Error::Rescinded { device: device.name.clone() }) }
    }

    /// What an attempt that did not end left in the journal, in this boot and about this device.
    fn earlier(&self, device: &Device) -> Result<Option<Entry>, Error> {
        let boot_id = boot_id(&self.bus)?;
        let entry = self.journal.load(&device.name)?;
        Ok(entry.filter(|entry| entry.boot_id == boot_id && entry.instance == device.instance))
    }

    /// The journal's first version: how things are, or were before the earlier attempt.
    fn plan(&self, device: &Device, earlier: Option<Entry>) -> Result<Entry, Error> {
        let mut entry = Entry::new(device, boot_id(&self.bus)?);
        let Some(earlier) = earlier else { return Ok(entry) };
        if device.driver.as_deref().is_none_or(|driver| driver == UIO_DRIVER) {
            entry.former_driver = earlier.former_driver;
        }
        if device.driver_override.as_deref() == Some(UIO_DRIVER) {
            entry.former_override = earlier.former_override;
        }
        entry.new_id = earlier.new_id;
        entry.bystanders = earlier.bystanders;
        Ok(entry)
    }

    fn by_override(&self, device: &Device, entry: &mut Entry) -> Result<(), Error> {
        let attribute = device.path.join("driver_override");
        self.change(entry, Step::Override, || {
            let write = self.kernel.write(&attribute, UIO_DRIVER);
            write.map_err(|error| Error::io("write", &attribute, error))
        })?;
        self.unbind_and_bind(device, entry)
    }

    fn by_class(&self, device: &Device, entry: &mut Entry) -> Result<(), Error> {
        for other in self.bus.devices()? {
            let idle = other.class == device.class && other.driver.is_none() && other.name != device.name;
            if idle && !entry.bystanders.contains(&other.name) {
                entry.bystanders.push(other.name);
            }
        }
        let foreign = !entry.new_id;
        entry.new_id = true;
        let attribute = self.driver_file(UIO_DRIVER, "new_id");
        let mut known = false;
        self.change(entry, Step::AddId, || match self.kernel.write(&attribute, &device.class.to_string()) {
            Err(error) if Errno::from_io_error(&error) == Some(Errno::EXIST) => {
                known = true;
                Ok(())
            }
            other => other.map_err(|error| Error::io("write", &attribute, error)),
        })?;
        // The class was known before, and not through an earlier attempt of ours: it stays known.
        entry.new_id = !(known && foreign);
        self.unbind_and_bind(device, entry)?;
        if entry.new_id {
            self.change(entry, Step::RemoveId, || self.remove_id(device.class))?;
            entry.new_id = false;
        }
        let bystanders = entry.bystanders.clone();
        self.change(entry, Step::ReleaseBystanders, || self.release(&bystanders))?;
        entry.bystanders.clear();
        self.journal.store(entry, &*self.kernel)
    }

    /// The two writes that both ways share; each only where it is (still) needed.
    fn unbind_and_bind(&self, device: &Device, entry: &mut Entry) -> Result<(), Error> {
        let current = self.bus.refresh(device)?;
        if let Some(driver) = current.driver.as_deref().filter(|driver| *driver != UIO_DRIVER) {
            self.change(entry, Step::Unbind, || self.write_unbind(&current, driver))?;
        }
        if self.bus.refresh(device)?.driver.as_deref() != Some(UIO_DRIVER) {
            self.change(entry, Step::Bind, || self.write_bind(device, UIO_DRIVER))?;
        }
        Ok(())
    }

    /// Journals the step, then takes it.
    fn change(&self, entry: &mut Entry, step: Step, change: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        entry.step = step;
        self.journal.store(entry, &*self.kernel)?;
        log::debug!(target: "vmbus::bind", "device {}: {step:?}", entry.device);
        change()?;
        self.kernel.at(Point::Changed);
        Ok(())
    }

    /// Waits for the node of a device that is bound.
    fn bound(
        &self,
        device: &Device,
        arrival: Option<u64>,
        timeout: Duration,
        method: Method,
        former_driver: Option<String>,
    ) -> Result<Bound, Error> {
        let goes_on = || self.still_there(device, arrival);
        let (device, node) = self.bus.wait_for_uio_with(&mut *hints(), &device.name, timeout, goes_on)?;
        let uio = device.uio.unwrap_or_default();
        Ok(Bound { device: device.name, uio, node, method, former_driver })
    }

    /// Whether `driver` is registered with the bus.
    pub(super) fn require(&self, device: &Device, driver: &str) -> Result<(), Error> {
        if self.driver_file(driver, "bind").exists() {
            return Ok(());
        }
        Err(Error::NoDriver { device: device.name.clone(), driver: driver.to_owned() })
    }

    /// Writes the device's name to the driver's `bind`, and looks whether that took.
    pub(super) fn write_bind(&self, device: &Device, driver: &str) -> Result<(), Error> {
        self.require(device, driver)?;
        let written = self.kernel.write(&self.driver_file(driver, "bind"), &device.name);
        let current = self.bus.refresh(device)?;
        if current.driver.as_deref() == Some(driver) {
            return Ok(());
        }
        let source = written.err().unwrap_or_else(|| io::Error::other("the write had no effect"));
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Err(Error::io("write", self.driver_file(driver, "bind"), source));
        }
        let hint = hint(&source, driver).to_owned();
        Err(Error::BindFailed { device: device.name.clone(), driver: driver.to_owned(), source, hint })
    }
}

/// What to try when a driver did not take a device.
fn hint(error: &io::Error, driver: &str) -> &'static str {
    let number = error.raw_os_error();
    if driver != UIO_DRIVER {
        return "the kernel's log (`dmesg`) says more; then run `vmbusctl restore` again";
    }
    if number == Some(ENOTSUPP) {
        return "the channel has no monitor bit, which this driver takes only since Linux 6.10";
    }
    match Errno::from_io_error(error) {
        Some(Errno::NOMEM) => "it needs up to 4 MiB of memory in one piece; free some memory and try again",
        Some(Errno::BUSY) => "another driver took it meanwhile; try again",
        Some(Errno::NODEV) => {
            "before Linux 6.10 the driver refuses channels without a monitor bit, and it never takes hv_sock channels; \
             the kernel's log (`dmesg`) says which it was"
        }
        _ => "the kernel's log (`dmesg`) says more",
    }
}
