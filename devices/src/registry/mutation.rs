//! Protections that tests take away, one at a time, to show that each is needed. Ordinary builds hold none of this:
//! there [`Mutations::is`] is a constant `false`.

/// A protection to do without.
#[cfg(any(test, feature = "mutations"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// R4.1: `remove` does not wait for callbacks that run elsewhere under a `Use`.
    SkipDrain,
    /// R4.1: `remove` does not wait for a work item, timer or wake-up that is running.
    RemoveWhileWorking,
    /// R4.1: what was due when the removal began still runs, after `remove`.
    RunDiscarded,
    /// R4.1: threads of an instance are not joined.
    ThreadsOutlive,
    /// R4.2: who still holds a reference may still begin to use the device.
    ReferenceKeepsOperable,
    /// R4.3: drivers are called by the thread that answers everybody, as if under a lock.
    CallOnExecutor,
    /// R4.4: a device does not count as taken while its driver is asked, or at all.
    ClaimTwice,
    /// R4.5: a call that waits for callbacks is not refused in one.
    WaitInCallback,
    /// A device that comes back is probed while its former instance is still being removed.
    ProbeBeforeRemoved,
    /// A device that departs while it waits for its probe is probed all the same.
    ProbeDeparted,
    /// One driver may have all workers.
    DriverTakesAllWorkers,
    /// A wake-up says that it is no longer pending after it has run, not before.
    ClearWakeUpLate,
}

/// What is taken away in one registry.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mutations {
    #[cfg(any(test, feature = "mutations"))]
    without: Option<Mutation>,
}

#[cfg(any(test, feature = "mutations"))]
impl Mutations {
    pub(super) fn without(mutation: Option<Mutation>) -> Self {
        Self { without: mutation }
    }
}

/// Whether a protection was taken away: `mutated!(mutations, SkipDrain)`.
macro_rules! mutated {
    ($mutations:expr, $which:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        let is = $mutations.is($crate::registry::mutation::Mutation::$which);
        #[cfg(not(any(test, feature = "mutations")))]
        let is = $mutations.is_any();
        is
    }};
}
pub(super) use mutated;

impl Mutations {
    #[cfg(any(test, feature = "mutations"))]
    pub(super) fn is(self, mutation: Mutation) -> bool {
        self.without == Some(mutation)
    }

    #[cfg(not(any(test, feature = "mutations")))]
    #[expect(clippy::unused_self, reason = "the same call in both builds")]
    pub(super) const fn is_any(self) -> bool {
        false
    }
}
