//! The primitives the registry is made of: those of std, or of a model checker that stands in for them.
//!
//! loom replaces only what the drain ([`Operable`](super::Operable)) is made of; shuttle replaces all of it.

#[cfg(loom)]
pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(all(shuttle, not(loom)))]
pub(super) use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(any(loom, shuttle)))]
pub(super) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(shuttle)]
pub(super) use shuttle::{sync::atomic::AtomicBool, thread, thread_local};
#[cfg(not(shuttle))]
pub(super) use std::{sync::atomic::AtomicBool, thread, thread_local};

/// Whether a thread has ended, as far as it can be seen without waiting; shuttle does not say.
pub(super) fn has_ended(thread: &thread::JoinHandle<()>) -> bool {
    #[cfg(not(shuttle))]
    return thread.is_finished();
    #[cfg(shuttle)]
    {
        let _ = thread;
        false
    }
}

/// A queue with any number of senders and receivers, without bound.
#[cfg(not(shuttle))]
pub(super) mod queue {
    use crossbeam_channel::{Receiver, Sender};

    pub(in crate::registry) struct Post<T>(Sender<T>);
    pub(in crate::registry) struct Inbox<T>(pub(in crate::registry) Receiver<T>);

    pub(in crate::registry) fn queue<T>() -> (Post<T>, Inbox<T>) {
        let (sender, receiver) = crossbeam_channel::unbounded();
        (Post(sender), Inbox(receiver))
    }

    impl<T> Post<T> {
        /// `false`: nobody will ever receive it. It is dropped.
        pub(in crate::registry) fn post(&self, item: T) -> bool {
            self.0.send(item).is_ok()
        }
    }

    impl<T> Inbox<T> {
        /// Waits for an item; `None` when there is none and nobody is left to send one.
        pub(in crate::registry) fn wait(&self) -> Option<T> {
            self.0.recv().ok()
        }
    }

    impl<T> Clone for Post<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }

    impl<T> Clone for Inbox<T> {
        fn clone(&self) -> Self {
            Self(self.0.clone())
        }
    }
}

/// The same for shuttle, which does not know of crossbeam.
#[cfg(shuttle)]
pub(super) mod queue {
    use std::collections::VecDeque;
    use std::sync::Arc;

    use shuttle::sync::{Condvar, Mutex, MutexGuard};

    struct Shared<T> {
        state: Mutex<State<T>>,
        changed: Condvar,
    }

    struct State<T> {
        items: VecDeque<T>,
        posts: usize,
        inboxes: usize,
    }

    impl<T> Shared<T> {
        fn state(&self) -> MutexGuard<'_, State<T>> {
            self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    pub(in crate::registry) struct Post<T>(Arc<Shared<T>>);
    pub(in crate::registry) struct Inbox<T>(Arc<Shared<T>>);

    pub(in crate::registry) fn queue<T>() -> (Post<T>, Inbox<T>) {
        let state = Mutex::new(State { items: VecDeque::new(), posts: 1, inboxes: 1 });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        (Post(Arc::clone(&shared)), Inbox(shared))
    }

    impl<T> Post<T> {
        pub(in crate::registry) fn post(&self, item: T) -> bool {
            let mut state = self.0.state();
            if state.inboxes == 0 {
                drop(state);
                drop(item);
                return false;
            }
            state.items.push_back(item);
            drop(state);
            self.0.changed.notify_one();
            true
        }
    }

    impl<T> Inbox<T> {
        pub(in crate::registry) fn wait(&self) -> Option<T> {
            let mut state = self.0.state();
            loop {
                if let Some(item) = state.items.pop_front() {
                    return Some(item);
                }
                if state.posts == 0 {
                    return None;
                }
                state = self.0.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
        }

        /// An item that is there already.
        pub(in crate::registry) fn look(&self) -> Option<T> {
            self.0.state().items.pop_front()
        }
    }

    impl<T> Clone for Post<T> {
        fn clone(&self) -> Self {
            self.0.state().posts += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Post<T> {
        fn drop(&mut self) {
            self.0.state().posts -= 1;
            self.0.changed.notify_all();
        }
    }

    impl<T> Clone for Inbox<T> {
        fn clone(&self) -> Self {
            self.0.state().inboxes += 1;
            Self(Arc::clone(&self.0))
        }
    }

    impl<T> Drop for Inbox<T> {
        fn drop(&mut self) {
            let mut state = self.0.state();
            state.inboxes -= 1;
            let left = if state.inboxes == 0 { std::mem::take(&mut state.items) } else { VecDeque::new() };
            drop(state);
            drop(left);
        }
    }
}
