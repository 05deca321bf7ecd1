//! After the negotiation: requests of the host are served, and reports go out.

use super::{Action, Inflation, Input, Machine, Notice, unexpected};
use crate::balloon::report::Memory;
use crate::balloon::wire::{GuestMessage, HostMessage, StatusReport, Version};
use core::time::Duration;

/// What [`super::State::Running`] holds, while a step works on it.
pub(super) struct Running {
    pub(super) version: Version,
    pub(super) status_due: Option<Duration>,
    pub(super) inflation: Option<Inflation>,
    pub(super) deflated: u64,
}

impl Running {
    pub(super) fn step(&mut self, machine: &mut Machine, now: Duration, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Elapsed if self.status_due.is_some_and(|due| now >= due) => actions.push(Action::Measure),
            Input::Elapsed => {}
            Input::Measured(memory) => {
                self.report(machine, now, &memory, actions);
                self.inflate(machine, |inflation, settings| inflation.measured(settings, &memory), actions);
            }
            Input::Taken(ranges) if self.inflation.is_none() => actions.push(Action::Undo(ranges)),
            Input::Taken(ranges) => self.inflate(machine, |inflation, _| inflation.taken(ranges), actions),
            Input::NotTaken => self.inflate(machine, |inflation, settings| inflation.not_taken(settings), actions),
            Input::Released { pages, last } => {
                self.deflated = self.deflated.saturating_add(pages);
                if last {
                    machine.send(GuestMessage::UnballoonResponse, actions);
                    actions.push(Action::Notify(Notice::Deflated { pages: core::mem::take(&mut self.deflated) }));
                }
            }
            Input::Message(message) => self.message(machine, message, actions),
            Input::Opened => unexpected(&input, actions),
        }
    }

    fn message(&mut self, machine: &mut Machine, message: HostMessage, actions: &mut Vec<Action>) {
        match message {
            HostMessage::BalloonRequest { pages } => match &mut self.inflation {
                Some(running) => {
                    running.queue(pages);
                    actions.push(Action::Notify(Notice::Unexpected("balloon request during another one")));
                }
                none => {
                    *none = Some(Inflation::new(pages, &machine.settings));
                    actions.push(Action::Measure);
                }
            },
            HostMessage::UnballoonRequest { more, ranges } => {
                actions.push(Action::Release { ranges, last: !more });
            }
            HostMessage::HotAddRequest { range, .. } => {
                // Success with no pages: a lasting refusal. Failure would make the host try again and again.
                machine.send(GuestMessage::HotAddResponse { pages: 0, success: true }, actions);
                actions.push(Action::Notify(Notice::HotAddRefused { pages: range.count }));
            }
            HostMessage::Info(info) if self.version >= Version::V1_0 => {
                actions.push(Action::Notify(Notice::Info(info)));
            }
            other => unexpected(&Input::Message(other), actions),
        }
    }

    /// Sends a status report if one is due.
    fn report(&mut self, machine: &mut Machine, now: Duration, memory: &Memory, actions: &mut Vec<Action>) {
        if self.status_due.is_some_and(|due| now >= due) {
            let report = StatusReport {
                available_pages: memory.available_pages,
                committed_pages: memory.committed_pages.saturating_add(memory.floor_pages()),
            };
            machine.send(GuestMessage::Status(report), actions);
            actions.push(Action::Notify(Notice::Status(report)));
            self.status_due = Some(now.saturating_add(machine.settings.status_interval));
        }
    }
}
