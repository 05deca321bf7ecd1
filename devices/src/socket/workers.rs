//! Threads for what waits for the host: so that those who asked for it can stop waiting at any time.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

/// Threads at most; beyond that, jobs wait for each other.
const MOST: usize = 64;
/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

/// A few threads, started when there is work.
pub(super) struct Workers {
    post: Sender<Job>,
    inbox: Receiver<Job>,
    count: Arc<Mutex<Count>>,
}

#[derive(Default)]
struct Count {
    threads: usize,
    /// Of these, who wait for a job.
    idle: usize,
    /// Jobs that nobody has taken.
    queued: usize,
}

impl Workers {
    pub(super) fn new() -> Self {
        let (post, inbox) = unbounded();
        Self { post, inbox, count: Arc::default() }
    }

    /// Does something on some thread, soon.
    ///
    /// # Errors
    /// There is no thread, and none can be started.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut count = lock(&self.count);
        if count.queued >= count.idle && count.threads < MOST {
            let (inbox, shared) = (self.inbox.clone(), Arc::clone(&self.count));
            let started = std::thread::Builder::new().name("vmsock-worker".into()).spawn(move || work(&inbox, &shared));
            match started {
                Ok(_) => {
                    count.threads += 1;
                    count.idle += 1;
                }
                Err(error) if count.threads == 0 => return Err(error),
                Err(_) => {}
            }
        }
        count.queued += 1;
        // Never refused: an inbox is held here.
        let _ = self.post.send(Box::new(job));
        Ok(())
    }
}

fn lock(count: &Mutex<Count>) -> MutexGuard<'_, Count> {
    count.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(inbox: &Receiver<Job>, count: &Mutex<Count>) {
    loop {
        let job = inbox.recv_timeout(IDLE).ok();
        let mut counted = lock(count);
        // One may have come between the end of the time and the lock, and count on this thread.
        let job = job.or_else(|| inbox.try_recv().ok());
        counted.idle -= 1;
        let Some(job) = job else {
            counted.threads -= 1;
            return;
        };
        counted.queued -= 1;
        drop(counted);
        job();
        lock(count).idle += 1;
    }
}
