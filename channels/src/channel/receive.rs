//! The incoming half of a channel: packets out of the ring, in place, and waiting for them without losing a wake-up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use vmbus::memory::Ring;
use vmbus_ringbuf::{Corrupt, Memory as _, Reader, SMALLEST_PACKET_BYTES};

use super::IncomingPacket;
use super::hold::Hold;
use super::sleep::{Sleep, Sleeper};
use crate::Error;
use crate::dispatch::Half;

/// Why a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There are packets, or there may be.
    Packets,
    /// A [`Waker`](crate::Waker) was used. There may be packets too.
    Woken,
    /// The time is over, and there was nothing.
    TimedOut,
}

/// The incoming half of a channel, without its share of it.
#[derive(Debug)]
pub(super) struct Incoming {
    reader: Reader<Ring>,
    /// Whether we want no interrupts now. The kernel may have changed the ring's own mask since.
    masked: bool,
    /// How long a wait goes on looking before it sleeps.
    busy_poll: Duration,
    /// Packets that may still be read at most, once the host has taken the channel back: as many as were there at most, so
    /// that a host which goes on writing is not listened to for ever.
    rest: Option<usize>,
    pub(super) sleeper: Sleeper,
}

impl Incoming {
    pub(super) fn new(incoming: Ring, hold: &Arc<Hold>) -> Result<Self, Error> {
        let corrupt = |source| Error::Corrupt { device: hold.device().to_owned(), source };
        let reader = Reader::new(incoming).map_err(corrupt)?;
        let sleeper = Sleeper::ready(Half::Receiver, hold)?;
        Ok(Self { reader, masked: false, busy_poll: Duration::ZERO, rest: None, sleeper })
    }

    pub(super) fn set_busy_poll(&mut self, busy_poll: Duration) {
        self.busy_poll = busy_poll;
    }

    pub(super) fn receive<E: From<Error>>(
        &mut self,
        hold: &Hold,
        budget: usize,
        mut each: impl FnMut(&IncomingPacket<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let over = hold.has_ended();
        let budget = if over { self.rest(hold)?.min(budget) } else { budget };
        self.mask();
        let mut packets = 0;
        let mut batch = self.reader.batch();
        let outcome = loop {
            if packets == budget {
                break Ok(Ok(()));
            }
            match batch.next() {
                Ok(None) => break Ok(Ok(())),
                Ok(Some(packet)) => {
                    packets += 1;
                    if let Err(error) = each(&packet) {
                        break Ok(Err(error));
                    }
                }
                Err(corrupt) => break Err(corrupt),
            }
        };
        let signal = batch.finish();
        if hold.has_ended() {
            return self.received_behind_end(hold, over, packets, budget, outcome);
        }
        let signalled = hold.signal(signal);
        self.mask_again(hold);
        signalled?;
        outcome.map_err(|corrupt| E::from(hold.corrupt(corrupt)))?.map(|()| packets)
    }

    pub(super) fn wait(&mut self, hold: &Hold, timeout: Option<Duration>) -> Result<Wake, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        if !self.busy_poll.is_zero() {
            self.poll_on(hold, deadline)?;
        }
        loop {
            let arrived = self.unmask(hold)?;
            // Before the packets: a host that never stops sending must not keep the waker from being heard.
            let waker = hold.waker(self.sleeper.half());
            if waker.is_woken() {
                waker.clear();
                return Ok(Wake::Woken);
            }
            if arrived {
                return Ok(Wake::Packets);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.sleeper.sleep(hold, left)? {
                // Acknowledged. Perhaps another channel's, perhaps one that we saw without it: look.
                Sleep::Event => {}
                // The end wakes, too.
                Sleep::Woken if hold.has_ended() => {}
                Sleep::Woken => {
                    hold.waker(self.sleeper.half()).clear();
                    return Ok(Wake::Woken);
                }
                Sleep::TimedOut => return Ok(Wake::TimedOut),
            }
        }
    }

    pub(super) fn arm(&mut self, hold: &Hold) -> Result<bool, Error> {
        self.sleeper.acknowledge(hold)?;
        self.unmask(hold)
    }

    /// Looks for a while with the mask closed, so that the host need not interrupt; until there is something.
    fn poll_on(&mut self, hold: &Hold, deadline: Option<Instant>) -> Result<(), Error> {
        let start = Instant::now();
        let until = start.checked_add(self.busy_poll).unwrap_or(start);
        let until = deadline.map_or(until, |deadline| until.min(deadline));
        self.mask();
        let waker = hold.waker(self.sleeper.half());
        loop {
            // The clock costs more than the look.
            for _ in 0..LOOKS {
                let nothing = self.reader.is_empty().map_err(|source| hold.corrupt(source))?;
                if !nothing || waker.is_woken() || hold.has_ended() {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    fn mask(&mut self) {
        if !self.masked {
            self.masked = true;
            self.reader.mask();
        }
    }

    /// A signal by the 4-byte write opens the masks of all channels of the device.
    pub(super) fn mask_again(&mut self, hold: &Hold) {
        if self.masked && hold.take_unmasked() {
            self.reader.mask();
        }
    }

    /// Opens the mask, with a full fence behind it, and says whether something arrived until then.
    fn unmask(&mut self, hold: &Hold) -> Result<bool, Error> {
        self.masked = false;
        let arrived = self.reader.unmask();
        // Behind the look: a ring that was taken back may look like one with packets.
        if hold.has_ended() { self.is_left(hold) } else { Ok(arrived) }
    }

    /// How many packets may still be read of a channel that is over.
    ///
    /// # Errors
    /// Why it is over: nothing is left, or nothing can be left.
    fn rest(&mut self, hold: &Hold) -> Result<usize, Error> {
        let whole = self.reader.memory().data_bytes() / SMALLEST_PACKET_BYTES;
        let rest = *self.rest.get_or_insert(usize::try_from(whole).unwrap_or(usize::MAX));
        if rest == 0 || !hold.is_drainable() {
            hold.check()?;
        }
        Ok(rest)
    }

    /// Whether packets are left of a channel that is over: always, or it is the error.
    #[cold]
    fn is_left(&mut self, hold: &Hold) -> Result<bool, Error> {
        self.rest(hold)?;
        if self.reader.is_empty().unwrap_or(true) {
            self.rest = Some(0);
            hold.check()?;
        }
        Ok(true)
    }

    /// What comes of packets of a channel that was `over` before, or is so since.
    #[cold]
    fn received_behind_end<E: From<Error>>(
        &mut self,
        hold: &Hold,
        over: bool,
        packets: usize,
        budget: usize,
        outcome: Result<Result<(), E>, Corrupt>,
    ) -> Result<usize, E> {
        // Whatever was seen, it may have been zeroes.
        let rest = self.rest(hold)?;
        self.rest = Some(match &outcome {
            // The rescind is the error then, as it is when nothing is left.
            Err(_) => 0,
            Ok(Ok(())) if over && packets < budget => 0,
            Ok(_) => rest.saturating_sub(packets),
        });
        match outcome {
            Ok(Ok(())) if over && packets == 0 && budget != 0 => hold.check().map(|()| 0).map_err(E::from),
            outcome => outcome.map_err(|corrupt| E::from(hold.corrupt(corrupt)))?.map(|()| packets),
        }
    }
}

impl Drop for Incoming {
    /// Nobody will look: the other half may go on, and the host need not interrupt for what it sends here.
    fn drop(&mut self) {
        self.mask();
    }
}

/// Looks into the ring between two at the clock.
const LOOKS: u32 = 32;
