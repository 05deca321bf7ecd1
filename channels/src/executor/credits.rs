//! What bounds a host that talks too much: each of its messages takes a credit before it enters the queue.

use crossbeam_channel::{Receiver, Sender, bounded};

/// The executor's end. When it is dropped, nobody waits for a credit any more.
#[derive(Debug)]
pub(super) struct Credits {
    back: Sender<()>,
}

/// The link's end.
#[derive(Debug)]
pub(super) struct Taker {
    credits: Receiver<()>,
}

impl Credits {
    /// So many messages may wait.
    pub(super) fn new(many: usize) -> (Self, Taker) {
        let many = many.max(1);
        let (back, credits) = bounded(many);
        for _ in 0..many {
            // There is room for as many.
            let _ = back.try_send(());
        }
        (Self { back }, Taker { credits })
    }

    /// One message has been handled.
    pub(super) fn give_back(&self) {
        let _ = self.back.try_send(());
    }
}

impl Taker {
    /// Waits for a credit. `false`: the executor has ended.
    pub(super) fn take(&self) -> bool {
        self.credits.recv().is_ok()
    }
}
