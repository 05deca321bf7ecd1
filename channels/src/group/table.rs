//! The table of a group: which links there are, and which connection is on which. Pure; the lock is `shared`'s.
//!
//! Ids are never used again. A hold is a value (`L`, `C`) that is moved in and out, so it can't be given back twice: whoever
//! takes something out of the table gets what is to be dropped, once, and drops it outside of the lock.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::Candidate;
use super::{Counts, Over, Policy, Refused};

/// A link as it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LinkSettings {
    /// With it the group ends.
    pub(super) is_primary: bool,
    /// Where its interrupts go.
    pub(super) processor: u32,
}

/// A link that is not cleared.
#[derive(Debug)]
struct LinkEntry<L> {
    /// The link's own hold.
    own: L,
    settings: LinkSettings,
    /// Fully built: connections may be put on it.
    joined: bool,
    /// Who is on it.
    connections: BTreeSet<u64>,
}

/// Where a connection is.
#[derive(Debug)]
enum Place<L> {
    /// It was never connected.
    Never,
    /// On this link, and held by it.
    On { id: u64, link: L, moves: u32 },
    /// It was connected, and is over.
    Was(Over),
}

/// A connection that somebody has a handle of.
#[derive(Debug)]
struct ConnectionEntry<L, C> {
    place: Place<L>,
    /// The table's share of it, while it is on a link.
    share: Option<C>,
    /// Whether it can go on on another link.
    can_move: bool,
    /// Where it came from, for the policy.
    processor: u32,
    /// What has happened to it, counted for those who wait.
    changes: u64,
}

/// What a connection gives back.
pub(super) type Given<L, C> = (Option<L>, Option<C>);

/// What comes of clearing links.
#[derive(Debug)]
pub(super) struct Taken<L, C> {
    /// The links' own holds.
    pub(super) links: Vec<L>,
    /// Connections that go on on another link, with their holds on the old one.
    pub(super) moved: Vec<(C, L)>,
    /// Connections that are over.
    pub(super) ended: Vec<Given<L, C>>,
}

impl<L, C> Default for Taken<L, C> {
    fn default() -> Self {
        Self { links: Vec::new(), moved: Vec::new(), ended: Vec::new() }
    }
}

/// Links and connections.
#[derive(Debug)]
pub(super) struct Table<L, C> {
    policy: Policy,
    most: usize,
    over: Option<Over>,
    links: BTreeMap<u64, LinkEntry<L>>,
    connections: BTreeMap<u64, ConnectionEntry<L, C>>,
    /// The last id that was given.
    last_id: u64,
    /// The link that was picked last.
    last_link: u64,
    /// Links somebody holds.
    held_links: usize,
    moves: u64,
}

impl<L: Clone, C: Clone> Table<L, C> {
    pub(super) fn new(policy: Policy, most: usize) -> Self {
        let (links, connections) = (BTreeMap::new(), BTreeMap::new());
        Self { policy, most, over: None, links, connections, last_id: 0, last_link: 0, held_links: 0, moves: 0 }
    }

    fn alive(&self) -> Result<(), Refused> {
        self.over.map_or(Ok(()), |over| Err(Refused::Ended(over)))
    }

    fn next_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// A new link, which nobody picks yet.
    pub(super) fn make(&mut self, settings: LinkSettings, make: impl FnOnce(u64) -> L) -> Result<L, Refused> {
        self.alive()?;
        let id = self.next_id();
        let own = make(id);
        self.held_links += 1;
        let entry = LinkEntry { own: own.clone(), settings, joined: false, connections: BTreeSet::new() };
        self.links.insert(id, entry);
        Ok(own)
    }

    /// A link is fully built.
    pub(super) fn join(&mut self, link: u64) -> Result<(), Refused> {
        self.alive()?;
        self.links.get_mut(&link).ok_or(Refused::Cleared)?.joined = true;
        Ok(())
    }

    /// The last hold on a link is gone.
    pub(super) fn release_link(&mut self) {
        self.held_links = self.held_links.saturating_sub(1);
    }

    /// A new connection, not connected.
    pub(super) fn add<T>(&mut self, can_move: bool, make: impl FnOnce(u64) -> T) -> Result<T, Refused> {
        self.alive()?;
        if self.connections.len() >= self.most {
            return Err(Refused::Full);
        }
        let id = self.next_id();
        let entry = ConnectionEntry { place: Place::Never, share: None, can_move, processor: 0, changes: 0 };
        self.connections.insert(id, entry);
        Ok(make(id))
    }

    /// The last handle of a connection is gone.
    pub(super) fn release(&mut self, connection: u64) -> Given<L, C> {
        // It is on no link: there the table would have a handle.
        let gone = self.connections.remove(&connection);
        gone.map_or((None, None), |entry| (into_link(entry.place), entry.share))
    }

    /// A link for a connection that comes from this processor.
    pub(super) fn pick(&mut self, processor: u32) -> Result<u64, Refused> {
        self.alive()?;
        let joined = self.links.iter().filter(|(_, entry)| entry.joined);
        let candidates = joined.map(|(id, entry)| Candidate {
            id: *id,
            processor: entry.settings.processor,
            load: entry.connections.len(),
        });
        let picked = self.policy.pick(candidates, self.last_link, processor).ok_or(Refused::NoLink)?;
        self.last_link = picked;
        Ok(picked)
    }

    /// A link for this connection, which comes from this processor, also when it moves.
    pub(super) fn pick_for(&mut self, connection: u64, processor: u32) -> Result<u64, Refused> {
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.processor = processor;
        }
        self.pick(processor)
    }

    /// The link of this id, if it is there.
    pub(super) fn link(&self, link: u64) -> Option<L> {
        self.links.get(&link).map(|entry| entry.own.clone())
    }

    /// All links that are not cleared.
    pub(super) fn all_links(&self) -> Vec<L> {
        self.links.values().map(|entry| entry.own.clone()).collect()
    }

    /// Puts a connection on a link.
    pub(super) fn attach(&mut self, connection: u64, link: u64, share: C) -> Result<(), Refused> {
        let held = self.link(link).ok_or(Refused::NoLink)?;
        self.attach_held(connection, link, held, share)
    }

    /// Puts a connection on a link that is held already. (Apart from [`attach`](Self::attach) it is a mutant's.)
    pub(super) fn attach_held(&mut self, connection: u64, id: u64, link: L, share: C) -> Result<(), Refused> {
        let entry = self.connections.get_mut(&connection).ok_or(Refused::WasConnected(Over::Closed))?;
        match entry.place {
            Place::Never => {}
            Place::On { .. } => return Err(Refused::Connected),
            Place::Was(over) => return Err(Refused::WasConnected(over)),
        }
        (entry.place, entry.share) = (Place::On { id, link, moves: 0 }, Some(share));
        if let Some(link) = self.links.get_mut(&id) {
            link.connections.insert(connection);
        }
        Ok(())
    }

    /// Whether a connection is on a link. The one test of validity, with three origins.
    pub(super) fn is_valid(&self, connection: u64) -> Result<(), Refused> {
        self.placed(connection).map(drop)
    }

    /// The link that a connection is on, and how often it has moved.
    pub(super) fn place(&self, connection: u64) -> Result<(L, u32), Refused> {
        self.placed(connection).map(|(link, moves)| (link.clone(), moves))
    }

    fn placed(&self, connection: u64) -> Result<(&L, u32), Refused> {
        match self.connections.get(&connection).map(|entry| &entry.place) {
            Some(Place::On { link, moves, .. }) => Ok((link, *moves)),
            Some(Place::Was(over)) => Err(Refused::WasConnected(*over)),
            Some(Place::Never) | None => Err(Refused::NeverConnected),
        }
    }

    /// What has happened to a connection so far.
    pub(super) fn changes(&self, connection: u64) -> u64 {
        self.connections.get(&connection).map_or(0, |entry| entry.changes)
    }

    /// Something has happened to a connection.
    pub(super) fn change(&mut self, connection: u64) {
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.changes += 1;
        }
    }

    /// A connection is over; what it gives back. The first reason stays.
    pub(super) fn close(&mut self, connection: u64, over: Over) -> Given<L, C> {
        let place = self.connections.get(&connection).map(|entry| &entry.place);
        if let Some(Place::On { id, .. }) = place
            && let Some(link) = self.links.get_mut(id)
        {
            link.connections.remove(&connection);
        }
        self.finish(connection, over)
    }

    /// The same but for the place among those of its link.
    pub(super) fn finish(&mut self, connection: u64, over: Over) -> Given<L, C> {
        let Some(entry) = self.connections.get_mut(&connection) else { return (None, None) };
        if matches!(entry.place, Place::Was(_)) {
            return (None, None);
        }
        entry.changes += 1;
        let place = std::mem::replace(&mut entry.place, Place::Was(over));
        (into_link(place), entry.share.take())
    }

    /// Gives the table a share of a connection that is on no link: a mutant's.
    pub(super) fn share_again(&mut self, connection: u64, share: C) {
        if let Some(entry) = self.connections.get_mut(&connection) {
            entry.share = Some(share);
        }
    }

    /// Takes a link out, with whom it leaves behind, and says whether it was the primary one. Once: then there is none.
    pub(super) fn take_out(&mut self, link: u64) -> Option<(L, BTreeSet<u64>, bool)> {
        self.links.remove(&link).map(|entry| (entry.own, entry.connections, entry.settings.is_primary))
    }

    /// Puts a connection, wherever it is, on another link, or ends it if it can't go there. The new link is held before the
    /// old one is put.
    pub(super) fn move_on(&mut self, connection: u64, taken: &mut Taken<L, C>) {
        let Some(entry) = self.connections.get(&connection) else { return };
        let (can_move, processor) = (entry.can_move, entry.processor);
        let new = if can_move { self.pick(processor).map_err(|_| Over::NoLink) } else { Err(Over::LinkLost) };
        let held = new.and_then(|id| self.link(id).map(|link| (id, link)).ok_or(Over::NoLink));
        let (id, new) = match held {
            Ok(held) => held,
            Err(over) => return taken.ended.push(self.close(connection, over)),
        };
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        let moves = match &entry.place {
            Place::On { moves, .. } => moves.saturating_add(1),
            Place::Never | Place::Was(_) => 1,
        };
        entry.changes += 1;
        let old = std::mem::replace(&mut entry.place, Place::On { id, link: new, moves });
        self.moves += 1;
        if let (Some(old), Some(share)) = (into_link(old), entry.share.clone()) {
            taken.moved.push((share, old));
        }
        if let Some(link) = self.links.get_mut(&id) {
            link.connections.insert(connection);
        }
    }

    /// Ends everything: nothing comes in any more. The first reason stays.
    pub(super) fn end(&mut self, over: Over) -> Taken<L, C> {
        let mut taken = Taken::default();
        self.over.get_or_insert(over);
        taken.links.extend(std::mem::take(&mut self.links).into_values().map(|entry| entry.own));
        // One that was never connected stays what it is.
        let connected = self.connections.iter().filter(|(_, entry)| matches!(entry.place, Place::On { .. }));
        let connections: Vec<u64> = connected.map(|(id, _)| *id).collect();
        taken.ended.extend(connections.into_iter().map(|connection| self.close(connection, over)));
        taken
    }

    /// Why the group is over, if it is.
    pub(super) fn over(&self) -> Option<Over> {
        self.over
    }

    pub(super) fn counts(&self) -> Counts {
        let connected = |entry: &&ConnectionEntry<L, C>| matches!(entry.place, Place::On { .. });
        Counts {
            links: self.links.values().filter(|entry| entry.joined).count(),
            held_links: self.held_links,
            connected: self.connections.values().filter(connected).count(),
            held_connections: self.connections.len(),
            moves: self.moves,
        }
    }

    /// Whether it contradicts itself, and how: for tests.
    #[cfg(any(test, loom, shuttle))]
    pub(super) fn contradiction(&self) -> Option<&'static str> {
        for (connection, entry) in &self.connections {
            match &entry.place {
                Place::On { id, .. } => match self.links.get(id) {
                    None => return Some("a connection is on a link that was cleared"),
                    Some(link) if !link.connections.contains(connection) => return Some("a link does not know of one"),
                    Some(_) if entry.share.is_none() => return Some("a connection on a link has no share"),
                    Some(_) => {}
                },
                _ if entry.share.is_some() => return Some("a connection on no link has a share"),
                _ if self.links.values().any(|link| link.connections.contains(connection)) => {
                    return Some("a connection on no link is among those of one");
                }
                _ => {}
            }
        }
        None
    }
}

fn into_link<L>(place: Place<L>) -> Option<L> {
    match place {
        Place::On { link, .. } => Some(link),
        Place::Never | Place::Was(_) => None,
    }
}
