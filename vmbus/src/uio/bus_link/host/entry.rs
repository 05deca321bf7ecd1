//! What is known of one relid.

use std::sync::Arc;

use crate::message::{GpadlId, OfferChannel};
use crate::sysfs::Device;

/// Names an entry, and never another one. Answers from other threads carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Key(pub(in super::super) u64);

/// One offer, from its arrival until it is released and closed.
#[derive(Debug)]
pub(super) struct Entry<D> {
    pub(super) key: Key,
    pub(super) offer: OfferChannel,
    /// The device as it was when it was offered.
    pub(super) device: Arc<Device>,
    /// Which of the device's times in user space this is.
    pub(super) incarnation: u64,
    /// The relid of a subchannel's primary.
    pub(super) primary: Option<u32>,
    /// The executor was told that it is gone.
    pub(super) rescinded: bool,
    /// The executor has let go of it.
    pub(super) released: bool,
    /// What the executor calls its ring.
    pub(super) ring: Option<GpadlId>,
    /// The executor waits for the end of that.
    pub(super) torn_down: bool,
    pub(super) life: Life<D>,
}

/// Where a channel is between an open and a close.
#[derive(Debug)]
pub(super) enum Life<D> {
    /// Nothing of it is open.
    Closed,
    /// A worker opens it.
    Opening {
        /// The executor's number for that.
        open_id: u32,
        /// Nobody waits for it any more.
        abandoned: bool,
    },
    /// It could not be opened, and the executor has not yet let go.
    Failed,
    /// It is open.
    Open {
        /// What keeps it open.
        device: D,
    },
    /// A worker closes it, or somebody still holds a part of it.
    Closing,
}
