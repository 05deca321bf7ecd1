//! The kernel's log from /dev/kmsg: records by sequence number (Documentation/ABI/testing/dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

use anyhow::{Context, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::wire::{KernelLog, TEXT_LIMIT};

/// Records from sequence number `since` on, as many as one reply holds.
pub(crate) fn since(since: u64) -> Result<KernelLog> {
    let mut log = open()?;
    let mut answer = KernelLog { lines: Vec::new(), next: since, more: false };
    let mut bytes = 0;
    while let Some(record) = next(&mut log)? {
        let Some((sequence, line)) = parse(&record) else { continue };
        if sequence < since {
            continue;
        }
        if bytes + line.len() > TEXT_LIMIT {
            answer.more = true;
            break;
        }
        bytes += line.len();
        answer.next = sequence + 1;
        answer.lines.push(line);
    }
    Ok(answer)
}

/// Sequence number that the next record will have, as far as can be told: one past the newest.
pub(crate) fn end() -> Result<u64> {
    let mut log = open()?;
    let mut end = 0;
    while let Some(record) = next(&mut log)? {
        end = parse(&record).map_or(end, |(sequence, _)| sequence + 1);
    }
    Ok(end)
}

fn open() -> Result<File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let mut log = OpenOptions::new().read(true).custom_flags(flags).open("/dev/kmsg").context("open /dev/kmsg")?;
    log.seek(SeekFrom::Start(0)).context("seek in /dev/kmsg")?;
    Ok(log)
}

/// The next record; `None` at the end of the log. Records that were overwritten meanwhile are skipped.
fn next(log: &mut File) -> Result<Option<String>> {
    let mut buffer = [0; 8192];
    loop {
        match log.read(&mut buffer) {
            Ok(length) => {
                let record = buffer.get(..length).unwrap_or_default();
                return Ok(Some(String::from_utf8_lossy(record).into_owned()));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.raw_os_error() == Some(Errno::PIPE.raw_os_error()) => {}
            Err(error) => return Err(error).context("read /dev/kmsg"),
        }
    }
}

/// Sequence number and `seconds.micros text` of a record `level,sequence,micros,flags;text`.
fn parse(record: &str) -> Option<(u64, String)> {
    let (head, text) = record.split_once(';')?;
    let mut fields = head.split(',').skip(1);
    let sequence = fields.next()?.parse().ok()?;
    let micros: u64 = fields.next()?.parse().ok()?;
    let text = text.lines().next().unwrap_or_default();
    Some((sequence, format!("{}.{:06} {text}", micros / 1_000_000, micros % 1_000_000)))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn records_lose_their_dictionary_and_gain_a_time() {
        let record = "4,321,7582101,-;WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x0\n SUBSYSTEM=vmbus\n";
        assert_eq!(parse(record), Some((321, "7.582101 WARNING: CPU: 0 PID: 1 at x.c:1 f+0x0/0x0".to_owned())));
        assert_eq!(parse("no record"), None);
    }
}
