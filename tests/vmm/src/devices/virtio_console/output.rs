//! What the guest has said and the far end has not heard yet: taken from the processor's thread, written by another,
//! all that has come meanwhile in one write.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Past this the guest waits, as on a line that is full.
const BYTES_AT_MOST: usize = 16 << 20;

/// Bytes on their way out.
#[derive(Debug, Default)]
pub(super) struct Output {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
    room: Condvar,
}

impl Output {
    /// Adds bytes; waits while there are too many.
    pub(super) fn push(&self, bytes: &[u8]) {
        let full = |held: &mut Vec<u8>| held.len() >= BYTES_AT_MOST;
        let mut held = self.room.wait_while(self.lock(), full).unwrap_or_else(PoisonError::into_inner);
        held.extend_from_slice(bytes);
        self.more.notify_one();
    }

    /// Waits for bytes and takes all of them.
    pub(super) fn take(&self) -> Vec<u8> {
        let empty = |held: &mut Vec<u8>| held.is_empty();
        let mut held = self.more.wait_while(self.lock(), empty).unwrap_or_else(PoisonError::into_inner);
        self.room.notify_one();
        std::mem::take(&mut *held)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
