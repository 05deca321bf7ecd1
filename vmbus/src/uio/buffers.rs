//! The buffers that the kernel makes for a device when it is bound, and shares with the host: `recv` and `send`.
//!
//! Format: maps named `recv:<gpadl>` and `send:<gpadl>`, the number in decimal (drivers/uio/uio_hv_generic.c). Kernels
//! before 6.14 make them for every device, later ones for network adapters only.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;

use super::maps::{Map, maps};
use crate::Error;
use crate::memory::Mapping;
use crate::message::GpadlId;
use crate::sysfs::Device;

/// Memory that the kernel shared with the host when it bound the device. Host and guest write it.
#[derive(Debug, Clone)]
pub struct KernelBuffer {
    /// What it is meant for: `recv` or `send`.
    pub name: String,
    /// Under which number the host knows it.
    pub gpadl: GpadlId,
    /// The bytes; zeroes of nobody's once the device is gone.
    pub memory: Arc<Mapping>,
}

/// Maps all buffers of a device. No page of them is touched: the kernel hands each out at the first access, and not any
/// more once the device is gone.
pub(super) fn map_all(device: &Device, node: BorrowedFd<'_>) -> Result<Vec<KernelBuffer>, Error> {
    let mut buffers = Vec::new();
    for map in maps(device)? {
        let Some((name, gpadl)) = named(&map)? else { continue };
        let memory =
            map.mapping(node).and_then(|mapping| if map.offset == 0 { Ok(mapping) } else { Err(Errno::INVAL) });
        let memory = memory.map_err(|error| Error::io("map", &map.path, error))?;
        buffers.push(KernelBuffer { name, gpadl, memory: Arc::new(memory) });
    }
    Ok(buffers)
}

/// What a map's name says, if it is that of a buffer.
fn named(map: &Map) -> Result<Option<(String, GpadlId)>, Error> {
    match map.name.split_once(':') {
        Some((name @ ("recv" | "send"), number)) => {
            let gpadl = number.parse().map_err(|_| Error::malformed(&map.path, "a GPADL's number", number))?;
            Ok(Some((name.to_owned(), GpadlId(gpadl))))
        }
        _ => Ok(None),
    }
}
