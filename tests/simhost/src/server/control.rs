//! The handle to a guest's simulation while it runs: commands, faults, oracles. Any thread may hold it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use vmbus::message::GpadlId;

use super::wake::Wake;
use crate::fault::Rule;
use crate::memory::{MappedMemory, Memory};
use crate::{Counters, DeviceSpec, Error, OfferId, Simulation, Violation};

/// A simulation that is served: its guest is beyond a socket, unless something else is said.
pub type Sim<M = MappedMemory> = Simulation<M>;

/// Something that may become true of a simulation.
pub(super) type Condition<M> = Box<dyn FnMut(&mut Sim<M>) -> bool + Send>;

/// Something to be done with a simulation.
type Work<M> = Box<dyn FnOnce(&mut Sim<M>) + Send>;

/// What the guest's thread does for somebody else.
pub(super) enum Command<M: Memory> {
    /// Once, and now.
    Do(Work<M>),
    /// After each thing that happens, until it says `true`, or nobody waits any more.
    Until(Condition<M>),
}

/// The handle to one guest's simulation.
#[derive(Debug)]
pub struct Control<M: Memory = MappedMemory> {
    commands: Sender<Command<M>>,
    wake: Arc<Wake>,
}

impl<M: Memory> Clone for Control<M> {
    fn clone(&self) -> Self {
        Self { commands: self.commands.clone(), wake: Arc::clone(&self.wake) }
    }
}

/// Something that is expected to become true; see [`Control::expect`].
#[derive(Debug)]
pub struct Expected {
    answered: Receiver<()>,
    deadline: Instant,
}

impl Expected {
    /// Waits for it; whether it came true in time.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn wait(self) -> Result<bool, Error> {
        match self.answered.recv_deadline(self.deadline) {
            Ok(()) => Ok(true),
            Err(RecvTimeoutError::Timeout) => Ok(false),
            // It gave up, or the thread ended.
            Err(RecvTimeoutError::Disconnected) if Instant::now() > self.deadline => Ok(false),
            Err(RecvTimeoutError::Disconnected) => Err(Error::GuestGone),
        }
    }
}

impl<M: Memory> std::fmt::Debug for Command<M> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Do(_) => "Do",
            Self::Until(_) => "Until",
        })
    }
}

impl<M: Memory> Control<M> {
    pub(super) fn new(wake: Arc<Wake>) -> (Self, Receiver<Command<M>>) {
        let (commands, receiver) = unbounded();
        (Self { commands, wake }, receiver)
    }

    /// What ends the sleep of the simulation's thread.
    pub(super) fn waker(&self) -> Arc<Wake> {
        Arc::clone(&self.wake)
    }

    /// Whether both are of one simulation.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }

    /// Does something with the simulation, on its thread, between two things that happen; waits for the guest's hello
    /// if that has not come yet.
    ///
    /// # Errors
    /// [`Error::GuestGone`] when the simulation has ended.
    pub fn with<R: Send + 'static>(&self, work: impl FnOnce(&mut Sim<M>) -> R + Send + 'static) -> Result<R, Error> {
        let (answer, answered) = bounded(1);
        let work = Box::new(move |simulation: &mut Sim<M>| {
            // Nobody waits for it: then nobody needs it.
            let _ = answer.send(work(simulation));
        });
        self.commands.send(Command::Do(work)).map_err(|_| Error::GuestGone)?;
        self.wake.wake();
        answered.recv().map_err(|_| Error::GuestGone)
    }

    /// Waits until something is true of the simulation; whether it came true in time.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn wait_for(
        &self,
        timeout: Duration,
        is_true: impl FnMut(&mut Sim<M>) -> bool + Send + 'static,
    ) -> Result<bool, Error> {
        self.expect(timeout, is_true)?.wait()
    }

    /// As [`wait_for`](Self::wait_for), in two steps: from now on `is_true` is asked after each thing that happens, and
    /// the waiting comes later. The time runs from here.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn expect(
        &self,
        timeout: Duration,
        mut is_true: impl FnMut(&mut Sim<M>) -> bool + Send + 'static,
    ) -> Result<Expected, Error> {
        let deadline = Instant::now() + timeout;
        let (answer, answered) = bounded(1);
        let until = Box::new(move |simulation: &mut Sim<M>| {
            let done = is_true(simulation);
            if done {
                let _ = answer.send(());
            }
            // Nobody waits any more, either.
            done || Instant::now() > deadline
        });
        self.commands.send(Command::Until(until)).map_err(|_| Error::GuestGone)?;
        self.wake.wake();
        Ok(Expected { answered, deadline })
    }

    /// Does something after one of the next things that happen: `work` is called after each until it says `true`. Waits
    /// for nothing.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn when(&self, work: impl FnMut(&mut Sim<M>) -> bool + Send + 'static) -> Result<(), Error> {
        self.commands.send(Command::Until(Box::new(work))).map_err(|_| Error::GuestGone)?;
        self.wake.wake();
        Ok(())
    }

    /// See [`Host::offer`](crate::Host::offer).
    ///
    /// # Errors
    /// As there; [`Error::GuestGone`].
    pub fn offer(&self, spec: DeviceSpec) -> Result<OfferId, Error> {
        self.with(|simulation| simulation.host().offer(spec))?
    }

    /// See [`Host::rescind`](crate::Host::rescind).
    ///
    /// # Errors
    /// As there; [`Error::GuestGone`].
    pub fn rescind(&self, id: OfferId) -> Result<(), Error> {
        self.with(move |simulation| simulation.host().rescind(id))?
    }

    /// See [`Host::reoffer`](crate::Host::reoffer).
    ///
    /// # Errors
    /// As there; [`Error::GuestGone`].
    pub fn reoffer(&self, id: OfferId) -> Result<(), Error> {
        self.with(move |simulation| simulation.host().reoffer(id))?
    }

    /// See [`Host::command`](crate::Host::command).
    ///
    /// # Errors
    /// As there; [`Error::GuestGone`].
    pub fn command(&self, id: OfferId, words: &str) -> Result<(), Error> {
        let words = words.to_owned();
        self.with(move |simulation| simulation.host().command(id, &words))?
    }

    /// See [`Simulation::set_faults`].
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn set_faults(&self, rules: Vec<Rule>) -> Result<(), Error> {
        self.with(move |simulation| simulation.set_faults(&rules))
    }

    /// See [`Host::violations`](crate::Host::violations).
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn violations(&self) -> Result<Vec<Violation>, Error> {
        self.with(|simulation| simulation.host().violations().to_vec())
    }

    /// See [`Host::counters`](crate::Host::counters).
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn counters(&self) -> Result<Counters, Error> {
        self.with(|simulation| simulation.host().counters())
    }

    /// See [`Host::live_gpadls`](crate::Host::live_gpadls).
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn live_gpadls(&self) -> Result<Vec<GpadlId>, Error> {
        self.with(|simulation| simulation.host().live_gpadls())
    }

    /// See [`Host::released`](crate::Host::released).
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn released(&self, relid: u32) -> Result<u32, Error> {
        self.with(move |simulation| simulation.host().released(relid))
    }

    /// The trace so far, as text.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn trace(&self) -> Result<String, Error> {
        self.with(|simulation| simulation.trace().to_string())
    }

    /// Waits until nothing is under way; whether that came in time.
    ///
    /// # Errors
    /// [`Error::GuestGone`].
    pub fn wait_quiet(&self, timeout: Duration) -> Result<bool, Error> {
        self.wait_for(timeout, |simulation| simulation.is_quiet())
    }
}
