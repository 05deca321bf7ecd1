//! The host that reads and writes keys. Its layouts are numbers of bytes: a header of 4, then the parts in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::{Uuid, uuid};
use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version, word};

/// Bytes of a key and of a value, as the host pads them.
const KEY_BYTES: usize = 512;
const VALUE_BYTES: usize = 2048;

/// What a guest said to the host, oldest first: the command, the status, and the key and value where there are any.
#[derive(Debug, Clone, Default)]
pub struct KvpAnswers(Arc<Mutex<Vec<KvpAnswer>>>);

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvpAnswer {
    /// How it went.
    pub status: u32,
    /// Of an enumeration.
    pub key: String,
    /// Of an enumeration or a get.
    pub value: String,
}

impl KvpAnswers {
    /// Takes all.
    #[must_use]
    pub fn take(&self) -> Vec<KvpAnswer> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads and writes keys. Commands: `set POOL KEY VALUE`, `get POOL KEY`, `delete POOL KEY`, `enumerate POOL` (until there
/// are no more), `configure ADAPTER ADDRESS SUBNET`.
#[derive(Debug, Default)]
pub struct KvpHost {
    answers: KvpAnswers,
    requests: VecDeque<Vec<u8>>,
    done: u64,
    rounds: u64,
}

impl KvpHost {
    /// A host whose answers are heard of elsewhere.
    #[must_use]
    pub fn new(answers: KvpAnswers) -> Self {
        Self { answers, ..Self::default() }
    }

    fn request(words: &str) -> Option<Vec<u8>> {
        let words: Vec<&str> = words.splitn(4, ' ').collect();
        let pool = words.get(1)?.parse::<u8>();
        let mut body = Vec::new();
        match *words.as_slice() {
            ["set", _, key, value] => {
                body.extend([1, pool.ok()?, 0, 0]);
                pair(&mut body, key, value);
            }
            ["get", _, key] => {
                body.extend([0, pool.ok()?, 0, 0]);
                pair(&mut body, key, "");
            }
            ["delete", _, key] => {
                body.extend([2, pool.ok()?, 0, 0]);
                body.extend(bytes_of(key).to_le_bytes());
                text(&mut body, key, KEY_BYTES);
            }
            ["enumerate", _] => {
                body.extend([3, pool.ok()?, 0, 0]);
                body.resize(4 + 4 + 12 + KEY_BYTES + VALUE_BYTES, 0);
            }
            ["configure", adapter, address, subnet] => {
                body.extend([5, 0]);
                text(&mut body, adapter, 256);
                body.extend([1, 0]);
                text(&mut body, address, 2048);
                text(&mut body, subnet, 2048);
                body.resize(7428, 0);
            }
            _ => return None,
        }
        Some(body)
    }
}

impl Part for KvpHost {
    const KIND: u16 = 2;
    const CLASS: Class = Class::KVP;
    const INSTANCE: Option<Uuid> = Some(uuid!("242ff919-07db-4180-9c2e-b86cb68c8c55"));
    const VERSIONS: &'static [Version] = &[(3, 0), (4, 0), (5, 0)];

    fn agreed(&mut self, _: Version, _: Duration) {}

    fn next(&mut self, _: Duration) -> Option<(u8, Vec<u8>)> {
        Some((ASKS, self.requests.pop_front()?))
    }

    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String> {
        self.done += 1;
        let operation = request.first().copied();
        let (key, value) = match (operation, status) {
            (Some(3), 0) => {
                let index = word(request, 4).unwrap_or(u32::MAX);
                let mut next = request.to_vec();
                next.splice(4..8, (index + 1).to_le_bytes());
                self.requests.push_front(next);
                (sized(answer, 20, 12, KEY_BYTES)?, sized(answer, 20 + KEY_BYTES, 16, VALUE_BYTES)?)
            }
            (Some(0), 0) => (String::new(), sized(answer, 16 + KEY_BYTES, 12, VALUE_BYTES)?),
            _ => (String::new(), String::new()),
        };
        self.rounds += u64::from(operation == Some(3) && status != 0);
        let mut answers = self.answers.0.lock().unwrap_or_else(PoisonError::into_inner);
        if answers.len() < 4096 {
            answers.push(KvpAnswer { status, key, value });
        }
        Ok(())
    }

    fn closed(&mut self) {
        self.requests.clear();
    }

    fn command(&mut self, words: &str) -> bool {
        let request = Self::request(words);
        let is = request.is_some();
        if self.requests.len() < 256 {
            self.requests.extend(request);
        }
        is
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("done", self.done), ("rounds", self.rounds)]
    }
}

/// Bytes of a text with its zero.
fn bytes_of(text: &str) -> u32 {
    u32::try_from((text.encode_utf16().count() + 1) * 2).unwrap_or(u32::MAX)
}

/// Text in so many bytes.
fn text(body: &mut Vec<u8>, text: &str, bytes: usize) {
    let end = body.len() + bytes;
    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    body.resize(end, 0);
}

/// A text's type, sizes, key and value.
fn pair(body: &mut Vec<u8>, key: &str, value: &str) {
    for number in [1, bytes_of(key), bytes_of(value)] {
        body.extend(number.to_le_bytes());
    }
    text(body, key, KEY_BYTES);
    text(body, value, VALUE_BYTES);
}

/// A text whose size is elsewhere, in bytes and with its zero.
fn sized(body: &[u8], at: usize, size_at: usize, at_most: usize) -> Result<String, String> {
    let wrong = || format!("a text at {at} that is none");
    let size = usize::try_from(word(body, size_at).ok_or_else(wrong)?).map_err(|_| wrong())?;
    let bytes = body.get(at..at + size.min(at_most)).ok_or_else(wrong)?;
    let units: Vec<u16> = bytes.as_chunks::<2>().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
    match units.split_last() {
        Some((0, text)) if size <= at_most && !text.contains(&0) => String::from_utf16(text).map_err(|_| wrong()),
        _ => Err(wrong()),
    }
}
