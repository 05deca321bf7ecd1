//! What the doctor looks at: everything it needs from `/sys`, `/proc`, `/dev` and `/lib/modules`, read once.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::log::{self, KernelLog};
use crate::Error;
use crate::bind::UIO_DRIVER;
use crate::kernel::Kernel;
use crate::sysfs::{Bus, Device, Scan};

/// Where a kernel module is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Module {
    /// Loaded, or built into the kernel and running.
    Present,
    /// On disk for this kernel, not loaded.
    Available,
    /// Not in this kernel's module list.
    Missing,
    /// The module list of this kernel could not be read.
    Unknown,
}

impl Module {
    /// A word or two for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Present => "loaded",
            Self::Available => "not loaded",
            Self::Missing => "not in this kernel",
            Self::Unknown => "not loaded (and the kernel's module list cannot be read)",
        }
    }
}

/// The state of one machine. Gathered by [`Facts::gather`], judged by [`examine_facts`](super::examine_facts).
#[derive(Clone, Debug)]
pub struct Facts {
    /// The running kernel.
    pub kernel: Kernel,
    /// The size of a system page in bytes.
    pub page_bytes: usize,
    /// Whether the bus is there (`/sys/bus/vmbus/devices`).
    pub bus: bool,
    /// Whether the firmware announces a VMBus (its ACPI device).
    pub announced: bool,
    /// The bus driver, `hv_vmbus`.
    pub bus_module: Module,
    /// The driver that hands devices to user space, `uio_hv_generic`.
    pub uio_module: Module,
    /// The devices on the bus; empty when they could not be listed.
    pub devices: Vec<Device>,
    /// Devices that could not be read, each with the reason.
    pub broken: Vec<String>,
    /// Why the devices could not be listed.
    pub devices_error: Option<String>,
    /// The effective user id of this process, when known.
    pub user: Option<u32>,
    /// The effective capabilities of this process, as in `/proc/self/status`, when known.
    pub capabilities: Option<u64>,
    /// `RLIMIT_MEMLOCK` in bytes; `u64::MAX` is unlimited.
    pub locked_memory_bytes: Option<u64>,
    /// `kernel.io_uring_disabled`: 0 open to all, 1 to privileged processes, 2 to none. `None`: no such setting.
    pub io_uring_disabled: Option<u32>,
    /// Free memory that can be had without swapping, in bytes.
    pub available_bytes: Option<u64>,
    /// Free physically contiguous blocks of at least 4 MiB.
    pub free_4mib_blocks: Option<u64>,
    /// Whether this is a confidential VM.
    pub confidential: bool,
    /// What the kernel logged about VMBus.
    pub log: KernelLog,
}

impl Facts {
    /// Reads the state of the machine below the root of `bus`. Whatever cannot be read stays unknown; nothing is an
    /// error.
    #[must_use]
    pub fn gather(bus: &Bus) -> Self {
        let root = &bus.path("");
        let kernel = Kernel::running(bus);
        let (scan, devices_error) = match settled(bus) {
            Ok(scan) => (scan, None),
            Err(error) => (Scan::default(), Some(error.to_string())),
        };
        let status = text(root, "proc/self/status");
        let page_bytes = rustix::param::page_size();
        Self {
            page_bytes,
            bus: root.join("sys/bus/vmbus/devices").is_dir(),
            announced: announced(root),
            bus_module: module(root, &kernel, "hv_vmbus", "sys/bus/vmbus/devices"),
            uio_module: module(root, &kernel, UIO_DRIVER, "sys/bus/vmbus/drivers/uio_hv_generic"),
            devices: scan.devices,
            broken: scan.broken.iter().map(|broken| format!("{}: {}", broken.name, broken.error)).collect(),
            devices_error,
            user: words_after(&status, "Uid:").and_then(|mut words| words.nth(1)?.parse().ok()),
            capabilities: words_after(&status, "CapEff:")
                .and_then(|mut words| u64::from_str_radix(words.next()?, 16).ok()),
            locked_memory_bytes: locked_memory(&text(root, "proc/self/limits")),
            io_uring_disabled: text(root, "proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            available_bytes: available_bytes(&text(root, "proc/meminfo")),
            free_4mib_blocks: free_blocks(&text(root, "proc/buddyinfo"), page_bytes),
            confidential: confidential(root),
            log: log::read(&root.join("dev/kmsg")),
            kernel,
        }
    }

    /// The protocol version that bus and host agreed on, such as `5.3`, where the kernel's log still has it.
    #[must_use]
    pub fn bus_version(&self) -> Option<&str> {
        let (_, version) = self.log.newest("Vmbus version:")?.split_once("Vmbus version:")?;
        version.split_whitespace().next()
    }

    /// Whether this process has a capability, by its number in `linux/capability.h`. Unknown counts as no.
    pub(super) fn may(&self, capability: u32) -> bool {
        self.capabilities.is_some_and(|set| set & (1 << capability) != 0)
    }

    /// Whether a device of `class` is on the bus.
    pub(super) fn offers(&self, class: crate::class::Class) -> bool {
        self.devices.iter().any(|device| device.class == class)
    }
}

/// The text of a file below the root, empty when it cannot be read.
fn text(root: &Path, path: &str) -> String {
    std::fs::read(root.join(path)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The words of the line that starts with `key`.
fn words_after<'a>(text: &'a str, key: &str) -> Option<std::str::SplitWhitespace<'a>> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::split_whitespace)
}

/// The ACPI device that stands for the bus is called VMBUS (MSFT1000 and the like are its aliases).
fn announced(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root.join("sys/bus/acpi/devices")) else { return false };
    entries.filter_map(Result::ok).any(|entry| {
        let name = entry.file_name().to_string_lossy().to_ascii_uppercase();
        name.starts_with("VMBUS:") || name.starts_with("MSFT1000:")
    })
}

/// A module that is loaded shows in `/sys/module`; a built-in one without parameters only by what it registered.
fn module(root: &Path, kernel: &Kernel, name: &str, registered: &str) -> Module {
    if root.join("sys/module").join(name).exists() || root.join(registered).exists() {
        return Module::Present;
    }
    let mut known = false;
    for base in ["lib/modules", "usr/lib/modules"] {
        let folder = root.join(base).join(&kernel.release);
        for list in ["modules.dep", "modules.builtin"] {
            let Ok(list) = std::fs::read(folder.join(list)) else { continue };
            known = true;
            if lists_module(&String::from_utf8_lossy(&list), name) {
                return Module::Available;
            }
        }
    }
    if known { Module::Missing } else { Module::Unknown }
}

/// Whether a `modules.dep` or `modules.builtin` has `.../<name>.ko[.xz]` as the subject of a line. A file name may
/// have dashes where the module has underscores.
fn lists_module(list: &str, name: &str) -> bool {
    list.lines().filter_map(|line| line.split(':').next()).any(|path| {
        let file = path.trim().rsplit('/').next().unwrap_or_default();
        file.split('.').next().is_some_and(|stem| stem.replace('-', "_") == name)
    })
}

fn locked_memory(limits: &str) -> Option<u64> {
    let soft = words_after(limits, "Max locked memory")?.next()?;
    if soft == "unlimited" { Some(u64::MAX) } else { soft.parse().ok() }
}

fn available_bytes(meminfo: &str) -> Option<u64> {
    let kib: u64 = words_after(meminfo, "MemAvailable:")?.next()?.parse().ok()?;
    kib.checked_mul(1024)
}

/// Counts free blocks of 4 MiB in `/proc/buddyinfo`: per zone one column per order, a block of order n being
/// `page << n` bytes; a larger block holds several.
fn free_blocks(buddyinfo: &str, page_bytes: usize) -> Option<u64> {
    const WANTED: u64 = 4 << 20;
    let page = u64::try_from(page_bytes).ok()?;
    let mut total = 0u64;
    let mut zones = 0;
    for line in buddyinfo.lines() {
        // "Node 0, zone   Normal   12   34 ..."
        let mut words = line.split_whitespace().skip_while(|word| *word != "zone").skip(1);
        let Some(zone) = words.next() else { continue };
        zones += 1;
        if zone == "DMA" || zone == "Movable" {
            continue;
        }
        for (order, count) in words.enumerate() {
            let bytes = u32::try_from(order).ok().and_then(|order| page.checked_shl(order)).unwrap_or(0);
            total = total.saturating_add(count.parse::<u64>().unwrap_or(0).saturating_mul(bytes / WANTED));
        }
    }
    (zones > 0).then_some(total)
}

/// The devices, once none is on its way to user space any more: the kernel shows the driver of a device before that has
/// set the device up, which takes it a while where it shares tens of megabytes with the host. A device that never gets
/// its node is waited for in vain, and not for long.
fn settled(bus: &Bus) -> Result<Scan, Error> {
    const PATIENCE: Duration = Duration::from_secs(2);
    let start = Instant::now();
    loop {
        let scan = bus.scan()?;
        let under_way = |device: &Device| device.driver.as_deref() == Some(UIO_DRIVER) && device.uio.is_none();
        if start.elapsed() >= PATIENCE || !scan.devices.iter().any(under_way) {
            return Ok(scan);
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Guests under SEV-SNP or TDX have a device for attestation, or say so in the CPU flags.
fn confidential(root: &Path) -> bool {
    ["dev/sev-guest", "dev/tdx_guest", "dev/tdx-guest"].iter().any(|device| root.join(device).exists())
        || words_after(&text(root, "proc/cpuinfo"), "flags")
            .is_some_and(|mut flags| flags.any(|flag| flag == "tdx_guest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;
    use crate::fake::{Tree, real};

    #[test]
    fn a_device_that_is_being_bound_is_waited_for() {
        let tree = Tree::new();
        tree.device(Class::FCOPY, 3, Some(UIO_DRIVER));
        let node = format!("{}/uio/uio0", real(3));
        let found = thread::scope(|scope| {
            let looks = scope.spawn(|| Facts::gather(&tree.bus()));
            // As if it came a moment later: the look may even have begun before it.
            tree.folder_at(&node);
            looks.join().unwrap()
        });
        assert!(found.devices.iter().all(|device| device.uio.is_some()), "{:?}", found.devices);
    }

    #[test]
    fn a_device_that_never_gets_its_node_is_not_waited_for_long() {
        let tree = Tree::new();
        tree.device(Class::FCOPY, 3, Some(UIO_DRIVER));
        let found = Facts::gather(&tree.bus());
        assert!(found.devices.iter().any(|device| device.uio.is_none()), "{:?}", found.devices);
    }

    #[test]
    fn module_lists_match_whole_names() {
        let dep =
            "kernel/drivers/uio/uio.ko.xz:\nkernel/drivers/uio/uio_hv_generic.ko.xz: kernel/drivers/uio/uio.ko.xz\n";
        assert!(lists_module(dep, "uio_hv_generic"));
        assert!(!lists_module(dep, "hv_vmbus"));
        assert!(lists_module("kernel/drivers/hv/hv-vmbus.ko\n", "hv_vmbus"));
        assert!(!lists_module("kernel/a.ko: kernel/drivers/uio/uio_hv_generic.ko\n", "uio_hv_generic"));
    }

    #[test]
    fn contiguous_blocks_are_counted_in_usable_zones() {
        let buddyinfo = "Node 0, zone      DMA   0   0   0   0   0   0   0   0   1   1   3\n\
                         Node 0, zone    DMA32   3   2   2   3   2   3   2   2   2   2   5\n\
                         Node 0, zone   Normal 100  80   4   1   0   0   0   0   0   1   2\n";
        assert_eq!(free_blocks(buddyinfo, 4096), Some(7));
        assert_eq!(free_blocks("", 4096), None);
    }

    #[test]
    fn limits_and_memory() {
        assert_eq!(
            locked_memory("Max locked memory         8388608              8388608              bytes\n"),
            Some(8 << 20)
        );
        assert_eq!(
            locked_memory("Max locked memory         unlimited            unlimited            bytes\n"),
            Some(u64::MAX)
        );
        assert_eq!(available_bytes("MemTotal: 1 kB\nMemAvailable:     2048 kB\n"), Some(2 << 20));
    }
}
