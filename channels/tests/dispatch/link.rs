//! A link of shared pages and eventfds, and the host behind it. It has interrupts, and nothing else of a link.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use vmbus::Error;
use vmbus::link::{Interrupts, Link, Port, Share, Sink};
use vmbus::memory::{Mapping, Piece, Ring, map_mirrored};
use vmbus::message::{GpadlId, GuestMessage};
use vmbus_ringbuf::{ControlField, FEATURE_PENDING_SEND_SIZE, Memory};

/// Where the flags of the bus's source begin.
const FLAGS_OFFSET: usize = 2 * 256;

/// The host's side of one processor.
pub(crate) struct Processor {
    flags: Mapping,
    event: OwnedFd,
}

impl Processor {
    /// Flags a channel, without an interrupt.
    pub(crate) fn flag(&self, relid: u32) {
        let relid = relid as usize;
        self.flags.set_bits(FLAGS_OFFSET + relid / 32 * 4, 1 << (relid % 32)).unwrap();
    }

    /// Flags a channel and interrupts.
    pub(crate) fn interrupt(&self, relid: u32) {
        self.flag(relid);
        rustix::io::write(&self.event, &1_u64.to_ne_bytes()).unwrap();
    }

    pub(crate) fn is_flagged(&self, relid: u32) -> bool {
        let relid = relid as usize;
        self.flags.load(FLAGS_OFFSET + relid / 32 * 4).unwrap() & 1 << (relid % 32) != 0
    }
}

/// The guest's side.
pub(crate) struct PagesLink {
    processors: Vec<Option<Interrupts>>,
}

fn memfd(bytes: usize) -> File {
    let file = File::from(memfd_create("dispatch-test", MemfdFlags::CLOEXEC).unwrap());
    file.set_len(bytes as u64).unwrap();
    file
}

/// A link of so many processors, and the host's side of each.
pub(crate) fn link(processors: usize) -> (PagesLink, Vec<Processor>) {
    let (mut guest, mut host) = (Vec::new(), Vec::new());
    for _ in 0..processors {
        let page = memfd(4096);
        let map = || Mapping::new(&[Piece { file: page.as_fd(), file_offset: 0, bytes: 4096 }]).unwrap();
        let event = event();
        let other = event.try_clone().unwrap();
        guest.push(Some(Interrupts { flags: Arc::new(map()), flags_offset: FLAGS_OFFSET, event: other }));
        host.push(Processor { flags: map(), event });
    }
    (PagesLink { processors: guest }, host)
}

impl PagesLink {
    /// One whose channels have descriptors of their own.
    pub(crate) fn without_flags(processors: usize) -> Self {
        Self { processors: (0..processors).map(|_| None).collect() }
    }
}

impl Link for PagesLink {
    fn start(&mut self, _sink: Sink) -> Result<(), Error> {
        Ok(())
    }

    fn post(&mut self, _message: &GuestMessage) -> Result<(), Error> {
        Ok(())
    }

    fn share(&mut self, _relid: u32, _gpadl: GpadlId, _what: Share) -> Result<(), Error> {
        Ok(())
    }

    fn unshare(&mut self, _gpadl: GpadlId) {}

    fn port(&mut self, _relid: u32, _ring: GpadlId) -> Result<Port, Error> {
        unreachable!("not asked for")
    }

    fn buffer(&mut self, _gpadl: GpadlId) -> Result<Arc<Mapping>, Error> {
        unreachable!("not asked for")
    }

    fn processors(&self) -> usize {
        self.processors.len()
    }

    fn interrupts(&mut self, processor: usize) -> Option<Interrupts> {
        self.processors[processor].take()
    }

    fn stop(&mut self) {}
}

/// An eventfd.
pub(crate) fn event() -> OwnedFd {
    eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap()
}

/// Whether it is readable now.
pub(crate) fn is_readable(event: impl AsFd) -> bool {
    let now = Timespec::try_from(Duration::ZERO).unwrap();
    poll(&mut [PollFd::new(&event, PollFlags::IN)], Some(&now)).unwrap() != 0
}

/// Both ends of a ring with a page of data, flow control announced.
pub(crate) fn ring() -> (Ring, Ring) {
    let [host, guest, _] = ring_and_window();
    (host, guest)
}

/// Both ends, and one more to look at it.
pub(crate) fn ring_and_window() -> [Ring; 3] {
    let file = memfd(8192);
    let ends = [(); 3].map(|()| map_mirrored(file.as_fd(), 0, 8192).unwrap().0);
    ends[0].store(ControlField::FeatureBits, FEATURE_PENDING_SEND_SIZE);
    ends
}
