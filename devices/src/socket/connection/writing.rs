//! Writing to a connection: what there is room for, the wait for room, and the end.

use std::io::{self, IoSlice};
use std::sync::atomic::{Ordering, fence};

use super::outbound::{self, Bytes};
use super::side::Lends;
use super::{Connection, PEER_ENDED, RESET, WRITE_SHUT, Who};

impl Connection {
    /// Writes all, waiting for room; or, nonblocking, what there is room for.
    pub(in crate::socket) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_for(Who::Thread, slices)
    }

    pub(super) fn write_for(&self, who: Who, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = Bytes::new(slices);
        if bytes.left() == 0 {
            return if self.is(WRITE_SHUT) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(0) };
        }
        let outcome = self.write_all(who, &mut bytes);
        // Who shut this side down meanwhile could not have the lock.
        self.say_end();
        match outcome {
            // What was written is not lost; the next call says why there was no more.
            Err(_) if bytes.written() != 0 => Ok(bytes.written()),
            outcome => outcome.map(|()| bytes.written()),
        }
    }

    fn write_all(&self, who: Who, bytes: &mut Bytes<'_>) -> io::Result<()> {
        // What was set when it began counts, as with the kernel's sockets.
        let (waits, deadline) = (self.waits(who), self.write_timeout.deadline());
        let mut outbound = self.outbound.lock();
        let mut in_time = true;
        let outcome = loop {
            if self.is(WRITE_SHUT) || outbound.is_end_sent() {
                break Err(io::ErrorKind::BrokenPipe.into());
            }
            if !in_time {
                break Err(io::ErrorKind::WouldBlock.into());
            }
            if outbound.is_away() || (waits && !outbound.is_free()) {
                // Somebody sleeps, as there was no room. What that one writes is written whole before anything else.
                in_time = false;
                if waits {
                    (outbound, in_time) = self.outbound.returned(outbound, deadline);
                }
                continue;
            }
            if let Err(error) = outbound.put(bytes) {
                break Err(self.told_writer(error));
            }
            if bytes.left() == 0 {
                break Ok(());
            }
            if !waits {
                match self.ask_for_room(who, &mut outbound, bytes) {
                    Ok(true) => continue,
                    Ok(false) => break Err(io::ErrorKind::WouldBlock.into()),
                    Err(error) => break Err(self.told_writer(error)),
                }
            }
            match outbound.arm(bytes.left()) {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => break Err(self.told_writer(error)),
            }
            let Some(sender) = outbound.take_sender() else { continue };
            drop(outbound);
            let slept = outbound::sleep(&sender, deadline);
            outbound = self.outbound.lock();
            outbound.give_back(sender);
            outbound = self.outbound.brought_back(outbound);
            match slept {
                Ok(slept) => in_time = slept,
                Err(error) => break Err(error),
            }
        };
        #[cfg(all(feature = "tokio", not(loom)))]
        self.show_runtime_writing(who);
        drop(outbound);
        outcome
    }

    /// Gets ready for the sleep of an event loop; `true`: there is room already, or nobody needs any.
    fn ask_for_room(&self, who: Who, outbound: &mut outbound::Outbound, bytes: &Bytes<'_>) -> io::Result<bool> {
        #[cfg(all(feature = "tokio", not(loom)))]
        if who == Who::Runtime {
            return self.ask_for_room_by_runtime(outbound, bytes);
        }
        let _ = who;
        outbound.arm(bytes.left())
    }

    /// Says the end if writing was shut down, unless somebody is writing, who will on the way out.
    pub(super) fn say_end(&self) {
        // Between the flag and the look at the lock here, between the lock and the look at the flag there: one of the two
        // sees the other.
        fence(Ordering::SeqCst);
        while self.is(WRITE_SHUT) && !self.is(RESET) {
            let Some(mut outbound) = self.outbound.try_lock() else { return };
            if outbound.is_end_sent() || outbound.is_away() {
                return;
            }
            outbound.end();
            drop(outbound);
            fence(Ordering::SeqCst);
        }
    }

    /// An error that a writer is told: with the peer's end read, the channel's end is no reset.
    fn told_writer(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::ConnectionReset && self.is(PEER_ENDED) {
            return io::Error::new(io::ErrorKind::BrokenPipe, error);
        }
        self.told(error)
    }
}
