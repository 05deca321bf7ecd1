//! What all users of an open channel share. Its `Arc` is the channel's one reference count, from open to close.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use vmbus::link::Line;
use vmbus_ringbuf::{Corrupt, Signal};

use crate::control::Input;
use crate::dispatch::{self, Bells, Direct, Half};
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
    /// The other side was silent for so long.
    Dead(Duration),
}

impl Reason {
    pub(crate) fn of(ending: dispatch::Ending) -> Self {
        match ending {
            dispatch::Ending::Rescinded => Self::Rescinded,
            dispatch::Ending::Corrupt(corrupt) => Self::Corrupt(corrupt),
            dispatch::Ending::Panicked => Self::Panicked,
            dispatch::Ending::Closed => Self::Closed,
            dispatch::Ending::Dead(silent) => Self::Dead(silent),
        }
    }
}

/// How users hear of interrupts.
#[derive(Debug)]
pub(crate) enum Way {
    /// A dispatcher listens, and raises the bells.
    Told,
    /// By the descriptor of the line, which the channel has for itself.
    Alone,
    /// By the interrupts of a processor, which the channel has for itself.
    Direct(Direct),
}

/// What the users of an open channel share: handles, buffers, and a dispatcher's entry with a handler. When the last
/// of them is gone, the executor hears of it, and closes the channel with the host.
#[derive(Debug)]
pub(crate) struct Hold {
    offer: Arc<Offer>,
    device: String,
    reason: OnceLock<Reason>,
    line: Line,
    way: Way,
    /// Shared with a dispatcher that raises them, who has no part in the channel's life.
    bells: Arc<Bells>,
    waker: Waker,
    /// The sending half's, once there are halves.
    sender_waker: OnceLock<Waker>,
    /// One of two halves is gone.
    half_left: AtomicBool,
    /// The rings may be taken away at any time: nothing that is read there counts any more.
    torn: AtomicBool,
    /// A signal has opened the masks of all rings of the device.
    unmasked: AtomicBool,
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
    pub(crate) fn new(offer: Arc<Offer>, line: Line, way: Way, queue: Option<Queue>) -> Result<Self, Error> {
        // What can fail comes first: once there is a `Release`, its drop speaks.
        let (bells, waker) = (Arc::new(Bells::new()?), Waker::new()?);
        let release = Release { channel: offer.id, queue };
        let (device, reason, sender_waker) = (offer.device(), OnceLock::new(), OnceLock::new());
        let [half_left, torn, unmasked] = [(); 3].map(|()| AtomicBool::new(false));
        Ok(Self { offer, device, reason, line, way, bells, waker, sender_waker, half_left, torn, unmasked, release })
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

    pub(crate) fn way(&self) -> &Way {
        &self.way
    }

    pub(crate) fn bells(&self) -> &Arc<Bells> {
        &self.bells
    }

    /// What ends the waits of this half; of a channel that is whole, any.
    pub(crate) fn waker(&self, half: Half) -> &Waker {
        match half {
            Half::Receiver => &self.waker,
            Half::Sender => self.sender_waker.get().unwrap_or(&self.waker),
        }
    }

    /// From now on there are two users who may sleep at the same time.
    pub(super) fn split(&self) -> Result<(), Error> {
        let _ = self.sender_waker.set(Waker::new()?);
        self.bells.split()?;
        if self.has_ended() {
            // Whoever ended it may have found no second half to wake.
            self.wake_all();
        }
        Ok(())
    }

    /// One half goes. Whether the other had gone before.
    pub(super) fn leave(&self) -> bool {
        self.half_left.swap(true, Ordering::AcqRel)
    }

    pub(crate) fn queue(&self) -> Option<&Queue> {
        self.release.queue.as_ref()
    }

    /// Whether users hear of interrupts from a dispatcher, rather than by a descriptor of the line.
    pub(crate) fn is_told(&self) -> bool {
        matches!(self.way, Way::Told)
    }

    /// Signals the host if that is due.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        if signal.is_needed() {
            self.line.signal().map_err(|error| self.named(error))?;
            if self.line.unmasks() {
                self.unmasked.store(true, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Whether a signal has opened the masks since this was last asked. A hint: a mask that is open costs interrupts.
    pub(super) fn take_unmasked(&self) -> bool {
        self.unmasked.load(Ordering::Relaxed) && {
            self.unmasked.store(false, Ordering::Relaxed);
            true
        }
    }

    /// Ends the channel for all its users, and wakes them. The first reason is the one they hear; whether this was it.
    pub(crate) fn end(&self, reason: Reason) -> bool {
        // Before the line is marked, which users see as well: they must find the reason there, and not guess.
        let first = self.reason.set(reason).is_ok();
        if reason != Reason::Rescinded {
            // Also behind a rescind: with the bus's end its memory goes, and this comes before.
            self.torn.store(true, Ordering::SeqCst);
        }
        if matches!(reason, Reason::Rescinded | Reason::Ended) {
            self.line.rescind();
        }
        if first {
            self.wake_all();
        }
        first
    }

    fn wake_all(&self) {
        self.bells.ring_all();
        self.waker.interrupt();
        if let Some(waker) = self.sender_waker.get() {
            waker.interrupt();
        }
    }

    /// Whether the channel has ended: a load or two.
    pub(crate) fn has_ended(&self) -> bool {
        self.reason.get().is_some() || self.line.is_rescinded()
    }

    /// Whether what the host had sent before it took the channel back can still be read.
    pub(super) fn is_drainable(&self) -> bool {
        matches!(self.reason.get(), Some(Reason::Rescinded))
            && self.line.keeps_rings()
            && !self.torn.load(Ordering::SeqCst)
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

    /// What a ring full of nonsense means: a device that is gone leaves zeroes behind, which are no sin of the host's.
    pub(super) fn corrupt(&self, source: Corrupt) -> Error {
        match self.check() {
            Ok(()) => Error::Corrupt { device: self.device.clone(), source },
            Err(error) => error,
        }
    }

    /// The error of who finds the device gone.
    pub(super) fn gone(&self) -> Error {
        self.named(vmbus::Error::Rescinded { device: self.device.clone() })
    }

    /// What users are told.
    fn error(&self, reason: &Reason) -> Error {
        let device = || self.device.clone();
        match reason {
            Reason::Rescinded => vmbus::Error::Rescinded { device: device() }.into(),
            Reason::Closed => Error::Closed { device: device() },
            Reason::Ended => self.queue().map_or(Error::Ended, Queue::ended),
            Reason::Corrupt(source) => Error::Corrupt { device: device(), source: *source },
            Reason::Dead(silent) => Error::Dead { device: device(), silent: *silent },
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
