//! One connection over a channel: two sides, each behind a lock of its own, and what clones of a stream share.
//!
//! Nobody sleeps with a side's lock, and nobody takes both but who makes descriptors. A shutdown waits for neither: it sets
//! a flag and wakes.

mod inbound;
mod outbound;
mod readiness;
mod reading;
#[cfg(all(feature = "tokio", not(loom)))]
mod runtime;
mod side;
mod timeout;
mod writing;

use std::fmt;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use vmbus_channels::{Channel, Waker};

#[cfg(all(feature = "tokio", not(loom)))]
pub(super) use self::runtime::Watch;

use self::inbound::Inbound;
use self::outbound::Outbound;
use self::readiness::Readiness;
use self::side::Side;
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
/// It waits to be accepted.
const UNACCEPTED: u32 = 1 << 5;
/// A runtime watches it.
#[cfg(all(feature = "tokio", not(loom)))]
const WATCHED: u32 = 1 << 6;
/// Its end is never said.
const RESET: u32 = 1 << 7;

/// What clones of a stream share. Dropping the last says the end, and leaves the rest to who lingers.
pub(super) struct Connection {
    family: Family,
    local: VmSocketAddr,
    peer: VmSocketAddr,
    inbound: Side<Inbound>,
    outbound: Side<Outbound>,
    reader: Waker,
    writer: Waker,
    flags: AtomicU32,
    pub(super) read_timeout: Timeout,
    pub(super) write_timeout: Timeout,
    /// Once somebody asked for a descriptor.
    readiness: OnceLock<Option<Readiness>>,
    /// Once a runtime has watched it.
    #[cfg(all(feature = "tokio", not(loom)))]
    sides: OnceLock<runtime::Sides>,
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

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    /// A thread, which waits unless it is told not to.
    Thread,
    /// A runtime, which never waits, and hears of what comes by descriptors.
    #[cfg(all(feature = "tokio", not(loom)))]
    Runtime,
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
            inbound: Side::new(Inbound::new(receiver)),
            outbound: Side::new(Outbound::new(sender)),
            reader,
            writer,
            flags: AtomicU32::new(0),
            read_timeout: Timeout::default(),
            write_timeout: Timeout::default(),
            readiness: OnceLock::new(),
            #[cfg(all(feature = "tokio", not(loom)))]
            sides: OnceLock::new(),
            name: Mutex::new(None),
            linger,
        })
    }

    /// Keeps the local end's name from others until the connection is over.
    pub(super) fn keep(&self, name: LocalName) {
        *self.name.lock().unwrap_or_else(PoisonError::into_inner) = Some(name);
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

    /// Whether a call waits for what is not there.
    fn waits(&self, who: Who) -> bool {
        who == Who::Thread && !self.is(NONBLOCKING)
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

    /// Makes the descriptor, once.
    fn make_readiness(&self) -> Option<Readiness> {
        self.with_both(|inbound, outbound| {
            let (receiver, sender) = (inbound.receiver()?.as_fd(), outbound.sender()?.as_fd());
            let made = Readiness::new(receiver, sender);
            let made = made.inspect_err(|error| {
                log::warn!(target: "vmbus::socket", "no descriptor for a stream: {error}");
            });
            let readiness = made.ok()?;
            readiness.show(self.is(READ_SHUT) || inbound.arm().unwrap_or(true));
            Some(readiness)
        })
    }

    /// Does something with both sides, whose halves those who sleep bring back for that.
    fn with_both<R>(&self, work: impl FnOnce(&mut Inbound, &mut Outbound) -> R) -> R {
        // A blocked writer looks every now and then, by itself.
        self.outbound.ask(|| {}, |outbound| self.inbound.ask(|| self.reader.wake(), |inbound| work(inbound, outbound)))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.readiness.get_or_init(|| self.make_readiness()) {
            Some(readiness) => {
                // Who shut it down while the descriptor was made found none.
                if self.is(READ_SHUT) {
                    readiness.show(true);
                }
                readiness.as_fd()
            }
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
        let (inbound, outbound) = (self.inbound.get_mut(), self.outbound.get_mut());
        outbound.end();
        let name = self.name.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(receiver), Some(sender)) = (inbound.take_receiver(), outbound.take_sender()) else { return };
        let ended = inbound.is_at_end();
        self.linger.leave(Leaving::new(receiver, sender, ended, name));
    }
}
