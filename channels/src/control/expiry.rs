//! Deadlines: what each timer is for, and what happens when it runs out.

use vmbus::message::GpadlId;

use super::channel::State;
use super::connection::Phase;
use super::{Action, Answer, Core, Refusal};
use crate::ChannelId;
use crate::timers::TimerKey;

/// What a timer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The answer to a version.
    Contact,
    /// The end of the first offers.
    Offers,
    /// The answer to a goodbye.
    Unload,
    /// The answer to a change of the connection.
    Modify,
    /// The answer to a pause.
    Pause,
    /// The next answer to an open.
    Open(ChannelId),
    /// The end of a close.
    Close(ChannelId),
    /// The answer to a move.
    Move(ChannelId),
    /// The next answer about a buffer.
    Gpadl(GpadlId),
    /// The answer to a hvsock request.
    Socket(usize),
}

impl Core {
    /// Starts a wait for an answer of the host.
    pub(super) fn wait(&mut self, due: Due) -> TimerKey {
        self.timers.insert(self.now.saturating_add(self.limits.host_timeout), due)
    }

    pub(super) fn stop(&mut self, timer: Option<TimerKey>) {
        if let Some(key) = timer {
            self.timers.cancel(key);
        }
    }

    /// What is told to those who waited for the host in vain.
    pub(super) fn silent(&self) -> Refusal {
        Refusal::Silent(u64::try_from(self.limits.host_timeout.as_millis()).unwrap_or(u64::MAX))
    }

    /// Lets every wait end whose time has come. An answer that came together with its deadline was taken before.
    pub(super) fn expire(&mut self, out: &mut Vec<Action>) {
        let mut expired = std::mem::take(&mut self.expired);
        self.timers.advance(self.now, &mut expired);
        for (key, due) in expired.drain(..) {
            let paused = self.connection.paused && !matches!(due, Due::Pause | Due::Unload);
            // One that ended before may have stopped this one.
            if self.holder(due).is_none_or(|timer| timer.take_if(|held| *held == key).is_none()) {
                continue;
            }
            if paused {
                // A host that was asked to be silent is not late.
                let again = self.wait(due);
                if let Some(timer) = self.holder(due) {
                    *timer = Some(again);
                }
                continue;
            }
            self.counters.timeouts += 1;
            self.ran_out(due, out);
        }
        self.expired = expired;
    }

    /// Where the key of the running timer is kept.
    fn holder(&mut self, due: Due) -> Option<&mut Option<TimerKey>> {
        match due {
            Due::Contact | Due::Offers | Due::Unload => match &mut self.connection.phase {
                Phase::Contacting { asked, .. } | Phase::Requesting(asked) | Phase::Unloading { asked, .. } => {
                    Some(&mut asked.timer)
                }
                _ => None,
            },
            Due::Modify => self.connection.modifying.as_mut().map(|asked| &mut asked.timer),
            Due::Pause => self.connection.pausing.as_mut().map(|asked| &mut asked.timer),
            Due::Open(id) => match &mut self.table.get_mut(id)?.state {
                State::Sharing(opening) | State::Requested(opening, _) => Some(&mut opening.timer),
                _ => None,
            },
            Due::Close(id) => Some(&mut self.table.get_mut(id)?.close_timer),
            Due::Move(id) => self.table.get_mut(id)?.moving.as_mut().map(|moving| &mut moving.timer),
            Due::Gpadl(gpadl) => Some(&mut self.gpadls.get_mut(gpadl)?.timer),
            Due::Socket(key) => Some(&mut self.sockets.get_mut(key)?.timer),
        }
    }

    fn ran_out(&mut self, due: Due, out: &mut Vec<Action>) {
        match due {
            Due::Contact => self.contact_timed_out(out),
            Due::Offers => self.offers_timed_out(out),
            Due::Unload => self.unload_timed_out(out),
            Due::Open(id) => self.open_timed_out(id, out),
            Due::Close(id) => self.close_timed_out(id, out),
            Due::Move(id) => self.move_timed_out(id, out),
            Due::Socket(key) => self.end_request(key, Answer::Failed(self.silent()), out),
            Due::Modify | Due::Pause | Due::Gpadl(_) => {
                // The wait stays, without its ticket: the answer may yet come, and nothing can be asked again before.
                let asked = match due {
                    Due::Modify => self.connection.modifying.as_mut().and_then(|asked| asked.ticket.take()),
                    Due::Pause => self.connection.pausing.as_mut().and_then(|asked| asked.ticket.take()),
                    Due::Gpadl(gpadl) => self.gpadls.get_mut(gpadl).and_then(|gpadl| gpadl.ticket.take()),
                    _ => None,
                };
                let silent = self.silent();
                out.extend(asked.map(|ticket| Action::Answer(ticket, Answer::Failed(silent))));
            }
        }
    }
}
