//! A tree in a temporary folder that looks like `/sys`, `/proc` and `/dev` of a Hyper-V guest, for unit tests.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use uuid::Uuid;

use crate::class::Class;
use crate::sysfs::{Bus, Device};

/// Where the devices really are: the bus folder holds links to here.
const REAL: &str = "sys/devices/LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/MSFT1000:00";

pub(crate) struct Tree {
    folder: TempDir,
}

impl Tree {
    /// A guest with a bus, the drivers of a cloud image, and no devices.
    pub(crate) fn new() -> Self {
        let tree = Self { folder: TempDir::new().unwrap() };
        tree.folder_at("sys/bus/vmbus/devices");
        tree.folder_at(REAL);
        tree.folder_at("dev");
        for driver in ["uio_hv_generic", "hv_balloon", "hv_netvsc", "hv_storvsc"] {
            for file in ["bind", "unbind", "new_id", "remove_id"] {
                tree.write(format!("sys/bus/vmbus/drivers/{driver}/{file}"), "");
            }
        }
        tree.write("sys/bus/vmbus/drivers_probe", "");
        tree.write("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n");
        tree
    }

    pub(crate) fn bus(&self) -> Bus {
        Bus::at(self.folder.path())
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(below)
    }

    pub(crate) fn folder_at(&self, below: impl AsRef<Path>) {
        fs::create_dir_all(self.path(below)).unwrap();
    }

    pub(crate) fn write(&self, below: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A relative link at `below` to `target`, both below the root.
    pub(crate) fn link(&self, below: impl AsRef<Path>, target: impl AsRef<Path>) {
        let (below, target) = (below.as_ref(), target.as_ref());
        let up: PathBuf = below.parent().unwrap().components().map(|_| "..").collect();
        fs::create_dir_all(self.path(below.parent().unwrap())).unwrap();
        symlink(up.join(target), self.path(below)).unwrap();
    }

    /// An open device as a 6.12 kernel shows it; its instance is made of its relid.
    pub(crate) fn device(&self, class: Class, relid: u32, driver: Option<&str>) -> Device {
        let name = instance(relid).to_string();
        let at = real(relid);
        self.link(format!("sys/bus/vmbus/devices/{name}"), &at);
        let files = [
            ("id", relid.to_string()),
            ("class_id", format!("{{{class}}}")),
            ("device_id", format!("{{{name}}}")),
            ("state", "3".into()),
            ("vendor", "0x1414".into()),
            ("device", "0x0".into()),
            ("numa_node", "0".into()),
            ("modalias", format!("vmbus:{}", class.0.simple())),
            ("driver_override", "(null)".into()),
            ("channel_vp_mapping", format!("{relid}:1")),
        ];
        for (file, text) in files {
            self.write(format!("{at}/{file}"), text + "\n");
        }
        for direction in ["in", "out"] {
            let values = [("intr_mask", 0), ("read_index", 8), ("write_index", 24), ("read_bytes_avail", 16)];
            for (file, value) in values.into_iter().chain([("write_bytes_avail", 4080)]) {
                self.write(format!("{at}/{direction}_{file}"), format!("{value}\n"));
            }
        }
        self.channel(relid, relid, 0);
        if let Some(driver) = driver {
            self.link(format!("{at}/driver"), format!("sys/bus/vmbus/drivers/{driver}"));
        }
        self.bus().find(&name).unwrap()
    }

    /// A channel of the device with relid `device`.
    pub(crate) fn channel(&self, device: u32, relid: u32, subchannel: u32) {
        let at = format!("{}/channels/{relid}", real(device));
        let files = [("cpu", 1), ("subchannel_id", subchannel), ("out_mask", 0), ("in_mask", 1), ("read_avail", 16)];
        let counters = [("write_avail", 4080), ("interrupts", 5), ("events", 7), ("out_full_total", 2)];
        for (file, value) in files.into_iter().chain(counters) {
            self.write(format!("{at}/{file}"), format!("{value}\n"));
        }
    }
}

/// The instance GUID of the device with this relid.
pub(crate) fn instance(relid: u32) -> Uuid {
    Uuid::from_u128(0x0bad_cafe_0000_4000_8000_0000_0000_0000 + u128::from(relid))
}

/// Where the device with this relid really is, below the root.
pub(crate) fn real(relid: u32) -> String {
    format!("{REAL}/{}", instance(relid))
}
