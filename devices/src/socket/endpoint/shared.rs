//! Endpoints as threads share them: who waits, who is woken, and how the last hold gives the slot back.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use uuid::Uuid;

use super::mutation::{Mutations, mutated};
use super::state::{Phase, Remains, State};
use super::sync::{Arc, Condvar, Mutex, is_unwinding, lock, wait};
use super::table::{EndpointId, Table};
use super::{Bell, Kind, Refused};

/// A share of an endpoint: as long as it is held, the slot is nobody else's.
pub struct Held<K: Kind>(Arc<Endpoint<K>>);

impl<K: Kind> Clone for Held<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K: Kind> Deref for Held<K> {
    type Target = Endpoint<K>;

    fn deref(&self) -> &Endpoint<K> {
        &self.0
    }
}

impl<K: Kind> fmt::Debug for Held<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Held").field("name", &self.name).field("phase", &self.phase()).finish()
    }
}

/// Who made an endpoint. Its drop closes it.
#[derive(Debug)]
pub struct Owner<K: Kind>(Held<K>);

impl<K: Kind> Owner<K> {
    /// A share for another thread.
    #[must_use]
    pub fn share(&self) -> Held<K> {
        self.0.clone()
    }
}

impl<K: Kind> Deref for Owner<K> {
    type Target = Held<K>;

    fn deref(&self) -> &Held<K> {
        &self.0
    }
}

impl<K: Kind> Drop for Owner<K> {
    fn drop(&mut self) {
        if !is_unwinding() {
            drop(self.0.close());
        }
    }
}

struct Names<K: Kind> {
    table: Mutex<Table<Held<K>>>,
    mutations: Mutations,
}

/// All endpoints of one bus.
pub struct Endpoints<K: Kind> {
    names: Arc<Names<K>>,
}

impl<K: Kind> Clone for Endpoints<K> {
    fn clone(&self) -> Self {
        Self { names: Arc::clone(&self.names) }
    }
}

impl<K: Kind> fmt::Debug for Endpoints<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoints").finish_non_exhaustive()
    }
}

type Callback<K> = Box<dyn FnMut(&Held<K>) + Send>;

/// What is called when something came in.
struct Calls<K: Kind> {
    /// Taken out while it runs.
    callback: Option<Callback<K>>,
    runs: bool,
}

/// One endpoint.
pub struct Endpoint<K: Kind> {
    id: EndpointId,
    name: Uuid,
    state: Mutex<State<K::Incoming, K::Outcome>>,
    changed: Condvar,
    bell: K::Bell,
    calls: Mutex<Calls<K>>,
    names: Arc<Names<K>>,
}

impl<K: Kind> Endpoints<K> {
    /// None yet, and at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self::with(most, Mutations::default())
    }

    /// The same without a protection.
    #[cfg(any(test, feature = "mutations"))]
    #[must_use]
    pub fn without(most: usize, mutation: Option<super::mutation::Mutation>) -> Self {
        Self::with(most, Mutations { without: mutation })
    }

    fn with(most: usize, mutations: Mutations) -> Self {
        Self { names: Arc::new(Names { table: Mutex::new(Table::new(most)), mutations }) }
    }

    /// Binds a new endpoint to a name, then starts it; if that fails, it is as if it had never been.
    ///
    /// # Errors
    /// [`Refused::Taken`], [`Refused::Full`], [`Refused::Ended`]; what `start` says.
    pub fn bind<E: From<Refused>>(
        &self,
        name: Uuid,
        bell: K::Bell,
        start: impl FnOnce(&Held<K>) -> Result<(), E>,
    ) -> Result<Owner<K>, E> {
        let names = &self.names;
        let make = |id| Held(Arc::new(Endpoint::new(id, name, bell, Arc::clone(names))));
        let held = if mutated!(names.mutations, CheckThenSet) {
            lock(&names.table).check(name)?;
            // Whoever binds the same name here is not seen.
            let mut table = lock(&names.table);
            let id = table.place_anyhow(name)?;
            let held = make(id);
            table.fill(id, name, held.clone());
            held
        } else if mutated!(names.mutations, PublishFirst) {
            let id = lock(&names.table).place(name)?;
            // Whoever looks here finds a name without anybody, and `end` overlooks it.
            let held = make(id);
            lock(&names.table).fill(id, name, held.clone());
            held
        } else {
            lock(&names.table).bind(name, make)?
        };
        match start(&held) {
            Ok(()) => Ok(Owner(held)),
            Err(error) => {
                if !mutated!(names.mutations, ForgetOnFailure) {
                    drop(held.close());
                }
                Err(error)
            }
        }
    }

    /// A new endpoint whose name is reserved: nobody can bind it, and nobody finds it.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub fn reserve(&self, name: Uuid, bell: K::Bell) -> Result<Owner<K>, Refused> {
        let make = |id| Held(Arc::new(Endpoint::new(id, name, bell, Arc::clone(&self.names))));
        lock(&self.names.table).reserve(name, make).map(Owner)
    }

    /// Who is bound to a name, held.
    #[must_use]
    pub fn look_up(&self, name: Uuid) -> Option<Held<K>> {
        if mutated!(self.names.mutations, LookUpBareKey) {
            let place = lock(&self.names.table).place_of(name)?;
            // By now it may be another's.
            return lock(&self.names.table).endpoint_at(place);
        }
        lock(&self.names.table).look_up(name)
    }

    /// Takes nothing new in from here on, and closes all that are bound.
    pub fn end(&self) {
        let bound = lock(&self.names.table).end();
        for endpoint in bound {
            drop(endpoint.close());
        }
    }

    /// Slots that are not free: what is bound, reserved, or closing and still held.
    #[must_use]
    pub fn in_use(&self) -> usize {
        lock(&self.names.table).in_use()
    }

    /// Names that are taken.
    #[must_use]
    pub fn names(&self) -> usize {
        lock(&self.names.table).names()
    }
}

impl<K: Kind> Endpoint<K> {
    fn new(id: EndpointId, name: Uuid, bell: K::Bell, names: Arc<Names<K>>) -> Self {
        let calls = Mutex::new(Calls { callback: None, runs: false });
        Self { id, name, state: Mutex::new(State::new()), changed: Condvar::new(), bell, calls, names }
    }

    /// Its name.
    pub fn name(&self) -> Uuid {
        self.name
    }

    /// What it is doing.
    pub fn phase(&self) -> Phase {
        lock(&self.state).phase()
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        self.phase() == Phase::Closed
    }

    /// Shows that something waits.
    pub fn bell(&self) -> &K::Bell {
        &self.bell
    }

    /// Begins to take connections in.
    ///
    /// # Errors
    /// [`Refused::Bound`], [`Refused::Closed`].
    pub fn listen(&self, backlog: usize) -> Result<(), Refused> {
        lock(&self.state).listen(backlog)
    }

    /// Calls this whenever something came in, on the thread that brings it. It may close the endpoint. After a close no
    /// call begins; one that has begun is not waited for.
    pub fn call_back(&self, callback: impl FnMut(&Held<K>) + Send + 'static) {
        let old = lock(&self.calls).callback.replace(Box::new(callback));
        drop(old);
    }

    /// The next that came in, by then.
    ///
    /// # Errors
    /// [`Refused::Closed`] at once when it is or becomes so; [`Refused::TimedOut`]; [`Refused::NotListening`].
    pub fn accept(&self, deadline: Option<Instant>) -> Result<K::Incoming, Refused> {
        let mut state = lock(&self.state);
        loop {
            if let Some(item) = state.take_incoming()? {
                if !state.has_incoming() {
                    self.bell.ring(false);
                }
                return Ok(item);
            }
            let in_time;
            (state, in_time) = wait(&self.changed, state, deadline);
            if !in_time {
                return Err(Refused::TimedOut);
            }
        }
    }

    /// Takes back what is not to be accepted any more.
    pub fn withdraw(&self, is_gone: impl FnMut(&K::Incoming) -> bool) -> Vec<K::Incoming> {
        let mut state = lock(&self.state);
        let gone = state.withdraw(is_gone);
        if !gone.is_empty() && !state.has_incoming() && state.phase() != Phase::Closed {
            self.bell.ring(false);
        }
        gone
    }

    /// Begins the one connect of this endpoint.
    ///
    /// # Errors
    /// [`Refused::Bound`], [`Refused::Closed`].
    pub fn begin_connect(&self) -> Result<(), Refused> {
        if mutated!(self.names.mutations, ConnectAnyhow) {
            lock(&self.state).connect_anyhow();
            return Ok(());
        }
        lock(&self.state).begin_connect()
    }

    /// The connect has come to an end.
    ///
    /// # Errors
    /// Given back when the endpoint was closed meanwhile: destroy it.
    pub fn complete(&self, outcome: K::Outcome) -> Result<(), K::Outcome> {
        let mut state = lock(&self.state);
        let completed = state.complete(outcome);
        if completed.is_ok() {
            self.bell.ring(true);
            drop(state);
            self.changed.notify_all();
        }
        completed
    }

    /// Waits for the end of the connect.
    ///
    /// # Errors
    /// [`Refused::Closed`] at once when it is or becomes so; [`Refused::TimedOut`].
    pub fn outcome(&self, deadline: Option<Instant>) -> Result<K::Outcome, Refused> {
        let mut state = lock(&self.state);
        loop {
            if let Some(outcome) = state.take_outcome()? {
                return Ok(outcome);
            }
            let in_time;
            (state, in_time) = wait(&self.changed, state, deadline);
            if !in_time {
                return Err(Refused::TimedOut);
            }
        }
    }

    /// Ends it: its name is free, waits end, and nothing comes in any more. Waits for nobody. What is left, for the
    /// first who closes it, is to be dropped outside of locks.
    pub fn close(&self) -> Option<Remains<K::Incoming, K::Outcome>> {
        let remains = lock(&self.state).close();
        if remains.is_some() {
            // For good: a loop that watches it is to find out.
            self.bell.ring(true);
            if !mutated!(self.names.mutations, CloseTellsNobody) {
                self.changed.notify_all();
            }
            let share = lock(&self.names.table).unpublish(self.id);
            drop(share);
        }
        let mut calls = lock(&self.calls);
        if mutated!(self.names.mutations, CloseWaitsForCallback) {
            while calls.runs {
                (calls, _) = wait(&self.changed, calls, None);
            }
        }
        let idle = calls.callback.take();
        drop(calls);
        // What it captured may be anything; it is dropped outside.
        drop(idle);
        remains
    }
}

impl<K: Kind> Held<K> {
    /// Something comes in; one thread brings it all.
    ///
    /// # Errors
    /// Given back when it is not wanted: closed, not listening, or the backlog is full.
    pub fn deliver(&self, item: K::Incoming) -> Result<(), K::Incoming> {
        {
            let mut state = lock(&self.0.state);
            if mutated!(self.0.names.mutations, DeliverAfterClose) {
                state.deliver_anyhow(item);
            } else if state.deliver(item)? {
                self.0.bell.ring(true);
            }
        }
        self.0.changed.notify_one();
        let callback = {
            let mut calls = lock(&self.0.calls);
            calls.runs = calls.callback.is_some();
            calls.callback.take()
        };
        let Some(mut callback) = callback else { return Ok(()) };
        callback(self);
        let mut calls = lock(&self.0.calls);
        calls.runs = false;
        // Closed meanwhile, perhaps by itself, or another was put in its place: then it ends here.
        let over = calls.callback.is_some() || self.phase() == Phase::Closed;
        let dropped = if over { Some(callback) } else { calls.callback.replace(callback) };
        drop(calls);
        drop(dropped);
        if mutated!(self.0.names.mutations, CloseWaitsForCallback) {
            self.0.changed.notify_all();
        }
        Ok(())
    }
}

impl<K: Kind> Drop for Endpoint<K> {
    fn drop(&mut self) {
        if !is_unwinding() && !mutated!(self.names.mutations, KeepClosed) {
            lock(&self.names.table).release(self.id);
        }
    }
}
