//! Protections of groups that tests take away, one at a time. In ordinary builds none can be.

/// A protection to do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// R2.1: a link that is cleared keeps its own hold.
    KeepCleared,
    /// R2.1: a connection that is closed keeps its hold on the link.
    CloseKeepsLink,
    /// R2.1: a connection that is closed keeps its place among those of its link, and moves when that dies.
    CloseKeepsPlace,
    /// R2.3: a link is picked in one step and held in a second, whatever has become of it.
    PickThenHold,
    /// R2.3: the old link is put before the new one is held.
    PutThenHold,
    /// R2.3: who is to move is found out first, and moved in a second step, whatever has become of it.
    MoveBySteps,
    /// R2.4: those who wait are not told that the link is cleared.
    ClearTellsNobody,
    /// R2.4: clearing waits until nobody holds the link any more.
    ClearWaits,
    /// R2.4: whoever has the sender does not look again for those who came meanwhile.
    TurnMissed,
}

/// What is taken away from one group.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mutant {
    #[cfg(any(test, loom, shuttle))]
    pub(super) without: Option<Mutation>,
}

impl Mutant {
    /// Without this protection.
    #[cfg(any(test, loom, shuttle))]
    pub(super) const fn without(without: Option<Mutation>) -> Self {
        Self { without }
    }

    /// Whether this protection is gone.
    #[inline(always)]
    pub(super) fn lacks(self, which: Mutation) -> bool {
        #[cfg(any(test, loom, shuttle))]
        return self.without == Some(which);
        #[cfg(not(any(test, loom, shuttle)))]
        {
            let _ = which;
            false
        }
    }
}
