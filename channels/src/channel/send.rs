//! Sending: one packet or a batch, at once or when there is room.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use vmbus::uio::Event;
use vmbus_ringbuf::{OutgoingPacket, WriteError};

use super::{Channel, OutgoingBatch};
use crate::Error;

/// How often a blocked sender looks by itself. A host that knows pending sends signals when there is room; one that does
/// not (before Windows 8, or a feature bit that is ignored) never would.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

impl Channel {
    /// Sends one packet, waiting for room in the ring: up to `timeout`, or without limit if it is `None`. The payload is
    /// the concatenation of the slices; the host sees it padded to 8 bytes.
    ///
    /// Nothing is received meanwhile. A host that itself waits for room in *our* ring may make none in its own, so give
    /// a timeout, or use [`try_send`](Self::try_send) and receive in between.
    ///
    /// # Errors
    /// [`Error::Stalled`] after `timeout`; [`Error::Woken`] when a [`Waker`](crate::Waker) is used meanwhile (the wake
    /// stays for the next [`wait`](Self::wait)); the device is gone; the ring is corrupt; [`Error::Packet`] for one that
    /// will never fit.
    pub fn send(
        &mut self,
        packet: OutgoingPacket<'_>,
        payload: &[&[u8]],
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        let needed = match self.try_send(packet, payload) {
            Err(Error::Full { needed, .. }) => needed,
            outcome => return outcome,
        };
        let start = Instant::now();
        let outcome = loop {
            match self.wait_for_room(needed, start, timeout) {
                Ok(()) => {}
                Err(error) => break Err(error),
            }
            match self.try_send(packet, payload) {
                Err(Error::Full { .. }) => {}
                outcome => break outcome,
            }
        };
        if outcome.is_err() {
            self.writer.cancel_space_request();
        }
        outcome
    }

    /// Sends one packet if there is room for it now.
    ///
    /// # Errors
    /// [`Error::Full`]; otherwise as [`send`](Self::send).
    pub fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let written = self.writer.try_write(&packet, payload);
        // Behind the write: a ring that was taken back accepts anything, and a monitor bit never fails.
        self.alive()?;
        self.signal(written.map_err(|error| self.refused(error))?)
    }

    /// Lets `fill` put packets into the ring, then publishes all of them with at most one signal (long batches are
    /// published in parts). If `fill` fails, what was not published yet is taken back.
    ///
    /// # Errors
    /// As [`try_send`](Self::try_send), from what `fill` returns.
    pub fn send_batch<T>(
        &mut self,
        fill: impl FnOnce(&mut OutgoingBatch<'_>) -> Result<T, WriteError>,
    ) -> Result<T, Error> {
        let mut batch = self.writer.batch();
        let (filled, signal) = match fill(&mut batch) {
            Ok(filled) => (Ok(filled), batch.commit()),
            Err(error) => {
                drop(batch);
                (Err(error), self.writer.take_owed_signal())
            }
        };
        self.alive()?;
        self.signal(signal)?;
        filled.map_err(|error| self.refused(error))
    }

    /// Asks the host for a signal at `needed` bytes of room, and sleeps until there may be some.
    fn wait_for_room(&mut self, needed: u32, start: Instant, timeout: Option<Duration>) -> Result<(), Error> {
        if self.writer.request_space(needed).map_err(|corrupt| self.corrupt(corrupt))? {
            return Ok(());
        }
        let left = timeout.map_or(LOOK_INTERVAL, |timeout| timeout.saturating_sub(start.elapsed()));
        if left.is_zero() {
            return Err(Error::Stalled { device: self.device().to_owned(), needed, waited: start.elapsed() });
        }
        // The interrupt for room comes whatever the mask of the other ring. One for packets may end the sleep as well;
        // it is acknowledged here, and found again by the look into the ring that precedes each wait.
        match self.link.wait(Some(self.waker.as_fd()), Some(left.min(LOOK_INTERVAL)))? {
            Event::Woken => Err(Error::Woken { device: self.device().to_owned() }),
            Event::Interrupt(_) | Event::TimedOut => Ok(()),
        }
    }

    fn refused(&self, error: WriteError) -> Error {
        let device = || self.device().to_owned();
        match error {
            WriteError::Full { needed, free } => Error::Full { device: device(), needed, free },
            WriteError::Corrupt(corrupt) => self.corrupt(corrupt),
            source => Error::Packet { device: device(), source },
        }
    }
}
