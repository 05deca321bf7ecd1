//! The bus as sysfs shows it, below a root that tests can put anywhere.

mod device;
mod files;
mod parse;
mod read;
mod select;

use std::path::{Path, PathBuf};

use crate::Error;
use crate::error::is_vanished;

pub use device::{
    Broken, Channel, ChannelState, Counters, Device, RingFile, RingFill, RingIndices, Rings, Scan, VpMapping,
};

/// Where the kernel lists the devices, below the root.
const DEVICES: &str = "sys/bus/vmbus/devices";

/// The bus of one root folder: `/` for the machine's own, any other for a tree that looks like it.
#[derive(Clone, Debug)]
pub struct Bus {
    root: PathBuf,
}

impl Bus {
    /// This machine's bus.
    #[must_use]
    pub fn system() -> Self {
        Self::at("/")
    }

    /// The bus below `root`, which holds `sys`, `proc` and `dev`.
    pub fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// A path below the root, such as `path("proc/mounts")`; the file need not exist.
    #[must_use]
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// Every device that could be read, by relid. Broken ones are logged; [`scan`](Self::scan) returns them.
    ///
    /// # Errors
    /// [`Error::NoBus`] where the kernel shows none, [`Error::Io`] where its folder can't be listed.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        let scan = self.scan()?;
        for broken in &scan.broken {
            log::warn!(target: "vmbus::sysfs", "device {} is left out: {}", broken.name, broken.error);
        }
        Ok(scan.devices)
    }

    /// Every device, and a report of each that could not be read. One that vanishes meanwhile is neither.
    ///
    /// # Errors
    /// As [`devices`](Self::devices).
    pub fn scan(&self) -> Result<Scan, Error> {
        let folder = self.path(DEVICES);
        let mut scan = Scan::default();
        if let Err(source) = self.resolve(&folder) {
            let missing = is_vanished(&source);
            return Err(if missing { Error::NoBus { path: folder } } else { Error::io("open", folder, source) });
        }
        for name in self.names(&folder)? {
            match self.read_device(&name) {
                Ok(device) => scan.devices.extend(device),
                Err(error) => scan.broken.push(Broken { name, error }),
            }
        }
        scan.devices.sort_by_key(|device| device.relid);
        Ok(scan)
    }

    /// The names of all devices, sorted. A bus that is not there has none.
    pub(crate) fn device_names(&self) -> Result<Vec<String>, Error> {
        self.names(&self.path(DEVICES))
    }

    /// The folder of the device of this name.
    pub(crate) fn device_path(&self, name: &str) -> PathBuf {
        self.path(DEVICES).join(name)
    }

    /// Reads a device again.
    ///
    /// # Errors
    /// [`Error::Rescinded`] where it is gone; [`Error::Malformed`] and [`Error::Io`] where it can't be read.
    pub fn refresh(&self, device: &Device) -> Result<Device, Error> {
        let again = self.read_device(&device.name)?;
        // Older kernels number their folders: the same name can be another device.
        let same = again.filter(|again| again.instance == device.instance);
        same.ok_or_else(|| Error::Rescinded { device: device.name.clone() })
    }
}

#[cfg(test)]
mod tests;
