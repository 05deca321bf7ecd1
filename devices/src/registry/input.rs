//! What happens to the registry: everything comes through one queue, in order.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use vmbus_channels::{Announcement, ChannelId};

use super::sync::AtomicBool;
use super::sync::queue::Post;
use super::{Context, Counters, DeviceEntry, DeviceIds, Driver, Instance};
use crate::Error;

/// A registered driver. Counted up, so that their order is that of registration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DriverId(pub(super) u64);

/// One device in the hands of one driver. What belongs to another binding of the same channel is of the past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tie {
    pub(super) channel: ChannelId,
    pub(super) driver: DriverId,
    pub(super) serial: u64,
}

/// A callback that an instance left with the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SlotId(pub(super) u64);

pub(super) type Work = Box<dyn FnOnce(&Context) + Send>;
pub(super) type Callback = Box<dyn FnMut(&Context) -> Option<Duration> + Send>;

/// What makes a callback run.
#[derive(Debug, Clone)]
pub(super) enum SlotKind {
    Timer,
    /// Whether a wake is outstanding.
    WakeUp(Arc<AtomicBool>),
}

/// One thing that happened. Closures are of drivers; they are neither called nor dropped by the thread that hears it.
pub(super) enum Input {
    Announced(Announcement),
    /// The bus cut us off: what follows, up to `AllArrived`, is everything that is there.
    Lagged,
    /// There will be no more announcements.
    #[cfg_attr(shuttle, expect(dead_code, reason = "a model announces by hand"))]
    BusEnded,
    Register(Arc<dyn Driver>, String, DeviceIds, Post<DriverId>),
    Unregister(DriverId, Option<Post<()>>),
    Reprobe(ChannelId, Post<Result<(), Error>>),
    List(Post<Vec<DeviceEntry>>),
    Count(Post<Counters>),
    Settle(Post<()>),
    Shutdown,
    Work(Tie, Work),
    NewSlot(Tie, SlotId, Callback, SlotKind),
    Arm(Tie, SlotId, Duration),
    Cancel(Tie, SlotId),
    Wake(Tie, SlotId),
    Forget(Tie, SlotId),
    /// An instance can't go on, and why.
    GiveUp(Tie, String, Panicked),
    /// The last active user has left an instance that is being removed.
    Drained(Tie),
    /// A worker has carried out a task.
    Probed(Tie, Probed),
    Worked(Tie, Worked),
    Removed(Tie, Panicked),
    Released(DriverId),
    /// Nothing but time passed.
    Elapsed,
}

pub(super) type Panicked = bool;

/// How a probe ended.
pub(super) struct Probed {
    /// The instance, or why there is none.
    pub(super) instance: Result<Box<dyn Instance>, String>,
    pub(super) panicked: Panicked,
}

/// How a work item ended.
#[derive(Default)]
pub(super) struct Worked {
    pub(super) panicked: Panicked,
    /// The callback of a slot, back, and when it is to run again.
    pub(super) slot: Option<(SlotId, Callback, Option<Duration>)>,
}

/// What a worker is to do.
pub(super) enum Task {
    Probe(Arc<dyn Driver>, Context),
    Work(Context, Call),
    Remove(Context, Removal),
    /// Drops a driver.
    Release(DriverId, Arc<dyn Driver>),
}

/// One work item.
pub(super) enum Call {
    Once(Work),
    Slot(SlotId, Callback, SlotKind),
    /// Drops a callback that is no longer wanted.
    Drop(Callback),
}

/// What is left of an instance.
pub(super) struct Removal {
    /// None if its probe failed.
    pub(super) instance: Option<Box<dyn Instance>>,
    pub(super) reason: super::Reason,
    /// What will not run any more.
    pub(super) discarded: Vec<Call>,
}

impl fmt::Debug for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Probe(_, context) => write!(formatter, "probe {}", context.offer().id),
            Self::Work(context, _) => write!(formatter, "work of {}", context.offer().id),
            Self::Remove(context, removal) => write!(formatter, "remove {} ({:?})", context.offer().id, removal.reason),
            Self::Release(id, _) => write!(formatter, "release {id:?}"),
        }
    }
}
