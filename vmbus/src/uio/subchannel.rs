//! The part of a device that belongs to one subchannel: its end is not the end of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::memory::Mapping;

/// One subchannel whose rings are mapped.
#[derive(Debug)]
pub(super) struct Subchannel {
    mappings: Vec<Arc<Mapping>>,
    /// Set after the mappings were replaced.
    rescinded: AtomicBool,
}

impl Subchannel {
    pub(super) fn new(mappings: Vec<Arc<Mapping>>) -> Self {
        Self { mappings, rescinded: AtomicBool::new(false) }
    }

    pub(super) fn mappings(&self) -> &[Arc<Mapping>] {
        &self.mappings
    }

    /// Whether it is known to be gone. `true` means that no mapping of it reaches an old page any more.
    pub(super) fn is_rescinded(&self) -> bool {
        if self.rescinded.load(Ordering::Acquire) {
            return true;
        }
        let faulted = self.mappings.iter().any(|mapping| mapping.is_revoked());
        if faulted {
            self.rescind();
        }
        faulted
    }

    pub(super) fn rescind(&self) {
        for mapping in &self.mappings {
            if let Err(error) = mapping.revoke() {
                log::error!(target: "vmbus::uio", "a subchannel's memory may still be reached: {error}");
            }
        }
        self.rescinded.store(true, Ordering::Release);
    }
}
