//! Lines in, bounded: whatever comes, a line is a request, or an error with the id that can be made out.

use std::io::{self, BufRead, ErrorKind};

use super::wire::{Outcome, Reply, Request};

/// Bytes of a line at most.
pub(super) const LINE_AT_MOST: usize = 64 << 10;

/// A line that was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// In the buffer, without its end.
    Text,
    /// It was longer than it may be, and is gone.
    TooLong,
    /// The other side has closed.
    End,
}

/// Reads the next line into `line`.
pub(super) fn read(from: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Line> {
    line.clear();
    let mut too_long = false;
    loop {
        let bytes = match from.fill_buf() {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if bytes.is_empty() {
            return Ok(Line::End);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = bytes.get(..end.unwrap_or(bytes.len())).unwrap_or_default();
        too_long |= line.len() + part.len() > LINE_AT_MOST;
        if !too_long {
            line.extend_from_slice(part);
        }
        let used = part.len() + usize::from(end.is_some());
        from.consume(used);
        if end.is_some() {
            return Ok(if too_long { Line::TooLong } else { Line::Text });
        }
    }
}

/// What a line asks for, or what to answer at once. `None`: an empty line.
pub(super) fn parse(line: &[u8]) -> Option<Result<Request, Reply>> {
    if line.trim_ascii().is_empty() {
        return None;
    }
    Some(serde_json::from_slice::<Request>(line).map_err(|error| {
        let value: Option<serde_json::Value> = serde_json::from_slice(line).ok();
        let id = value.and_then(|value| value.get("id")?.as_u64()).unwrap_or(0);
        refused(id, &format!("this line is no request: {error}"))
    }))
}

/// An answer that says no.
pub(super) fn refused(id: u64, why: &str) -> Reply {
    Reply { id, outcome: Outcome::Error(why.to_owned()) }
}
