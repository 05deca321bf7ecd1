//! What the link's thread is asked for and told, from any thread, and the descriptor that wakes it.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};

use super::Held;
use super::host::Key;
use crate::Error;
use crate::link::{Port, Share};
use crate::message::{GpadlId, GuestMessage};

/// One thing that the thread has to know.
#[derive(Debug)]
pub(super) enum Request {
    /// The executor posted a message.
    Said(GuestMessage),
    /// The executor shared memory.
    Shared {
        /// For which channel.
        relid: u32,
        /// As what.
        gpadl: GpadlId,
        /// Which memory.
        what: Share,
    },
    /// A worker opened a channel, or could not.
    Opened {
        /// Whose.
        key: Key,
        /// What keeps it open.
        device: Option<Held>,
        /// What `port` returns.
        port: Result<Port, Error>,
    },
    /// An open device was found gone.
    Gone(Key),
    /// Everything of an open channel is closed.
    Closed(Key),
    /// The link ends.
    Stop,
}

/// A queue. What is in it is bounded by who fills it: the executor's requests, and an answer or two for each of them.
#[derive(Debug, Clone)]
pub(super) struct Inbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `None`: nobody will look any more.
    queue: Mutex<Option<VecDeque<Request>>>,
    wake: OwnedFd,
}

impl Inbox {
    pub(super) fn new() -> Result<Self, Error> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let wake = wake.map_err(|error| Error::io("create", "an eventfd", error))?;
        Ok(Self(Arc::new(Shared { queue: Mutex::new(Some(VecDeque::new())), wake })))
    }

    /// `false`: the thread has ended. The request is dropped, and with it what it holds open.
    pub(super) fn put(&self, request: Request) -> bool {
        let mut queue = self.queue();
        let Some(requests) = queue.as_mut() else {
            // A device that closes says so here: not under the lock.
            drop(queue);
            drop(request);
            return false;
        };
        requests.push_back(request);
        drop(queue);
        // Refused only when it is about to overflow, and then it is readable anyway.
        let _ = rustix::io::write(&self.0.wake, &1_u64.to_ne_bytes());
        true
    }

    pub(super) fn take(&self) -> Option<Request> {
        self.queue().as_mut().and_then(VecDeque::pop_front)
    }

    /// Takes note of all wakes so far; to be called before the queue is emptied.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.0.wake, &mut [0_u8; 8]);
    }

    /// Nobody will look any more.
    pub(super) fn close(&self) {
        let left = self.queue().take();
        drop(left);
    }

    fn queue(&self) -> MutexGuard<'_, Option<VecDeque<Request>>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    /// Readable when there is something to take.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}
