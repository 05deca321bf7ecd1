//! A group as threads share it: one lock around its table, and whoever waits is woken behind it.

use std::fmt;

use super::handles::{Connection, Held, Link};
use super::mutation::{Mutant, Mutation};
use super::sync::{Arc, Condvar, Mutex, is_unwinding, lock, wait};
use super::table::{LinkSettings, Table, Taken};
use super::{Counts, Kind, Over, Policy, Refused};

/// What all holds on a group share.
pub(super) struct Shared<K: Kind> {
    pub(super) table: Mutex<Table<Link<K>, Held<K>>>,
    /// A link's last hold was given back: for a mutant that waits for that.
    pub(super) drained: Condvar,
    pub(super) mutant: Mutant,
}

/// A group, held by its creator, whose drop ends it. Links and connections hold it as well: their handles stay good for an
/// answer.
pub struct Group<K: Kind> {
    shared: Arc<Shared<K>>,
}

/// Who was on a link that was cleared, or in a group that has ended.
#[derive(Debug)]
pub struct Cleared<K: Kind> {
    /// They go on on another link.
    pub moved: Vec<Held<K>>,
    /// They are over.
    pub ended: Vec<Held<K>>,
    /// The links that are out of the group now.
    pub links: Vec<Link<K>>,
}

impl<K: Kind> Group<K> {
    /// A group without links, with at most so many connections.
    #[must_use]
    pub fn new(policy: Policy, most: usize) -> Self {
        Self::with(policy, most, Mutant::default())
    }

    /// The same without a protection, for models.
    #[cfg(any(test, loom, shuttle))]
    #[must_use]
    pub fn without(policy: Policy, most: usize, mutation: Option<Mutation>) -> Self {
        Self::with(policy, most, Mutant::without(mutation))
    }

    fn with(policy: Policy, most: usize, mutant: Mutant) -> Self {
        let table = Mutex::new(Table::new(policy, most));
        Self { shared: Arc::new(Shared { table, drained: Condvar::new(), mutant }) }
    }

    /// A new link, which no connection is put on before it has [joined](Self::join). With a primary one the group ends.
    ///
    /// # Errors
    /// [`Refused::Ended`].
    pub fn link(&self, carries: K::Link, is_primary: bool, processor: u32) -> Result<Link<K>, Refused> {
        let group = Arc::clone(&self.shared);
        let make = |id| Link::new(id, carries, group);
        lock(&self.shared.table).make(LinkSettings { is_primary, processor }, make)
    }

    /// The link is fully built: from now on connections are put on it.
    ///
    /// # Errors
    /// [`Refused::Cleared`] when it was cleared meanwhile; [`Refused::Ended`].
    pub fn join(&self, link: &Link<K>) -> Result<(), Refused> {
        lock(&self.shared.table).join(link.id())
    }

    /// A new connection, which is not connected. One that can't move is over when its link dies.
    ///
    /// # Errors
    /// [`Refused::Full`], [`Refused::Ended`].
    pub fn connection(&self, carries: K::Connection, can_move: bool) -> Result<Connection<K>, Refused> {
        let group = Arc::clone(&self.shared);
        lock(&self.shared.table).add(can_move, |id| Connection::new(id, carries, group))
    }

    /// The link is dead. Its connections move to one that is left, or are over; with the primary one everything is. All of
    /// them are woken, and nobody is waited for. A second time there is nothing left to do.
    pub fn clear(&self, link: &Link<K>) -> Cleared<K> {
        let mut taken = Taken::default();
        let mut table = lock(&self.shared.table);
        if let Some((own, connections, is_primary)) = table.take_out(link.id()) {
            if self.shared.mutant.lacks(Mutation::MoveBySteps) {
                drop(table);
                // What happens to them here is not seen.
                table = lock(&self.shared.table);
            }
            if is_primary {
                taken = table.end(Over::PrimaryLost);
            }
            for connection in connections {
                if is_primary {
                    let given = table.close(connection, Over::PrimaryLost);
                    taken.ended.push(given);
                    continue;
                }
                if self.shared.mutant.lacks(Mutation::PutThenHold) {
                    let given = table.finish(connection, Over::LinkLost);
                    drop(table);
                    // For a moment it is nowhere.
                    table = lock(&self.shared.table);
                    if let (Some(old), Some(share)) = given {
                        table.share_again(connection, share.clone());
                        table.move_on(connection, &mut taken);
                        taken.moved.push((share, old));
                    }
                    continue;
                }
                table.move_on(connection, &mut taken);
            }
            taken.links.push(own);
        }
        if self.shared.mutant.lacks(Mutation::ClearWaits) {
            let Taken { links, moved, ended } = std::mem::take(&mut taken);
            drop(table);
            taken.ended = ended.into_iter().map(|(_old, connection)| (None, connection)).collect();
            drop((links, moved));
            table = lock(&self.shared.table);
            while link.holds() > 1 {
                (table, _) = wait(&self.shared.drained, table, None);
            }
        }
        drop(table);
        self.tell(taken)
    }

    /// Ends the group: every connection is over and every link is cleared. Waits for nobody.
    pub fn end(&self, over: Over) -> Cleared<K> {
        let taken = lock(&self.shared.table).end(over);
        self.tell(taken)
    }

    /// Wakes whom it concerns, and gives back what they held.
    fn tell(&self, taken: Taken<Link<K>, Held<K>>) -> Cleared<K> {
        let Taken { mut links, moved, ended } = taken;
        if self.shared.mutant.lacks(Mutation::KeepCleared) {
            links.drain(..).for_each(std::mem::forget);
        }
        let moved: Vec<_> = moved.into_iter().map(|(connection, _old)| connection).collect();
        let ended: Vec<_> = ended.into_iter().filter_map(|(_old, connection)| connection).collect();
        if !self.shared.mutant.lacks(Mutation::ClearTellsNobody) {
            moved.iter().chain(&ended).for_each(|held| held.notify());
        }
        Cleared { moved, ended, links }
    }

    /// Why it is over, if it is.
    #[must_use]
    pub fn over(&self) -> Option<Over> {
        lock(&self.shared.table).over()
    }

    /// All links that are not cleared, held.
    #[must_use]
    pub fn links(&self) -> Vec<Link<K>> {
        lock(&self.shared.table).all_links()
    }

    /// What there is now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.shared.table).counts()
    }

    /// Whether its table contradicts itself, and how: for models.
    #[cfg(any(test, loom, shuttle))]
    #[must_use]
    pub fn contradiction(&self) -> Option<&'static str> {
        lock(&self.shared.table).contradiction()
    }
}

impl<K: Kind> Drop for Group<K> {
    fn drop(&mut self) {
        if !is_unwinding() {
            drop(self.end(Over::Closed));
        }
    }
}

impl<K: Kind> fmt::Debug for Group<K> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Group").field("counts", &self.counts()).finish_non_exhaustive()
    }
}
