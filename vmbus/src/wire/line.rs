//! One channel's line to the host.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;

/// One channel's line to the host. See [`link::Line`](crate::link::Line).
#[derive(Debug, Clone)]
pub struct Line {
    rescinded: Arc<AtomicBool>,
}

impl Line {
    pub(crate) fn signal(&self) -> Result<(), Error> {
        self.check()
    }

    pub(crate) fn is_rescinded(&self) -> bool {
        self.rescinded.load(Ordering::Acquire)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_rescinded() { Err(Error::Rescinded { device: String::new() }) } else { Ok(()) }
    }

    pub(crate) fn rescind(&self) {
        self.rescinded.store(true, Ordering::Release);
    }
}
