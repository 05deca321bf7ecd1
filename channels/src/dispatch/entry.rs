//! What a relid map holds: something to call, and what must live as long.

use std::any::Any;
use std::fmt;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::Instant;

use vmbus::link::Line;

use super::lines::Source;
use super::{Bells, Ending, Notifier};

/// What an event asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// Nothing more: whoever waits is told.
    Told,
    /// To be served: it goes to the end of the ready list, if it is not there yet.
    Ready,
}

/// How a turn on the ready list ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Everything is handled and the next event will be heard of. Packets handled.
    Drained(usize),
    /// There may be more. Packets handled.
    More(usize),
    /// It will not go on. [`Serve::ended`] was not called.
    Ended(Ending),
}

/// A channel as its dispatcher sees it. All calls come from the dispatcher that has it, one at a time.
pub trait Serve: Send {
    /// The host has flagged the channel. Must not wait.
    fn event(&mut self) -> Attention;

    /// Handles at most `budget` packets. Called when it is the channel's turn on the ready list, and before its timer.
    fn serve(&mut self, budget: usize) -> Progress;

    /// When [`timer`](Self::timer) is to be called; `None`: not at all. Asked when it enters a map, behind each turn and
    /// behind each timer.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The time has come: never early. Must not wait.
    ///
    /// # Errors
    /// Why it will not go on. [`Serve::ended`] was not called.
    fn timer(&mut self, now: Instant) -> Result<(), Ending> {
        let _ = now;
        Ok(())
    }

    /// The last call. `None` for an entry that is retired; the entry finds out why.
    fn ended(&mut self, why: Option<Ending>);
}

/// What a relid map holds.
pub struct Entry {
    /// `None` once it has ended by itself.
    pub(super) target: Option<Box<dyn Serve>>,
    pub(super) source: Option<Box<dyn Source>>,
    pub(super) hold: Option<Box<dyn Any + Send>>,
}

impl Entry {
    /// Notifies an application that receives by itself.
    #[must_use]
    pub fn notify(notifier: Notifier) -> Self {
        Self::serve(Box::new(Notify(notifier)))
    }

    /// Notifies an application that receives by itself, and sends, perhaps on another thread.
    pub(crate) fn tell(bells: Arc<Bells>) -> Self {
        Self::serve(Box::new(Tell(bells)))
    }

    /// Calls a handler.
    #[must_use]
    pub fn serve(target: Box<dyn Serve>) -> Self {
        Self { target: Some(target), source: None, hold: None }
    }

    /// Waits for the interrupts of this line's descriptor, if it has one.
    #[must_use]
    pub fn on_line(self, line: Line) -> Self {
        self.on_source(Box::new(line))
    }

    /// Waits for the interrupts of this source, if it has a descriptor.
    #[must_use]
    pub fn on_source(mut self, source: Box<dyn Source>) -> Self {
        self.source = source.descriptor().is_some().then_some(source);
        self
    }

    /// The number of that descriptor.
    pub(super) fn descriptor(&self) -> Option<RawFd> {
        self.source.as_ref()?.descriptor().map(|descriptor| descriptor.as_raw_fd())
    }

    /// Keeps something alive as long as the entry, such as the reference to its channel. Dropped last.
    #[must_use]
    pub fn holding(mut self, hold: impl Send + 'static) -> Self {
        self.hold = Some(Box::new(hold));
        self
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Entry").field("descriptor", &self.descriptor()).finish_non_exhaustive()
    }
}

/// An entry that only tells somebody.
struct Notify(Notifier);

impl Serve for Notify {
    fn event(&mut self) -> Attention {
        self.0.raise();
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn ended(&mut self, _why: Option<Ending>) {
        // Whoever sleeps must find out that nobody will wake it any more.
        self.0.raise();
    }
}

/// An entry that tells whom it may concern of one channel.
struct Tell(Arc<Bells>);

impl Serve for Tell {
    fn event(&mut self) -> Attention {
        self.0.ring();
        Attention::Told
    }

    fn serve(&mut self, _budget: usize) -> Progress {
        Progress::Drained(0)
    }

    fn ended(&mut self, _why: Option<Ending>) {
        self.0.ring_all();
    }
}
