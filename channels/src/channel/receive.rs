//! Receiving, and the way to sleep: mask, drain, unmask, full fence, look again, sleep.
//!
//! Kernels before 6.12.53 (and others, see b15b7d2a1b09) set the mask after each interrupt and then count the event;
//! later ones leave it to us. An interrupt is acknowledged *before* the ring is unmasked, and each count leads to
//! another unmask, so a mask that the kernel set is always undone by the owner it woke.

use std::time::{Duration, Instant};

use super::hold::Sleep;
use super::{Channel, IncomingPacket};
use crate::Error;

/// Why [`Channel::wait`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// There is something to [`receive`](Channel::receive) (or only a signal that is due, which `receive` sends).
    Packets,
    /// A [`Waker`](crate::Waker) was used. There may be packets too.
    Woken,
    /// The time is over, and there was nothing.
    TimedOut,
}

impl Channel {
    /// Shows up to `budget` packets to `each`, in place, and gives their space back to the host, which is signalled if
    /// it waits for room. Returns the number of packets; less than `budget` means that the ring was empty.
    ///
    /// The bytes of a packet are the host's: it may change them while they are read. Copy once, then check the copy.
    /// Interrupts are masked from here until the next [`wait`](Self::wait) or [`arm`](Self::arm).
    ///
    /// # Errors
    /// What `each` returns, which ends the batch; that packet counts as received. Converted from [`Error`]: the device
    /// is gone, which comes before any other error and also ends a batch of packets that were read as it went; the
    /// ring is corrupt.
    pub fn receive<E: From<Error>>(
        &mut self,
        budget: usize,
        mut each: impl FnMut(&IncomingPacket<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.hold().alive()?;
        if !self.masked {
            self.masked = true;
            self.reader.mask();
        }
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
        // Whatever was seen, it may have been zeroes.
        self.hold().alive()?;
        let signalled = self.transmitter.signal(signal);
        self.mask_again();
        signalled?;
        outcome.map_err(|corrupt| E::from(self.transmitter.corrupt(corrupt)))?.map(|()| packets)
    }

    /// Sleeps until there are packets, a [`Waker`](crate::Waker) is used, or the time is over; `None` is no limit. It
    /// returns at once when there are packets already; a wake comes before packets.
    ///
    /// # Errors
    /// The device is gone; a system call failed.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<Wake, Error> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        loop {
            let arrived = self.unmask()?;
            // Before the packets: a host that never stops sending must not keep the waker from being heard.
            if self.hold().waker().is_woken() {
                self.hold().waker().clear();
                return Ok(Wake::Woken);
            }
            if arrived {
                return Ok(Wake::Packets);
            }
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            match self.hold().sleep(left)? {
                // Acknowledged. Perhaps another channel's, perhaps one that we saw without it: look.
                Sleep::Event => {}
                Sleep::Woken => {
                    // The end wakes, too.
                    self.hold().alive()?;
                    self.hold().waker().clear();
                    return Ok(Wake::Woken);
                }
                Sleep::TimedOut => return Ok(Wake::TimedOut),
            }
        }
    }

    /// Gets ready for a sleep in somebody else's event loop: acknowledges interrupts, asks for new ones, and looks once
    /// more. `true`: do not sleep, [`receive`](Self::receive) first. `false`: the descriptor ([`AsFd`]) becomes readable
    /// when there is something.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// [`AsFd`]: std::os::fd::AsFd
    pub fn arm(&mut self) -> Result<bool, Error> {
        self.hold().acknowledge()?;
        self.unmask()
    }

    /// Opens the mask, with a full fence behind it, and says whether something arrived until then.
    fn unmask(&mut self) -> Result<bool, Error> {
        self.masked = false;
        let arrived = self.reader.unmask();
        // Behind the look: a ring that was taken back may look like one with packets.
        self.hold().alive()?;
        Ok(arrived)
    }
}
