//! SCSI as far as disks of a virtual machine need it: commands to bytes, and bytes to answers.
//!
//! Format: SPC-4 and SBC-3; all numbers are big-endian. Answers are the host's: whatever is not there is `None`.

mod answers;
mod command;
mod pages;
mod sense;
#[cfg(test)]
mod tests;

pub use answers::{Capacity, Inquiry, Mode, luns};
pub use command::Command;
pub use pages::{BlockLimits, Provisioning, device_identifier, serial_number, supported_pages};
pub use sense::{Sense, SenseKey};

/// Statuses of a device.
pub mod status {
    /// It worked.
    pub const GOOD: u8 = 0;
    /// It did not, and the sense data say why.
    pub const CHECK_CONDITION: u8 = 2;
    /// Not now.
    pub const BUSY: u8 = 8;
    /// Somebody else has reserved the unit.
    pub const RESERVATION_CONFLICT: u8 = 0x18;
    /// Too many commands at a time.
    pub const TASK_SET_FULL: u8 = 0x28;
}

/// A big-endian number at a place of some bytes.
fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Text that is filled up with blanks.
fn text(bytes: &[u8]) -> String {
    let shown = bytes.iter().map(|byte| if byte.is_ascii_graphic() { char::from(*byte) } else { ' ' });
    shown.collect::<String>().trim().to_owned()
}
