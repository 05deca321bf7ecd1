//! Who has a UIO node open, and what it offers to map: read from /proc and /sys/class/uio.

use std::fs;
use std::path::Path;

use serde::Serialize;
use vmbus::sysfs::Bus;

/// A process that has the node open.
#[derive(Debug, Serialize)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    pub(crate) command: String,
}

/// One of the node's maps.
#[derive(Debug, Serialize)]
pub(crate) struct Map {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) bytes: u64,
}

/// The processes that have `/dev/<uio>` open; those of other users are seen by root only.
pub(super) fn of(bus: &Bus, uio: &str) -> Vec<Holder> {
    let node = Path::new("/dev").join(uio);
    let Ok(entries) = fs::read_dir(bus.path("proc")) else { return Vec::new() };
    let mut holders: Vec<Holder> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(_, process)| has_open(process, &node))
        .map(|(pid, process)| Holder { pid, command: line(&process.join("comm")) })
        .collect();
    holders.sort_by_key(|holder| holder.pid);
    holders
}

fn has_open(process: &Path, node: &Path) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .filter_map(Result::ok)
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == node))
}

/// The maps of a UIO device, by index.
pub(super) fn maps(bus: &Bus, uio: &str) -> Vec<Map> {
    let Ok(entries) = fs::read_dir(bus.path("sys/class/uio").join(uio).join("maps")) else { return Vec::new() };
    let mut maps: Vec<Map> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let index = entry.file_name().to_str()?.strip_prefix("map")?.parse().ok()?;
            let size = line(&entry.path().join("size"));
            let bytes = u64::from_str_radix(size.trim_start_matches("0x"), 16).ok()?;
            Some(Map { index, name: line(&entry.path().join("name")), bytes })
        })
        .collect();
    maps.sort_by_key(|map| map.index);
    maps
}

fn line(path: &Path) -> String {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}
