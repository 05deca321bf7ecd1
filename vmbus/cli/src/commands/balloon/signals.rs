//! SIGINT and SIGTERM end the driver cleanly; a second one ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use vmbus_channels::Waker;

use crate::exit::Exit;

/// What the signals do now.
#[derive(Clone)]
pub(super) struct Stop {
    asked: Arc<AtomicBool>,
    /// Wakes the driver; none while there is no driver to wake.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Stop {
    /// From here on signals are handled. As long as [`wakes`](Self::wakes) was not called they end the process with 0:
    /// nothing has been begun that would have to be undone.
    pub(super) fn install() -> anyhow::Result<Self> {
        let stop = Self { asked: Arc::default(), waker: Arc::default() };
        let both = [SIGINT, SIGTERM];
        for signal in both {
            // The second signal kills, so that a driver that does not come to its end can be ended.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&stop.asked))
                .context("cannot handle signals")?;
        }
        let mut signals = Signals::new(both).context("cannot handle signals")?;
        let handler = stop.clone();
        let run = move || {
            for _ in &mut signals {
                handler.stop();
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(run).context("cannot start the thread for signals")?;
        Ok(stop)
    }

    /// From here on a signal wakes the driver.
    pub(super) fn wakes(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker);
    }

    /// Whether a signal came.
    pub(super) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }

    fn stop(&self) {
        let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.store(true, Ordering::Release);
        match &*waker {
            Some(waker) => waker.wake(),
            None => std::process::exit(Exit::Ok.code().into()),
        }
    }
}
