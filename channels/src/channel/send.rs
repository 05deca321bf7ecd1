//! Sending: one packet or a batch, at once or when there is room.

use std::time::Duration;

use vmbus_ringbuf::{OutgoingPacket, WriteError};

use super::{Channel, OutgoingBatch};
use crate::Error;

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
        let outcome = self.transmitter.send(packet, payload, timeout);
        self.incoming.mask_again(self.transmitter.owner());
        outcome
    }

    /// Sends one packet if there is room for it now.
    ///
    /// # Errors
    /// [`Error::Full`]; otherwise as [`send`](Self::send).
    pub fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let outcome = self.transmitter.try_send(packet, payload);
        self.incoming.mask_again(self.transmitter.owner());
        outcome
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
        let outcome = self.transmitter.send_batch(fill);
        self.incoming.mask_again(self.transmitter.owner());
        outcome
    }
}
