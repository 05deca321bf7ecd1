//! What the driver needs of a channel: so that its loop runs in tests without one.

use super::event::Ignored;
use super::wire::{Incoming, MAX_MESSAGE_BYTES, parse};
use std::time::Duration;
use vmbus_channels::{Channel, Error, OutgoingPacket, Wake};

/// Packets looked at in one go, before anything else gets its turn.
const BUDGET: usize = 64;

/// A message, or why a packet is none.
pub(super) type Received = Result<Incoming, Ignored>;

/// An open channel, or a double.
pub(super) trait Transport {
    /// Sends one message; `None` as timeout is "only if there is room now".
    fn send(&mut self, message: &[u8], timeout: Option<Duration>) -> Result<(), Error>;

    /// Appends up to a budget of messages to `inbox`.
    fn receive(&mut self, inbox: &mut Vec<Received>) -> Result<(), Error>;

    /// Sleeps until there is something, the waker is used, or the time is over.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error>;

    /// The device, by its sysfs name.
    fn device(&self) -> &str;

    /// Tells the host that it is over.
    fn close(self) -> Result<(), Error>;
}

impl Transport for Channel {
    fn send(&mut self, message: &[u8], timeout: Option<Duration>) -> Result<(), Error> {
        // No completion is asked for and no request number used, as in the kernel driver.
        let packet = OutgoingPacket::in_band(0);
        match timeout {
            Some(_) => Self::send(self, packet, &[message], timeout),
            None => self.try_send(packet, &[message]),
        }
    }

    fn receive(&mut self, inbox: &mut Vec<Received>) -> Result<(), Error> {
        let mut copy = [0; MAX_MESSAGE_BYTES + 1];
        Self::receive(self, BUDGET, |packet| {
            inbox.push(if packet.kind() == vmbus_ringbuf::PacketType::IN_BAND {
                let payload = packet.payload();
                let bytes = copy.get_mut(..payload.len().min(MAX_MESSAGE_BYTES + 1)).unwrap_or_default();
                // One copy, and all checks on the copy: the host may change the ring meanwhile.
                match payload.copy_part(0, bytes) {
                    Ok(()) => parse(bytes).map_err(Ignored::Wire),
                    Err(_) => parse(&[]).map_err(Ignored::Wire),
                }
            } else {
                Err(Ignored::PacketType(packet.kind().0))
            });
            Ok::<_, Error>(())
        })
        .map(|_| ())
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        Self::wait(self, timeout)
    }

    fn device(&self) -> &str {
        Self::device(self)
    }

    fn close(self) -> Result<(), Error> {
        Self::close(self)
    }
}
