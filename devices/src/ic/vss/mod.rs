//! Volume snapshots: the host has file systems frozen while it takes one, and thawed after it.
//!
//! Whatever happens, they thaw: a watchdog's thread thaws them when the host takes too long or this component's thread is
//! stuck, the component's end does, and a guard process does if this process dies.

mod freezer;
pub mod mounts;

use std::time::Duration;

use vmbus::class::Class;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::VERSION_3_0;
use super::component::{Component, Ending, Profile, Tell};
use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version, wire};

pub use freezer::{FileSystems, Freezer, FsFreeze, Guard, NotFrozen, Thaw};

wire!(/// All messages. The format is that of the user-space header `linux/hyperv.h` of Linux 6.12.
Message, 12 {
    /// [`Operation`].
    operation: u8,
    /// 0.
    reserved: [u8; 7],
    /// The guest's to fill in two of them.
    flags: U32,
});

/// What the host wants or says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Operation(pub u8);

impl Operation {
    /// Can this guest be backed up while it runs?
    pub const HOT_BACKUP: Self = Self(2);
    /// What is to be known of the device?
    pub const DEVICE_INFO: Self = Self(3);
    /// Freeze all file systems.
    pub const FREEZE: Self = Self(5);
    /// Thaw them.
    pub const THAW: Self = Self(6);
    /// The last one that there is; those that are not named here need nothing done.
    pub const AUTO_RECOVER: Self = Self(7);
}

/// It can, and a snapshot needs no recovery before it is used.
const HOT_BACKUP_FLAGS: u32 = 5;

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// So many file systems are frozen.
    Frozen(usize),
    /// None are, or none any more: why.
    NotFrozen(String),
    /// They are thawed.
    Thawed(Thaw),
    /// The host took too long: they were thawed, and its snapshot may be of no use.
    Expired(Thaw),
}

/// The snapshot component of this guest.
#[derive(Debug)]
pub struct Vss<F: FileSystems> {
    freezer: Freezer<F>,
    limit: Duration,
    /// Told by the service's clock; the watchdog has one of its own.
    due: Option<Duration>,
    /// The host does not know yet that they were thawed without it.
    expired: bool,
}

impl<F: FileSystems> Vss<F> {
    /// One that leaves file systems frozen for `limit` at most. Hosts need seconds.
    #[must_use]
    pub fn new(file_systems: F, limit: Duration) -> Self {
        Self { freezer: Freezer::new(file_systems), limit, due: None, expired: false }
    }

    fn freeze(&mut self, now: Duration, tell: Tell<'_>) -> Status {
        if self.due.is_some() {
            // Still frozen: the host does not get more time by asking again.
            return Status::OK;
        }
        self.expired = false;
        match self.freezer.freeze(self.limit) {
            Ok(count) => {
                self.due = Some(now.saturating_add(self.limit));
                tell(Event::Vss(Notice::Frozen(count)));
                Status::OK
            }
            Err(why) => {
                tell(Event::Vss(Notice::NotFrozen(why.to_string())));
                Status::FAIL
            }
        }
    }

    fn thaw(&mut self, tell: Tell<'_>) -> Status {
        if self.due.take().is_none() {
            return if std::mem::take(&mut self.expired) { Status::FAIL } else { Status::OK };
        }
        let (thaw, expired) = self.freezer.thaw();
        let well = thaw.failed.is_empty() && !expired;
        tell(Event::Vss(if expired { Notice::Expired(thaw) } else { Notice::Thawed(thaw) }));
        if well { Status::OK } else { Status::FAIL }
    }
}

impl Vss<FsFreeze> {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "vss",
        class: Class::VSS,
        kind: MessageType::VSS,
        known: Known { frameworks: &[VERSION_3_0], messages: &[Version::new(5, 0)] },
    };
}

impl<F: FileSystems> Component for Vss<F> {
    fn profile(&self) -> Profile {
        Vss::PROFILE
    }

    fn request(&mut self, now: Duration, _: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        let Ok((message, _)) = Message::mut_from_prefix(body) else { return Status::INVALID_ARGUMENT };
        match Operation(message.operation) {
            Operation::FREEZE => self.freeze(now, tell),
            Operation::THAW => self.thaw(tell),
            Operation::HOT_BACKUP => {
                message.flags = U32::new(HOT_BACKUP_FLAGS);
                Status::OK
            }
            Operation::DEVICE_INFO => {
                message.flags = U32::ZERO;
                Status::OK
            }
            Operation(other) if other <= Operation::AUTO_RECOVER.0 => Status::OK,
            _ => Status::NOT_SUPPORTED,
        }
    }

    fn deadline(&self) -> Option<Duration> {
        self.due
    }

    fn elapsed(&mut self, now: Duration, tell: Tell<'_>) {
        if self.due.take_if(|due| *due <= now).is_some() {
            let (thaw, _) = self.freezer.thaw();
            self.expired = true;
            tell(Event::Vss(Notice::Expired(thaw)));
        }
    }

    fn ended(&mut self, _: Ending, tell: Tell<'_>) {
        let _ = self.thaw(tell);
    }
}

#[cfg(test)]
mod tests;
