//! What speaks over a channel on the host's side: a state machine with the rings handed in.

mod buffers;
mod conduit;
pub mod dynamic_memory;
mod echo;
mod pipe;

pub use buffers::Buffers;
pub use conduit::{Conduit, Line, Taken};
pub use dynamic_memory::{DynamicMemory, DynamicMemorySettings};
pub use echo::{Echo, EchoSettings};
pub use pipe::{Pipe, PipeSettings};

use std::time::Duration;

use vmbus::message::UserDefined;
use vmbus_ringbuf::{Descriptor, OutgoingPacket};

use crate::Error;

/// The open channel as its device sees it.
pub trait Port {
    /// The host's time.
    fn now(&self) -> Duration;

    /// Takes the next packet of the guest; its payload replaces what is in `payload`. After so many in one turn as
    /// the host's limits allow there are none, and the device's turn comes again.
    ///
    /// # Errors
    /// [`Error::Corrupt`], which stays.
    fn receive(&mut self, payload: &mut Vec<u8>) -> Result<Option<Descriptor>, Error>;

    /// Writes a packet to the guest, which is interrupted when its ring's rules say so.
    ///
    /// # Errors
    /// [`Error::Write`]; when the ring is full, the device's turn comes again when there is room.
    fn send(&mut self, packet: &OutgoingPacket<'_>, payload: &[u8]) -> Result<(), Error> {
        self.send_pieces(packet, &[payload])
    }

    /// The same, with a payload in pieces.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    fn send_pieces(&mut self, packet: &OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error>;

    /// Interrupts the guest whether it is needed or not.
    fn interrupt(&mut self);

    /// The next number of the channel's random stream.
    fn random(&mut self) -> u64;

    /// What the guest said when it opened the channel.
    fn user_defined(&self) -> UserDefined;

    /// Copies from guest memory, by a GPADL of this channel: from byte `offset` of it on. Whether it is there.
    fn read_gpadl(&self, gpadl: u32, offset: u64, destination: &mut [u8]) -> bool;

    /// Copies to guest memory, likewise.
    fn write_gpadl(&self, gpadl: u32, offset: u64, source: &[u8]) -> bool;

    /// The guest broke the device's protocol: tell the checker.
    fn violation(&mut self, text: String);
}

/// What speaks over a channel on the host's side. One value serves one offer, for as many opens as there are.
pub trait Device: Send {
    /// The guest opened the channel. Its turn: may send.
    ///
    /// # Errors
    /// The open fails with a status. [`Error::Write`] is passed on like in [`turn`](Self::turn).
    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        self.turn(port)
    }

    /// The guest signalled, or there is room again, or time has passed, or a command came.
    ///
    /// # Errors
    /// [`Error::Corrupt`] ends the device's turns; anything else is counted.
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error>;

    /// The channel is closed, or rescinded.
    fn closed(&mut self) {}

    /// Whether all is said, by both sides. The host takes a connection back whose pipe is over; other devices stay.
    fn is_over(&self) -> bool {
        false
    }

    /// When it wants its next turn, in the host's time, if not before.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// A command in the device's own words; its turn follows.
    ///
    /// # Errors
    /// [`Error::Nonsense`].
    fn command(&mut self, words: &str) -> Result<(), Error> {
        let _ = words;
        Err(Error::Nonsense("this device takes no commands"))
    }

    /// Numbers by name, for oracles: packets, bytes, pages.
    fn report(&self) -> Vec<(&'static str, u64)> {
        Vec::new()
    }
}

/// Nothing: never reads, never writes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mute;

impl Device for Mute {
    fn turn(&mut self, _port: &mut dyn Port) -> Result<(), Error> {
        Ok(())
    }
}
