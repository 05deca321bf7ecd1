//! One channel's line through the kernel: its doorbell, and the device that it belongs to.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use super::doorbell::Doorbell;
use super::shared::Shared;
use crate::Error;

/// One channel's line through the kernel. See [`link::Line`](crate::link::Line). It keeps the device's node open.
#[derive(Debug, Clone)]
pub struct Line {
    pub(super) shared: Arc<Shared>,
    pub(super) doorbell: Doorbell,
}

impl Line {
    pub(crate) fn signal(&self) -> Result<(), Error> {
        self.shared.ring(&self.doorbell)
    }

    pub(crate) fn unmasks(&self) -> bool {
        self.doorbell.unmasks()
    }

    pub(crate) fn is_rescinded(&self) -> bool {
        self.shared.is_rescinded()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        self.shared.check()
    }

    pub(crate) fn rescind(&self) {
        self.shared.revoke_and_log();
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
