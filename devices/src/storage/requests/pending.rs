//! A command that is under way, for who waits for it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Begun, Requests};
use crate::Error;
use crate::storage::scsi::{Command, Sense};
use crate::storage::wire::{Completion, SrbStatus};
use crate::storage::{Address, Failure, Outcome};

/// A command that is under way. Dropping it lets the host go on: what it does then nobody hears.
#[derive(Debug)]
#[must_use = "nobody hears of a command that is not waited for"]
pub struct Pending {
    requests: Arc<Requests>,
    begun: Begun,
    command: Command,
    unit: Address,
    /// Bytes that it moves at most.
    bytes: usize,
    time: Time,
}

/// When something began, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage) struct Time {
    pub(in crate::storage) start: Instant,
    pub(in crate::storage) deadline: Instant,
}

impl Time {
    pub(in crate::storage) fn from_now(timeout: Duration) -> Self {
        let start = Instant::now();
        // Times beyond the clock's are as good as a year.
        Self { start, deadline: start.checked_add(timeout).unwrap_or(start + Duration::from_secs(31_536_000)) }
    }
}

impl Pending {
    pub(in crate::storage) fn new(
        requests: Arc<Requests>,
        begun: Begun,
        (unit, command): (Address, Command),
        bytes: usize,
        time: Time,
    ) -> Self {
        Self { requests, begun, command, unit, bytes, time }
    }

    /// Waits until the host has completed it, at most as long as it was given. Data that came go to `destination`: as many
    /// as were moved and have a place there.
    ///
    /// # Errors
    /// [`Failure::Timeout`]: what the host does from now on changes nothing here. [`Failure::LinkLost`]: it may be sent
    /// again. [`Failure::Refused`], [`Failure::Closed`]; the device is gone. A command that failed is no error here.
    pub fn wait(self, destination: &mut [u8]) -> Result<Outcome, Error> {
        let answer = self.requests.wait(&self.begun, self.command.name(), self.time)?;
        let failed = |failure| Err(self.requests.failed(failure));
        match answer {
            Answer::Completed(completion, segment) => {
                if !completion.status.is_success() && completion.request().srb_status == 0 {
                    return failed(Failure::Refused { what: self.command.name(), status: completion.status.0 });
                }
                let outcome = outcome(&completion, self.bytes);
                if let Some(segment) = segment {
                    let moved = destination.len().min(outcome.transferred).min(segment.bytes());
                    segment.copy_to(destination.get_mut(..moved).unwrap_or_default());
                }
                if outcome.srb_status.code() == SrbStatus::INVALID_LUN {
                    self.requests.note_change();
                    return failed(Failure::NoUnit(self.unit));
                }
                if outcome.sense.as_ref().is_some_and(Sense::is_change) {
                    self.requests.note_change();
                }
                Ok(outcome)
            }
            Answer::LinkLost => failed(Failure::LinkLost(self.command.name())),
            Answer::Ended(error) => Err(error),
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.requests.abandon(self.begun.id);
    }
}

/// What a completion says, as far as it can be true of a request that moves so many bytes.
fn outcome(completion: &Completion, bytes: usize) -> Outcome {
    let request = completion.request();
    let (srb_status, scsi_status) = (SrbStatus(request.srb_status), request.scsi_status);
    let moved = usize::try_from(request.transfer_bytes.get()).unwrap_or(usize::MAX).min(bytes);
    // Of a command that failed hosts leave the number as it was, except for one that moved fewer.
    let counts = matches!(srb_status.code(), SrbStatus::SUCCESS | SrbStatus::DATA_OVERRUN);
    let sense = completion.sense().as_deref().and_then(Sense::parse);
    Outcome { srb_status, scsi_status, sense, transferred: if counts { moved } else { 0 } }
}
