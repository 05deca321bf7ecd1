//! Disks on a synthetic SCSI controller.
//!
//! `wire` is bytes and packets, `scsi` commands and answers, `state` how the conversation begins, `pool` the pages that
//! data go through, `requests` what is under way, `link` one channel, `controller` what joins them, `disk` one unit.

mod controller;
mod disk;
mod failure;
mod inventory;
mod link;
mod pool;
mod requests;
pub mod scsi;
mod settings;
pub mod state;
pub mod wire;

use core::fmt;

pub use controller::{Data, Storage};
pub use disk::{Disk, Identity};
pub use failure::Failure;
pub use inventory::{Changes, Unit};
pub use requests::{Counters, Pending};
pub use settings::Settings;

use scsi::Sense;
use wire::SrbStatus;

/// Where a unit hangs on its controller. Shown as `path:target:lun`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Address {
    /// Which bus.
    pub path: u8,
    /// Which device on it.
    pub target: u8,
    /// Which unit of it.
    pub lun: u8,
}

impl Address {
    /// A unit of the first device on the first bus, where virtual machines have their disks.
    #[must_use]
    pub const fn lun(lun: u8) -> Self {
        Self { path: 0, target: 0, lun }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.path, self.target, self.lun)
    }
}

/// What became of a SCSI command that the host has completed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// In the host's adapter.
    pub srb_status: SrbStatus,
    /// In the device.
    pub scsi_status: u8,
    /// Why it failed, if the device said so.
    pub sense: Option<Sense>,
    /// Bytes that were moved: never more than were asked for.
    pub transferred: usize,
}
