//! Which processes have a UIO device open, have its memory mapped, or hold its lock.
//!
//! Sources: `/proc/PID/fd`, `/proc/PID/maps` (a mapping outlives its file descriptor) and `/proc/locks`. The node is
//! never opened to find out: opening it makes the kernel open the channel towards the host.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{major, minor};
use serde::Serialize;

use crate::Error;
use crate::sysfs::{Bus, Device};

/// A process, and how it uses the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its command's name, empty where that can't be read.
    pub command: String,
    /// What it does with the device, to follow its name: "has it open".
    pub how: &'static str,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} ({}, {})", self.pid, self.command, self.how)
    }
}

/// The processes that use the device's node or rings, each once, by process id. Those that this process may not look at
/// are missing; a device without a node has none.
///
/// # Errors
/// [`Error`] when `/proc` can't be listed, or its list of locks not be read.
pub fn of(bus: &Bus, device: &Device) -> Result<Vec<Holder>, Error> {
    let Some(uio) = device.uio.as_deref() else { return Ok(Vec::new()) };
    let traces = Traces::of(bus, device, uio);
    let lockers = lockers(bus, &traces)?;
    let mut holders = Vec::new();
    for name in bus.names(&bus.path("proc"))? {
        let Ok(process) = name.parse::<u32>() else { continue };
        let folder = bus.path("proc").join(&name);
        let how = if traces.is_open(&folder) {
            "has it open"
        } else if traces.is_mapped(&folder) {
            "has it mapped"
        } else if lockers.contains(&process) {
            "has it locked"
        } else {
            continue;
        };
        let command = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        holders.push(Holder { pid: process, command: command.trim().to_owned(), how });
    }
    holders.sort_by_key(|holder| holder.pid);
    Ok(holders)
}

/// How a use of the device looks in `/proc`.
struct Traces {
    /// The node as processes name it.
    node: String,
    /// The node's device number, which holds under any name; `None` for a file that is no device.
    number: Option<u64>,
    /// File system and inode of the node, as `/proc/locks` prints them.
    lock: Option<String>,
    /// What the path of a mapped ring file contains.
    rings: String,
}

impl Traces {
    fn of(bus: &Bus, device: &Device, uio: &str) -> Self {
        let metadata = fs::metadata(bus.path("dev").join(uio)).ok();
        let number = metadata.as_ref().map(MetadataExt::rdev).filter(|number| *number != 0);
        let lock = metadata.map(|node| format!("{:02x}:{:02x}:{}", major(node.dev()), minor(node.dev()), node.ino()));
        Self { node: format!("/dev/{uio}"), number, lock, rings: format!("/{}/channels/", device.name) }
    }

    fn is_open(&self, process: &Path) -> bool {
        // A process that ends, or that this one may not look at, has nothing to list.
        let Ok(entries) = fs::read_dir(process.join("fd")) else { return false };
        entries.flatten().any(|entry| {
            let Ok(target) = fs::read_link(entry.path()) else { return false };
            self.is_node(&target.to_string_lossy()) || self.is_number(&entry.path(), &target)
        })
    }

    /// Whether a link of `/proc/PID/fd` or the path of a mapping is the node; a removed one has a note behind it.
    fn is_node(&self, path: &str) -> bool {
        path.strip_suffix(" (deleted)").unwrap_or(path) == self.node
    }

    /// In another mount namespace the node may have any name. Only devices are looked at: that can't block.
    fn is_number(&self, link: &Path, target: &Path) -> bool {
        let Some(number) = self.number.filter(|_| target.starts_with("/dev")) else { return false };
        fs::metadata(link).is_ok_and(|metadata| metadata.rdev() == number)
    }

    fn is_mapped(&self, process: &Path) -> bool {
        let Ok(maps) = fs::read(process.join("maps")) else { return false };
        String::from_utf8_lossy(&maps).lines().any(|line| {
            // Five columns, then the path, which may hold blanks.
            let Some(path) = line.find('/').and_then(|start| line.get(start..)) else { return false };
            self.is_node(path) || (path.contains(&self.rings) && path.contains("/ring"))
        })
    }
}

/// The processes with a lock on the node. Lines that begin with an arrow wait for one, and have the node open.
fn lockers(bus: &Bus, traces: &Traces) -> Result<Vec<u32>, Error> {
    let Some(lock) = &traces.lock else { return Ok(Vec::new()) };
    let text = match bus.text(&bus.path("proc/locks")) {
        Ok(text) => text,
        Err(error) if error.is_vanished() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().filter_map(parse_lock).filter(|(_, file)| file == lock).map(|(process, _)| process).collect())
}

/// Process and file of a line such as `1: FLOCK  ADVISORY  WRITE 123 00:06:456 0 EOF`.
fn parse_lock(line: &str) -> Option<(u32, &str)> {
    let fields: Vec<_> = line.split_whitespace().filter(|field| *field != "->").collect();
    let [_number, _kind, _advisory, _access, process, file, ..] = fields.as_slice() else { return None };
    Some((process.parse().ok()?, *file))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn locks_are_read() {
        assert_eq!(parse_lock("1: FLOCK  ADVISORY  WRITE 123 00:06:456 0 EOF"), Some((123, "00:06:456")));
        assert_eq!(parse_lock("1: -> FLOCK  ADVISORY  WRITE 7 00:06:456 0 EOF"), Some((7, "00:06:456")));
        assert_eq!(parse_lock("1: OFDLCK ADVISORY  READ  -1 00:06:456 0 EOF"), None);
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in any::<String>()) {
            let _ = parse_lock(&line);
        }
    }
}
