//! Which file systems are frozen: those on disks, that can be written, each once, the root last.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// How deep devices on devices are looked through.
const DEPTH: usize = 8;

/// The mount points below a root: from its `proc/self/mounts`, with its `sys` to tell which devices are files of other
/// file systems, which freeze with those.
///
/// # Errors
/// The list can't be read.
pub fn freezable(root: &Path) -> io::Result<Vec<PathBuf>> {
    let text = fs::read(root.join("proc/self/mounts"))?;
    let on_file = |device: &Path| is_on_file(root, device);
    Ok(choose(&text, on_file))
}

fn choose(text: &[u8], on_file: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let (mut seen, mut chosen, mut top) = (BTreeSet::new(), Vec::new(), None);
    for line in text.split(|byte| *byte == b'\n') {
        let mut fields = line.split(|byte| *byte == b' ').map(unescape);
        let (Some(device), Some(point), Some(kind), Some(options)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let read_only = options.split(|byte| *byte == b',').any(|option| option == b"ro");
        if !device.starts_with(b"/dev/") || read_only || kind == b"vfat" {
            continue;
        }
        let (device, point) = (path(device), path(point));
        if on_file(&device) || !seen.insert(device) {
            continue;
        }
        if point == Path::new("/") { top = Some(point) } else { chosen.push(point) }
    }
    chosen.extend(top);
    chosen
}

fn path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

/// Blanks and the like are written as a backslash and three digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let (mut plain, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((first, behind)) = rest.split_first() {
        let digits = behind.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = behind.get(3..).unwrap_or_default();
            }
            None => {
                plain.push(*first);
                rest = behind;
            }
        }
    }
    plain
}

/// Whether a block device is a loop device, or on one.
fn is_on_file(root: &Path, device: &Path) -> bool {
    let Ok(metadata) = fs::metadata(device) else { return false };
    let number = metadata.rdev();
    let name = format!("sys/dev/block/{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    is_loop(&root.join(name), DEPTH)
}

fn is_loop(folder: &Path, depth: usize) -> bool {
    if folder.join("loop").exists() {
        return true;
    }
    let Some(depth) = depth.checked_sub(1) else { return false };
    let slaves = fs::read_dir(folder.join("slaves")).into_iter().flatten().flatten();
    slaves.into_iter().any(|slave| is_loop(&slave.path(), depth))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_can_be_written_once_each_and_the_root_last() {
        let text = b"/dev/sda1 / ext4 rw,relatime 0 0\n\
            proc /proc proc rw 0 0\n\
            /dev/sda2 /data\\040of\\134us xfs rw 0 0\n\
            /dev/sda2 /again xfs rw 0 0\n\
            /dev/sda3 /ro ext4 ro,relatime 0 0\n\
            /dev/sda15 /boot/efi vfat rw 0 0\n\
            /dev/loop0 /snap ext4 rw 0 0\n\
            server:/x /net nfs rw 0 0\n\
            broken\n\
            /dev/sdb /srv btrfs rw,subvol=/ro 0 0";
        let chosen = choose(text, |device| device.starts_with("/dev/loop0"));
        assert_eq!(chosen, ["/data of\\us", "/srv", "/"].map(PathBuf::from));
    }

    #[test]
    fn a_device_on_a_loop_device_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("dm/slaves/loop0/loop")).unwrap();
        assert!(is_loop(&folder.path().join("dm"), DEPTH));
        assert!(!is_loop(&folder.path().join("dm"), 0));
        assert!(!is_loop(&folder.path().join("dm/slaves"), DEPTH));
        let circle = folder.path().join("circle");
        fs::create_dir(&circle).unwrap();
        std::os::unix::fs::symlink(&circle, circle.join("slaves")).unwrap();
        assert!(!is_loop(&circle, DEPTH), "a circle ends");
    }
}
