//! What goes wrong with a controller or with a disk on it.

use std::time::Duration;

use super::scsi::{Sense, SenseKey, status};
use super::state::Negotiation;
use super::wire::SrbStatus;
use super::{Address, Outcome};

/// What went wrong with a controller or with a disk on it, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// Host and guest can't agree.
    #[error("{0}; see that the controller is a synthetic SCSI controller of this virtual machine")]
    Negotiation(#[from] Negotiation),
    /// The host did not complete a request in time. It may still do so, which then nobody hears.
    #[error("{what} was not completed within {} ms; reset the unit or the bus, or try again", waited.as_millis())]
    Timeout {
        /// Which.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// As many requests are under way as there may be, or all pages are in use, and that did not change in time.
    #[error("too much is under way to begin {what} (for {} ms); wait for requests, or reset the bus", waited.as_millis())]
    Busy {
        /// What was to be sent.
        what: &'static str,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The host refused a packet as such.
    #[error("the host refused {what}: status {status:#010x}")]
    Refused {
        /// Which.
        what: &'static str,
        /// Its reason, an NTSTATUS.
        status: u32,
    },
    /// There is no such unit, or no longer.
    #[error("unit {0} is not there; list the units again")]
    NoUnit(Address),
    /// A command failed.
    #[error("unit {unit}: {command} failed: {}", describe(outcome))]
    Command {
        /// At which unit.
        unit: Address,
        /// Which.
        command: &'static str,
        /// How.
        outcome: Outcome,
    },
    /// The answer is not what the standard says.
    #[error("unit {unit}: the answer to {command} makes no sense; it can't be used")]
    Nonsense {
        /// Of which unit.
        unit: Address,
        /// To which command.
        command: &'static str,
    },
    /// The blocks are not there, or not whole.
    #[error("bytes {offset}..{end} are not whole blocks of {block_bytes} bytes of a disk of {disk_bytes}")]
    Range {
        /// The first.
        offset: u64,
        /// Behind the last.
        end: u64,
        /// Bytes of a block.
        block_bytes: u32,
        /// Bytes of the disk.
        disk_bytes: u64,
    },
    /// The disk can't be written.
    #[error("unit {0} is write protected")]
    ReadOnly(Address),
    /// The unit can't do that.
    #[error("unit {unit} can't {what}")]
    Unsupported {
        /// Which.
        unit: Address,
        /// What.
        what: &'static str,
    },
    /// More data than a request may move.
    #[error("{bytes} bytes are more than one request may move ({most}); split it")]
    TooLarge {
        /// Bytes that were to be moved.
        bytes: usize,
        /// How many may be.
        most: usize,
    },
    /// The subchannel that a request went through was taken back; the controller goes on.
    #[error("the subchannel that {0} went through was taken back; send it again")]
    LinkLost(&'static str),
    /// The controller was closed, or is being closed.
    #[error("the controller was closed; open it again")]
    Closed,
}

impl Failure {
    /// Whether the disk says that it can't be written.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match self {
            Self::ReadOnly(_) => true,
            Self::Command { outcome, .. } => outcome.sense.is_some_and(|sense| sense.key == SenseKey::DATA_PROTECT),
            _ => false,
        }
    }
}

fn describe(outcome: &Outcome) -> String {
    if let Some(sense) = &outcome.sense {
        return sense.to_string();
    }
    let device = match outcome.scsi_status {
        status::GOOD => "",
        status::CHECK_CONDITION => ", check condition without sense data",
        status::BUSY => ", the unit is busy",
        status::RESERVATION_CONFLICT => ", the unit is reserved by somebody else",
        status::TASK_SET_FULL => ", the unit has too much to do",
        _ => ", a status that is unknown",
    };
    let adapter = match outcome.srb_status.code() {
        SrbStatus::SUCCESS => "done",
        SrbStatus::ABORTED => "aborted",
        SrbStatus::BUSY => "busy",
        SrbStatus::INVALID_REQUEST => "invalid request",
        SrbStatus::TIMEOUT => "the host's own time was over",
        SrbStatus::BUS_RESET => "the bus was reset",
        SrbStatus::DATA_OVERRUN => "not as many data as asked for",
        SrbStatus::INVALID_LUN => "no such unit",
        _ => "failed",
    };
    format!("{adapter} (adapter {:#04x}, device {:#04x}{device})", outcome.srb_status.0, outcome.scsi_status)
}

impl Outcome {
    /// Whether the command did what it should.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.scsi_status == status::GOOD && self.srb_status.code() == SrbStatus::SUCCESS
    }

    /// Whether the unit only had something to tell, so that the command may be sent again at once.
    #[must_use]
    pub fn is_attention(&self) -> bool {
        self.sense.as_ref().is_some_and(Sense::is_attention)
    }
}
