//! Protections of endpoints that tests take away, one at a time. Ordinary builds hold none of this.

/// A protection to do without.
#[cfg(any(test, feature = "mutations"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mutation {
    /// R3.1: a lookup remembers where the endpoint is, and goes there later.
    LookUpBareKey,
    /// R3.2: a name is published before there is an endpoint behind it.
    PublishFirst,
    /// R3.2: an endpoint whose start fails is left where it is.
    ForgetOnFailure,
    /// R3.3: whether a name is free is looked up first, and it is taken in a second step.
    CheckThenSet,
    /// R3.3: a bound or closing endpoint may connect.
    ConnectAnyhow,
    /// R3.4: close does not wake those who wait for a connection.
    CloseTellsNobody,
    /// R3.4: close waits until the endpoint's callback has returned.
    CloseWaitsForCallback,
    /// R3.4: what arrives after the close is kept.
    DeliverAfterClose,
    /// R3.5: a closed endpoint keeps its place in the table.
    KeepClosed,
}

/// What is taken away from one table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mutations {
    #[cfg(any(test, feature = "mutations"))]
    pub(super) without: Option<Mutation>,
}

/// Whether a protection was taken away: `mutated!(mutations, CheckThenSet)`. A constant in ordinary builds.
macro_rules! mutated {
    ($mutations:expr, $which:ident) => {{
        #[cfg(any(test, feature = "mutations"))]
        let is = $mutations.without == Some($crate::socket::endpoint::mutation::Mutation::$which);
        #[cfg(not(any(test, feature = "mutations")))]
        let is = {
            let _ = ($mutations, stringify!($which));
            false
        };
        is
    }};
}
pub(super) use mutated;
