//! The lab's control channel: requests and replies as JSON lines over a virtio port or a serial line.
//! Each line carries its length and checksum, because a serial line may drop bytes and consoles add some.
//! Compiled into both ends: the agent in the guest and the lab on the outside.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Longest text of one field in a reply, in bytes; keeps one reply well below what the ports buffer.
pub(crate) const TEXT_LIMIT: usize = 16 * 1024;

/// One request. The same `id` sent twice is executed once: the agent answers the second with the first reply.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Number of the request; 0 is the agent's own (greeting, complaint about a garbled line).
    pub(crate) id: u64,
    /// What to do.
    pub(crate) call: Call,
}

/// What the agent can do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Call {
    /// Say who you are: [`Hello`].
    Hello,
    /// Send the text back, for testing the line: [`Chunk`].
    Echo { text: String },
    /// Run a program to its end, killing it after `timeout_ms`: [`Finished`].
    Run { argv: Vec<String>, env: Vec<(String, String)>, timeout_ms: u64 },
    /// Start a program in the background: [`Started`].
    Spawn { argv: Vec<String>, env: Vec<(String, String)> },
    /// Wait at most `timeout_ms` for a background program: [`Finished`], `timed_out` if it still runs.
    Wait { job: u64, timeout_ms: u64 },
    /// Send a signal by number to a background program: nothing.
    Kill { job: u64, signal: i32 },
    /// Read at most [`TEXT_LIMIT`] bytes of a file from `offset` on: [`Chunk`].
    Read { path: String, offset: u64 },
    /// Write a file with a single `write`, as sysfs wants it: nothing. The file must exist unless `create`.
    Write { path: String, text: String, create: bool },
    /// Kernel log records from sequence number `since` on: [`KernelLog`].
    KernelLog { since: u64 },
    /// Power the guest off; there may be no reply.
    PowerOff,
}

/// The agent's greeting.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Hello {
    /// Kernel release, as `uname -r` prints it.
    pub(crate) release: String,
    /// Seconds since the guest's kernel started.
    pub(crate) uptime_seconds: f64,
    /// Sequence number that the next kernel log record will have.
    pub(crate) kernel_log_next: u64,
}

/// A program that was started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Started {
    /// Number to wait for and kill it by.
    pub(crate) job: u64,
    /// Its process id in the guest.
    pub(crate) pid: i32,
    /// File in the guest that receives its standard output.
    pub(crate) stdout_path: String,
    /// File in the guest that receives its standard error.
    pub(crate) stderr_path: String,
}

/// How a program ended, with the end of what it wrote.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Finished {
    /// Exit code, unless a signal ended it or it still runs.
    pub(crate) code: Option<i32>,
    /// Number of the signal that ended it.
    pub(crate) signal: Option<i32>,
    /// The time was up: `run` has killed it, `wait` has left it running.
    pub(crate) timed_out: bool,
    /// The last [`TEXT_LIMIT`] bytes of standard output, invalid UTF-8 replaced.
    pub(crate) stdout: String,
    /// The last quarter of [`TEXT_LIMIT`] bytes of standard error, invalid UTF-8 replaced.
    pub(crate) stderr: String,
}

/// A piece of a file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chunk {
    /// The bytes, invalid UTF-8 replaced.
    pub(crate) text: String,
    /// Offset of the byte after the piece.
    pub(crate) next: u64,
}

/// A piece of the kernel's log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct KernelLog {
    /// Records, oldest first, as `seconds.micros text`.
    pub(crate) lines: Vec<String>,
    /// Sequence number to go on from.
    pub(crate) next: u64,
    /// More records are there already.
    pub(crate) more: bool,
}

/// Why a request failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Fault {
    /// The operating system's error number, if it was the operating system that refused.
    pub(crate) errno: Option<i32>,
    /// What failed and why.
    pub(crate) message: String,
    /// The request did not arrive whole and was not executed: send it again.
    pub(crate) garbled: bool,
}

/// Answer to the request of the same `id`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reply {
    /// The request's number.
    pub(crate) id: u64,
    /// The value that the call's documentation names, or why there is none.
    pub(crate) result: Result<serde_json::Value, Fault>,
}

/// Encodes one message as a line: `~`, length and checksum in hexadecimal, JSON, newline.
///
/// # Errors
/// The value cannot be represented as JSON.
pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, serde_json::Error> {
    let body = serde_json::to_string(message)?;
    Ok(format!("~{:x} {:016x} {body}\n", body.len(), checksum(body.as_bytes())).into_bytes())
}

/// Decodes one line; `None` if any byte of it is missing, added or changed.
///
/// Noise in front of the line's `~` (a half line of before) is skipped.
pub(crate) fn decode<T: DeserializeOwned>(line: &[u8]) -> Option<T> {
    let text = std::str::from_utf8(line).ok()?;
    let (_, framed) = text.split_once('~')?;
    let (length, rest) = framed.split_once(' ')?;
    let (sum, body) = rest.split_once(' ')?;
    let body = body.trim_end_matches(['\n', '\r']);
    let whole = usize::from_str_radix(length, 16) == Ok(body.len())
        && u64::from_str_radix(sum, 16) == Ok(checksum(body.as_bytes()));
    if !whole {
        return None;
    }
    serde_json::from_str(body).ok()
}

/// FNV-1a, 64 bits: one multiplication a byte, cheap enough in a guest two emulators deep.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::{Call, Request, decode, encode};

    fn line() -> Vec<u8> {
        encode(&Request { id: 7, call: Call::Echo { text: "grüße\n~ ~".to_owned() } }).unwrap()
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        let request: Request = decode(&line()).unwrap();
        assert_eq!(request.id, 7);
        assert!(matches!(request.call, Call::Echo { text } if text == "grüße\n~ ~"));
    }

    #[test]
    fn noise_in_front_is_skipped() {
        let mut noisy = b"\x1b[0m SeaBIOS ".to_vec();
        noisy.extend(line());
        assert!(decode::<Request>(&noisy).is_some());
    }

    #[test]
    fn every_lost_or_changed_byte_is_noticed() {
        let whole = line();
        for at in 0..whole.len() - 1 {
            let mut lost = whole.clone();
            lost.remove(at);
            assert!(decode::<Request>(&lost).is_none(), "byte {at} lost");
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(decode::<Request>(&changed).is_none(), "byte {at} changed");
        }
    }
}
