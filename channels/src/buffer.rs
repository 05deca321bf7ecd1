//! Memory shared with the host beside the rings: a GPADL that has an owner.

use std::sync::Arc;

use vmbus::memory::Mapping;
use vmbus::message::GpadlId;

use crate::channel::Hold;
use crate::control::Command;
use crate::executor::{Event, Reply};
use crate::{Error, here};

/// Memory that the host reaches under a number, over one channel. A user of that channel: the channel is not closed
/// with the host before its buffers are given back. Dropping it gives it back without waiting.
#[derive(Debug)]
pub struct Buffer {
    // Fields go in this order: the memory, the number, the reference to the channel.
    memory: Arc<Mapping>,
    number: Number,
    hold: Arc<Hold>,
}

impl Buffer {
    pub(crate) fn create(hold: &Arc<Hold>, bytes: u32) -> Result<Self, Error> {
        let queue = hold.queue().ok_or(Error::NotConnected)?;
        hold.alive()?;
        let (id, share) = (hold.id(), Arc::clone(hold));
        let command = Command::CreateGpadl(id, bytes);
        queue.ask("create_buffer", |to| Event::Command(command, Reply::Buffer(to, share)))
    }

    /// From the executor, once the host has taken note. If the memory can't be had here, the number goes back.
    pub(crate) fn new(
        gpadl: GpadlId,
        hold: Arc<Hold>,
        memory: Result<Arc<Mapping>, vmbus::Error>,
    ) -> Result<Self, Error> {
        let number = Number { gpadl, hold: Some(Arc::clone(&hold)) };
        Ok(Self { memory: memory.map_err(|error| hold.named(error))?, number, hold })
    }

    /// The bytes. Host and guest write them; after a rescind they are nobody's.
    #[must_use]
    pub fn memory(&self) -> &Mapping {
        &self.memory
    }

    /// Under which number the host knows it.
    #[must_use]
    pub fn gpadl(&self) -> GpadlId {
        self.number.gpadl
    }

    /// Gives it back and waits until the host has let go of it.
    ///
    /// # Errors
    /// [`Error::Silent`]: the memory stays out of use until the host answers or takes the channel back.
    /// [`Error::Callback`], without waiting. It is given back all the same. Not an error: a channel or a bus that is
    /// gone.
    pub fn close(self) -> Result<(), Error> {
        here::may_wait("Buffer::close")?;
        let Self { memory, mut number, hold } = self;
        drop(memory);
        number.hold = None;
        let Some(queue) = hold.queue() else { return Ok(()) };
        let command = Command::TearDownGpadl(hold.id(), number.gpadl);
        // The reference stays until the host has answered: the channel may not be closed before.
        match queue.ask("Buffer::close", |to| Event::Command(command, Reply::Done(to))) {
            Err(error) if error.is_rescinded() || error.is_ended() => Ok(()),
            Err(Error::Gone(_) | Error::NoBuffer { .. }) => Ok(()),
            outcome => outcome,
        }
    }
}

/// A number that is to go back to the host.
#[derive(Debug)]
struct Number {
    gpadl: GpadlId,
    /// `None` once it is on its way.
    hold: Option<Arc<Hold>>,
}

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(hold) = &self.hold
            && let Some(queue) = hold.queue()
        {
            queue.tell(Event::Command(Command::TearDownGpadl(hold.id(), self.gpadl), Reply::Nobody));
        }
    }
}
