//! What makes one integration component: which requests it takes, and what they do.

use std::time::Duration;

use vmbus::class::Class;

use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version};

/// Whoever hears what happens.
pub type Tell<'a> = &'a mut dyn FnMut(Event);

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    /// Its name on command lines and in logs.
    pub name: &'static str,
    /// The devices that it drives.
    pub class: Class,
    /// Its messages.
    pub kind: MessageType,
    /// The versions that it knows.
    pub known: Known,
}

/// How a component's channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// This side wanted it.
    Stopped,
    /// The host took the device back, or broke the rings.
    Lost,
}

/// One integration component. It has no thread and no channel of its own; the times it is given run from the beginning
/// of its service.
pub trait Component: Send {
    /// What it is; always the same.
    fn profile(&self) -> Profile;

    /// Host and guest have agreed, maybe anew: what went before is over.
    fn agreed(&mut self, version: Version) {
        let _ = version;
    }

    /// A request: answers it by what it does to `body`, and by the status. The bytes are a copy, and all of them are
    /// the host's.
    fn request(&mut self, now: Duration, version: Version, body: &mut [u8], tell: Tell<'_>) -> Status;

    /// The answer to the request before has gone out, or there was no room for it: what is to come after it comes now.
    fn answered(&mut self, now: Duration, tell: Tell<'_>) {
        let _ = (now, tell);
    }

    /// When it wants to be called without a request.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// That time has come, or has not: look.
    fn elapsed(&mut self, now: Duration, tell: Tell<'_>) {
        let _ = (now, tell);
    }

    /// No further call comes. The channel is closed after this.
    fn ended(&mut self, ending: Ending, tell: Tell<'_>) {
        let _ = (ending, tell);
    }
}
