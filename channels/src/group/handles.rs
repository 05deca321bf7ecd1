//! Links and connections as threads have them: a handle is a hold.

use std::fmt;
use std::ops::Deref;
use std::time::Instant;

use super::mutation::Mutation;
use super::shared::Shared;
use super::sync::{Arc, Condvar, is_unwinding, lock, wait};
use super::table::Given;
use super::{Kind, Over, Refused};

/// A hold on a link.
pub struct Link<K: Kind> {
    link: Arc<LinkInner<K>>,
}

struct LinkInner<K: Kind> {
    id: u64,
    carries: K::Link,
    group: Arc<Shared<K>>,
}

/// A handle of a connection.
pub struct Held<K: Kind> {
    connection: Arc<ConnectionInner<K>>,
}

struct ConnectionInner<K: Kind> {
    id: u64,
    carries: K::Connection,
    changed: Condvar,
    group: Arc<Shared<K>>,
}

/// Who made a connection. Its drop closes it.
pub struct Connection<K: Kind>(Held<K>);

/// Where a connection is now.
#[derive(Debug)]
pub struct Placed<K: Kind> {
    /// The link, held.
    pub link: Link<K>,
    /// How often the connection has moved: a number for each link that it was on.
    pub moves: u32,
}

impl<K: Kind> Link<K> {
    pub(super) fn new(id: u64, carries: K::Link, group: Arc<Shared<K>>) -> Self {
        Self { link: Arc::new(LinkInner { id, carries, group }) }
    }

    pub(super) fn id(&self) -> u64 {
        self.link.id
    }

    /// Holds on it now.
    pub(super) fn holds(&self) -> usize {
        Arc::strong_count(&self.link)
    }

    /// Whether both are the same link.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.link, &other.link)
    }
}

impl<K: Kind> Deref for Link<K> {
    type Target = K::Link;

    fn deref(&self) -> &K::Link {
        &self.link.carries
    }
}

impl<K: Kind> Clone for Link<K> {
    fn clone(&self) -> Self {
        Self { link: Arc::clone(&self.link) }
    }
}

impl<K: Kind> Drop for LinkInner<K> {
    fn drop(&mut self) {
        if !is_unwinding() {
            lock(&self.group.table).release_link();
            self.group.drained.notify_all();
        }
    }
}

impl<K: Kind> Held<K> {
    fn group(&self) -> &Shared<K> {
        &self.connection.group
    }

    /// Wakes whoever waits. What they wait for was changed under the lock.
    pub(super) fn notify(&self) {
        self.connection.changed.notify_all();
    }

    /// Puts it on a link, chosen by the group's policy for who comes from this processor.
    ///
    /// # Errors
    /// [`Refused::NoLink`], [`Refused::Connected`], [`Refused::WasConnected`], [`Refused::Ended`].
    pub fn connect(&self, processor: u32) -> Result<(), Refused> {
        let (id, mut table) = (self.connection.id, lock(&self.group().table));
        let link = table.pick_for(id, processor)?;
        if self.group().mutant.lacks(Mutation::PickThenHold) {
            let held = table.link(link).ok_or(Refused::NoLink)?;
            drop(table);
            // It may be cleared here.
            return lock(&self.group().table).attach_held(id, link, held, self.clone());
        }
        table.attach(id, link, self.clone())
    }

    /// Whether it is connected now. The error of [`check`](Self::check) says whether it ever was.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.check().is_ok()
    }

    /// An error if it is not connected now.
    ///
    /// # Errors
    /// [`Refused::NeverConnected`], [`Refused::WasConnected`].
    pub fn check(&self) -> Result<(), Refused> {
        lock(&self.group().table).is_valid(self.connection.id)
    }

    /// The link that it is on.
    ///
    /// # Errors
    /// [`Refused::NeverConnected`], [`Refused::WasConnected`].
    pub fn place(&self) -> Result<Placed<K>, Refused> {
        let (link, moves) = lock(&self.group().table).place(self.connection.id)?;
        Ok(Placed { link, moves })
    }

    /// How much has happened to it: a number for [`wait`](Self::wait), taken before the look at whatever is waited for.
    #[must_use]
    pub fn changes(&self) -> u64 {
        lock(&self.group().table).changes(self.connection.id)
    }

    /// Something has happened to it: whoever waits looks again.
    pub fn wake(&self) {
        lock(&self.group().table).change(self.connection.id);
        self.connection.changed.notify_all();
    }

    /// Waits until more than `seen` has happened to it: somebody [wakes](Self::wake) it, it moves, or it is over.
    ///
    /// # Errors
    /// [`Refused::WasConnected`] as soon as it is over; [`Refused::NeverConnected`]; [`Refused::TimedOut`].
    pub fn wait(&self, seen: u64, deadline: Option<Instant>) -> Result<(), Refused> {
        let mut table = lock(&self.group().table);
        loop {
            table.is_valid(self.connection.id)?;
            if table.changes(self.connection.id) != seen {
                return Ok(());
            }
            let in_time;
            (table, in_time) = wait(&self.connection.changed, table, deadline);
            if !in_time {
                return Err(Refused::TimedOut);
            }
        }
    }

    /// It is over: its holds go back, and whoever waits is woken. Once; a second time there is nothing left to do.
    pub fn close(&self) {
        let mutant = self.group().mutant;
        let mut table = lock(&self.group().table);
        let given: Given<Link<K>, Self> = if mutant.lacks(Mutation::CloseKeepsPlace) {
            table.finish(self.connection.id, Over::Closed)
        } else {
            table.close(self.connection.id, Over::Closed)
        };
        drop(table);
        self.connection.changed.notify_all();
        if mutant.lacks(Mutation::CloseKeepsLink) {
            std::mem::forget(given.0);
        }
    }
}

impl<K: Kind> Deref for Held<K> {
    type Target = K::Connection;

    fn deref(&self) -> &K::Connection {
        &self.connection.carries
    }
}

impl<K: Kind> Clone for Held<K> {
    fn clone(&self) -> Self {
        Self { connection: Arc::clone(&self.connection) }
    }
}

impl<K: Kind> Drop for ConnectionInner<K> {
    fn drop(&mut self) {
        if !is_unwinding() {
            let given = lock(&self.group.table).release(self.id);
            drop(given);
        }
    }
}

impl<K: Kind> Connection<K> {
    pub(super) fn new(id: u64, carries: K::Connection, group: Arc<Shared<K>>) -> Self {
        Self(Held { connection: Arc::new(ConnectionInner { id, carries, changed: Condvar::new(), group }) })
    }

    /// A handle for somebody else.
    #[must_use]
    pub fn share(&self) -> Held<K> {
        self.0.clone()
    }
}

impl<K: Kind> Deref for Connection<K> {
    type Target = Held<K>;

    fn deref(&self) -> &Held<K> {
        &self.0
    }
}

impl<K: Kind> Drop for Connection<K> {
    fn drop(&mut self) {
        if !is_unwinding() {
            self.0.close();
        }
    }
}

impl<K: Kind> fmt::Debug for Link<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Link").field("id", &self.link.id).finish_non_exhaustive()
    }
}

impl<K: Kind> fmt::Debug for Held<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Held").field("id", &self.connection.id).finish_non_exhaustive()
    }
}

impl<K: Kind> fmt::Debug for Connection<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
