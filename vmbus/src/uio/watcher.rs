//! A thread that sees the end of a device while its owner polls a ring and never waits.
//!
//! It waits for nothing but the error condition of the UIO node. The kernel wakes every waiter of the node at each
//! interrupt, so it costs a wake-up where interrupts are not masked; who polls has them masked and pays nothing. A
//! netlink socket for uevents would not be woken, but hears nothing in a network namespace of its own (containers).

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::shared::Shared;
use crate::Error;

/// The running thread. Stopped and joined by [`Watcher::stop`] or by dropping it; either takes one wake-up.
#[derive(Debug)]
pub(super) struct Watcher {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self, Error> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|error| Error::io("create", "an eventfd", error))?);
        let (watched, stopped) = (Arc::clone(shared), Arc::clone(&stop));
        let thread = Builder::new()
            .name("vmbus-watch".to_owned())
            .spawn(move || watch(&watched, &stopped))
            .map_err(|error| Error::io("start", "a watcher thread", error))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    pub(super) fn stop(&mut self) {
        // Only an overflow could refuse it, and then the thread is being woken already.
        let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(target: "vmbus::uio", "the watcher thread panicked");
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop();
    }
}

fn watch(shared: &Shared, stop: &OwnedFd) {
    loop {
        // No events asked for: poll reports errors all the same, and leaves the event count to the owner.
        let node = PollFd::from_borrowed_fd(shared.as_fd(), PollFlags::empty());
        let mut waited = [node, PollFd::new(stop, PollFlags::IN)];
        match poll(&mut waited, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                log::error!(target: "vmbus::uio", "{}: the watcher gives up: {error}", shared.device().name);
                return;
            }
        }
        let [node, stop] = &waited;
        if !stop.revents().is_empty() {
            return;
        }
        // It revokes, and says so to the owner's next call.
        if !node.revents().is_empty() && shared.check().is_err() {
            return;
        }
    }
}
