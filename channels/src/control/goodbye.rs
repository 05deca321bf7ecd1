//! The end of a connection: unload, suspend, loss. And what 6.0 lets be asked of a connection while it lasts.

use vmbus::message::{ConnectionState, Features, GuestMessage, Version};

use super::channel::State;
use super::connection::{Asked, Phase};
use super::input::Ticket;
use super::logging::{complain, note};
use super::rescind::Cause;
use super::{Action, Answer, Core, Due, Refusal};

impl Core {
    /// Goodbye, for good or to come back.
    pub(super) fn unload(&mut self, ticket: Ticket, suspending: bool, out: &mut Vec<Action>) -> Result<(), Refusal> {
        match self.connection.phase {
            Phase::Contacting { .. } | Phase::Requesting(_) | Phase::Connected => {}
            Phase::Unloading { .. } => return Err(Refusal::Connection(self.connection.name())),
            _ if suspending => return Err(Refusal::NotConnected),
            Phase::Suspended | Phase::Idle | Phase::Lost => {
                if !self.connection.is_lost() {
                    self.connection.phase = Phase::Idle;
                }
                out.push(Action::Answer(ticket, Answer::Done));
                return Ok(());
            }
        }
        // Hosts before 3.0 can't be left and met again.
        let spoken = match &self.connection.phase {
            Phase::Contacting { version, .. } => *version,
            _ => self.connection.version(),
        };
        let answers = spoken >= Version::V3_0;
        if suspending && !answers {
            return Err(Refusal::TooOld { needed: Version::V3_0, spoken });
        }
        self.end_waits(&Refusal::NotConnected, out);
        let begin = out.len();
        self.post_unload(answers, out);
        let goodbye = out.split_off(begin);
        let mut asked = Asked { ticket: Some(ticket), timer: None };
        if answers {
            asked.timer = Some(self.timers.insert(self.now.saturating_add(self.limits.unload_timeout), Due::Unload));
        } else {
            // Nobody will say that the host has let go: memory stays in quarantine until the link says so.
            out.extend(asked.ticket.take().map(|ticket| Action::Answer(ticket, Answer::Done)));
        }
        self.connection.phase = Phase::Unloading { asked, suspending };
        for id in self.table.ids() {
            self.depart(id, Cause::Unloaded, out);
        }
        // Users hear of the end from here: a link that plays a host takes memory away as soon as it hears the goodbye.
        out.extend(goodbye);
        Ok(())
    }

    fn post_unload(&mut self, answers: bool, out: &mut Vec<Action>) {
        note!(self, "goodbye to the host");
        if answers {
            self.counters.unloads += 1;
            self.post(GuestMessage::Unload, out);
        }
    }

    /// The host has let go of everything.
    pub(super) fn on_unloaded(&mut self, out: &mut Vec<Action>) {
        let Phase::Unloading { asked, suspending } = &mut self.connection.phase else {
            self.counters.stale_answers += 1;
            complain!(self, "answer to a goodbye that was not awaited");
            return;
        };
        let (Asked { ticket, timer }, suspending) = (std::mem::take(asked), *suspending);
        self.connection.phase = if suspending { Phase::Suspended } else { Phase::Idle };
        self.stop(timer);
        self.host_is_out(out);
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Done)));
    }

    /// The host does not say goodbye. Its memory stays in quarantine until it does, or is lost.
    pub(super) fn unload_timed_out(&mut self, out: &mut Vec<Action>) {
        let refusal = Refusal::Silent(u64::try_from(self.limits.unload_timeout.as_millis()).unwrap_or(u64::MAX));
        let Phase::Unloading { asked, .. } = &mut self.connection.phase else { return };
        let ticket = asked.ticket.take();
        complain!(self, "the host does not answer to a goodbye; what it was given is in quarantine");
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(refusal))));
    }

    /// The host can't reach anything of the connections so far.
    fn host_is_out(&mut self, out: &mut Vec<Action>) {
        for id in self.table.ids() {
            let Some(channel) = self.table.get_mut(id).filter(|channel| channel.state == State::Departed) else {
                continue;
            };
            channel.host_reaches = false;
            self.finish(id, out);
        }
    }

    /// The host is gone: nothing is posted any more, and only references are awaited.
    pub(super) fn on_lost(&mut self, out: &mut Vec<Action>) {
        if self.connection.is_lost() {
            return;
        }
        complain!(self, "the connection is lost");
        self.end_waits(&Refusal::NotConnected, out);
        self.connection.phase = Phase::Lost;
        for id in self.table.ids() {
            self.depart(id, Cause::Lost, out);
        }
    }

    /// Ends every wait that is about the connection, and not about a channel.
    fn end_waits(&mut self, refusal: &Refusal, out: &mut Vec<Action>) {
        let phase = match &mut self.connection.phase {
            Phase::Contacting { asked, .. } | Phase::Requesting(asked) | Phase::Unloading { asked, .. } => {
                Some(std::mem::take(asked))
            }
            _ => None,
        };
        self.connection.paused = false;
        let waits = [phase, self.connection.modifying.take(), self.connection.pausing.take()];
        for Asked { ticket, timer } in waits.into_iter().flatten() {
            self.stop(timer);
            out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Failed(refusal.clone()))));
        }
        let requests: Vec<usize> = self.sockets.iter().map(|(key, _)| key).collect();
        for key in requests {
            self.end_request(key, Answer::Failed(refusal.clone()), out);
        }
    }

    /// Other monitor pages are wanted.
    pub(super) fn modify_connection(
        &mut self,
        ticket: Ticket,
        (parent_to_child_monitor, child_to_parent_monitor): (u64, u64),
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        self.needs_feature(Features::MODIFY_CONNECTION)?;
        if self.connection.modifying.is_some() {
            return Err(Refusal::Connection("being modified"));
        }
        let timer = Some(self.wait(Due::Modify));
        self.connection.modifying = Some(Asked { ticket: Some(ticket), timer });
        self.post(GuestMessage::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor }, out);
        Ok(())
    }

    /// The host uses the other monitor pages, or not.
    pub(super) fn on_modified(&mut self, state: ConnectionState, out: &mut Vec<Action>) {
        let Some(Asked { ticket, timer }) = self.connection.modifying.take() else {
            self.counters.stale_answers += 1;
            complain!(self, "answer to a change of the connection that was not awaited");
            return;
        };
        self.stop(timer);
        let answer =
            if state == ConnectionState::SUCCESSFUL { Answer::Done } else { Answer::Failed(Refusal::Contact(state)) };
        out.extend(ticket.map(|ticket| Action::Answer(ticket, answer)));
    }

    /// The host is to send no more messages.
    pub(super) fn pause(&mut self, ticket: Ticket, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.needs_feature(Features::PAUSE_RESUME)?;
        if self.connection.paused || self.connection.pausing.is_some() {
            return Err(Refusal::Connection("paused"));
        }
        let timer = Some(self.wait(Due::Pause));
        self.connection.paused = true;
        self.connection.pausing = Some(Asked { ticket: Some(ticket), timer });
        self.post(GuestMessage::Pause, out);
        Ok(())
    }

    /// The host sends no more messages.
    pub(super) fn on_paused(&mut self, out: &mut Vec<Action>) {
        let Some(Asked { ticket, timer }) = self.connection.pausing.take() else {
            self.counters.stale_answers += 1;
            complain!(self, "answer to a pause that was not awaited");
            return;
        };
        self.stop(timer);
        out.extend(ticket.map(|ticket| Action::Answer(ticket, Answer::Done)));
    }

    /// The host may send messages again.
    pub(super) fn unpause(&mut self, ticket: Ticket, out: &mut Vec<Action>) -> Result<(), Refusal> {
        self.needs_feature(Features::PAUSE_RESUME)?;
        if !self.connection.paused {
            return Err(Refusal::Connection("not paused"));
        }
        self.connection.paused = false;
        self.post(GuestMessage::Resume, out);
        out.push(Action::Answer(ticket, Answer::Done));
        Ok(())
    }

    fn needs_feature(&self, feature: Features) -> Result<(), Refusal> {
        self.connection.agreed().ok_or(Refusal::NotConnected)?;
        if self.connection.has(feature) { Ok(()) } else { Err(Refusal::Feature(feature)) }
    }
}
