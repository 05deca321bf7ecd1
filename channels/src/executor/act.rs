//! Carries out what the core wants done. Nothing here waits; what fails is told to the core before anything else.

use std::sync::{Arc, Weak};

use super::Why;
use super::queue::Answers;
use super::reply::{BUS, Reply, Waiting};
use super::run::Executor;
use crate::channel::Reason;
use crate::control::{Action, Answer, Input, Refusal, Ticket};
use crate::{Announcement, Buffer, Error};

impl Executor {
    pub(super) fn carry_out(&mut self, action: Action) {
        log::trace!(target: "vmbus::executor", "{action:?}");
        match action {
            Action::Post(message) => {
                if !self.is_lost()
                    && let Err(error) = self.link.post(&message)
                {
                    self.not_posted(&error, || format!("{message:?}"));
                }
            }
            Action::Share { relid, gpadl, what } => {
                if let Err(error) = self.link.share(relid, gpadl, what) {
                    self.following.push_back(Input::ShareFailed(gpadl));
                    self.not_posted(&error, || format!("{what:?} of relid {relid}"));
                }
            }
            Action::Unshare(gpadl) => self.link.unshare(gpadl),
            Action::Opened { ticket, channel, relid, ring, processor } => {
                self.opened(ticket, channel, relid, ring, processor);
            }
            Action::Retire { channel, relid, processor } => {
                if self.mapped.remove(&channel) {
                    self.dispatchers.retire(processor, relid, channel);
                } else {
                    self.following.push_back(Input::Retired(channel));
                }
            }
            Action::Move { channel, relid, from, to } => {
                if self.mapped.contains(&channel) {
                    self.dispatchers.move_entry(relid, channel, from, to);
                }
            }
            Action::Forget { channel, relid, .. } => self.dispatchers.settle(relid, channel),
            Action::Revoke(channel) => {
                if let Some(hold) = self.open.get(&channel).and_then(Weak::upgrade) {
                    hold.end(if self.leaving || self.is_lost() { Reason::Ended } else { Reason::Rescinded });
                }
            }
            Action::Answer(ticket, answer) => self.answer(ticket, answer),
            Action::Announce(announcement) => self.announce(&announcement),
            Action::Connected(agreed) => {
                log::info!(target: "vmbus::executor", "connected, version {} ({:?})", agreed.version, agreed.features);
            }
        }
    }

    /// A link that is gone says so here first, and does not always say it again. Anything else stands alone: what waits for
    /// the host's answer to it finds the host silent.
    fn not_posted(&mut self, error: &vmbus::Error, what: impl FnOnce() -> String) {
        if matches!(error, vmbus::Error::Disconnected { .. }) {
            self.lost(error.to_string());
        } else {
            log::error!(target: "vmbus::executor", "{} was not posted: {error}", what());
        }
    }

    fn is_lost(&self) -> bool {
        matches!(self.over, Some(Why::Lost(_)))
    }

    fn announce(&mut self, announcement: &Announcement) {
        match announcement {
            Announcement::Arrived(offer) => {
                self.offers.insert(offer.id, Arc::new(offer.clone()));
            }
            Announcement::Departed(offer) => {
                self.offers.remove(&offer.id);
            }
            Announcement::AllArrived => self.all_arrived = true,
        }
        self.subscribers.announce(announcement);
    }

    fn answer(&mut self, ticket: Ticket, answer: Answer) {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            log::error!(target: "vmbus::executor", "an answer to {ticket:?}, which nobody waits for: {answer:?}");
            return;
        };
        match (waiting, answer) {
            (waiting, Answer::Failed(refusal)) => {
                self.direct.failed(ticket);
                self.refuse(waiting, refusal);
            }
            (Waiting { reply: Reply::Done(to), .. }, Answer::Done) => drop(to.send(Ok(()))),
            (Waiting { reply: Reply::Stopped(to), .. }, Answer::Done) => self.stopped(to, Ok(())),
            (Waiting { reply: Reply::Connected(to), .. }, Answer::Channel(channel)) => drop(to.send(Ok(channel))),
            (Waiting { reply: Reply::Buffer(to, hold), .. }, Answer::Shared(gpadl)) => {
                let memory = self.link.buffer(gpadl);
                // If nobody waits for it any more, its drop gives it back; so it does if it can't be mapped.
                let _ = to.send(Buffer::new(gpadl, hold, memory));
            }
            (Waiting { reply: Reply::Nobody, .. }, _) => {}
            (waiting, answer) => {
                log::error!(target: "vmbus::executor", "{answer:?} is no answer for {waiting:?}");
            }
        }
    }

    fn refuse(&mut self, waiting: Waiting, refusal: Refusal) {
        match (&self.over, waiting) {
            (Some(Why::Lost(_)), Waiting { reply: Reply::Stopped(to), .. }) => {
                let _ = to.map(|to| to.send(Ok(())));
            }
            (Some(Why::Lost(why)), waiting) => waiting.fail(Error::Lost { why: why.clone() }),
            (_, Waiting { reply: Reply::Stopped(to), .. }) => {
                // Nobody to say goodbye to is as good as said.
                let outcome = match refusal {
                    Refusal::NotConnected => Ok(()),
                    refusal => Err(Error::refused(refusal, BUS, "say goodbye")),
                };
                self.stopped(to, outcome);
            }
            (_, waiting) => waiting.refuse(refusal),
        }
    }

    fn stopped(&mut self, to: Option<Answers<()>>, outcome: Result<(), Error>) {
        let _ = to.map(|to| to.send(outcome));
        self.over.get_or_insert(Why::Stopped);
    }
}
