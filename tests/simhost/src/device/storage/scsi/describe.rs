//! What a disk says of itself.

use super::Reply;
use crate::device::storage::unit::{BAD_FIELD, Unit};

/// The answer to an INQUIRY where there is no unit, and none can be.
pub(in crate::device::storage) fn nothing_there() -> Vec<u8> {
    let mut bytes = vec![0; 36];
    if let Some(first) = bytes.first_mut() {
        *first = 0x7f;
    }
    bytes
}

/// The answer to REPORT LUNS.
pub(in crate::device::storage) fn report_luns(luns: impl Iterator<Item = u8>) -> Vec<u8> {
    let entries: Vec<u8> = luns.flat_map(|lun| [0, lun, 0, 0, 0, 0, 0, 0]).collect();
    let mut bytes = u32::try_from(entries.len()).unwrap_or(0).to_be_bytes().to_vec();
    bytes.extend([0; 4]);
    bytes.extend(entries);
    bytes
}

pub(super) fn inquiry(unit: &Unit, command: &[u8; 16]) -> Reply {
    let [_, flags, page, ..] = *command;
    let body = match (flags & 1, page) {
        (0, 0) => return Reply::Good(standard()),
        (1, 0x00) if unit.settings.thin => vec![0x00, 0x80, 0x83, 0xb0, 0xb1, 0xb2],
        (1, 0x00) => vec![0x00, 0x80, 0x83, 0xb0, 0xb1],
        (1, 0x80) => format!("SIM{:016x}", unit.identity).into_bytes(),
        (1, 0x83) => identifiers(unit),
        (1, 0xb0) => limits(unit),
        // No rotation.
        (1, 0xb1) => [&[0, 1][..], &[0; 58]].concat(),
        (1, 0xb2) if unit.settings.thin => vec![0, 0x84, 2, 0],
        _ => return Reply::Check(BAD_FIELD),
    };
    let mut bytes = vec![0, page];
    bytes.extend(u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    bytes.extend(body);
    Reply::Good(bytes)
}

fn standard() -> Vec<u8> {
    // A disk; SPC-3; 31 bytes follow; commands are queued.
    let mut bytes = vec![0, 0, 5, 2, 31, 0, 0, 2];
    bytes.extend(b"Msft    Virtual Disk    1.0 ");
    bytes
}

fn identifiers(unit: &Unit) -> Vec<u8> {
    // A name of NAA 6, binary, of the unit.
    let mut bytes = vec![1, 3, 0, 16, 0x60, 0x02, 0x24, 0x80, 0, 0, 0, 0];
    bytes.extend(unit.identity.to_be_bytes());
    bytes
}

fn limits(unit: &Unit) -> Vec<u8> {
    let mut bytes = vec![0; 60];
    let unmaps: (u32, u32, u32) = if unit.settings.thin { (0x2_0000, 64, 8) } else { (0, 0, 0) };
    let fields = [(2, 8), (4, 0), (8, 0), (16, unmaps.0), (20, unmaps.1), (24, unmaps.2)];
    for (at, value) in fields {
        // The granularity is a half word.
        let value: &[u8] = if at == 2 { &[0, 8] } else { &u32::to_be_bytes(value) };
        bytes.iter_mut().skip(at).zip(value).for_each(|(to, from)| *to = *from);
    }
    bytes
}

pub(super) fn mode_sense(unit: &Unit, command: &[u8; 16]) -> Reply {
    let [code, _, page, ..] = *command;
    let caching: &[u8] = match page & 0x3f {
        // What is written is in a cache at first.
        0x08 | 0x3f => &[0x08, 0x12, 0x04, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        _ => return Reply::Check(BAD_FIELD),
    };
    let protected = if unit.settings.read_only { 0x80 } else { 0x10 };
    let length = u8::try_from(caching.len()).unwrap_or(0);
    let mut bytes = match code {
        0x1a => vec![length + 3, 0, protected, 0],
        _ => vec![0, length + 6, 0, protected, 0, 0, 0, 0],
    };
    bytes.extend(caching);
    Reply::Good(bytes)
}

pub(super) fn capacity_10(unit: &Unit) -> Reply {
    let last = u32::try_from(unit.blocks() - 1).unwrap_or(u32::MAX);
    Reply::Good([last.to_be_bytes(), unit.settings.block_bytes.to_be_bytes()].concat())
}

pub(super) fn capacity_16(unit: &Unit) -> Reply {
    let mut bytes = (unit.blocks() - 1).to_be_bytes().to_vec();
    bytes.extend(unit.settings.block_bytes.to_be_bytes());
    // Blocks below are of 4096 bytes; ranges that were given up read as zeroes.
    let exponent = if unit.settings.block_bytes == 512 { 3 } else { 0 };
    bytes.extend([0, exponent, if unit.settings.thin { 0xc0 } else { 0 }, 0]);
    bytes.resize(32, 0);
    Reply::Good(bytes)
}
