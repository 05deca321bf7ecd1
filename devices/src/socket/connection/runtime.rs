//! A connection that a runtime watches: one descriptor for each side, as two tasks may wait for different things at once.
//!
//! Runtimes are told by edges: of what comes after a call that found nothing, which has asked for it under the side's lock.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use vmbus_channels::Waker;

use super::outbound::{Bytes, LOOK_INTERVAL, Outbound};
use super::{Connection, WATCHED, WRITE_SHUT, Who};

/// Soon enough to be now; nothing would be never.
const AT_ONCE: Duration = Duration::from_nanos(1);

/// What a runtime watches.
#[derive(Debug)]
pub(super) struct Sides {
    reading: OwnedFd,
    writing: OwnedFd,
    /// Shows a writer what the channel does not: that it is to look now, or, as not every host signals room, in a while.
    timer: OwnedFd,
}

impl Sides {
    fn new(receiver: BorrowedFd<'_>, reader: &Waker, sender: BorrowedFd<'_>, writer: &Waker) -> Result<Self, Errno> {
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let reading = set(&[receiver, reader.as_fd()])?;
        let writing = set(&[sender, writer.as_fd(), timer.as_fd()])?;
        Ok(Self { reading, writing, timer })
    }

    /// The writer is to look after so long.
    fn look(&self, after: Duration) {
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        let Ok(it_value) = Timespec::try_from(after) else { return };
        let spec = Itimerspec { it_interval: nothing, it_value };
        // It takes any time that is one.
        let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec);
    }
}

/// A descriptor that is readable while one of these is.
fn set(descriptors: &[BorrowedFd<'_>]) -> Result<OwnedFd, Errno> {
    let set = epoll::create(CreateFlags::CLOEXEC)?;
    for (number, descriptor) in (0..).zip(descriptors) {
        epoll::add(&set, descriptor, EventData::new_u64(number), EventFlags::IN)?;
    }
    Ok(set)
}

/// A runtime watches a connection until this is dropped.
#[derive(Debug)]
pub(in crate::socket) struct Watch(Arc<Connection>);

impl Watch {
    /// From here on the descriptors tell a runtime what comes, and of what is there now.
    ///
    /// # Errors
    /// `AlreadyExists` when a runtime watches it already; a system call failed.
    pub(in crate::socket) fn new(connection: &Arc<Connection>) -> io::Result<Self> {
        if !connection.set(WATCHED) {
            let hint = "a runtime has this stream already; use that one, or turn it back before";
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, hint));
        }
        let watch = Self(Arc::clone(connection));
        connection.begin_to_show()?;
        Ok(watch)
    }

    /// What shows a reader that there may be something.
    pub(in crate::socket) fn reading(&self) -> Option<BorrowedFd<'_>> {
        self.0.sides.get().map(|sides| sides.reading.as_fd())
    }

    /// What shows a writer that there may be room: by being readable.
    pub(in crate::socket) fn writing(&self) -> Option<BorrowedFd<'_>> {
        self.0.sides.get().map(|sides| sides.writing.as_fd())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.flags.fetch_and(!WATCHED, std::sync::atomic::Ordering::SeqCst);
    }
}

/// What a runtime's tasks do: never waiting, whatever was set.
impl Connection {
    pub(in crate::socket) fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read_for(Who::Runtime, buffer)
    }

    pub(in crate::socket) fn read_vectored_now(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.read_vectored_for(Who::Runtime, buffers)
    }

    pub(in crate::socket) fn peek_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.peek_for(Who::Runtime, buffer)
    }

    pub(in crate::socket) fn write_now(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.write_for(Who::Runtime, slices)
    }

    fn begin_to_show(&self) -> io::Result<()> {
        self.with_both(|inbound, outbound| {
            let (Some(receiver), Some(sender)) = (inbound.receiver(), outbound.sender()) else {
                return Err(io::ErrorKind::NotConnected.into());
            };
            let sides = match self.sides.get() {
                Some(sides) => sides,
                None => {
                    let sides = Sides::new(receiver.as_fd(), &self.reader, sender.as_fd(), &self.writer)?;
                    self.sides.get_or_init(|| sides)
                }
            };
            sides.look(AT_ONCE);
            // An error is something to read, too.
            if inbound.arm().unwrap_or(true) {
                self.reader.wake();
            }
            Ok(())
        })
    }

    /// A thread has taken note of what a runtime may not have heard of yet: that is to look by itself.
    pub(super) fn show_runtime_reading(&self, who: Who) {
        if who == Who::Thread && self.is(WATCHED) {
            self.reader.wake();
        }
    }

    /// The same for room. Called with the side's lock.
    pub(super) fn show_runtime_writing(&self, who: Who) {
        if who == Who::Thread
            && self.is(WATCHED)
            && let Some(sides) = self.sides.get()
        {
            sides.look(AT_ONCE);
        }
    }

    /// Gets ready for a task's sleep; `true`: it is to try again at once.
    pub(super) fn ask_for_room_by_runtime(&self, outbound: &mut Outbound, bytes: &Bytes<'_>) -> io::Result<bool> {
        // What was written is news enough: whoever wants more comes again, and asks then.
        if bytes.written() != 0 {
            return Ok(false);
        }
        if outbound.arm(bytes.left())? {
            return Ok(true);
        }
        if let Some(sides) = self.sides.get() {
            sides.look(LOOK_INTERVAL);
        }
        // Who shuts it down from here on rings behind that.
        Ok(self.is(WRITE_SHUT))
    }
}
