//! The device: opened as a group of channels, and asked for streams.

use std::io;
use std::time::{Duration, Instant};

use vmbus_channels::group::{ChannelGroup, Counts};
use vmbus_channels::{Offer, Vmbus};

use super::error::{over, refused, timed_out};
use super::flow::{Flow, Stage};
use super::pump::{Body, say};
use super::stream::{LOOK_INTERVAL, Stream};
use super::streams::{Streams, abort, reason};
use super::wire::Reason;
use super::{Mode, Settings};
use crate::Error;

/// A ring has a control page, and room for two of the largest frames.
const LEAST_RING_BYTES: u32 = 24 * 1024;

/// A device over which many streams go. Dropping it ends all of them.
#[derive(Debug)]
pub struct Multiplex {
    group: ChannelGroup<Streams>,
    mode: Mode,
    buffer_bytes: usize,
}

impl Multiplex {
    /// Opens a device's primary channel, and its subchannels as they are offered.
    ///
    /// # Errors
    /// [`Error::Argument`] for buffers without room, and rings in which no frame would fit; as [`ChannelGroup::open`].
    pub fn open(bus: &Vmbus, primary: &Offer, settings: Settings) -> Result<Self, Error> {
        let Settings { group, mode, buffer_bytes } = settings;
        if buffer_bytes == 0 {
            return Err(Error::Argument("streams need buffers; give them some bytes"));
        }
        let least = group.open.outgoing_bytes.min(group.open.incoming_bytes);
        if least < LEAST_RING_BYTES {
            return Err(Error::Argument(
                "streams need rings of 24 KiB at least, control page included; make them larger",
            ));
        }
        let group = ChannelGroup::open(bus, primary, Streams::default(), group)?;
        Ok(Self { group, mode, buffer_bytes })
    }

    /// A new stream, once the other side has taken it; waits up to `timeout`, or without limit if it is `None`.
    ///
    /// # Errors
    /// `WouldBlock` when the time is over, `ConnectionRefused`, `QuotaExceeded` when there are as many streams as may be,
    /// `ConnectionAborted` when the device has ended, `InvalidInput` for a time of zero.
    pub fn connect(&self, timeout: Option<Duration>) -> io::Result<Stream> {
        if timeout == Some(Duration::ZERO) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a timeout of zero; give none at all, or some time",
            ));
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let streams = self.group.protocol();
        let id = streams.next_id();
        let body = Body::new(Flow::new(id, self.mode, self.buffer_bytes));
        let connection = self.group.connection(body, self.mode == Mode::Numbered).map_err(refused)?;
        let share = connection.share();
        // Before anything is sent: the answer finds it.
        streams.insert(id, connection);
        let processor = u32::try_from(rustix::thread::sched_getcpu()).unwrap_or(0);
        if let Err(error) = share.connect(processor) {
            streams.remove(id);
            return Err(refused(error));
        }
        say(&share);
        loop {
            let seen = share.changes();
            let stage = share.flow().stage();
            match (stage, reason(stage)) {
                (_, Some(why)) => return Err(over(why)),
                (Stage::Opening, None) => {}
                (_, None) => return Ok(Stream::new(share)),
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                abort(&share, Reason::ABORTED);
                return Err(timed_out());
            }
            let look = Instant::now().checked_add(LOOK_INTERVAL);
            match share.wait(seen, look.min(deadline).or(look)) {
                // A host that knows nothing of requests for room.
                Err(vmbus_channels::group::Refused::TimedOut) => say(&share),
                // Over: the stage says why, or the group does.
                Err(error) if reason(share.flow().stage()).is_none() => return Err(refused(error)),
                _ => {}
            }
        }
    }

    /// What there is now of links and streams, those included that the other side has not forgotten yet.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.group.counts()
    }

    /// Streams that either side still knows.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.group.protocol().count()
    }

    /// Whether the device has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.group.over().is_some()
    }

    /// Ends all streams and closes all channels.
    ///
    /// # Errors
    /// As [`ChannelGroup::close`].
    pub fn close(self) -> Result<(), Error> {
        Ok(self.group.close()?)
    }
}
