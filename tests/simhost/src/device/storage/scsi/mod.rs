//! SCSI as a disk carries it out: a command and its data in, data and a status out.
//!
//! Format: SPC-4 and SBC-3, big-endian.

mod describe;

use super::unit::{BAD_FIELD, MEDIUM_ERROR, OUT_OF_RANGE, PROTECTED, SenseCode, UNKNOWN_COMMAND, Unit, WRITE_ERROR};
pub(super) use describe::{nothing_there, report_luns};

/// What a command came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    /// It is done, and this is what it brings.
    Good(Vec<u8>),
    /// It failed.
    Check(SenseCode),
}

/// What the command did, for the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Did {
    Read,
    Wrote,
    Flushed,
    Unmapped,
    Else,
}

/// Carries a command out that brings at most `room` bytes, with the data that came with it.
pub(super) fn carry_out(unit: &mut Unit, command: &[u8; 16], data: &[u8], room: usize) -> (Reply, Did) {
    let [code, ..] = *command;
    // These are answered whatever there is to tell.
    if !matches!(code, 0x03 | 0x12 | 0xa0)
        && let Some(attention) = unit.told()
    {
        return (Reply::Check(attention), Did::Else);
    }
    if !matches!(code, 0x03 | 0x12) && unit.failures > 0 {
        unit.failures -= 1;
        return (Reply::Check(MEDIUM_ERROR), Did::Else);
    }
    let (reply, did) = match code {
        0x00 | 0x1b | 0x1e => (Reply::Good(Vec::new()), Did::Else),
        0x03 => (Reply::Good(sense(unit.told().unwrap_or((0, 0, 0)))), Did::Else),
        0x12 => (describe::inquiry(unit, command), Did::Else),
        0x1a | 0x5a => (describe::mode_sense(unit, command), Did::Else),
        0x25 => (describe::capacity_10(unit), Did::Else),
        0x9e if command.get(1).is_some_and(|action| action & 0x1f == 0x10) && unit.settings.modern => {
            (describe::capacity_16(unit), Did::Else)
        }
        0x28 | 0x88 => (read(unit, command, room), Did::Read),
        0x2a | 0x8a => (write(unit, command, data), Did::Wrote),
        0x35 | 0x91 => (
            if unit.medium.flush().is_ok() { Reply::Good(Vec::new()) } else { Reply::Check(WRITE_ERROR) },
            Did::Flushed,
        ),
        0x42 if unit.settings.thin => (unmap(unit, data), Did::Unmapped),
        _ => (Reply::Check(UNKNOWN_COMMAND), Did::Else),
    };
    match reply {
        Reply::Good(mut bytes) => {
            bytes.truncate(room);
            (Reply::Good(bytes), did)
        }
        check => (check, Did::Else),
    }
}

/// Sense data of the fixed format.
pub(super) fn sense((key, code, qualifier): SenseCode) -> Vec<u8> {
    vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, qualifier, 0, 0, 0, 0]
}

/// Block and count of a command of 10 or 16 bytes.
fn blocks(command: &[u8; 16]) -> (u64, u64) {
    let number = |at: usize, bytes: usize| {
        command.iter().skip(at).take(bytes).fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    if matches!(command, [0x28 | 0x2a, ..]) { (number(2, 4), number(7, 2)) } else { (number(2, 8), number(10, 4)) }
}

fn read(unit: &Unit, command: &[u8; 16], room: usize) -> Reply {
    let (block, count) = blocks(command);
    let Some((offset, bytes)) = unit.place(block, count) else { return Reply::Check(OUT_OF_RANGE) };
    let Some(bytes) = usize::try_from(bytes).ok().filter(|bytes| *bytes <= room) else {
        return Reply::Check(BAD_FIELD);
    };
    let mut data = vec![0; bytes];
    if unit.medium.read(offset, &mut data).is_ok() { Reply::Good(data) } else { Reply::Check(MEDIUM_ERROR) }
}

fn write(unit: &mut Unit, command: &[u8; 16], data: &[u8]) -> Reply {
    let (block, count) = blocks(command);
    if unit.settings.read_only {
        return Reply::Check(PROTECTED);
    }
    let Some((offset, bytes)) = unit.place(block, count) else { return Reply::Check(OUT_OF_RANGE) };
    if usize::try_from(bytes) != Ok(data.len()) {
        return Reply::Check(BAD_FIELD);
    }
    let through = command.get(1).is_some_and(|flags| flags & 8 != 0);
    let done = unit.medium.write(offset, data).and_then(|()| if through { unit.medium.flush() } else { Ok(()) });
    if done.is_ok() { Reply::Good(Vec::new()) } else { Reply::Check(WRITE_ERROR) }
}

fn unmap(unit: &mut Unit, data: &[u8]) -> Reply {
    if unit.settings.read_only {
        return Reply::Check(PROTECTED);
    }
    let length = data.get(2..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u16::from_be_bytes(*bytes));
    let Some(list) = data.get(8..8 + usize::from(length)) else { return Reply::Check(BAD_FIELD) };
    for entry in list.chunks_exact(16) {
        let number = |part: Option<&[u8]>| {
            part.unwrap_or_default().iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
        };
        let Some((offset, bytes)) = unit.place(number(entry.get(..8)), number(entry.get(8..12))) else {
            return Reply::Check(OUT_OF_RANGE);
        };
        if unit.medium.discard(offset, bytes).is_err() {
            return Reply::Check(WRITE_ERROR);
        }
    }
    Reply::Good(Vec::new())
}
