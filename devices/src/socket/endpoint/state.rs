//! One endpoint's life: a pure state machine. Who waits and how they are woken is `mod.rs`.

use std::collections::VecDeque;

use super::Refused;

/// What an endpoint is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Made, and nothing else.
    Idle,
    /// Takes connections in.
    Listening,
    /// Waits for the answer to a connect.
    Connecting,
    /// The answer is there, or was taken.
    Connected,
    /// Over: whatever waits is told so, and whatever comes is given back.
    Closed,
}

/// The state behind an endpoint's lock. `I` comes in, `C` comes of a connect.
#[derive(Debug)]
pub(super) struct State<I, C> {
    phase: Phase,
    incoming: VecDeque<I>,
    backlog: usize,
    outcome: Option<C>,
}

/// What is left when an endpoint closes, to be destroyed by whoever closed it.
#[derive(Debug)]
pub struct Remains<I, C> {
    /// Connections that nobody accepted.
    pub incoming: VecDeque<I>,
    /// A connection that nobody took.
    pub outcome: Option<C>,
}

impl<I, C> State<I, C> {
    pub(super) fn new() -> Self {
        Self { phase: Phase::Idle, incoming: VecDeque::new(), backlog: 0, outcome: None }
    }

    /// What it is doing.
    pub(super) fn phase(&self) -> Phase {
        self.phase
    }

    /// Begins to take connections in.
    pub(super) fn listen(&mut self, backlog: usize) -> Result<(), Refused> {
        match self.phase {
            Phase::Idle | Phase::Listening => {
                (self.phase, self.backlog) = (Phase::Listening, backlog.max(1));
                Ok(())
            }
            Phase::Closed => Err(Refused::Closed),
            Phase::Connecting | Phase::Connected => Err(Refused::Bound),
        }
    }

    /// Begins a connect. An endpoint has one connect, and none that listens or closes has any.
    pub(super) fn begin_connect(&mut self) -> Result<(), Refused> {
        match self.phase {
            Phase::Idle => {
                self.phase = Phase::Connecting;
                Ok(())
            }
            Phase::Closed => Err(Refused::Closed),
            _ => Err(Refused::Bound),
        }
    }

    /// The same without a look: a mutant's.
    pub(super) fn connect_anyhow(&mut self) {
        self.phase = Phase::Connecting;
    }

    /// Something comes in; given back if it is not wanted. `true`: it is the first that waits.
    pub(super) fn deliver(&mut self, item: I) -> Result<bool, I> {
        if self.phase != Phase::Listening || self.incoming.len() >= self.backlog {
            return Err(item);
        }
        self.incoming.push_back(item);
        Ok(self.incoming.len() == 1)
    }

    /// The same without a look: a mutant's.
    pub(super) fn deliver_anyhow(&mut self, item: I) {
        self.incoming.push_back(item);
    }

    /// The next that came in.
    pub(super) fn take_incoming(&mut self) -> Result<Option<I>, Refused> {
        match self.phase {
            Phase::Listening => Ok(self.incoming.pop_front()),
            Phase::Closed => Err(Refused::Closed),
            _ => Err(Refused::NotListening),
        }
    }

    /// Takes back what is not to be accepted any more.
    pub(super) fn withdraw(&mut self, mut is_gone: impl FnMut(&I) -> bool) -> Vec<I> {
        let (gone, left): (Vec<I>, Vec<I>) = self.incoming.drain(..).partition(|item| is_gone(item));
        self.incoming = left.into();
        gone
    }

    pub(super) fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    /// The connect came to an end; given back if nobody wants to know.
    pub(super) fn complete(&mut self, outcome: C) -> Result<(), C> {
        if self.phase != Phase::Connecting {
            return Err(outcome);
        }
        (self.phase, self.outcome) = (Phase::Connected, Some(outcome));
        Ok(())
    }

    /// The end of the connect, once.
    pub(super) fn take_outcome(&mut self) -> Result<Option<C>, Refused> {
        match self.phase {
            Phase::Connecting => Ok(None),
            Phase::Connected => self.outcome.take().map(Some).ok_or(Refused::Bound),
            Phase::Closed => Err(Refused::Closed),
            _ => Err(Refused::NotListening),
        }
    }

    /// Ends it, once and for all; what is left, for the first who does.
    pub(super) fn close(&mut self) -> Option<Remains<I, C>> {
        if self.phase == Phase::Closed {
            return None;
        }
        self.phase = Phase::Closed;
        Some(Remains { incoming: std::mem::take(&mut self.incoming), outcome: self.outcome.take() })
    }
}
