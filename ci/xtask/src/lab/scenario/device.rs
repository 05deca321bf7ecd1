//! The one device QEMU's bus has, looked at through sysfs and not through the code under test.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

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

/// Where the guest's memory is, in KiB: the fields of /proc/meminfo, and `Free`, which is `MemFree` and what processors
/// keep on free lists of their own. Since Linux 6.7 these lists grow to tens of MiB, and `MemFree` leaves them out.
#[derive(Debug, Clone)]
pub(super) struct Memory(BTreeMap<String, u64>);

impl Memory {
    /// Reads /proc/meminfo and /proc/zoneinfo.
    pub(super) fn read(guest: &mut Guest) -> Result<Self> {
        const PROGRAM: &str = "/^MemFree:/ { free += $2 } FILENAME ~ /zone/ && $1 == \"count:\" { free += 4 * $2 }
            FILENAME ~ /mem/ { print } END { print \"Free: \" free \" kB\" }";
        let text = guest.shell(&format!("awk '{PROGRAM}' /proc/meminfo /proc/zoneinfo"))?;
        let fields = text.lines().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim().trim_end_matches(" kB").parse().ok()?))
        });
        Ok(Self(fields.collect()))
    }

    /// One field, in KiB.
    pub(super) fn kib(&self, field: &str) -> Result<u64> {
        self.0.get(field).copied().with_context(|| format!("no {field} in the guest's /proc/meminfo"))
    }

    /// The fields that changed by a MiB or more since `before`, for a message.
    pub(super) fn changes(&self, before: &Self) -> String {
        let changed = self.0.iter().filter_map(|(name, now)| {
            let was = before.0.get(name)?;
            (now.abs_diff(*was) >= 1024).then(|| format!("{name} {was} -> {now}"))
        });
        changed.collect::<Vec<_>>().join(", ")
    }
}
