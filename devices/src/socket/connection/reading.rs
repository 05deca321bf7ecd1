//! Reading from a connection: what is there, the wait for more, the peer's end and its reset.

use std::io::{self, IoSliceMut};

use super::inbound::{self, Inbound};
use super::side::Lends;
use super::{Connection, PEER_ENDED, READ_SHUT, RESET_TOLD, Who};

impl Connection {
    /// Reads into the slice, or nothing if it is the end.
    pub(in crate::socket) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_for(Who::Thread, buffer)
    }

    pub(super) fn read_for(&self, who: Who, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_by(who, |inbound| inbound.take(buffer))
    }

    /// Reads into slices: waits for the first byte alone.
    pub(in crate::socket) fn read_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_vectored_for(Who::Thread, buffers)
    }

    pub(super) fn read_vectored_for(&self, who: Who, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return Ok(0);
        }
        self.read_by(who, |inbound| {
            let mut total = 0;
            for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
                match inbound.take(buffer) {
                    Ok(taken) => {
                        total += taken;
                        if taken < buffer.len() {
                            break;
                        }
                    }
                    // What was read is not lost; the next call says it again.
                    Err(_) if total != 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(total)
        })
    }

    /// Copies what a read would begin with, and leaves it there.
    pub(in crate::socket) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peek_for(Who::Thread, buffer)
    }

    pub(super) fn peek_for(&self, who: Who, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_by(who, |inbound| inbound.peek(buffer))
    }

    /// Reads by `take`, which brings what is there now, waiting for it if there is nothing.
    fn read_by(&self, who: Who, mut take: impl FnMut(&mut Inbound) -> io::Result<usize>) -> io::Result<usize> {
        // What was set when it began counts, as with the kernel's sockets.
        let (waits, deadline) = (self.waits(who), self.read_timeout.deadline());
        let mut inbound = self.inbound.lock();
        loop {
            if self.is(READ_SHUT) {
                return Ok(0);
            }
            if inbound.is_away() || (waits && !inbound.is_free()) {
                // Somebody sleeps, as there was nothing: whoever waits, waits for its turn first.
                let mut its_turn = false;
                if waits {
                    (inbound, its_turn) = self.inbound.returned(inbound, deadline);
                }
                if its_turn {
                    continue;
                }
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let taken = take(&mut inbound);
            if inbound.is_at_end() && !self.is(PEER_ENDED) {
                self.set(PEER_ENDED);
            }
            if !matches!(taken, Ok(0)) || inbound.is_at_end() {
                self.show(who, &mut inbound);
                return taken.map_err(|error| self.told(error));
            }
            if !waits {
                // The end of the peer may come before its end of the channel, and be read first.
                if inbound.arm().map_err(|error| self.told(error))? {
                    continue;
                }
                self.show(who, &mut inbound);
                // Shut down meanwhile, it may have rung for the last time before that.
                if self.is(READ_SHUT) {
                    continue;
                }
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let Some(mut receiver) = inbound.take_receiver() else { continue };
            drop(inbound);
            let in_time = inbound::sleep(&mut receiver, deadline);
            inbound = self.inbound.lock();
            inbound.give_back(receiver);
            inbound = self.inbound.brought_back(inbound);
            if !matches!(in_time, Ok(true)) {
                self.show(who, &mut inbound);
                in_time.map_err(|error| self.told(error))?;
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// An error that a reader is told.
    pub(super) fn told(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::ConnectionReset {
            self.set(RESET_TOLD);
        }
        error
    }

    /// The reset, if nobody was told of it. What came before it is read first, the peer's end perhaps among it; and whoever
    /// is reading now will be told.
    pub(in crate::socket) fn take_error(&self) -> Option<io::Error> {
        let mut inbound = self.inbound.try_lock()?;
        let over = inbound.receiver().is_some_and(vmbus_channels::Receiver::is_rescinded);
        let reset = over && !self.is(PEER_ENDED) && inbound.arm().is_err();
        (reset && self.set(RESET_TOLD)).then(|| io::ErrorKind::ConnectionReset.into())
    }

    /// Makes the descriptors show what is true now, if anybody watches them.
    fn show(&self, who: Who, inbound: &mut Inbound) {
        if let Some(Some(readiness)) = self.readiness.get() {
            // An error is something to read, too.
            let there = self.is(READ_SHUT) || inbound.arm().unwrap_or(true);
            readiness.show(there);
        }
        #[cfg(all(feature = "tokio", not(loom)))]
        self.show_runtime_reading(who);
        let _ = who;
    }
}
