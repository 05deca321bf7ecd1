//! Whether a device is a disk (or a controller of disks) that holds a mounted file system or active swap: directly,
//! or below device mapper, md, btrfs over several disks, or NVMe with several paths.
//!
//! Sources: `/proc/self/mountinfo`, `/proc/swaps`, `/sys/dev/block`, `/sys/class/block`, `/sys/fs/btrfs`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::is_below;
use crate::Error;
use crate::sysfs::{Bus, Device};

/// Something that needs its block devices.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Use {
    /// `/` for the root file system, `swap` for swap.
    place: String,
    file_system: String,
    /// Major and minor number, as in `/sys/dev/block`; the major is 0 where the file system has no device of its own.
    number: String,
    /// What was mounted: paths in `/dev`, with colons between them for a file system of several disks.
    source: String,
}

/// What the device holds, as a sentence; `None` if nothing.
pub(super) fn holds_file_system(bus: &Bus, device: &Device) -> Result<Option<String>, Error> {
    let mut places = Vec::new();
    let mut unknown = Vec::new();
    for usage in uses(bus)? {
        let blocks = block_devices(bus, &usage)?;
        if blocks.is_empty() && usage.place == "/" && usage.could_be_on_disk() {
            unknown.push(usage.file_system.clone());
        }
        if reaches(bus, blocks, device)? && !places.contains(&usage.place) {
            places.push(usage.place);
        }
    }
    if places.iter().any(|place| place == "/") {
        return Ok(Some("it holds the root file system".to_owned()));
    }
    if let Some(place) = places.first() {
        let more = if places.len() > 1 { format!(" and {} more", places.len() - 1) } else { String::new() };
        return Ok(Some(format!("it holds {place}{more}, which is in use; unmount that first")));
    }
    if let (Some(file_system), true) = (unknown.first(), has_blocks(bus, device)?) {
        return Ok(Some(format!("it is a disk, and the root file system ({file_system}) does not say where it is")));
    }
    Ok(None)
}

/// Mounts and swap. The topmost mount on `/` is the root file system, but those below it need their disks, too.
fn uses(bus: &Bus) -> Result<Vec<Use>, Error> {
    let mut found: Vec<Use> = bus.text(&bus.path("proc/self/mountinfo"))?.lines().filter_map(parse_mount).collect();
    match bus.text(&bus.path("proc/swaps")) {
        Ok(text) => found.extend(text.lines().skip(1).filter_map(parse_swap)),
        Err(error) if error.is_vanished() => {}
        Err(error) => return Err(error),
    }
    Ok(found)
}

/// One line of `/proc/PID/mountinfo`: `id parent major:minor root place options [tags] - type source options`.
fn parse_mount(line: &str) -> Option<Use> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ').skip(2);
    let number = left.next()?.to_owned();
    let place = unescape(left.nth(1)?);
    let mut right = right.split(' ');
    let (file_system, source) = (right.next()?.to_owned(), unescape(right.next()?));
    Some(Use { place, file_system, number, source })
}

/// One line of `/proc/swaps` that is a partition; a file lies in a mounted file system anyway.
fn parse_swap(line: &str) -> Option<Use> {
    let mut fields = line.split_whitespace();
    let source = unescape(fields.next()?);
    let is_partition = fields.next()? == "partition";
    let usage = Use { place: "swap".into(), file_system: "swap".into(), number: "0:0".into(), source };
    is_partition.then_some(usage)
}

/// The kernel writes blanks, tabs, line ends and backslashes in paths as `\` and three octal digits.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(u8::is_ascii);
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

impl Use {
    /// Whether a file system without a block device of its own may still be on local disks (ZFS, for one).
    fn could_be_on_disk(&self) -> bool {
        const ELSEWHERE: [&str; 10] =
            ["rootfs", "tmpfs", "ramfs", "overlay", "nfs", "nfs4", "9p", "virtiofs", "cifs", "fuse"];
        !ELSEWHERE.contains(&self.file_system.as_str()) && !self.file_system.starts_with("fuse.")
    }
}

/// The folders in sysfs of the block devices that a mount names.
fn block_devices(bus: &Bus, usage: &Use) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    if !usage.number.starts_with("0:") {
        found.extend(bus.resolve(&bus.path("sys/dev/block").join(&usage.number)).ok());
    }
    for source in usage.source.split(':').filter_map(|source| source.strip_prefix("/dev/")) {
        // The mount may name an alias, such as a link in /dev/mapper or /dev/disk/by-uuid.
        let node = bus.resolve(&bus.path("dev").join(source)).unwrap_or_else(|_| PathBuf::from(source));
        let name = node.file_name().unwrap_or_default();
        found.extend(bus.resolve(&bus.path("sys/class/block").join(name)).ok());
    }
    if usage.file_system == "btrfs" {
        found.extend(btrfs_siblings(bus, &found)?);
    }
    Ok(found)
}

/// The other disks of a btrfs that one of `known` belongs to.
fn btrfs_siblings(bus: &Bus, known: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let folder = bus.path("sys/fs/btrfs");
    for file_system in bus.names(&folder)? {
        let devices = linked(bus, &folder.join(file_system).join("devices"), |_| true)?;
        if devices.iter().any(|device| known.contains(device)) {
            return Ok(devices);
        }
    }
    Ok(Vec::new())
}

/// Whether one of the block devices is the device's, or is stacked on one that is.
fn reaches(bus: &Bus, mut todo: Vec<PathBuf>, device: &Device) -> Result<bool, Error> {
    let mut seen = BTreeSet::new();
    while let Some(block) = todo.pop() {
        if !seen.insert(block.clone()) {
            continue;
        }
        if is_below(bus, &block, device) {
            return Ok(true);
        }
        todo.extend(linked(bus, &block.join("slaves"), |_| true)?);
        let Some(parent) = block.parent() else { continue };
        if block.join("partition").exists() {
            todo.push(parent.to_owned());
        }
        // The namespace of an NVMe subsystem with several paths is virtual; the controllers are linked beside it.
        if parent.parent().is_some_and(|folder| folder.ends_with("nvme-subsystem")) {
            todo.extend(linked(bus, parent, |name| name.starts_with("nvme"))?);
        }
    }
    Ok(false)
}

/// What the links in a folder point at.
fn linked(bus: &Bus, folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Error> {
    let names = bus.names(folder)?;
    Ok(names.iter().filter(|name| wanted(name)).filter_map(|name| bus.resolve(&folder.join(name)).ok()).collect())
}

/// Whether any block device is the device's.
fn has_blocks(bus: &Bus, device: &Device) -> Result<bool, Error> {
    let folder = bus.path("sys/class/block");
    Ok(bus.names(&folder)?.iter().any(|name| is_below(bus, &folder.join(name), device)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn mounts_are_read() {
        let line = r"36 35 98:0 /mnt1 /mnt\0402 rw,noatime master:1 - ext3 /dev/root\134x rw,errors=continue";
        let usage = parse_mount(line).unwrap();
        assert_eq!((usage.number.as_str(), usage.place.as_str()), ("98:0", "/mnt 2"));
        assert_eq!((usage.file_system.as_str(), usage.source.as_str()), ("ext3", r"/dev/root\x"));
        assert_eq!(parse_mount("36 35 98:0 / / rw"), None);
        assert_eq!(parse_swap("/swapfile file 1 0 -2"), None);
        assert_eq!(parse_swap("/dev/sda2 partition 1 0 -2").unwrap().source, "/dev/sda2");
        assert_eq!(unescape(r"\40"), r"\40");
        assert_eq!(unescape(r"\400"), r"\400");
    }

    proptest! {
        #[test]
        fn escapes_are_undone(path in "[ -~\\t\\n]{0,40}") {
            let escape = |char: char| match char {
                ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(char)),
                other => other.to_string(),
            };
            prop_assert_eq!(unescape(&path.chars().map(escape).collect::<String>()), path);
        }

        #[test]
        fn no_line_makes_it_panic(line in any::<String>(), almost in "([0-9a-z:/\\\\-]{0,12} ){0,14}") {
            let _ = (parse_mount(&line), parse_swap(&line), parse_mount(&almost), parse_swap(&almost));
        }
    }
}
