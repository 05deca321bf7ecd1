//! SIGINT and SIGTERM end a service cleanly; a second one ends the process at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Something to be done when the service is to end.
type Hook = Box<dyn Fn() + Send>;

/// Whether the service is to end, and who must hear of it.
#[derive(Default)]
pub(crate) struct Stop {
    asked: AtomicBool,
    hooks: Mutex<Vec<Hook>>,
}

impl Stop {
    /// From here on signals are handled.
    pub(crate) fn install() -> anyhow::Result<Arc<Self>> {
        let stop = Arc::new(Self::default());
        let both = [SIGINT, SIGTERM];
        let asked = Arc::new(AtomicBool::new(false));
        for signal in both {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&asked))
                .context("cannot handle signals")?;
            signal_hook::flag::register(signal, Arc::clone(&asked)).context("cannot handle signals")?;
        }
        let mut signals = Signals::new(both).context("cannot handle signals")?;
        let me = Arc::clone(&stop);
        let run = move || {
            for _ in &mut signals {
                me.stop();
            }
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(run).context("cannot start a thread")?;
        Ok(stop)
    }

    /// Whether it is to end.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::SeqCst)
    }

    /// Does this when it is to end: now, if it is already. It must not wait.
    pub(crate) fn when_asked(&self, hook: impl Fn() + Send + 'static) {
        let mut hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        if self.asked() {
            return hook();
        }
        hooks.push(Box::new(hook));
    }

    /// It is to end.
    pub(crate) fn stop(&self) {
        // Under the lock, so that no hook comes between the flag and the look at the hooks.
        let hooks = self.hooks.lock().unwrap_or_else(PoisonError::into_inner);
        self.asked.store(true, Ordering::SeqCst);
        hooks.iter().for_each(|hook| hook());
    }
}
