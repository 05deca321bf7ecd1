//! Which names are taken, and by whom: a pure table of slots with generations.

use std::collections::HashMap;

use uuid::Uuid;

use super::Refused;

/// A slot and the generation of its content: never the name of two endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EndpointId {
    index: u32,
    generation: u32,
}

#[derive(Debug)]
enum Slot<E> {
    /// Nothing is here.
    Free,
    /// The name is not to be used by others, and nothing is found by it; whose it is, once it is somebody's.
    Reserved(Uuid, Option<E>),
    /// The endpoint is found by its name.
    Bound(Uuid, E),
    /// It is not found any more; the slot waits for the last who holds it.
    Closing,
}

/// The table. `E` is a share of an endpoint, which whoever looks one up gets a clone of.
#[derive(Debug)]
pub struct Table<E> {
    slots: Vec<(u32, Slot<E>)>,
    free: Vec<u32>,
    names: HashMap<Uuid, u32>,
    most: usize,
    /// Nothing new is taken in: the sockets' end.
    ended: bool,
}

impl<E: Clone> Table<E> {
    /// An empty table for at most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { slots: Vec::new(), free: Vec::new(), names: HashMap::new(), most, ended: false }
    }

    /// Whether a name can be had.
    ///
    /// # Errors
    /// [`Refused::Taken`], [`Refused::Ended`].
    pub fn check(&self, name: Uuid) -> Result<(), Refused> {
        if self.ended {
            Err(Refused::Ended)
        } else if self.names.contains_key(&name) {
            Err(Refused::Taken)
        } else {
            Ok(())
        }
    }

    /// Reserves a name for the endpoint that `make` makes: checked and set in one step.
    ///
    /// # Errors
    /// As [`check`](Self::check); [`Refused::Full`]. Nothing is made then.
    pub fn reserve(&mut self, name: Uuid, make: impl FnOnce(EndpointId) -> E) -> Result<E, Refused> {
        self.check(name)?;
        let id = self.allocate(name)?;
        let endpoint = make(id);
        self.put(id, Slot::Reserved(name, Some(endpoint.clone())));
        self.names.insert(name, id.index);
        Ok(endpoint)
    }

    /// Takes a place for a name before there is anybody to have it: without protection.
    pub(super) fn place(&mut self, name: Uuid) -> Result<EndpointId, Refused> {
        self.check(name)?;
        let id = self.allocate(name)?;
        self.names.insert(name, id.index);
        Ok(id)
    }

    /// The same whoever has the name: without protection.
    pub(super) fn place_anyhow(&mut self, name: Uuid) -> Result<EndpointId, Refused> {
        let id = self.allocate(name)?;
        self.names.insert(name, id.index);
        Ok(id)
    }

    /// Binds a name to the endpoint that `make` makes: checked and set in one step, and the share is there before the
    /// name is.
    ///
    /// # Errors
    /// As [`reserve`](Self::reserve); nothing is made then.
    pub fn bind(&mut self, name: Uuid, make: impl FnOnce(EndpointId) -> E) -> Result<E, Refused> {
        self.check(name)?;
        let id = self.allocate(name)?;
        let endpoint = make(id);
        self.put(id, Slot::Bound(name, endpoint.clone()));
        self.names.insert(name, id.index);
        Ok(endpoint)
    }

    /// Who has a name, held. Reserved names find nobody.
    #[must_use]
    pub fn look_up(&self, name: Uuid) -> Option<E> {
        self.endpoint_at(*self.names.get(&name)?)
    }

    /// The endpoint that is bound at a place, whichever it is now.
    pub(super) fn endpoint_at(&self, index: u32) -> Option<E> {
        match self.slots.get(usize::try_from(index).ok()?) {
            Some((_, Slot::Bound(_, endpoint))) => Some(endpoint.clone()),
            _ => None,
        }
    }

    /// Where a name is.
    pub(super) fn place_of(&self, name: Uuid) -> Option<u32> {
        self.names.get(&name).copied()
    }

    /// Puts an endpoint where a name was reserved for it, whatever has happened there since: without protection.
    pub(super) fn fill(&mut self, id: EndpointId, name: Uuid, endpoint: E) {
        self.put(EndpointId { generation: self.generation(id.index), ..id }, Slot::Bound(name, endpoint));
        self.names.insert(name, id.index);
    }

    /// Takes the name away, so that nothing finds the endpoint any more; whether it had one. The share that the table
    /// had is returned, to be dropped outside of locks. The slot stays until [`release`](Self::release).
    pub fn unpublish(&mut self, id: EndpointId) -> Option<E> {
        if self.generation(id.index) != id.generation {
            return None;
        }
        let slot = self.slots.get_mut(usize::try_from(id.index).ok()?)?;
        match std::mem::replace(&mut slot.1, Slot::Closing) {
            Slot::Bound(name, endpoint) => {
                self.names.remove(&name);
                Some(endpoint)
            }
            Slot::Reserved(name, endpoint) => {
                self.names.remove(&name);
                endpoint
            }
            other => {
                slot.1 = other;
                None
            }
        }
    }

    /// Gives a slot back: nobody holds what was there.
    pub fn release(&mut self, id: EndpointId) {
        drop(self.unpublish(id));
        if let Some((generation, slot)) = usize::try_from(id.index).ok().and_then(|index| self.slots.get_mut(index))
            && *generation == id.generation
            && matches!(slot, Slot::Closing)
        {
            *slot = Slot::Free;
            *generation = generation.wrapping_add(1);
            self.free.push(id.index);
        }
    }

    /// From here on nothing new is taken in; everybody who is there.
    pub fn end(&mut self) -> Vec<E> {
        self.ended = true;
        let bound = |slot: &(u32, Slot<E>)| match &slot.1 {
            Slot::Bound(_, endpoint) => Some(endpoint.clone()),
            Slot::Reserved(_, endpoint) => endpoint.clone(),
            Slot::Free | Slot::Closing => None,
        };
        self.slots.iter().filter_map(bound).collect()
    }

    /// Slots that are not free.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Names that are taken.
    #[must_use]
    pub fn names(&self) -> usize {
        self.names.len()
    }

    fn allocate(&mut self, name: Uuid) -> Result<EndpointId, Refused> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < self.most => {
                self.slots.push((0, Slot::Free));
                u32::try_from(self.slots.len() - 1).map_err(|_| Refused::Full)?
            }
            None => return Err(Refused::Full),
        };
        let id = EndpointId { index, generation: self.generation(index) };
        self.put(id, Slot::Reserved(name, None));
        Ok(id)
    }

    fn generation(&self, index: u32) -> u32 {
        usize::try_from(index).ok().and_then(|index| self.slots.get(index)).map_or(0, |slot| slot.0)
    }

    fn put(&mut self, id: EndpointId, content: Slot<E>) {
        if let Some(slot) = usize::try_from(id.index).ok().and_then(|index| self.slots.get_mut(index)) {
            *slot = (id.generation, content);
        }
    }
}
