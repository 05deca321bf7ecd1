//! The one device QEMU's bus has, looked at through sysfs and not through the code under test.

use anyhow::{Result, bail};

use super::super::guest::Guest;

/// Class of Dynamic Memory, as sysfs writes it.
pub(super) const CLASS: &str = "525074dc-8985-46e2-8057-a307dc18a502";

/// The kernel's own driver for it.
pub(super) const KERNEL_DRIVER: &str = "hv_balloon";

/// The driver that hands devices to user space.
pub(super) const UIO_DRIVER: &str = "uio_hv_generic";

/// Name of the device's folder in /sys/bus/vmbus/devices.
pub(super) fn instance(guest: &mut Guest) -> Result<String> {
    let found = guest.shell(&format!("cd /sys/bus/vmbus/devices && grep -l {CLASS} */class_id"))?;
    match found.lines().collect::<Vec<_>>().as_slice() {
        [file] => Ok(file.trim_end_matches("/class_id").to_owned()),
        files => bail!("one device of class {CLASS} expected, found {files:?}"),
    }
}

/// Name of the driver that is bound to the device, empty if there is none.
pub(super) fn driver(guest: &mut Guest, instance: &str) -> Result<String> {
    guest.shell(&format!("d=$(readlink /sys/bus/vmbus/devices/{instance}/driver) && basename $d || true"))
}

/// Insists on the bound driver.
pub(super) fn expect_driver(guest: &mut Guest, instance: &str, expected: &str) -> Result<()> {
    let driver = driver(guest, instance)?;
    if driver != expected {
        bail!("the device should be with {expected:?} but is with {driver:?}");
    }
    Ok(())
}

/// A field of /proc/meminfo, in KiB.
pub(super) fn meminfo(guest: &mut Guest, field: &str) -> Result<u64> {
    let text = guest.shell(&format!("awk '$1 == \"{field}:\" {{ print $2 }}' /proc/meminfo"))?;
    Ok(text.parse()?)
}
