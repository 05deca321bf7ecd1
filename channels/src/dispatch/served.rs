//! A channel whose packets a dispatcher hands to a handler: masked while it is on the ready list, unmasked and looked
//! at once more when it is drained.

use std::time::Instant;

use vmbus::link::Line;
use vmbus::memory::Ring;
use vmbus_ringbuf::{Corrupt, Reader};

use super::{Attention, Ending, Progress, Serve};
use crate::IncomingPacket;

/// What is done with the packets of a dispatched channel. A closure over [`IncomingPacket`] is one.
pub trait Handler: Send {
    /// A packet, in place. Its bytes are the host's, which may change them while they are read: copy once, then check
    /// the copy. Must not wait for anything that needs this dispatcher. A panic closes the channel.
    fn packet(&mut self, packet: &IncomingPacket<'_>);

    /// The packets that were there (or the budget) are through: the time to send what they led to.
    fn batch(&mut self) {}

    /// There may be the room that was asked for by [`Dispatched::arm`](crate::Dispatched::arm). Must not wait.
    fn room(&mut self) {}

    /// When [`timer`](Self::timer) is to be called; `None`: not at all. Asked when the channel begins, behind each turn of
    /// it and behind each timer; what has changed otherwise is not noticed.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The time that [`deadline`](Self::deadline) named has come, and what lay in the ring was handed over before. Not
    /// early, and about a millisecond late at most while the dispatcher has nothing else to do. Must not wait. Not called
    /// any more once the channel has ended.
    ///
    /// # Errors
    /// Why the channel is to end: it is closed, and its users hear the reason.
    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        let _ = now;
        Ok(())
    }

    /// The last call: no packet and no timer comes after it.
    fn ended(&mut self, why: Ending) {
        let _ = why;
    }
}

impl<F: FnMut(&IncomingPacket<'_>) + Send> Handler for F {
    fn packet(&mut self, packet: &IncomingPacket<'_>) {
        self(packet);
    }
}

/// What a dispatched channel needs of its line.
pub trait Bell: Send {
    /// Signals the host; `false`: the channel is gone.
    fn signal(&self) -> bool;
    /// Whether a signal opens the masks of all channels of the device.
    fn unmasks(&self) -> bool;
    /// Whether the channel is known to be gone: a load or two.
    fn is_rescinded(&self) -> bool;
    /// Whether it is gone, asking who knows.
    fn is_gone(&self) -> bool;
}

impl Bell for Line {
    fn signal(&self) -> bool {
        self.signal().is_ok() || self.check().is_ok()
    }

    fn unmasks(&self) -> bool {
        self.unmasks()
    }

    fn is_rescinded(&self) -> bool {
        self.is_rescinded()
    }

    fn is_gone(&self) -> bool {
        self.check().is_err()
    }
}

/// A reader, its line, and who gets the packets.
pub struct Served<H, L = Line> {
    reader: Reader<Ring>,
    line: L,
    handler: H,
    /// Whether we want no interrupts now. A kernel may have changed the ring's own mask since.
    masked: bool,
}

impl<H: Handler, L: Bell> Served<H, L> {
    /// Hands the packets of an incoming ring to `handler`.
    ///
    /// # Errors
    /// [`Corrupt`] if the ring can't be one.
    pub fn new(incoming: Ring, line: L, handler: H) -> Result<Self, Corrupt> {
        Ok(Self { reader: Reader::new(incoming)?, line, handler, masked: false })
    }

    /// The host may have made room.
    pub(crate) fn room(&mut self) {
        self.handler.room();
    }

    fn mask(&mut self) {
        if !self.masked {
            self.masked = true;
            self.reader.mask();
        }
    }

    /// Up to `budget` packets, and the signal that is due.
    fn batch(&mut self, budget: usize) -> Result<usize, Ending> {
        let mut packets = 0;
        let mut batch = self.reader.batch();
        let outcome = loop {
            if packets == budget {
                break Ok(());
            }
            match batch.next() {
                Ok(None) => break Ok(()),
                Ok(Some(packet)) => {
                    packets += 1;
                    self.handler.packet(&packet);
                }
                Err(corrupt) => break Err(corrupt),
            }
        };
        let signal = batch.finish();
        if packets != 0 {
            self.handler.batch();
        }
        // Whatever was seen, it may have been the zeroes that a device leaves behind.
        if self.line.is_rescinded() {
            return Err(Ending::Rescinded);
        }
        if signal.is_needed() {
            if !self.line.signal() {
                return Err(Ending::Rescinded);
            }
            if self.masked && self.line.unmasks() {
                self.reader.mask();
            }
        }
        match outcome {
            Ok(()) => Ok(packets),
            Err(_) if self.line.is_gone() => Err(Ending::Rescinded),
            Err(corrupt) => Err(Ending::Corrupt(corrupt)),
        }
    }
}

impl<H: Handler, L: Bell> Serve for Served<H, L> {
    fn event(&mut self) -> Attention {
        self.mask();
        Attention::Ready
    }

    fn serve(&mut self, budget: usize) -> Progress {
        if self.line.is_rescinded() {
            return Progress::Ended(Ending::Rescinded);
        }
        let packets = match self.batch(budget) {
            Ok(packets) => packets,
            Err(ending) => return Progress::Ended(ending),
        };
        if packets == budget {
            return Progress::More(packets);
        }
        self.masked = false;
        if self.reader.unmask() {
            // More has come, or a signal is owed, which the next batch sends.
            self.mask();
            return Progress::More(packets);
        }
        Progress::Drained(packets)
    }

    fn deadline(&self) -> Option<Instant> {
        self.handler.deadline()
    }

    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        self.handler.timer(now)
    }

    fn ended(&mut self, why: Option<Ending>) {
        let here = || if self.line.is_rescinded() { Ending::Rescinded } else { Ending::Closed };
        let why = why.unwrap_or_else(here);
        self.handler.ended(why);
    }
}
