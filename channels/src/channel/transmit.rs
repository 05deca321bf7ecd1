//! The outgoing half of a channel: packets into the ring, signals, and waiting for room.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus::memory::Ring;
use vmbus_ringbuf::{Corrupt, OutgoingPacket, Signal, WriteError, Writer};

use super::OutgoingBatch;
use super::hold::{Hold, Sleep};
use super::owner::Owner;
use crate::Error;

/// How often a blocked sender looks by itself. A host that knows pending sends signals when there is room; one that does
/// not (before Windows 8, or a feature bit that is ignored) never would.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The outgoing half of a channel, and the owner's share of it.
#[derive(Debug)]
pub(super) struct Transmitter {
    writer: Writer<Ring>,
    /// Whether the host was signalled since the last time that somebody asked.
    signalled: bool,
    /// Behind the ring: users, then mappings, then the reference.
    owner: Owner,
}

impl Transmitter {
    pub(super) fn new(outgoing: Ring, hold: Arc<Hold>) -> Result<Self, Error> {
        let device = hold.device().to_owned();
        let owner = Owner::new(hold);
        let writer = Writer::new(outgoing).map_err(|source| Error::Corrupt { device, source })?;
        Ok(Self { writer, signalled: false, owner })
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Unmaps the ring, and gives the owner's share to who closes.
    pub(super) fn into_owner(self) -> Owner {
        self.owner
    }

    pub(super) fn take_signalled(&mut self) -> bool {
        std::mem::take(&mut self.signalled)
    }

    /// Signals the host if that is due.
    pub(super) fn signal(&mut self, signal: Signal) -> Result<(), Error> {
        if signal.is_needed() {
            self.owner.line().signal().map_err(|error| self.owner.named(error))?;
            self.signalled = true;
        }
        Ok(())
    }

    /// What a ring full of nonsense means: a device that is gone leaves zeroes behind, which are no sin of the host's.
    pub(super) fn corrupt(&self, source: Corrupt) -> Error {
        match self.owner.check() {
            Ok(()) => Error::Corrupt { device: self.owner.device().to_owned(), source },
            Err(error) => error,
        }
    }

    pub(super) fn send(
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
        self.owner.want_room(true);
        let outcome = loop {
            if let Err(error) = self.wait_for_room(needed, start, timeout) {
                break Err(error);
            }
            match self.try_send(packet, payload) {
                Err(Error::Full { .. }) => {}
                outcome => break outcome,
            }
        };
        self.owner.want_room(false);
        if outcome.is_err() {
            self.writer.cancel_space_request();
        }
        outcome
    }

    pub(super) fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let written = self.writer.try_write(&packet, payload);
        // Behind the write: a ring that was taken back accepts anything, and a monitor bit never fails.
        self.owner.alive()?;
        self.signal(written.map_err(|error| self.refused(error))?)
    }

    pub(super) fn send_batch<T>(
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
        self.owner.alive()?;
        self.signal(signal)?;
        filled.map_err(|error| self.refused(error))
    }

    /// Asks the host for a signal at `needed` bytes of room, and sleeps until there may be some.
    fn wait_for_room(&mut self, needed: u32, start: Instant, timeout: Option<Duration>) -> Result<(), Error> {
        if self.writer.request_space(needed).map_err(|corrupt| self.corrupt(corrupt))? {
            return Ok(());
        }
        self.owner.alive()?;
        let device = || self.owner.device().to_owned();
        let left = timeout.map_or(LOOK_INTERVAL, |timeout| timeout.saturating_sub(start.elapsed()));
        if left.is_zero() {
            return Err(Error::Stalled { device: device(), needed, waited: start.elapsed() });
        }
        // The interrupt for room comes whatever the mask of the other ring. One for packets may end the sleep as well;
        // it is acknowledged here, and found again by the look into the ring that precedes each wait.
        match self.owner.sleep(Some(left.min(LOOK_INTERVAL)))? {
            Sleep::Woken => self.owner.alive().and_then(|()| Err(Error::Woken { device: device() })),
            Sleep::Event | Sleep::TimedOut => Ok(()),
        }
    }

    fn refused(&self, error: WriteError) -> Error {
        let device = || self.owner.device().to_owned();
        match error {
            WriteError::Full { needed, free } => Error::Full { device: device(), needed, free },
            WriteError::Corrupt(corrupt) => self.corrupt(corrupt),
            source => Error::Packet { device: device(), source },
        }
    }
}
