//! Back from `uio_hv_generic` to the driver that had the device.
//!
//! Undoing compares what is with what should be and does what is missing: so it does not matter where a bind, or an
//! earlier attempt at undoing, was killed.

use rustix::io::Errno;

use super::driver_core::{Point, Step};
use super::guard;
use super::journal::{Entry, Former, boot_id};
use super::{Binder, Outcome, Restored, UIO_DRIVER};
use crate::Error;
use crate::class::Class;
use crate::error::is_vanished;
use crate::sysfs::Device;

impl Binder {
    /// Gives back the device with this sysfs name, with the help of its journal.
    pub(super) fn give_back(&self, name: &str) -> Result<Restored, Error> {
        let _lock = self.journal.lock()?;
        let result = |outcome, driver| Ok(Restored { device: name.to_owned(), driver, outcome });
        let device = self.bus.read_device(name)?;
        let Some(entry) = self.journal.load(name)? else {
            return result(Outcome::Nothing, device.and_then(|device| device.driver));
        };
        if entry.boot_id != boot_id(&self.bus)? {
            self.journal.drop_entry(name, &*self.kernel)?;
            return result(Outcome::Stale, device.and_then(|device| device.driver));
        }
        self.undo(&entry)
    }

    /// Takes a device from `uio_hv_generic` that nobody journalled, and lets the kernel choose its driver.
    pub(super) fn give_to_kernel(&self, device: &Device) -> Result<Restored, Error> {
        let _lock = self.journal.lock()?;
        let device = self.bus.refresh(device)?;
        if device.driver.as_deref() != Some(UIO_DRIVER) {
            return Ok(Restored { device: device.name, driver: device.driver, outcome: Outcome::Nothing });
        }
        guard::refuse_if_held(&self.bus, &device)?;
        let mut entry = Entry::new(&device, boot_id(&self.bus)?);
        entry.former_driver = Former::Unknown;
        entry.former_override = device.driver_override.filter(|driver| driver != UIO_DRIVER);
        entry.step = Step::Unbind;
        self.journal.store(&entry, &*self.kernel)?;
        self.undo(&entry)
    }

    /// Brings the state back that `entry` remembers, then drops it.
    pub(super) fn undo(&self, entry: &Entry) -> Result<Restored, Error> {
        if let Some(device) = self.of(entry)? {
            match self.undo_device(&device, entry) {
                // It went meanwhile.
                Err(_) if self.of(entry)?.is_none() => {}
                driver => {
                    let restored = Restored { device: device.name, driver: driver?, outcome: Outcome::Restored };
                    self.journal.drop_entry(&restored.device, &*self.kernel)?;
                    return Ok(restored);
                }
            }
        }
        self.undo_class(entry)?;
        self.journal.drop_entry(&entry.device, &*self.kernel)?;
        Ok(Restored { device: entry.device.clone(), driver: None, outcome: Outcome::Gone })
    }

    /// The device that the journal is about, if it is there.
    fn of(&self, entry: &Entry) -> Result<Option<Device>, Error> {
        Ok(self.bus.read_device(&entry.device)?.filter(|device| device.instance == entry.instance))
    }

    /// Brings the state of a device that is there back; which driver has it then.
    fn undo_device(&self, device: &Device, entry: &Entry) -> Result<Option<String>, Error> {
        if device.driver.as_deref() == Some(UIO_DRIVER) {
            guard::refuse_if_held(&self.bus, device)?;
        }
        self.undo_class(entry)?;
        self.take_from_uio(device, entry)?;
        self.undo_override(device, entry)?;
        self.give_to_former(device, entry)?;
        Ok(self.bus.refresh(device)?.driver)
    }

    /// What was told to the driver about the class, and what it grabbed for that.
    fn undo_class(&self, entry: &Entry) -> Result<(), Error> {
        if entry.new_id {
            self.remove_id(Class(entry.class))?;
            self.kernel.at(Point::Changed);
        }
        self.release(&entry.bystanders)
    }

    fn take_from_uio(&self, device: &Device, entry: &Entry) -> Result<(), Error> {
        let stays = entry.former_driver == Former::Driver(UIO_DRIVER.to_owned());
        if device.driver.as_deref() != Some(UIO_DRIVER) || stays {
            return Ok(());
        }
        self.write_unbind(device, UIO_DRIVER)?;
        self.kernel.at(Point::Changed);
        Ok(())
    }

    /// Puts the former override back, unless somebody else has set another one meanwhile.
    fn undo_override(&self, device: &Device, entry: &Entry) -> Result<(), Error> {
        let ours = device.driver_override.as_deref() == Some(UIO_DRIVER);
        if !ours || entry.former_override.as_deref() == Some(UIO_DRIVER) {
            return Ok(());
        }
        let attribute = device.path.join("driver_override");
        // An empty line clears it; an empty write would not reach the kernel.
        let value = entry.former_override.as_deref().unwrap_or("\n");
        self.kernel.write(&attribute, value).map_err(|error| Error::io("write", &attribute, error))?;
        self.kernel.at(Point::Changed);
        Ok(())
    }

    /// Binds the device where it belongs, unless somebody else has it by now.
    fn give_to_former(&self, device: &Device, entry: &Entry) -> Result<(), Error> {
        if self.bus.refresh(device)?.driver.is_some() {
            return Ok(());
        }
        match &entry.former_driver {
            Former::Nobody => return Ok(()),
            Former::Driver(driver) => self.write_bind(device, driver)?,
            Former::Unknown => {
                let probe = self.bus.path("sys/bus/vmbus/drivers_probe");
                self.kernel.write(&probe, &device.name).map_err(|error| Error::io("write", &probe, error))?;
            }
        }
        self.kernel.at(Point::Changed);
        Ok(())
    }

    /// Takes a device from `driver`; that another process did so meanwhile is fine.
    pub(super) fn write_unbind(&self, device: &Device, driver: &str) -> Result<(), Error> {
        if driver == UIO_DRIVER {
            guard::refuse_if_held(&self.bus, device)?;
        }
        let attribute = self.driver_file(driver, "unbind");
        let written = self.kernel.write(&attribute, &device.name);
        if self.bus.refresh(device)?.driver.as_deref() != Some(driver) {
            return Ok(());
        }
        let error = written.err().unwrap_or_else(|| std::io::Error::other("the write had no effect"));
        Err(Error::io("write", &attribute, error))
    }

    /// Makes `uio_hv_generic` forget a class; that it does not know the class, or is not there, is fine.
    pub(super) fn remove_id(&self, class: Class) -> Result<(), Error> {
        let attribute = self.driver_file(UIO_DRIVER, "remove_id");
        match self.kernel.write(&attribute, &class.to_string()) {
            Err(error) if is_vanished(&error) || Errno::from_io_error(&error) == Some(Errno::NODEV) => Ok(()),
            other => other.map_err(|error| Error::io("write", &attribute, error)),
        }
    }

    /// Frees devices that had no driver before `uio_hv_generic` grabbed them; one in use stays.
    pub(super) fn release(&self, bystanders: &[String]) -> Result<(), Error> {
        for name in bystanders {
            let Some(device) = self.bus.read_device(name)? else { continue };
            if device.driver.as_deref() != Some(UIO_DRIVER) {
                continue;
            }
            match self.write_unbind(&device, UIO_DRIVER) {
                Err(Error::Busy { .. }) => {
                    log::warn!(target: "vmbus::bind", "device {name} stays with {UIO_DRIVER}: a process has opened it");
                }
                result => result?,
            }
        }
        Ok(())
    }
}
