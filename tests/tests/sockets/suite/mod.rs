//! The suite, written once. Each test gets a fresh world; `Err` is why it can't run with that family.

mod bytes;
mod ends;
mod meeting;
mod waiting;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::world::World;

/// A test.
pub(crate) type Test = fn(&mut dyn World) -> Result<(), String>;

/// All of them.
pub(crate) fn all() -> Vec<(&'static str, Test)> {
    let parts = [bytes::tests(), ends::tests(), meeting::tests(), waiting::tests()];
    parts.into_iter().flatten().collect()
}

/// Whether a descriptor becomes readable in time.
pub(crate) fn readable(descriptor: &impl AsFd, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    loop {
        let time = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).unwrap();
        match poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&time)) {
            Ok(count) => return count != 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
