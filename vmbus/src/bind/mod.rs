//! Taking a device over for user space, and giving it back.
//!
//! What is about to be done is on disk before it is done: whatever kills the process, `restore` brings the former
//! driver back.

mod driver_core;
mod give_back;
mod guard;
mod journal;
mod take;

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::sysfs::{Bus, Device};

use driver_core::{DriverCore, System};
use journal::Journal;

/// The kernel driver that hands a device to user space.
pub const UIO_DRIVER: &str = "uio_hv_generic";

/// Where the journal is kept unless told otherwise.
pub const DEFAULT_STATE_DIRECTORY: &str = "/var/lib/vmbusctl";

/// How to bind.
#[derive(Clone, Copy, Debug, Default)]
pub struct BindOptions {
    /// Also take the network adapter with the default route, or a disk that holds a mounted file system.
    pub force: bool,
}

/// How the kernel was told to bind the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Method {
    /// It already was bound; nothing was changed.
    Already,
    /// By the device's own `driver_override` file.
    DriverOverride,
    /// By the class, through the driver's `new_id` file: kernels before 4.20.
    NewId,
}

/// A device that user space can open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Bound {
    /// The device's sysfs name.
    pub device: String,
    /// The UIO device, such as `uio0`.
    pub uio: String,
    /// Its node, such as `/dev/uio0`.
    pub node: PathBuf,
    /// How it was done.
    pub method: Method,
    /// The kernel driver that it was taken from.
    pub former_driver: Option<String>,
}

/// What became of a device that was given back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Restored {
    /// The device's sysfs name.
    pub device: String,
    /// The kernel driver that has it now.
    pub driver: Option<String>,
    /// What was done about it.
    pub outcome: Outcome,
}

/// See [`Restored::outcome`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The former state is back.
    Restored,
    /// There was nothing to undo.
    Nothing,
    /// The device is gone; its journal was dropped.
    Gone,
    /// The machine was started again since, which undid everything; the journal was dropped.
    Stale,
}

/// One device's part of [`Binder::restore_all`].
#[derive(Debug)]
pub struct Attempt {
    /// The device's sysfs name.
    pub device: String,
    /// What became of it.
    pub result: Result<Restored, Error>,
}

/// Binds devices to `uio_hv_generic` and gives them back.
///
/// Several binders, also in several processes, take turns: one works, the others wait.
#[derive(Debug)]
pub struct Binder {
    bus: Bus,
    journal: Journal,
    kernel: Box<dyn DriverCore>,
    always_new_id: bool,
}

impl Binder {
    /// A binder for `bus` that keeps its journal in `state_directory` (created when first needed).
    pub fn new(bus: &Bus, state_directory: impl Into<PathBuf>) -> Self {
        Self::with_driver_core(bus, state_directory, Box::new(System))
    }

    fn with_driver_core(bus: &Bus, state_directory: impl Into<PathBuf>, kernel: Box<dyn DriverCore>) -> Self {
        Self { bus: bus.clone(), journal: Journal::at(state_directory.into()), kernel, always_new_id: false }
    }

    /// The same binder, but one that goes through `new_id` also where the device has a `driver_override`.
    ///
    /// That way is for kernels before 4.20; this lets it be tried on newer ones.
    #[must_use]
    pub fn with_new_id(self) -> Self {
        Self { always_new_id: true, ..self }
    }

    /// Where the journal is.
    #[must_use]
    pub fn state_directory(&self) -> &Path {
        self.journal.folder()
    }

    /// Gives `device` to `uio_hv_generic` and waits (bounded) for its node. That goes with the device: one that the host
    /// takes back and offers again is to be bound again, under the same name.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Busy`], [`Error::NoDriver`], [`Error::BindFailed`], [`Error::Timeout`],
    /// [`Error::Rescinded`] when the host takes it back meanwhile, [`Error::Io`]. After an error the former driver has the device again, where that was possible.
    pub fn bind(&self, device: &Device, options: BindOptions) -> Result<Bound, Error> {
        self.take(device, options)
    }

    /// Gives `device` back to its former driver; without a journal, to the driver that the kernel chooses.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process holds it open, [`Error::NoDriver`], [`Error::BindFailed`], [`Error::Io`].
    pub fn unbind(&self, device: &Device) -> Result<Restored, Error> {
        let restored = self.give_back(&device.name)?;
        match restored.outcome {
            Outcome::Nothing | Outcome::Stale => self.give_to_kernel(device),
            _ => Ok(restored),
        }
    }

    /// Undoes what the journal says was begun on a device: its sysfs name, or any selector of [`Bus::find`].
    ///
    /// Restoring a device that has no journal (any more) changes nothing and is no error.
    ///
    /// # Errors
    /// As [`unbind`](Self::unbind); those of [`Bus::find`] where the journal does not know the name.
    pub fn restore(&self, selector: &str) -> Result<Restored, Error> {
        // The device may be gone, and then only the journal knows its name.
        match self.journal.load(selector)? {
            Some(entry) => self.give_back(&entry.device),
            None => self.give_back(&self.bus.find(selector)?.name),
        }
    }

    /// [`restore`](Self::restore) for each device that the journal names; one that fails does not stop the others.
    ///
    /// # Errors
    /// Where the journal can't be listed.
    pub fn restore_all(&self) -> Result<Vec<Attempt>, Error> {
        let devices = self.pending()?.into_iter();
        Ok(devices.map(|device| Attempt { result: self.give_back(&device), device }).collect())
    }

    /// The devices that the journal names, by sysfs name.
    ///
    /// # Errors
    /// Where the journal can't be listed.
    pub fn pending(&self) -> Result<Vec<String>, Error> {
        self.journal.devices()
    }

    fn driver_file(&self, driver: &str, file: &str) -> PathBuf {
        self.bus.path("sys/bus/vmbus/drivers").join(driver).join(file)
    }
}

#[cfg(test)]
mod tests;
