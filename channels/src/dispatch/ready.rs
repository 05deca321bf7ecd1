//! Channels that have work, each at most once, in the order in which they got it.

/// Channels that have work.
#[derive(Debug)]
pub struct ReadyList {
    /// A circle with a place for every relid.
    order: Box<[usize]>,
    first: usize,
    length: usize,
    /// Which are in it: a bit per relid.
    listed: Box<[u64]>,
}

impl ReadyList {
    /// An empty one, for relids below `relids`.
    #[must_use]
    pub fn new(relids: usize) -> Self {
        let order = vec![0; relids.max(1)].into_boxed_slice();
        Self { order, first: 0, length: 0, listed: vec![0; relids.div_ceil(64)].into_boxed_slice() }
    }

    /// Puts a relid at the end, unless it is listed.
    #[inline]
    pub fn push(&mut self, relid: usize) {
        let Some(word) = self.listed.get_mut(relid / 64) else { return };
        let bit = 1 << (relid % 64);
        if *word & bit != 0 {
            return;
        }
        *word |= bit;
        let mut end = self.first + self.length;
        if end >= self.order.len() {
            end -= self.order.len();
        }
        if let Some(place) = self.order.get_mut(end) {
            *place = relid;
            self.length += 1;
        }
    }

    /// Takes the first.
    pub fn pop(&mut self) -> Option<usize> {
        if self.length == 0 {
            return None;
        }
        let relid = *self.order.get(self.first)?;
        self.first = if self.first + 1 == self.order.len() { 0 } else { self.first + 1 };
        self.length -= 1;
        self.forget(relid);
        Some(relid)
    }

    /// Takes a relid out, wherever it stands. In proportion to what is listed.
    pub fn remove(&mut self, relid: usize) {
        if !self.forget(relid) {
            return;
        }
        for _ in 0..self.length {
            let Some(other) = self.order.get(self.first).copied() else { return };
            self.first = if self.first + 1 == self.order.len() { 0 } else { self.first + 1 };
            self.length -= 1;
            if other != relid {
                self.forget(other);
                self.push(other);
            }
        }
    }

    /// Whether nothing has work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// How many have work.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    fn forget(&mut self, relid: usize) -> bool {
        let Some(word) = self.listed.get_mut(relid / 64) else { return false };
        let bit = 1 << (relid % 64);
        let listed = *word & bit != 0;
        *word &= !bit;
        listed
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::ReadyList;

    #[test]
    fn each_once_and_in_order() {
        let mut list = ReadyList::new(128);
        for relid in [5, 127, 5, 64, 127] {
            list.push(relid);
        }
        assert_eq!(list.len(), 3);
        assert_eq!([list.pop(), list.pop(), list.pop(), list.pop()], [Some(5), Some(127), Some(64), None]);
    }

    #[test]
    fn the_circle_goes_round_and_a_removal_keeps_the_order() {
        let mut list = ReadyList::new(4);
        for round in 0..10 {
            for relid in 0..4 {
                list.push(relid);
            }
            list.remove(round % 4);
            let left: Vec<_> = std::iter::from_fn(|| list.pop()).collect();
            assert_eq!(left, (0..4).filter(|relid| *relid != round % 4).collect::<Vec<_>>(), "round {round}");
            // Shifts the circle.
            list.push(round % 4);
            assert_eq!(list.pop(), Some(round % 4));
            assert!(list.is_empty());
        }
    }

    #[test]
    fn relids_out_of_range_are_not_listed() {
        let mut list = ReadyList::new(64);
        list.push(64);
        list.push(usize::MAX);
        list.remove(usize::MAX);
        assert!(list.is_empty());
    }
}
