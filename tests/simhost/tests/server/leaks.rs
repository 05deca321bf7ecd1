//! What this process holds: descriptors, threads, mappings of guest memory.
#![expect(unreachable_pub, clippy::unwrap_used, reason = "part of tests, which may panic")]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tests of one process would count each other's.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads of guests and hosts; the test harness has some of its own, which come and go.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("simhost") || name.starts_with("vmbus")).count()
}

/// What this process holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resources {
    descriptors: usize,
    threads: usize,
    mappings: usize,
}

impl Resources {
    pub fn now() -> Self {
        let entries = |path| std::fs::read_dir(path).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: threads(),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
        }
    }

    /// When so many threads have begun (one has no name before) and no more are there.
    pub fn with_threads(threads: usize) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::now();
            if now.threads == threads {
                return now;
            }
            assert!(Instant::now() < deadline, "{now:?}");
            std::thread::yield_now();
        }
    }

    /// No more is held than then. Threads that have been joined may be listed for a moment still.
    #[track_caller]
    pub fn expect_back(self, after: &str) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::now();
            let back =
                now.descriptors <= self.descriptors && now.threads <= self.threads && now.mappings <= self.mappings;
            if back {
                return;
            }
            assert!(Instant::now() < deadline, "after {after}: {now:?}, before: {self:?}");
            std::thread::yield_now();
        }
    }
}
