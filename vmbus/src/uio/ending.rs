//! Who is told how a device ends: found gone, then closed, each once.

use std::fmt;
use std::sync::{Mutex, PoisonError};

/// Hears how a device ends, from any thread. It may not block.
pub(super) type Observer = Box<dyn Fn(Ended) + Send + Sync>;

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The device is gone; nothing of its memory is mapped any more.
    Gone,
    /// The node is closed.
    Closed,
}

/// At most one observer. Its drop says [`Ended::Closed`], so it must be dropped behind the node.
#[derive(Default)]
pub(super) struct Ending(Mutex<State>);

#[derive(Default)]
struct State {
    observer: Option<Observer>,
    told: bool,
}

impl Ending {
    pub(super) fn observe(&self, observer: Observer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).observer = Some(observer);
    }

    pub(super) fn gone(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(observer), false) = (&state.observer, state.told) {
            observer(Ended::Gone);
            state.told = true;
        }
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(observer) = &self.0.get_mut().unwrap_or_else(PoisonError::into_inner).observer {
            observer(Ended::Closed);
        }
    }
}

impl fmt::Debug for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ending").finish_non_exhaustive()
    }
}
