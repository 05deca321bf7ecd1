//! The one queue: everything that the executor hears of, in order, and how its answers are waited for.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use vmbus::link::LinkEvent;

use super::Why;
use super::reply::Reply;
use crate::bus::Counters;
use crate::control::{Agreed, Command, Input};
use crate::dispatch::Report;
use crate::{Announcement, Error, Offer, here};

/// What an answer is sent through: there is room for the one that comes.
pub(crate) type Answers<T> = Sender<Result<T, Error>>;

/// Everything that the executor hears of.
#[derive(Debug)]
pub(crate) enum Event {
    /// The link heard something. Took a credit.
    Link(LinkEvent),
    /// A reference was dropped.
    Input(Input),
    /// A dispatcher has something to say.
    Dispatcher(Report),
    /// Somebody wants something, and may wait for the answer.
    Command(Command, Reply),
    /// Somebody wants to know what is offered.
    Offers(Answers<Vec<Offer>>),
    /// Somebody wants to know what was agreed on.
    Agreed(Answers<Option<Agreed>>),
    /// Somebody wants to know what was counted.
    Count(Answers<Counters>),
    /// Somebody wants to hear of changes.
    Subscribe(Answers<(Receiver<Announcement>, Arc<()>)>),
    /// Say goodbye to the host and end.
    Stop(Option<Answers<()>>),
}

/// The way to the executor, for everybody. Sending never waits.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    events: Sender<Event>,
    /// How the executor has ended. Set before its end of the queue goes.
    ending: Arc<Ending>,
    /// How long the host has for an answer.
    patience: Duration,
}

impl Queue {
    pub(crate) fn new(patience: Duration) -> (Self, Receiver<Event>) {
        let (events, inbox) = unbounded();
        (Self { events, ending: Arc::default(), patience }, inbox)
    }

    /// How long the host has for an answer.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Tells the executor something, or nobody if it has ended. Whether it may hear of it.
    pub(crate) fn tell(&self, event: Event) -> bool {
        self.events.send(event).is_ok()
    }

    /// Asks the executor, and waits for its answer.
    ///
    /// # Errors
    /// What it answers; that it has ended; [`Error::Callback`].
    pub(crate) fn ask<T>(&self, what: &'static str, event: impl FnOnce(Answers<T>) -> Event) -> Result<T, Error> {
        here::may_wait(what)?;
        self.begin(event)?.recv().map_err(|_| self.ended())?
    }

    /// Asks the executor, and leaves the waiting to the caller. A receiver that is disconnected means that it has ended.
    pub(crate) fn begin<T>(
        &self,
        event: impl FnOnce(Answers<T>) -> Event,
    ) -> Result<Receiver<Result<T, Error>>, Error> {
        let (sender, receiver) = bounded(1);
        if self.tell(event(sender)) { Ok(receiver) } else { Err(self.ended()) }
    }

    /// The error for who finds that the executor has ended.
    pub(crate) fn ended(&self) -> Error {
        self.ending.why.get().map_or(Error::Ended, Why::error)
    }

    /// Says why the executor is about to end. The first reason is the reason.
    pub(super) fn end(&self, why: Why) {
        let _ = self.ending.why.set(why);
    }

    /// Leaves what was counted to those who ask too late.
    pub(super) fn leave(&self, counters: Counters) {
        let _ = self.ending.counters.set(counters);
    }

    /// What was counted until the end, once that is known.
    pub(crate) fn last_counters(&self) -> Option<Counters> {
        self.ending.counters.get().copied()
    }
}

#[derive(Debug, Default)]
struct Ending {
    why: OnceLock<Why>,
    counters: OnceLock<Counters>,
}
