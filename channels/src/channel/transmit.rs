//! The outgoing half of a channel: packets into the ring, signals, and waiting for room.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus::memory::Ring;
use vmbus_ringbuf::{OutgoingPacket, WriteError, Writer};

use super::OutgoingBatch;
use super::hold::Hold;
use super::owner::Owner;
use super::sleep::{Sleep, Sleeper};
use crate::Error;
use crate::dispatch::Half;

/// How often a blocked sender looks by itself. A host that knows pending sends signals when there is room; one that does
/// not (before Windows 8, or a feature bit that is ignored) never would.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The outgoing half of a channel, and the owner's share of it.
#[derive(Debug)]
pub(super) struct Transmitter {
    writer: Writer<Ring>,
    sleeper: Sleeper,
    /// Behind the ring: users, then mappings, then the reference.
    owner: Owner,
}

impl Transmitter {
    pub(super) fn new(outgoing: Ring, hold: Arc<Hold>) -> Result<Self, Error> {
        let device = hold.device().to_owned();
        let owner = Owner::new(hold);
        let writer = Writer::new(outgoing).map_err(|source| Error::Corrupt { device, source })?;
        Ok(Self { writer, sleeper: Sleeper::new(Half::Sender), owner })
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Unmaps the ring, and gives the owner's share to who closes.
    pub(super) fn into_owner(self) -> Owner {
        self.owner
    }

    /// Gets ready to sleep beside another half, and splits the share for that.
    pub(super) fn split(&mut self) -> Result<Owner, Error> {
        self.owner.split()?;
        self.sleeper = Sleeper::ready(Half::Sender, &self.owner)?;
        Ok(self.owner.halve())
    }

    /// What becomes readable when there may be room that was asked for by [`arm`](Self::arm).
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.sleeper.descriptor(&self.owner)
    }

    /// Asks for a signal at `needed` bytes of room. `true`: they are there already.
    pub(super) fn arm(&mut self, needed: u32) -> Result<bool, Error> {
        self.sleeper.acknowledge(&self.owner)?;
        self.owner.bells().want_room(true);
        let room = self.writer.request_space(needed).map_err(|corrupt| self.owner.corrupt(corrupt));
        self.owner.alive()?;
        let room = room?;
        if room {
            self.owner.bells().want_room(false);
        }
        Ok(room)
    }

    /// Takes the request for room back.
    pub(super) fn disarm(&mut self) {
        self.owner.bells().want_room(false);
        self.writer.cancel_space_request();
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
        self.owner.bells().want_room(true);
        let outcome = loop {
            if let Err(error) = self.wait_for_room(needed, start, timeout) {
                break Err(error);
            }
            match self.try_send(packet, payload) {
                Err(Error::Full { .. }) => {}
                outcome => break outcome,
            }
        };
        self.owner.bells().want_room(false);
        if outcome.is_err() {
            self.writer.cancel_space_request();
        }
        outcome
    }

    pub(super) fn try_send(&mut self, packet: OutgoingPacket<'_>, payload: &[&[u8]]) -> Result<(), Error> {
        let written = self.writer.try_write(&packet, payload);
        // Behind the write: a ring that was taken back accepts anything, and a monitor bit never fails.
        self.owner.alive()?;
        self.owner.signal(written.map_err(|error| self.refused(error))?)
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
        self.owner.signal(signal)?;
        filled.map_err(|error| self.refused(error))
    }

    /// Asks the host for a signal at `needed` bytes of room, and sleeps until there may be some.
    fn wait_for_room(&mut self, needed: u32, start: Instant, timeout: Option<Duration>) -> Result<(), Error> {
        if self.writer.request_space(needed).map_err(|corrupt| self.owner.corrupt(corrupt))? {
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
        match self.sleeper.sleep(&self.owner, Some(left.min(LOOK_INTERVAL)))? {
            Sleep::Woken => self.owner.alive().and_then(|()| Err(Error::Woken { device: device() })),
            Sleep::Event | Sleep::TimedOut => Ok(()),
        }
    }

    fn refused(&self, error: WriteError) -> Error {
        let device = || self.owner.device().to_owned();
        match error {
            WriteError::Full { needed, free } => Error::Full { device: device(), needed, free },
            WriteError::Corrupt(corrupt) => self.owner.corrupt(corrupt),
            source => Error::Packet { device: device(), source },
        }
    }
}
