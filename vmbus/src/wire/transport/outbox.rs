//! Frames that wait for the socket to take them: bounded, in order.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::frame::Frame;
use super::socket::{Sent, send};

/// Frames that wait for the socket to take them.
#[derive(Debug)]
pub(in crate::wire) struct Outbox {
    queue: VecDeque<Frame>,
    most: usize,
}

impl Outbox {
    /// An outbox for this many frames.
    pub(in crate::wire) fn new(most: usize) -> Self {
        Self { queue: VecDeque::new(), most }
    }

    /// Puts a frame behind all others; `false` when there is no room: the other side has stopped to listen.
    pub(in crate::wire) fn push(&mut self, frame: Frame) -> bool {
        let room = self.queue.len() < self.most;
        if room {
            self.queue.push_back(frame);
        }
        room
    }

    pub(in crate::wire) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Hands the socket what it takes now, and does not wait.
    ///
    /// # Errors
    /// `EPIPE`, `ECONNRESET`: the other side is gone.
    pub(in crate::wire) fn flush(&mut self, socket: BorrowedFd<'_>) -> Result<(), Errno> {
        while let Some(frame) = self.queue.front() {
            match send(socket, frame.as_ref())? {
                Sent::Whole => self.queue.pop_front(),
                Sent::Full => return Ok(()),
            };
        }
        // A burst is over: its memory goes back.
        if self.queue.capacity() > 64 {
            self.queue.shrink_to(16);
        }
        Ok(())
    }
}
