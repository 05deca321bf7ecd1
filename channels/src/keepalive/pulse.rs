//! What is known of the other side's life, without threads and clocks: time is what the caller says.

use std::time::{Duration, Instant};

use super::KeepAlive;

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Nothing yet.
    Wait,
    /// Ask the other side whether it is there. The question counts as asked.
    Ask,
    /// It is dead: it has said nothing for so long.
    Dead(Duration),
}

/// Where the other side is between its last sign of life and the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has said something, and may be silent for a while.
    Alive,
    /// It was asked so many times since, the last time then.
    Asked(u32, Instant),
    /// It was given up. Nothing brings it back.
    Dead,
}

/// The pulse of one other side.
#[derive(Debug, Clone)]
pub struct Pulse {
    settings: KeepAlive,
    /// Its last sign of life.
    heard: Instant,
    state: State,
}

impl Pulse {
    /// Of a side that is alive now.
    #[must_use]
    pub fn new(settings: KeepAlive, now: Instant) -> Self {
        Self { settings, heard: now, state: State::Alive }
    }

    /// Whatever came from the other side: it is alive. Too late once it was given up.
    pub fn heard(&mut self, now: Instant) {
        if self.state != State::Dead {
            self.heard = self.heard.max(now);
            self.state = State::Alive;
        }
    }

    /// When to look again: not before [`look`](Self::look) finds something to do. `None`: never, it is dead, or it may be
    /// silent for longer than time goes.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Alive => self.heard.checked_add(self.settings.idle),
            State::Asked(_, last) => last.checked_add(self.settings.interval),
            State::Dead => None,
        }
    }

    /// What there is to do now. A question is counted before it is asked, so that an answer on the spot finds it counted.
    ///
    /// Who looks late does not find the other side dead for it: each question gets its whole interval.
    pub fn look(&mut self, now: Instant) -> Beat {
        if self.deadline().is_none_or(|deadline| now < deadline) {
            return Beat::Wait;
        }
        let asked = match self.state {
            State::Asked(asked, _) => asked,
            State::Alive | State::Dead => 0,
        };
        if asked >= self.settings.count {
            self.state = State::Dead;
            return Beat::Dead(now.saturating_duration_since(self.heard));
        }
        self.state = State::Asked(asked + 1, now);
        Beat::Ask
    }

    /// Questions since the last sign of life.
    #[must_use]
    pub fn asked(&self) -> u32 {
        match self.state {
            State::Asked(asked, _) => asked,
            State::Alive | State::Dead => 0,
        }
    }

    /// Whether it was given up.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.state == State::Dead
    }
}
