//! The suite, written once. Each test gets a fresh world; `Err` is why it can't run with that family.

mod bytes;
mod ends;
mod meeting;
mod waiting;

use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::world::{LONG, World};

/// A test.
pub(crate) type Test = fn(&mut dyn World) -> Result<(), String>;

/// All of them.
pub(crate) fn all() -> Vec<(&'static str, Test)> {
    let parts = [bytes::tests(), ends::tests(), meeting::tests(), waiting::tests()];
    parts.into_iter().flatten().collect()
}

/// Does this on another thread, and returns when that sleeps (or is done): what it waits for, it has found missing.
pub(crate) fn asleep<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let (tell, told) = channel();
    let thread = std::thread::spawn(move || {
        tell.send(std::fs::read_link("/proc/thread-self").unwrap()).unwrap();
        run()
    });
    let (start, stat) = (Instant::now(), std::path::Path::new("/proc").join(told.recv().unwrap()).join("stat"));
    // The state follows the name, which is in brackets.
    let sleeps = |stat: String| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'));
    while !thread.is_finished() && !std::fs::read_to_string(&stat).is_ok_and(sleeps) {
        assert!(start.elapsed() < LONG, "it does not wait");
        std::thread::yield_now();
    }
    thread
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
