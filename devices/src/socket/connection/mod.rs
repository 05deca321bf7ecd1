//! One connection over a channel: two sides, each behind a lock of its own, and what clones of a stream share.
//!
//! A blocked reader holds the reading side's lock and never the other; a shutdown takes neither, but sets a flag and wakes.

mod inbound;
mod outbound;
mod readiness;
mod timeout;

use std::fmt;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::Duration;

use vmbus_channels::{Channel, Waker};

use self::inbound::Inbound;
use self::outbound::{Bytes, Outbound};
use self::readiness::Readiness;
use self::timeout::Timeout;
use super::linger::{Leaving, Linger};
use super::sockets::LocalName;
use super::{Family, VmSocketAddr};

/// Reading was shut down here.
const READ_SHUT: u32 = 1;
/// Writing was shut down here.
const WRITE_SHUT: u32 = 1 << 1;
/// Nobody waits.
const NONBLOCKING: u32 = 1 << 2;
/// The peer's end was read.
const PEER_ENDED: u32 = 1 << 3;
/// The reset was told to somebody.
const RESET_TOLD: u32 = 1 << 4;
/// Somebody needs the sides' locks for a moment.
const MAKE_WAY: u32 = 1 << 5;
/// It waits to be accepted.
const UNACCEPTED: u32 = 1 << 6;
/// Its end is never said.
const RESET: u32 = 1 << 7;

/// What clones of a stream share. Dropping the last says the end, and leaves the rest to who lingers.
pub(super) struct Connection {
    family: Family,
    local: VmSocketAddr,
    peer: VmSocketAddr,
    inbound: Mutex<Inbound>,
    outbound: Mutex<Outbound>,
    reader: Waker,
    writer: Waker,
    flags: AtomicU32,
    pub(super) read_timeout: Timeout,
    pub(super) write_timeout: Timeout,
    /// Once somebody asked for a descriptor.
    readiness: OnceLock<Option<Readiness>>,
    /// Held by who needs the sides' locks for a moment, while those who sleep with them make way.
    gate: Mutex<()>,
    /// The local name, which is nobody else's until the connection is over.
    name: Mutex<Option<LocalName>>,
    linger: Arc<Linger>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, local, peer, .. } = self;
        formatter
            .debug_struct("Connection")
            .field("family", family)
            .field("local", local)
            .field("peer", peer)
            .finish_non_exhaustive()
    }
}

/// The two ends of a connection.
pub(super) struct Ends {
    pub(super) family: Family,
    pub(super) local: VmSocketAddr,
    pub(super) peer: VmSocketAddr,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub(super) fn new(channel: Channel, ends: Ends, busy_poll: Duration, linger: Arc<Linger>) -> io::Result<Self> {
        let (mut receiver, sender) = channel.split().map_err(super::error::of_channel)?;
        receiver.set_busy_poll(busy_poll);
        let (reader, writer) = (receiver.waker(), sender.waker());
        Ok(Self {
            family: ends.family,
            local: ends.local,
            peer: ends.peer,
            inbound: Mutex::new(Inbound::new(receiver)),
            outbound: Mutex::new(Outbound::new(sender)),
            reader,
            writer,
            flags: AtomicU32::new(0),
            read_timeout: Timeout::default(),
            write_timeout: Timeout::default(),
            readiness: OnceLock::new(),
            gate: Mutex::new(()),
            name: Mutex::new(None),
            linger,
        })
    }

    /// Keeps the local end's name from others until the connection is over.
    pub(super) fn keep(&self, name: LocalName) {
        *lock(&self.name) = Some(name);
    }

    /// From now on nobody has it until it is [`accepted`](Self::accepted): its drop is a reset, at once.
    pub(super) fn waiting(self) -> Self {
        self.set(UNACCEPTED);
        self
    }

    pub(super) fn accepted(self) -> Self {
        self.flags.fetch_and(!UNACCEPTED, Ordering::SeqCst);
        self
    }

    pub(super) fn family(&self) -> Family {
        self.family
    }

    pub(super) fn local(&self) -> VmSocketAddr {
        self.local
    }

    pub(super) fn peer(&self) -> VmSocketAddr {
        self.peer
    }

    fn is(&self, flag: u32) -> bool {
        self.flags.load(Ordering::SeqCst) & flag != 0
    }

    fn set(&self, flag: u32) -> bool {
        self.flags.fetch_or(flag, Ordering::SeqCst) & flag == 0
    }

    pub(super) fn set_nonblocking(&self, nonblocking: bool) {
        if nonblocking {
            self.set(NONBLOCKING);
        } else {
            self.flags.fetch_and(!NONBLOCKING, Ordering::SeqCst);
        }
    }

    /// The lock of a side; one who would not wait for bytes does not wait for it, either.
    fn side<'a, T>(&self, side: &'a Mutex<T>) -> io::Result<MutexGuard<'a, T>> {
        match side.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if self.is(NONBLOCKING) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::WouldBlock) => Ok(lock(side)),
        }
    }

    /// Reads by `take`, which brings what is there now, waiting for it if there is nothing.
    fn read_by(&self, mut take: impl FnMut(&mut Inbound) -> io::Result<usize>) -> io::Result<usize> {
        let deadline = self.read_timeout.deadline();
        let mut inbound = self.side(&self.inbound)?;
        loop {
            if self.is(READ_SHUT) {
                return Ok(0);
            }
            let taken = take(&mut inbound);
            if inbound.is_at_end() && !self.is(PEER_ENDED) {
                self.set(PEER_ENDED);
            }
            if !matches!(taken, Ok(0)) || inbound.is_at_end() {
                self.show(&mut inbound);
                return taken.map_err(|error| self.told(error));
            }
            if self.is(NONBLOCKING) {
                if inbound.arm().map_err(|error| self.told(error))? {
                    continue;
                }
                self.show(&mut inbound);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            // The end of the peer may come before its end of the channel, and be read first.
            if !inbound.wait(deadline).map_err(|error| self.told(error))? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if self.is(MAKE_WAY) {
                drop(inbound);
                drop(lock(&self.gate));
                inbound = self.side(&self.inbound)?;
            }
        }
    }

    /// Reads into the slice, or nothing if it is the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_by(|inbound| inbound.take(buffer))
    }

    /// Reads into slices: waits for the first byte alone.
    pub(super) fn read_vectored(&self, buffers: &mut [io::IoSliceMut<'_>]) -> io::Result<usize> {
        if buffers.iter().all(|buffer| buffer.is_empty()) {
            return Ok(0);
        }
        self.read_by(|inbound| {
            let mut total = 0;
            for buffer in buffers.iter_mut().filter(|buffer| !buffer.is_empty()) {
                match inbound.take(buffer) {
                    Ok(taken) => {
                        total += taken;
                        if taken < buffer.len() {
                            break;
                        }
                    }
                    // What was read is not lost; the next call says it again.
                    Err(_) if total != 0 => break,
                    Err(error) => return Err(error),
                }
            }
            Ok(total)
        })
    }

    /// Copies what a read would begin with, and leaves it there.
    pub(super) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.read_by(|inbound| inbound.peek(buffer))
    }

    /// Writes all, waiting for room; or, nonblocking, what there is room for.
    pub(super) fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = Bytes::new(slices);
        if bytes.left() == 0 {
            return if self.is(WRITE_SHUT) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(0) };
        }
        let mut outbound = self.side(&self.outbound)?;
        let outcome = self.write_locked(&mut outbound, &mut bytes);
        drop(outbound);
        // Who shut this side down meanwhile could not have the lock.
        self.say_end();
        match outcome {
            // What was written is not lost; the next call says why there was no more.
            Err(_) if bytes.written() != 0 => Ok(bytes.written()),
            outcome => outcome.map(|()| bytes.written()),
        }
    }

    fn write_locked(&self, outbound: &mut MutexGuard<'_, Outbound>, bytes: &mut Bytes<'_>) -> io::Result<()> {
        let deadline = self.write_timeout.deadline();
        loop {
            if self.is(WRITE_SHUT) || outbound.is_end_sent() {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            outbound.put(bytes).map_err(|error| self.told_writer(error))?;
            if bytes.left() == 0 {
                return Ok(());
            }
            if self.is(NONBLOCKING) {
                if outbound.arm(bytes.left()).map_err(|error| self.told_writer(error))? {
                    continue;
                }
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let in_time = outbound.wait(bytes.left(), deadline).map_err(|error| self.told_writer(error))?;
            if !in_time {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
    }

    /// Shuts sides down: for all clones, at once, also while others wait in them.
    pub(super) fn shutdown(&self, how: Shutdown) {
        if matches!(how, Shutdown::Read | Shutdown::Both) && self.set(READ_SHUT) {
            self.reader.wake();
            if let Some(Some(readiness)) = self.readiness.get() {
                readiness.show(true);
            }
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) && self.set(WRITE_SHUT) {
            self.writer.wake();
            self.say_end();
        }
    }

    /// Ends it without an end: for all clones, at once, also while others wait in them.
    pub(super) fn reset(&self) {
        self.set(RESET);
        self.shutdown(Shutdown::Both);
    }

    /// Says the end if writing was shut down, unless somebody is writing, who will on the way out.
    fn say_end(&self) {
        // Between the flag and the look at the lock here, between the lock and the look at the flag there: one of the two
        // sees the other.
        fence(Ordering::SeqCst);
        while self.is(WRITE_SHUT) && !self.is(RESET) {
            let mut outbound = match self.outbound.try_lock() {
                Ok(outbound) => outbound,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
            if outbound.is_end_sent() {
                return;
            }
            outbound.end();
            drop(outbound);
            fence(Ordering::SeqCst);
        }
    }

    /// An error that a reader is told.
    fn told(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::ConnectionReset {
            self.set(RESET_TOLD);
        }
        error
    }

    /// An error that a writer is told: with the peer's end read, the channel's end is no reset.
    fn told_writer(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::ConnectionReset && self.is(PEER_ENDED) {
            return io::Error::new(io::ErrorKind::BrokenPipe, error);
        }
        self.told(error)
    }

    /// The reset, if nobody was told of it. What came before it is read first, the peer's end perhaps among it; and whoever
    /// is reading now will be told.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        let mut inbound = self.inbound.try_lock().ok()?;
        let over = inbound.receiver().is_some_and(vmbus_channels::Receiver::is_rescinded);
        let reset = over && !self.is(PEER_ENDED) && inbound.arm().is_err();
        (reset && self.set(RESET_TOLD)).then(|| io::ErrorKind::ConnectionReset.into())
    }

    /// Makes the descriptor show what is true now, if anybody watches it.
    fn show(&self, inbound: &mut Inbound) {
        if let Some(Some(readiness)) = self.readiness.get() {
            // An error is something to read, too.
            let there = self.is(READ_SHUT) || inbound.arm().unwrap_or(true);
            readiness.show(there);
        }
    }

    /// Makes the descriptor, once. Whoever sleeps with a side's lock makes way.
    fn make_readiness(&self) -> Option<Readiness> {
        let _gate = lock(&self.gate);
        self.set(MAKE_WAY);
        self.reader.wake();
        let mut inbound = lock(&self.inbound);
        // A blocked writer looks every now and then; it need not be waited for if it holds no lock.
        let outbound = lock(&self.outbound);
        self.flags.fetch_and(!MAKE_WAY, Ordering::SeqCst);
        let made = Readiness::new(inbound.receiver()?.as_fd(), outbound.sender()?.as_fd());
        let made = made.inspect_err(|error| log::warn!(target: "vmbus::socket", "no descriptor for a stream: {error}"));
        let readiness = made.ok()?;
        readiness.show(self.is(READ_SHUT) || inbound.arm().unwrap_or(true));
        Some(readiness)
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.readiness.get_or_init(|| self.make_readiness()) {
            Some(readiness) => readiness.as_fd(),
            // Shows the end alone.
            None => self.reader.as_fd(),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.is(UNACCEPTED) || self.is(RESET) {
            // Both halves close it now.
            return;
        }
        let inbound = self.inbound.get_mut().unwrap_or_else(PoisonError::into_inner);
        let outbound = self.outbound.get_mut().unwrap_or_else(PoisonError::into_inner);
        outbound.end();
        let name = self.name.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(receiver), Some(sender)) = (inbound.take_receiver(), outbound.take_sender()) else { return };
        let ended = inbound.is_at_end();
        self.linger.leave(Leaving::new(receiver, sender, ended, name));
    }
}
