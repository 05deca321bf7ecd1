//! What a driver's instance has of the registry: a way to run things that end with it.

use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmbus_channels::{Offer, Vmbus};

use super::input::{Callback, Input, SlotId, SlotKind, Tie};
use super::inside::Inside;
use super::mutation::mutated;
use super::sync::{AtomicBool, AtomicU64, Ordering, has_ended, thread};
use super::worker::contained;
use super::{Handle, Operable};
use crate::Error;

/// One device in the hands of one driver, from before its probe to after its removal. Clones are the same.
///
/// A clone may be kept as long as one likes: it holds memory, and keeps nothing running. Once the removal has begun
/// everything here is refused with [`Error::Removed`].
#[derive(Debug, Clone)]
pub struct Context {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    tie: Tie,
    offer: Offer,
    operable: Operable,
    handle: Handle,
    vmbus: Option<Vmbus>,
    slots: AtomicU64,
    /// To be joined by the removal. Its lock is held for a push or a take, and never while anything waits.
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
}

impl Context {
    pub(super) fn new(tie: Tie, offer: Offer, handle: Handle, vmbus: Option<Vmbus>) -> Self {
        let (operable, slots, threads) = (Operable::new(), AtomicU64::new(0), Mutex::default());
        Self { shared: Arc::new(Shared { tie, offer, operable, handle, vmbus, slots, threads }) }
    }

    /// What the host offered.
    #[must_use]
    pub fn offer(&self) -> &Offer {
        &self.shared.offer
    }

    /// The bus, to open the channel on.
    ///
    /// # Errors
    /// [`Error::NoBus`] in a registry that was made without one.
    pub fn vmbus(&self) -> Result<&Vmbus, Error> {
        self.shared.vmbus.as_ref().ok_or(Error::NoBus)
    }

    /// The registry: its devices may be listed from anywhere.
    #[must_use]
    pub fn registry(&self) -> &Handle {
        &self.shared.handle
    }

    /// Whether the removal has not begun yet. For loops and long probes, which should end once it has.
    #[must_use]
    pub fn is_operable(&self) -> bool {
        self.shared.operable.is_open()
    }

    /// Begins a use of the instance outside of the registry's workers: in a channel's handler, or on a thread of the
    /// driver's own. `remove` is called after the last [`Use`] has ended, so keep it short, and wait for nothing
    /// with it. The thread counts as being in a callback meanwhile.
    ///
    /// # Errors
    /// [`Error::Removed`].
    pub fn enter(&self) -> Result<Use<'_>, Error> {
        let counted = self.shared.operable.enter();
        if !counted && !mutated!(self.shared.handle.mutations(), ReferenceKeepsOperable) {
            return Err(self.removed());
        }
        Ok(Use {
            shared: &self.shared,
            counted,
            inside: Inside::enter(self.shared.handle.number()),
            thread: PhantomData,
        })
    }

    /// Runs `work` on a worker, after everything spawned before it, and never at the same time as another callback of
    /// this instance. During `probe`: once that has succeeded.
    ///
    /// # Errors
    /// [`Error::Removed`]; `work` is dropped.
    pub fn spawn(&self, work: impl FnOnce(&Self) + Send + 'static) -> Result<(), Error> {
        let using = self.enter()?;
        using.post(Input::Work(self.shared.tie, Box::new(work)));
        Ok(())
    }

    /// Starts a thread of the instance, for what waits: it may run beside callbacks. It has to end when
    /// [`Instance::remove`](super::Instance::remove) tells it to, or when [`is_operable`](Self::is_operable) says no,
    /// as in a probe that fails; the removal joins it. It counts as being in a callback all its life. If it panics,
    /// the instance has given up.
    ///
    /// # Errors
    /// [`Error::Removed`]; [`Error::Thread`].
    pub fn thread(&self, name: &str, body: impl FnOnce(&Self) + Send + 'static) -> Result<(), Error> {
        let _using = self.enter()?;
        let (context, number) = (self.clone(), self.shared.handle.number());
        let body = move || {
            let inside = Inside::enter(number);
            if contained(&context, "thread", || body(&context)).is_none() {
                context.say_give_up("a thread of its driver panicked".to_owned(), true);
            }
            drop(inside);
        };
        let started = thread::Builder::new().name(name.to_owned()).spawn(body);
        let thread = started.map_err(|source| Error::Thread { name: name.to_owned(), source })?;
        // Those that have ended go as others come, and not only with the instance. The removal does not look meanwhile:
        // it waits for this use to end.
        let threads = std::mem::take(&mut *self.threads());
        let (ended, running): (Vec<_>, Vec<_>) = threads.into_iter().partition(has_ended);
        self.threads().extend(running.into_iter().chain([thread]));
        join(ended);
        Ok(())
    }

    /// The instance can't go on: it is removed with [`Reason::GaveUp`](super::Reason::GaveUp), and the device goes to
    /// the next driver that matches. Does nothing once the removal has begun.
    pub fn give_up(&self, why: &dyn std::error::Error) {
        self.say_give_up(why.to_string(), false);
    }

    fn say_give_up(&self, why: String, panicked: bool) {
        if let Ok(using) = self.enter() {
            using.post(Input::GiveUp(self.shared.tie, why, panicked));
        }
    }

    /// A timer, not armed yet. `callback` runs like [`spawn`](Self::spawn)ed work; what it returns is the time until
    /// the next run, if there is to be one.
    ///
    /// # Errors
    /// [`Error::Removed`].
    pub fn timer(&self, callback: impl FnMut(&Self) -> Option<Duration> + Send + 'static) -> Result<Timer, Error> {
        Ok(Timer { slot: self.slot(Box::new(callback), SlotKind::Timer)? })
    }

    /// Something that any thread uses to have `callback` run like [`spawn`](Self::spawn)ed work. Several wakes before
    /// it runs count as one.
    ///
    /// # Errors
    /// [`Error::Removed`].
    pub fn wake_up(&self, mut callback: impl FnMut(&Self) + Send + 'static) -> Result<WakeUp, Error> {
        let pending = Arc::new(AtomicBool::new(false));
        let callback = move |context: &Self| {
            callback(context);
            None
        };
        let slot = self.slot(Box::new(callback), SlotKind::WakeUp(Arc::clone(&pending)))?;
        Ok(WakeUp { slot: Arc::new(slot), pending })
    }

    fn slot(&self, callback: Callback, kind: SlotKind) -> Result<Slot, Error> {
        let using = self.enter()?;
        let id = SlotId(self.shared.slots.fetch_add(1, Ordering::Relaxed));
        using.post(Input::NewSlot(self.shared.tie, id, callback, kind));
        Ok(Slot { context: self.clone(), id })
    }

    pub(super) fn tie(&self) -> Tie {
        self.shared.tie
    }

    /// Lets nobody in any more; whether nobody was inside.
    pub(super) fn close(&self) -> bool {
        self.shared.operable.close()
    }

    /// Waits for all threads of the instance. For the removal, after which none can be started.
    pub(super) fn join_threads(&self) {
        let threads = std::mem::take(&mut *self.threads());
        join(threads);
    }

    fn threads(&self) -> std::sync::MutexGuard<'_, Vec<thread::JoinHandle<()>>> {
        self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn removed(&self) -> Error {
        Error::Removed { device: self.shared.offer.instance.to_string() }
    }
}

fn join(threads: Vec<thread::JoinHandle<()>>) {
    for thread in threads {
        // What panics in it is contained there.
        let _ = thread.join();
    }
}

/// An active use of an instance: it is not removed while this lives. See [`Context::enter`].
#[derive(Debug)]
#[must_use = "the use ends when this is dropped"]
pub struct Use<'a> {
    shared: &'a Shared,
    counted: bool,
    #[expect(dead_code, reason = "held for its drop")]
    inside: Inside,
    thread: PhantomData<*const ()>,
}

impl Use<'_> {
    fn post(&self, input: Input) {
        // Not received only after the registry has ended, and then no use begins.
        self.shared.handle.post(input);
    }
}

impl Drop for Use<'_> {
    fn drop(&mut self) {
        if self.counted && self.shared.operable.leave() {
            self.post(Input::Drained(self.shared.tie));
        }
    }
}

/// A callback that the registry keeps. Dropping this drops it there.
#[derive(Debug)]
struct Slot {
    context: Context,
    id: SlotId,
}

impl Slot {
    fn say(&self, input: impl FnOnce(Tie, SlotId) -> Input) -> Result<(), Error> {
        self.context.enter()?.post(input(self.context.tie(), self.id));
        Ok(())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Refused: the removal has it already.
        let _ = self.say(Input::Forget);
    }
}

/// A timer of an instance. It ends with the instance, or when it is dropped.
#[derive(Debug)]
pub struct Timer {
    slot: Slot,
}

impl Timer {
    /// Runs the callback once after this time. A timer that is armed is armed anew.
    ///
    /// # Errors
    /// [`Error::Removed`].
    pub fn arm(&self, after: Duration) -> Result<(), Error> {
        self.slot.say(|tie, slot| Input::Arm(tie, slot, after))
    }

    /// Disarms it. From a callback of the same instance this is exact: it will not run unless armed again. From
    /// elsewhere it may be running, or about to.
    pub fn cancel(&self) {
        // Refused: the removal disarms it.
        let _ = self.slot.say(Input::Cancel);
    }
}

/// Has a callback of an instance run. Clones wake the same one, from any thread; after the removal has begun a wake
/// does nothing.
#[derive(Debug, Clone)]
pub struct WakeUp {
    slot: Arc<Slot>,
    pending: Arc<AtomicBool>,
}

impl WakeUp {
    /// Has the callback run soon. It sees everything that was done before this call.
    pub fn wake(&self) {
        if !self.pending.swap(true, Ordering::AcqRel) {
            let _ = self.slot.say(Input::Wake);
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests;
