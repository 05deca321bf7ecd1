//! What all users of an open channel share. Its `Arc` is the channel's one reference count, from open to close.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use vmbus::link::Line;
use vmbus_ringbuf::Corrupt;

use crate::control::Input;
use crate::dispatch::{self, Notifier};
use crate::executor::{Event, Queue};
use crate::{ChannelId, Error, Offer, Waker};

/// Why an open channel can't be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// The host took it back.
    Rescinded,
    /// It was closed here.
    Closed,
    /// The bus has ended.
    Ended,
    /// The host broke the protocol of its ring.
    Corrupt(Corrupt),
    /// Its handler panicked.
    Panicked,
}

impl Reason {
    pub(crate) fn of(ending: dispatch::Ending) -> Self {
        match ending {
            dispatch::Ending::Rescinded => Self::Rescinded,
            dispatch::Ending::Corrupt(corrupt) => Self::Corrupt(corrupt),
            dispatch::Ending::Panicked => Self::Panicked,
            dispatch::Ending::Closed => Self::Closed,
        }
    }
}

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Something happened, and it was taken note of: look.
    Event,
    /// The waker was used, or the channel has ended.
    Woken,
    /// The time is over.
    TimedOut,
}

/// What the users of an open channel share: handles, buffers, and a dispatcher's entry with a handler. When the last
/// of them is gone, the executor hears of it, and closes the channel with the host.
#[derive(Debug)]
pub(crate) struct Hold {
    offer: Arc<Offer>,
    device: String,
    reason: OnceLock<Reason>,
    line: Line,
    /// Whether a dispatcher listens to the line and raises `notifier`.
    told: bool,
    notifier: Notifier,
    waker: Waker,
    /// Whether a sender sleeps until there is room.
    wants_room: AtomicBool,
    /// Last: the line is gone when the executor hears of it.
    release: Release,
}

#[derive(Debug)]
struct Release {
    channel: ChannelId,
    /// `None` for a channel that no executor knows.
    queue: Option<Queue>,
}

impl Drop for Release {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.tell(Event::Input(Input::Unreferenced(self.channel)));
        }
    }
}

impl Hold {
    /// `told`: a dispatcher listens to the line, even if that has a descriptor.
    pub(crate) fn new(offer: Arc<Offer>, line: Line, told: bool, queue: Option<Queue>) -> Result<Self, Error> {
        // What can fail comes first: once there is a `Release`, its drop speaks.
        let (notifier, waker) = (Notifier::new()?, Waker::new()?);
        let release = Release { channel: offer.id, queue };
        let told = told || line.descriptor().is_none();
        let (device, reason, wants_room) = (offer.device(), OnceLock::new(), AtomicBool::new(false));
        Ok(Self { offer, device, reason, line, told, notifier, waker, wants_room, release })
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.release.channel
    }

    pub(crate) fn offer(&self) -> &Offer {
        &self.offer
    }

    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    pub(crate) fn line(&self) -> &Line {
        &self.line
    }

    pub(crate) fn waker(&self) -> &Waker {
        &self.waker
    }

    pub(crate) fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    pub(crate) fn queue(&self) -> Option<&Queue> {
        self.release.queue.as_ref()
    }

    /// Whether users hear of interrupts from a dispatcher, rather than by a descriptor of the line.
    pub(crate) fn is_told(&self) -> bool {
        self.told
    }

    /// Ends the channel for all its users, and wakes them. The first reason is the one they hear; whether this was it.
    pub(crate) fn end(&self, reason: Reason) -> bool {
        // Before the line is marked, which users see as well: they must find the reason there, and not guess.
        let first = self.reason.set(reason).is_ok();
        if matches!(reason, Reason::Rescinded | Reason::Ended) {
            self.line.rescind();
        }
        if first {
            self.notifier.raise();
            self.waker.interrupt();
        }
        first
    }

    /// Whether the channel has ended: a load or two.
    pub(crate) fn has_ended(&self) -> bool {
        self.reason.get().is_some() || self.line.is_rescinded()
    }

    /// An error if the channel has ended. Asks no one.
    pub(crate) fn alive(&self) -> Result<(), Error> {
        if self.has_ended() { self.check() } else { Ok(()) }
    }

    /// An error if the channel has ended, asking the kernel where there is one.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.reason.get() {
            Some(reason) => Err(self.error(reason)),
            None => self.line.check().map_err(|error| self.named(error)),
        }
    }

    /// What users are told.
    fn error(&self, reason: &Reason) -> Error {
        let device = || self.device.clone();
        match reason {
            Reason::Rescinded => vmbus::Error::Rescinded { device: device() }.into(),
            Reason::Closed => Error::Closed { device: device() },
            Reason::Ended => self.queue().map_or(Error::Ended, Queue::ended),
            Reason::Corrupt(source) => Error::Corrupt { device: device(), source: *source },
            Reason::Panicked => Error::State {
                device: device(),
                state: "closed, because its handler panicked",
                hint: "mend the handler and open the channel again",
            },
        }
    }

    /// An error of the line, about this device. (The line does not always know its name. And what it takes for a rescind
    /// may be an end of another reason, which is always there before the line is marked.)
    pub(crate) fn named(&self, error: vmbus::Error) -> Error {
        match (error, self.reason.get()) {
            (vmbus::Error::Rescinded { .. }, Some(reason)) => self.error(reason),
            (vmbus::Error::Rescinded { .. }, None) => vmbus::Error::Rescinded { device: self.device.clone() }.into(),
            (error, _) => error.into(),
        }
    }

    /// What becomes readable when there is something.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        let line = if self.told { None } else { self.line.descriptor() };
        line.unwrap_or_else(|| self.notifier.as_fd())
    }

    /// Takes note of what has happened so far.
    pub(super) fn acknowledge(&self) -> Result<(), Error> {
        if self.told {
            // Also when it is not raised: its descriptor may be readable once more than that.
            self.notifier.clear();
            return Ok(());
        }
        self.line.acknowledge().map(|_| ()).map_err(|error| self.named(error))
    }

    /// Sleeps until something happens, which is taken note of, the waker is used or the channel ends, or for so long.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> Result<Sleep, Error> {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let descriptor = PollFd::from_borrowed_fd(self.descriptor(), PollFlags::IN);
        let mut waited = [descriptor, PollFd::new(&self.waker, PollFlags::IN)];
        match poll(&mut waited, timeout.as_ref()) {
            Ok(0) => return Ok(Sleep::TimedOut),
            // The caller looks at the clock and comes again.
            Err(Errno::INTR) => return Ok(Sleep::Event),
            Ok(_) => {}
            Err(error) => return Err(vmbus::Error::io("wait for", &self.device, error).into()),
        }
        let [descriptor, waker] = &waited;
        let ready = descriptor.revents();
        if ready.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            // Nothing undoes these bits of a device's node, and they come before any event count.
            self.line.rescind();
            return Err(self.named(vmbus::Error::Rescinded { device: self.device.clone() }));
        }
        if !ready.is_empty() {
            self.acknowledge()?;
            return Ok(Sleep::Event);
        }
        Ok(if waker.revents().is_empty() { Sleep::TimedOut } else { Sleep::Woken })
    }

    /// Says that a sender sleeps until there is room, or no longer. Before the host is asked for it.
    pub(super) fn want_room(&self, wanted: bool) {
        self.wants_room.store(wanted, Ordering::SeqCst);
    }

    /// Wakes the sender that sleeps until there is room, from a dispatcher that is told of any event.
    pub(super) fn maybe_room(&self) {
        if self.wants_room.load(Ordering::SeqCst) {
            self.notifier.raise();
        }
    }
}

impl Offer {
    /// What errors call its device: the instance id, which is its name in sysfs.
    pub(crate) fn device(&self) -> String {
        match self.subchannel_index {
            0 => self.instance.to_string(),
            index => format!("{}/{index}", self.instance),
        }
    }
}
