//! Protections that a model takes away to see that it would notice. In ordinary builds none can be.

/// A protection taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// The event flag of a retired channel stays as it is, and so it is found by the next one.
    FlagKept,
    /// A retirement is answered while the entry is still in the map.
    AnsweredEarly,
    /// Forwarded events and orders are taken by relid alone.
    GenerationIgnored,
    /// The queue's flag is put up by a plain store.
    PendingStored,
    /// The queue's flag is taken down by a plain store.
    OpenedByStore,
    /// A dispatcher goes to sleep without a fence.
    SleepUnfenced,
    /// A sender looks for a sleeper without a fence.
    SendUnfenced,
    /// A notifier looks at its flag without a fence.
    RaiseUnfenced,
    /// A notifier's event is read after its flag was taken down.
    ClearedInWrongOrder,
    /// Nothing is left behind where a channel was.
    NoMarker,
    /// A channel that arrives is not looked after, and a flag that is left when its marker goes is dropped.
    NoLook,
    /// A flag that is left when a marker goes is dropped.
    MarkerDropsFlag,
    /// Who reads a descriptor that both halves sleep on keeps that to itself.
    NotPassedOn,
    /// A sender who waits for room hears nothing from the dispatcher.
    RoomNotTold,
    /// The alarm of a channel that is retired or leaves is not cancelled.
    AlarmKept,
    /// A channel that comes is not asked when it wants to be called.
    NotAsked,
    /// A timer is called without a look at what lies in the ring.
    CalledBlind,
    /// What an entry holds is dropped when it comes, and not when it is retired.
    HoldDropped,
    /// On a processor of its own a channel's flag is left set after a wake-up.
    FlagLeft,
}

/// Which protection is taken away from one object.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mutant {
    #[cfg(any(test, loom, shuttle))]
    which: Option<Mutation>,
}

impl Mutant {
    /// Without this protection.
    #[cfg(any(test, loom, shuttle))]
    #[must_use]
    pub fn without(which: Option<Mutation>) -> Self {
        Self { which }
    }

    /// Whether this protection is gone.
    #[inline(always)]
    pub(super) fn lacks(self, which: Mutation) -> bool {
        #[cfg(any(test, loom, shuttle))]
        return self.which == Some(which);
        #[cfg(not(any(test, loom, shuttle)))]
        {
            let _ = which;
            false
        }
    }
}
