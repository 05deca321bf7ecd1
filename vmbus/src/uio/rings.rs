//! Where a channel's rings come from: its `ring` file, mirrored, or map 0 of the UIO node as a fallback.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::param::page_size;
use vmbus_ringbuf::{ControlField, Memory};

use super::maps::{self, Map};
use super::node::Node;
use crate::Error;
use crate::memory::{Mapping, Ring, contiguous, map_mirrored};
use crate::sysfs::{Device, RingFile};

/// Both rings of one channel. Each is a control page and data; sizes are the kernel's choice.
#[derive(Debug)]
pub struct RingPair {
    /// From us to the host.
    pub outgoing: Ring,
    /// From the host to us.
    pub incoming: Ring,
}

/// A ring pair and the mappings behind it, which the link keeps for revocation.
#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) pair: RingPair,
    pub(super) mappings: Vec<Arc<Mapping>>,
    pub(super) mirrored: bool,
}

impl Mapped {
    /// The rings in a channel's `ring` file of `bytes` bytes: the outgoing ring is its first half, the incoming one
    /// its second, and each is mapped with its data twice.
    ///
    /// When the device goes, the kernel takes this file's pages out of every mapping before it frees them; a later
    /// access is a bus error, which [`Mapping`] turns into a revocation. So there is no moment in which we can reach
    /// memory that the kernel has given to somebody else.
    pub(super) fn mirrored(device: &Device, file: &RingFile, bytes: usize) -> Result<Self, Error> {
        let open = |flags| rustix::fs::open(&file.path, flags | OFlags::CLOEXEC, Mode::empty());
        let ring_file = open(OFlags::RDWR).map_err(|error| gone_or(device, error, "open", file))?;
        let ring_bytes = half(bytes).ok_or_else(|| bad_size(file, bytes))?;
        let second = u64::try_from(ring_bytes).map_err(|_| bad_size(file, bytes))?;
        let map = |offset| map_mirrored(ring_file.as_fd(), offset, ring_bytes);
        let (outgoing, first) = map(0).map_err(|error| gone_or(device, error, "map", file))?;
        let (incoming, second) = map(second).map_err(|error| gone_or(device, error, "map", file))?;
        Ok(Self { pair: RingPair { outgoing, incoming }, mappings: vec![first, second], mirrored: true })
    }

    /// The rings in the map `txrx_rings`, in that order, each mapped once.
    ///
    /// The kernel does not take this mapping back when the device goes; until [`Mapping::revoke`] has run, an access
    /// reaches freed memory. That is the reason for the watcher, and for using it only where there is no `ring` file.
    pub(super) fn contiguous(node: &Node, map: &Map) -> Result<Self, Error> {
        let failed = |error: Errno| Error::io("map", &node.path, error);
        let ring_bytes = half(map.bytes).filter(|_| map.offset == 0);
        let ring_bytes =
            ring_bytes.ok_or_else(|| Error::malformed(&map.path, "two rings of whole pages", map.bytes))?;
        let mapping = Arc::new(map.mapping(node.as_fd()).map_err(failed)?);
        let outgoing = contiguous(Arc::clone(&mapping), 0, ring_bytes).map_err(failed)?;
        let incoming = contiguous(Arc::clone(&mapping), ring_bytes, ring_bytes).map_err(failed)?;
        Ok(Self { pair: RingPair { outgoing, incoming }, mappings: vec![mapping], mirrored: false })
    }

    /// Whether nobody has used the channel since it was opened: the kernel starts both indices that are ours at zero.
    pub(super) fn is_fresh(&self) -> bool {
        self.pair.outgoing.load(ControlField::WriteIndex) == 0 && self.pair.incoming.load(ControlField::ReadIndex) == 0
    }
}

/// The primary channel's `txrx_rings` map, whose size counts for the `ring` file too (which used to lie about it).
pub(super) fn ring_map(device: &Device, uio: &str) -> Result<Map, Error> {
    Map::find(device, maps::RINGS)?.ok_or_else(|| Error::Unsupported {
        device: device.name.clone(),
        what: format!("{uio} has no map called {}", maps::RINGS),
        hint: "check that its driver is uio_hv_generic".to_owned(),
    })
}

/// Half of the bytes, if that is a control page and at least a page of data, in whole pages.
fn half(bytes: usize) -> Option<usize> {
    let ring_bytes = bytes / 2;
    (bytes.is_multiple_of(2) && ring_bytes.is_multiple_of(page_size()) && ring_bytes > page_size())
        .then_some(ring_bytes)
}

fn bad_size(file: &RingFile, bytes: usize) -> Error {
    Error::malformed(&file.path, "two rings of whole pages", format!("{bytes} bytes"))
}

fn gone_or(device: &Device, error: Errno, action: &'static str, file: &RingFile) -> Error {
    // The file was there a moment ago: the channel has been closed or removed since.
    match error {
        Errno::NODEV | Errno::NOENT | Errno::NXIO => Error::Rescinded { device: device.name.clone() },
        error => Error::io(action, &file.path, error),
    }
}
