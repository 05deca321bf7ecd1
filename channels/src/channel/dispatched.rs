//! A channel whose packets a dispatcher hands to a callback.

use std::time::Duration;

use vmbus_ringbuf::{OutgoingPacket, WriteError};

use super::OutgoingBatch;
use crate::{Buffer, ChannelId, Error, Offer};

/// An open channel whose incoming packets go to a [`Handler`](crate::Handler). This handle sends, and closes.
#[derive(Debug)]
pub struct Dispatched {
    offer: Offer,
}

impl Dispatched {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.offer.id
    }

    /// As [`Channel::offer`](crate::Channel::offer).
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.offer
    }

    /// As [`Channel::send`](crate::Channel::send).
    ///
    /// # Errors
    /// As there; [`Error::Callback`].
    pub fn send(
        &mut self,
        packet: OutgoingPacket<'_>,
        payload: &[&[u8]],
        timeout: Option<Duration>,
    ) -> Result<(), Error> {
        let _ = (packet, payload, timeout);
        Err(Error::Ended)
    }

    /// As [`Channel::try_send`](crate::Channel::try_send).
    ///
    /// # Errors
    /// As there.
    pub fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let _ = (packet, payload);
        Err(Error::Ended)
    }

    /// As [`Channel::send_batch`](crate::Channel::send_batch).
    ///
    /// # Errors
    /// As there.
    pub fn send_batch<T>(
        &mut self,
        fill: impl FnOnce(&mut OutgoingBatch<'_>) -> Result<T, WriteError>,
    ) -> Result<T, Error> {
        let _ = fill;
        Err(Error::Ended)
    }

    /// As [`Channel::is_rescinded`](crate::Channel::is_rescinded).
    #[must_use]
    pub fn is_rescinded(&self) -> bool {
        true
    }

    /// As [`Channel::create_buffer`](crate::Channel::create_buffer).
    ///
    /// # Errors
    /// As there.
    pub fn create_buffer(&self, bytes: u32) -> Result<Buffer, Error> {
        let _ = bytes;
        Err(Error::Ended)
    }

    /// As [`Channel::close`](crate::Channel::close). When it returns, the handler has been dropped.
    ///
    /// # Errors
    /// As there.
    pub fn close(self) -> Result<(), Error> {
        Err(Error::Ended)
    }
}
