//! The memory maps of a UIO device, as sysfs lists them: found by name, sized by sysfs, never by assumption.
//!
//! Format: `<device>/uio/uioN/maps/mapM/{name,size,offset}` (Documentation/driver-api/uio-howto.rst); map `M` is
//! mapped at the file offset `M` times the page size of `/dev/uioN`.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::param::page_size;
use serde::Serialize;

use crate::Error;
use crate::memory::{Mapping, Piece};
use crate::sysfs::Device;

/// Both rings of the primary channel, the outgoing one first.
pub(super) const RINGS: &str = "txrx_rings";
/// The interrupt page: a bit per relid from the host in its first half, towards the host in its second.
pub(super) const INTERRUPT_PAGE: &str = "int_page";
/// The monitor page towards the host.
pub(super) const MONITOR_PAGE: &str = "monitor_page";

/// Between two looks for maps.
const LOOK: Duration = Duration::from_millis(1);

/// One map of a UIO device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Map {
    /// Its folder in sysfs.
    pub path: PathBuf,
    /// Its number.
    pub index: u64,
    /// Its name, such as `txrx_rings`.
    pub name: String,
    /// Its length in bytes.
    pub bytes: usize,
    /// Where it starts in its first page, in bytes.
    pub offset: usize,
}

/// The maps of a device that is bound to `uio_hv_generic`, by number; none of one that is not bound.
///
/// # Errors
/// [`Error`] when the list or an entry of it can't be read or makes no sense.
pub fn maps(device: &Device) -> Result<Vec<Map>, Error> {
    let Some(uio) = device.uio.as_deref() else { return Ok(Vec::new()) };
    let folder = device.path.join("uio").join(uio).join("maps");
    let entries = fs::read_dir(&folder).map_err(|error| Error::io("list", &folder, error))?;
    let read =
        |entry: io::Result<fs::DirEntry>| Map::read(entry.map_err(|error| Error::io("list", &folder, error))?.path());
    let mut maps = entries.map(read).collect::<Result<Vec<_>, _>>()?;
    maps.sort_by_key(|map| map.index);
    Ok(maps)
}

/// Waits until the device has maps of these names, for so long at most: the kernel makes a UIO node first, and then its
/// maps, one after the other. Whether they are there is for the caller to find out.
pub(super) fn wait_for(device: &Device, names: &[&str], limit: Duration) {
    let start = Instant::now();
    let there = |maps: &[Map]| names.iter().all(|name| maps.iter().any(|map| map.name == *name));
    // No announcement tells of a map.
    while !maps(device).is_ok_and(|maps| there(&maps)) && start.elapsed() < limit && device.path.join("uio").exists() {
        std::thread::sleep(LOOK);
    }
}

impl Map {
    /// The map called `name` of a device that is bound to `uio_hv_generic`; `None` when it has no such map.
    pub(super) fn find(device: &Device, name: &str) -> Result<Option<Self>, Error> {
        Ok(maps(device)?.into_iter().find(|map| map.name == name))
    }

    fn read(path: PathBuf) -> Result<Self, Error> {
        let file_name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let index = file_name.strip_prefix("map").and_then(|number| number.parse().ok());
        let index = index.ok_or_else(|| Error::malformed(&path, "a folder named map and a number", file_name))?;
        let name = text(&path.join("name"))?;
        let bytes = number(&path.join("size"))?;
        // Older kernels have no such file; their maps start on page boundaries.
        let offset = if path.join("offset").exists() { number(&path.join("offset"))? } else { 0 };
        Ok(Self { path, index, name, bytes, offset })
    }

    /// Maps all of it through the UIO node, in whole pages.
    pub(super) fn mapping(&self, node: BorrowedFd<'_>) -> Result<Mapping, Errno> {
        let page = u64::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
        let file_offset = self.index.checked_mul(page).ok_or(Errno::OVERFLOW)?;
        let bytes = self.offset.checked_add(self.bytes).ok_or(Errno::OVERFLOW)?;
        let bytes = bytes.checked_next_multiple_of(page_size()).ok_or(Errno::OVERFLOW)?;
        Mapping::new(&[Piece { file: node, file_offset, bytes }])
    }
}

fn text(path: &Path) -> Result<String, Error> {
    let text = fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    Ok(text.trim_end().to_owned())
}

/// A number as the kernel prints it here: hexadecimal with `0x`.
fn number(path: &Path) -> Result<usize, Error> {
    let text = text(path)?;
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    usize::from_str_radix(digits, 16).map_err(|_| Error::malformed(path, "a hexadecimal number", &text))
}
