//! One channel's line to the host: its signal bits, the host's eventfd, and whether it is still there.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::host_interrupts::interrupt;
use crate::Error;
use crate::signal_bits::SignalBits;

/// One channel's line to the host. See [`link::Line`](crate::link::Line).
#[derive(Debug, Clone)]
pub struct Line {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    relid: u32,
    rescinded: AtomicBool,
    bits: SignalBits,
    /// Guest to host; one for all channels.
    host: Arc<OwnedFd>,
}

impl Line {
    pub(super) fn new(relid: u32, bits: SignalBits, host: Arc<OwnedFd>) -> Self {
        Self { shared: Arc::new(Shared { relid, rescinded: AtomicBool::new(false), bits, host }) }
    }

    /// Sets the channel's bit, and its monitor bit where it has one; the host polls for that. Otherwise the host is
    /// called, unless the bit was set already: then whoever set it calls, and the host takes both.
    ///
    /// A host that means harm can make the call wait (it holds the eventfd, too), as any hypervisor can.
    pub(crate) fn signal(&self) -> Result<(), Error> {
        self.check()?;
        if self.shared.bits.set() && !self.shared.bits.is_polled() {
            interrupt(&self.shared.host).map_err(|error| Error::io("signal", "the host", error))?;
        }
        Ok(())
    }

    pub(crate) fn is_rescinded(&self) -> bool {
        self.shared.rescinded.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_rescinded() {
            return Err(Error::Rescinded { device: format!("(channel {})", self.shared.relid) });
        }
        Ok(())
    }

    /// Says that the channel is gone. The rings' pages are the guest's own, and nobody else gets them before the channel
    /// has no user left: so they stay where they are, and what the host has put there can still be read. (It may go on
    /// writing, too; whatever is there is checked as ever.) Who unshares them takes them from users that are left.
    pub(crate) fn rescind(&self) {
        self.shared.rescinded.store(true, Ordering::SeqCst);
    }
}
