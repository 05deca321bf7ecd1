//! What dispatchers share with other threads, made of the real thing, or of loom's or shuttle's (`--cfg loom`, `--cfg
//! shuttle`). Everything else of a dispatcher is its own, so this file is all that the model checkers have to replace.

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
#[cfg(shuttle)]
pub use shuttle::sync::atomic::{AtomicBool, AtomicU64, Ordering};
#[cfg(not(any(loom, shuttle)))]
pub use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

#[cfg(any(loom, shuttle))]
pub use model::{Event, Queue};
#[cfg(not(any(loom, shuttle)))]
pub use real::{Event, Queue};

/// Every schedule of shuttle is sequentially consistent as it is.
#[cfg(shuttle)]
pub fn fence(_ordering: Ordering) {}

/// Runs what may panic; `None` if it did. A model lets the panic through: there it is a finding.
#[cfg(not(any(loom, shuttle)))]
pub fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    // What was half done is dropped by who asked, and never called again.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).ok()
}

/// As the real one, without the net.
#[cfg(any(loom, shuttle))]
pub fn contained<T>(run: impl FnOnce() -> T) -> Option<T> {
    Some(run())
}

#[cfg(not(any(loom, shuttle)))]
mod real {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::time::Duration;

    use crossbeam_channel::{Receiver, Sender};
    use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
    use rustix::io::Errno;
    use vmbus::Error;

    /// Something to sleep on: readable from `set` to `clear`.
    #[derive(Debug)]
    pub struct Event(OwnedFd);

    impl Event {
        /// One that is not set.
        ///
        /// # Errors
        /// There is no descriptor to be had.
        pub fn new() -> Result<Self, Error> {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
            event.map(Self).map_err(|error| Error::io("create", "an eventfd", error))
        }

        /// Sets it.
        pub fn set(&self) {
            // Refused only when 2^64 - 2 are outstanding, and then it is readable anyway.
            let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
        }

        /// Clears it.
        pub fn clear(&self) {
            let mut count = [0_u8; 8];
            let _ = rustix::io::read(&self.0, &mut count);
        }

        /// Sleeps until it is set, or for so long; whether it is set. A signal may end it early.
        ///
        /// # Errors
        /// The system call failed.
        pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref()) {
                Ok(ready) => Ok(ready != 0),
                Err(Errno::INTR) => Ok(false),
                Err(error) => Err(Error::io("wait for", "an eventfd", error)),
            }
        }
    }

    impl AsFd for Event {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }

    /// A queue from many to one, without a bound and without a lock.
    #[derive(Debug)]
    pub struct Queue<T> {
        sender: Sender<T>,
        receiver: Receiver<T>,
    }

    impl<T> Queue<T> {
        /// An empty queue.
        pub(in crate::dispatch) fn new() -> Self {
            let (sender, receiver) = crossbeam_channel::unbounded();
            Self { sender, receiver }
        }

        /// Puts something at its end.
        pub fn push(&self, value: T) {
            // Fails only without a receiver, which is right beside.
            let _ = self.sender.send(value);
        }

        /// Takes what is at its front.
        pub fn pop(&self) -> Option<T> {
            self.receiver.try_recv().ok()
        }
    }
}

#[cfg(any(loom, shuttle))]
mod model {
    use std::collections::VecDeque;
    use std::os::fd::{AsFd, BorrowedFd};
    use std::time::Duration;

    #[cfg(loom)]
    use loom::sync::{Condvar, Mutex};
    #[cfg(shuttle)]
    use shuttle::sync::{Condvar, Mutex};
    use std::sync::PoisonError;
    use vmbus::Error;

    use super::{AtomicU64, Ordering};

    /// An eventfd as a model has it. Like one, it orders nothing that the program may rely on: what must be ordered,
    /// the program's own atomics order. (A lock does order; so models can only miss errors there, not invent them.)
    #[derive(Debug)]
    pub struct Event {
        set: Mutex<bool>,
        changed: Condvar,
    }

    impl Event {
        /// One that is not set.
        ///
        /// # Errors
        /// None.
        pub fn new() -> Result<Self, Error> {
            Ok(Self { set: Mutex::new(false), changed: Condvar::new() })
        }

        /// Sets it.
        pub fn set(&self) {
            *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.changed.notify_all();
        }

        /// Clears it.
        pub fn clear(&self) {
            *self.set.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }

        /// Sleeps until it is set, however long that takes.
        ///
        /// # Errors
        /// None.
        pub fn wait(&self, _timeout: Option<Duration>) -> Result<bool, Error> {
            let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
            while !*set {
                set = self.changed.wait(set).unwrap_or_else(PoisonError::into_inner);
            }
            Ok(true)
        }
    }

    impl AsFd for Event {
        /// A model has no descriptors, and nothing in one asks for them; this is here for what is compiled beside it.
        fn as_fd(&self) -> BorrowedFd<'_> {
            rustix::stdio::stdin()
        }
    }

    /// A queue from many to one that promises as little as a queue can: who takes a value sees what was done before it
    /// was put there, and what is there may be overlooked for a while. (crossbeam's has a full fence in `try_recv`, which
    /// nothing here may lean on.)
    #[derive(Debug)]
    pub struct Queue<T> {
        /// The checker does not see this lock, so it orders nothing.
        values: std::sync::Mutex<VecDeque<T>>,
        pushed: AtomicU64,
        popped: std::sync::atomic::AtomicU64,
    }

    impl<T> Queue<T> {
        /// An empty queue.
        pub(in crate::dispatch) fn new() -> Self {
            let popped = std::sync::atomic::AtomicU64::new(0);
            Self { values: std::sync::Mutex::new(VecDeque::new()), pushed: AtomicU64::new(0), popped }
        }

        /// Puts something at its end.
        pub fn push(&self, value: T) {
            self.values.lock().unwrap_or_else(PoisonError::into_inner).push_back(value);
            self.pushed.fetch_add(1, Ordering::Release);
        }

        /// Takes what is at its front. Called by one thread.
        pub fn pop(&self) -> Option<T> {
            if self.pushed.load(Ordering::Acquire) == self.popped.load(Ordering::Relaxed) {
                return None;
            }
            self.popped.fetch_add(1, Ordering::Relaxed);
            self.values.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
        }
    }
}
