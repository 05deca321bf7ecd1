//! One channel's line through the kernel: its doorbell, and the device that it belongs to.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::buffers::KernelBuffer;
use super::doorbell::Doorbell;
use super::shared::Shared;
use super::subchannel::Subchannel;
use crate::Error;

/// One channel's line through the kernel. See [`link::Line`](crate::link::Line). It keeps the device's node open.
#[derive(Debug, Clone)]
pub struct Line {
    shared: Arc<Shared>,
    doorbell: Doorbell,
    /// `None` is the primary channel, which ends with the device.
    subchannel: Option<Arc<Subchannel>>,
}

impl Line {
    pub(super) fn new(shared: Arc<Shared>, doorbell: Doorbell, subchannel: Option<Arc<Subchannel>>) -> Self {
        Self { shared, doorbell, subchannel }
    }

    pub(crate) fn signal(&self) -> Result<(), Error> {
        self.shared.ring(&self.doorbell)
    }

    pub(crate) fn unmasks(&self) -> bool {
        self.doorbell.unmasks()
    }

    pub(crate) fn is_rescinded(&self) -> bool {
        self.subchannel.as_ref().is_some_and(|subchannel| subchannel.is_rescinded()) || self.shared.is_rescinded()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.check()?;
        if self.is_rescinded() { Err(self.shared.gone()) } else { Ok(()) }
    }

    pub(crate) fn rescind(&self) {
        match &self.subchannel {
            Some(subchannel) => subchannel.rescind(),
            // The link knows, or it is our own doing: to the link, the device has not ended for that.
            None => self.shared.revoke_and_log(),
        }
    }

    /// The kernel has shown that the device is gone. Whoever finds out first tells the link.
    pub(crate) fn end(&self) {
        self.shared.end();
    }

    pub(crate) fn kernel_buffers(&self) -> Result<Vec<KernelBuffer>, Error> {
        if self.subchannel.is_some() { Ok(Vec::new()) } else { self.shared.kernel_buffers() }
    }

    pub(crate) fn acknowledge(&self) -> Result<bool, Error> {
        Ok(self.shared.acknowledge()?.is_some())
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.as_fd()
    }
}
