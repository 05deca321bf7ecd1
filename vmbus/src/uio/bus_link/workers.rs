//! Threads for what may block in the kernel: as many as there is to do, up to a limit, and none when there is nothing.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant};

type Job = Box<dyn FnOnce() + Send>;

/// A pool. Jobs begin in order; at most `limit` are on their way at a time.
#[derive(Clone)]
pub(super) struct Workers {
    name: &'static str,
    limit: usize,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
}

impl Workers {
    pub(super) fn new(name: &'static str, limit: usize) -> Self {
        Self { name, limit, shared: Arc::default() }
    }

    /// Does the job on some thread, some time. Where no thread can be had it is done here and now.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.shared.lock();
        state.jobs.push_back(Box::new(job));
        if state.threads >= self.limit {
            return;
        }
        state.threads += 1;
        drop(state);
        let shared = Arc::clone(&self.shared);
        if let Err(error) = Builder::new().name(self.name.to_owned()).spawn(move || shared.work()) {
            log::warn!(target: "vmbus::uio", "no thread for {}: {error}", self.name);
            self.shared.work();
        }
    }

    /// Waits until all jobs are done; `false` if they are not in time.
    pub(super) fn finish(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.lock();
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.shared.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does jobs until there are none.
    fn work(&self) {
        while let Some(job) = self.next() {
            // A panic must not take the thread's place in the count with it.
            if catch_unwind(AssertUnwindSafe(job)).is_err() {
                log::error!(target: "vmbus::uio", "a worker panicked");
            }
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        let job = state.jobs.pop_front();
        if job.is_none() {
            // In the same breath: whoever comes later finds no thread and starts one.
            state.threads -= 1;
            self.changed.notify_all();
        }
        job
    }
}
