//! Trees that look like `/sys`, `/proc` and `/dev` of Hyper-V guests, as far as vmbusctl reads them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

pub(crate) const BALLOON: &str = "1eccfd72-4b41-45ef-b73a-4a6e44c12924";
pub(crate) const DYNAMIC_MEMORY: &str = "525074dc-8985-46e2-8057-a307dc18a502";
pub(crate) const NIC: &str = "f8615163-df3e-46c5-913f-f2d2f965ed0e";
const SCSI: &str = "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f";
const HEARTBEAT: &str = "57164f39-9115-4e78-ab55-382f3bd5422d";
/// Where devices really are; the bus folder holds links to here.
const REAL: &str = "sys/devices/ACPI0004_00/MSFT1000_00";

/// One machine below its root folder.
pub(crate) struct Tree(PathBuf);

/// One device, as much of it as differs between the fixtures.
#[derive(Clone, Default)]
pub(crate) struct Device<'a> {
    pub(crate) relid: u32,
    pub(crate) instance: &'a str,
    pub(crate) class: &'a str,
    pub(crate) driver: Option<&'a str>,
    pub(crate) uio: Option<&'a str>,
    pub(crate) monitor: Option<u32>,
    /// Relid and CPU of each channel, in the order of `channel_vp_mapping`.
    pub(crate) channels: Vec<(u32, u32)>,
    pub(crate) open: bool,
}

impl Tree {
    /// A machine with a kernel, memory and rights, and nothing of VMBus.
    pub(crate) fn new(root: &Path, release: &str, banner: &str, log: &str) -> Self {
        let tree = Self(root.to_owned());
        tree.write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        tree.write("proc/version", &format!("Linux version {release} (x@y) (gcc) #1 SMP PREEMPT_DYNAMIC {banner}\n"));
        tree.write("proc/sys/kernel/io_uring_disabled", "0\n");
        tree.write("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n");
        tree.write("proc/self/status", "Name:\tvmbusctl\nUid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n");
        tree.write("proc/self/limits", "Max locked memory         8388608              8388608              bytes\n");
        tree.write("proc/meminfo", "MemTotal: 498000 kB\nMemAvailable: 400000 kB\n");
        tree.write(
            "proc/buddyinfo",
            "Node 0, zone   Normal      1      1      1      1      1      1      1      1      1      1      9\n",
        );
        tree.write("proc/mounts", "/dev/vda1 / ext4 rw 0 0\n");
        tree.write("dev/kmsg", log);
        tree
    }

    /// The bus, without devices, and its drivers.
    pub(crate) fn bus(self, drivers: &[&str]) -> Self {
        fs::create_dir_all(self.path("sys/bus/vmbus/devices")).unwrap();
        self.write("sys/bus/vmbus/drivers_probe", "");
        for driver in drivers {
            for file in ["bind", "unbind", "new_id", "remove_id"] {
                self.write(&format!("sys/bus/vmbus/drivers/{driver}/{file}"), "");
            }
        }
        self
    }

    pub(crate) fn device(self, device: &Device<'_>) -> Self {
        let at = format!("{REAL}/{}", device.instance);
        let file = |name: &str, text: String| self.write(&format!("{at}/{name}"), &format!("{text}\n"));
        self.link(&format!("sys/bus/vmbus/devices/{}", device.instance), &at);
        file("id", device.relid.to_string());
        file("class_id", format!("{{{}}}", device.class));
        file("device_id", format!("{{{}}}", device.instance));
        file("state", if device.driver.is_some() { "3" } else { "0" }.to_owned());
        file("vendor", "0x1414".to_owned());
        file("device", "0x0".to_owned());
        file("numa_node", "0".to_owned());
        file("driver_override", "(null)".to_owned());
        file(
            "channel_vp_mapping",
            device.channels.iter().map(|(relid, cpu)| format!("{relid}:{cpu}")).collect::<Vec<_>>().join("\n"),
        );
        if let Some(monitor) = device.monitor {
            file("monitor_id", monitor.to_string());
        }
        if device.open {
            for (ring, mask, read, write) in [("out", 0, 4096, 4128), ("in", 1, 8192, 8192)] {
                file(&format!("{ring}_intr_mask"), mask.to_string());
                file(&format!("{ring}_read_index"), read.to_string());
                file(&format!("{ring}_write_index"), write.to_string());
                file(&format!("{ring}_read_bytes_avail"), (write - read).to_string());
                file(&format!("{ring}_write_bytes_avail"), (2_093_056 - (write - read)).to_string());
            }
        }
        let mut relids = device.channels.clone();
        relids.sort_unstable();
        for (index, (relid, cpu)) in relids.iter().enumerate() {
            let file = |name: &str, text: String| file(&format!("channels/{relid}/{name}"), text);
            file("cpu", cpu.to_string());
            file("subchannel_id", index.to_string());
            file("interrupts", (100 + relid).to_string());
            file("events", (200 + relid).to_string());
            if let Some(monitor) = device.monitor {
                file("monitor_id", monitor.to_string());
                file("pending", "0".to_owned());
                file("latency", "1000".to_owned());
            }
            if device.open {
                for (name, value) in
                    [("out_mask", "0"), ("in_mask", "1"), ("read_avail", "0"), ("write_avail", "2093024")]
                {
                    file(name, value.to_owned());
                }
            }
            if device.uio.is_some() {
                // Sparse: as long as both rings, and empty.
                let ring = fs::File::create(self.path(&format!("{at}/channels/{relid}/ring"))).unwrap();
                ring.set_len(4 << 20).unwrap();
            }
        }
        if let Some(driver) = device.driver {
            self.link(&format!("{at}/driver"), &format!("sys/bus/vmbus/drivers/{driver}"));
        }
        if let Some(uio) = device.uio {
            let maps = [("txrx_rings", "0x0000000000400000"), ("int_page", "0x0000000000001000")];
            for (index, (name, size)) in maps.iter().enumerate() {
                file(&format!("uio/{uio}/maps/map{index}/name"), (*name).to_owned());
                file(&format!("uio/{uio}/maps/map{index}/size"), (*size).to_owned());
            }
            self.link(&format!("sys/class/uio/{uio}"), &format!("{at}/uio/{uio}"));
            self.write(&format!("dev/{uio}"), "");
        }
        self
    }

    /// The default route, through a network interface of the device with this instance.
    pub(crate) fn route(self, interface: &str, instance: &str) -> Self {
        self.write(&format!("{REAL}/{instance}/net/{interface}/ifindex"), "2\n");
        self.link(&format!("sys/class/net/{interface}"), &format!("{REAL}/{instance}/net/{interface}"));
        self.link(&format!("{REAL}/{instance}/net/{interface}/device"), &format!("{REAL}/{instance}"));
        let header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        self.write(
            "proc/net/route",
            &format!("{header}{interface}\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"),
        );
        self
    }

    /// A process that has a node open.
    pub(crate) fn process(self, pid: u32, command: &str, open: &str) -> Self {
        self.write(&format!("proc/{pid}/comm"), &format!("{command}\n"));
        fs::create_dir_all(self.path(&format!("proc/{pid}/fd"))).unwrap();
        symlink(open, self.path(&format!("proc/{pid}/fd/3"))).unwrap();
        self
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.0.join(below)
    }

    pub(crate) fn write(&self, below: &str, text: &str) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A relative link at `below` to `target`, both below the root.
    fn link(&self, below: &str, target: &str) {
        let up: PathBuf = Path::new(below).parent().unwrap().components().map(|_| "..").collect();
        fs::create_dir_all(self.path(below).parent().unwrap()).unwrap();
        symlink(up.join(target), self.path(below)).unwrap();
    }
}

/// A guest of Hyper-V with a known-bad kernel, the balloon in user space, and devices of several kinds.
pub(crate) fn hyperv(root: &Path) -> Tree {
    let log = "6,500,1000,-;hv_vmbus: Vmbus version:5.3\n6,501,1001,-;hv_balloon: Using Dynamic Memory protocol \
               version 2.0\n";
    let device = |relid, instance, class, driver, monitor| Device {
        relid,
        instance,
        class,
        driver,
        monitor,
        channels: vec![(relid, 0)],
        ..Device::default()
    };
    let balloon =
        Device { uio: Some("uio0"), open: true, ..device(1, BALLOON, DYNAMIC_MEMORY, Some("uio_hv_generic"), None) };
    let first = Device {
        channels: vec![(12, 0), (30, 1), (21, 2)],
        open: true,
        ..device(12, "a5a3ba16-4b1c-4b52-9a2e-2f1f6f3a8c11", NIC, Some("hv_netvsc"), Some(7))
    };
    Tree::new(root, "6.12.57+deb13-amd64", "Debian 6.12.57-1 (2025-11-05)", log)
        .bus(&["uio_hv_generic", "hv_balloon", "hv_netvsc", "hv_storvsc", "hv_utils"])
        .device(&balloon)
        .device(&device(4, "fd149e91-82e0-4a7d-afa6-2a4166cbd7c0", HEARTBEAT, Some("hv_utils"), Some(4)))
        .device(&first)
        .device(&device(13, "b6b4cb27-5c2d-4c63-8b3f-3f2f7f4b9d22", NIC, Some("hv_netvsc"), Some(8)))
        .device(&device(15, "f8b3781a-1e82-4818-a1c3-63d806ec15bb", SCSI, Some("hv_storvsc"), Some(2)))
        .device(&device(
            103,
            "00000000-0000-8899-0000-000000000000",
            "11111111-2222-3333-4444-555555555555",
            None,
            None,
        ))
        .route("eth1", "b6b4cb27-5c2d-4c63-8b3f-3f2f7f4b9d22")
        .process(4242, "vmbusctl", "/dev/uio0")
}

/// A Debian 12 guest, whose kernel refused the balloon because it has no monitor id.
pub(crate) fn old(root: &Path) -> Tree {
    let log = format!(
        "6,1,1,-;hv_vmbus: Vmbus version:4.0\n3,2,2,-;uio_hv_generic {BALLOON}: vmbus channel requires hypercall\n"
    );
    Tree::new(root, "6.1.0-56-cloud-amd64", "Debian 6.1.192-2 (2026-11-16)", &log).bus(&["uio_hv_generic"]).device(
        &Device { relid: 1, instance: BALLOON, class: DYNAMIC_MEMORY, channels: vec![(1, 0)], ..Device::default() },
    )
}

/// A guest that has not loaded `uio_hv_generic`.
pub(crate) fn no_driver(root: &Path) -> Tree {
    Tree::new(root, "6.18.44", "", "6,1,1,-;hv_vmbus: Vmbus version:5.3\n").bus(&["hv_balloon"]).device(&Device {
        relid: 1,
        instance: BALLOON,
        class: DYNAMIC_MEMORY,
        driver: Some("hv_balloon"),
        channels: vec![(1, 0)],
        ..Device::default()
    })
}

/// A guest whose balloon was unbound while a process had it open: the channel stays open for ever.
pub(crate) fn left_open(root: &Path) -> Tree {
    let tree = Tree::new(root, "6.18.44", "", "6,1,1,-;hv_vmbus: Vmbus version:5.3\n").bus(&["uio_hv_generic"]).device(
        &Device { relid: 1, instance: BALLOON, class: DYNAMIC_MEMORY, channels: vec![(1, 0)], ..Device::default() },
    );
    tree.write(&format!("{REAL}/{BALLOON}/state"), "3\n");
    tree
}

/// A machine without VMBus.
pub(crate) fn none(root: &Path) -> Tree {
    Tree::new(root, "6.18.44", "", "6,1,1,-;Linux version 6.18.44\n")
}

/// A guest whose host offers nothing.
pub(crate) fn empty(root: &Path) -> Tree {
    Tree::new(root, "6.18.44", "", "6,1,1,-;hv_vmbus: Vmbus version:5.3\n").bus(&["uio_hv_generic"])
}
