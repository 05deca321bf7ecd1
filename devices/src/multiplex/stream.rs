//! One stream as an application has it: reads, writes, ends, timeouts.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vmbus_channels::group::Refused;

use super::error::{over, refused, timed_out};
use super::flow::{Flow, Stage};
use super::pump::{Share, lock, say};
use super::streams::{abort, reason};
use super::wire::Reason;

/// How often who waits looks by itself: a host that knows nothing of requests for room never says that there is some.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A stream of bytes to the other side, and one back. Shared references read and write, so that two threads may.
///
/// A write returns once the bytes are kept here, to be sent, and sent again, until they were heard; [`finish`](Self::finish)
/// waits for that. Dropping a stream before both ends were said and heard resets it.
#[derive(Debug)]
pub struct Stream {
    share: Share,
    timeouts: Mutex<[Option<Duration>; 2]>,
}

/// Which of the timeouts.
const READ: usize = 0;
const WRITE: usize = 1;

impl Stream {
    pub(super) fn new(share: Share) -> Self {
        Self { share, timeouts: Mutex::new([None; 2]) }
    }

    /// Its number, which no other stream of this device has had.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.share.flow().id()
    }

    /// How often it has moved to another link.
    ///
    /// # Errors
    /// It is over.
    pub fn moves(&self) -> io::Result<u32> {
        Ok(self.share.place().map_err(refused)?.moves)
    }

    /// The subchannel index of the link that it is on; zero is the primary channel.
    ///
    /// # Errors
    /// It is over.
    pub fn link(&self) -> io::Result<u16> {
        Ok(self.share.place().map_err(refused)?.link.offer().subchannel_index)
    }

    /// How long a read waits; `None` is without limit.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(READ, timeout)
    }

    /// How long a write, or [`finish`](Self::finish), waits; `None` is without limit.
    ///
    /// # Errors
    /// `InvalidInput` for zero.
    pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.set_timeout(WRITE, timeout)
    }

    fn set_timeout(&self, which: usize, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero; give none at all, or some time",
            ));
        }
        if let Some(place) = lock(&self.timeouts).get_mut(which) {
            *place = timeout;
        }
        Ok(())
    }

    fn deadline(&self, which: usize) -> Option<Instant> {
        let timeout = lock(&self.timeouts).get(which).copied().flatten()?;
        Instant::now().checked_add(timeout)
    }

    /// Tries until it comes to something; whether there is something to send is the second of what `attempt` returns.
    fn until<T>(
        &self,
        which: usize,
        mut attempt: impl FnMut(&mut MutexGuard<'_, Flow>) -> (Option<io::Result<T>>, bool),
    ) -> io::Result<T> {
        let deadline = self.deadline(which);
        loop {
            let seen = self.share.changes();
            let mut flow = self.share.flow();
            let (outcome, send) = attempt(&mut flow);
            drop(flow);
            if send {
                say(&self.share);
            }
            if let Some(outcome) = outcome {
                return outcome;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(timed_out());
            }
            let look = Instant::now().checked_add(LOOK_INTERVAL);
            match self.share.wait(seen, look.min(deadline).or(look)) {
                Err(Refused::TimedOut) => say(&self.share),
                // Its stage may not say so yet.
                Err(error) if reason(self.share.flow().stage()).is_none() => return Err(refused(error)),
                _ => {}
            }
        }
    }

    /// Ends a direction, or both. The other side reads what was written before, then the end.
    ///
    /// # Errors
    /// `NotConnected` when the stream is over.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        let mut flow = self.share.flow();
        if let Stage::Over(why) = flow.stage()
            && why != Reason::DONE
        {
            return Err(io::Error::new(io::ErrorKind::NotConnected, over(why)));
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            flow.shut_read();
        }
        let send = matches!(how, Shutdown::Write | Shutdown::Both) && flow.end();
        drop(flow);
        self.share.wake();
        if send {
            say(&self.share);
        }
        Ok(())
    }

    /// Says the end, and waits until the other side has heard everything and said its own, within the write timeout. What
    /// it has sent and nobody has read stays to be read.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over: it may be called again. The stream was reset, or is lost.
    pub fn finish(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)?;
        self.until(WRITE, |flow| match reason(flow.stage()) {
            Some(Reason::DONE) => (Some(Ok(())), false),
            Some(why) => (Some(Err(over(why))), false),
            None => (None, false),
        })
    }

    /// Waits until the other side has heard all that was written, within the write timeout.
    ///
    /// # Errors
    /// As [`finish`](Self::finish).
    pub fn settle(&self) -> io::Result<()> {
        self.until(WRITE, |flow| match reason(flow.stage()) {
            Some(why) if why != Reason::DONE => (Some(Err(over(why))), false),
            _ => (flow.is_settled().then_some(Ok(())), false),
        })
    }
}

impl Read for &Stream {
    /// Waits for the first byte. Zero is the end.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.until(READ, |flow| {
            if let Some(bytes) = flow.read(buffer) {
                return (Some(Ok(bytes)), flow.owes());
            }
            match reason(flow.stage()) {
                // What came before is read first.
                Some(why) => (Some(Err(over(why))), false),
                None => (None, false),
            }
        })
    }
}

impl Write for &Stream {
    /// Waits until at least one byte can be kept.
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.until(WRITE, |flow| {
            if let Some(why) = reason(flow.stage()) {
                return (Some(Err(over(why))), false);
            }
            // Over, which its stage does not say yet: nothing that is taken in from here on is on its way.
            if let Err(error) = self.share.check() {
                return (Some(Err(refused(error))), false);
            }
            match flow.write(data) {
                None => (Some(Err(io::Error::new(io::ErrorKind::BrokenPipe, "the end of the stream was said"))), false),
                Some(0) if !data.is_empty() => (None, false),
                Some(bytes) => (Some(Ok(bytes)), flow.owes()),
            }
        })
    }

    /// Does nothing: what was written is on its way. See [`settle`](Stream::settle).
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buffer)
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        (&*self).write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        (&*self).flush()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        abort(&self.share, Reason::ABORTED);
        self.share.flow().discard();
    }
}
