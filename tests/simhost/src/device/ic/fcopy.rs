//! The host that copies files to its guest. Its layouts are numbers of bytes: two texts of 520, or 52 before data.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::{Uuid, uuid};
use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version};
use crate::Random;

/// Bytes of a fragment.
const FRAGMENT_BYTES: u64 = 6144;

/// Copies files. Commands: `copy FLAGS BYTES SEED FOLDER NAME` (1 writes over, 2 makes the folder), `cancel` (after
/// the fragment that is under way), `start FLAGS BYTES FOLDER NAME` and no more.
#[derive(Debug, Default)]
pub struct FcopyHost {
    jobs: VecDeque<Job>,
    current: Option<(Job, Random, Step)>,
    cancel: bool,
    copied: u64,
    failed: u64,
    cancelled: u64,
    fragments: u64,
    status: u64,
}

/// A file to be copied.
#[derive(Debug, Clone)]
struct Job {
    flags: u32,
    bytes: u64,
    seed: Option<u64>,
    folder: String,
    name: String,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Start,
    Write(u64),
    Complete,
    Cancel,
    Nothing,
}

/// The bytes of a file whose copy was asked for with this seed.
#[must_use]
pub fn fcopy_content(seed: u64, bytes: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    (0..bytes).map(|_| random.next_u64().to_le_bytes()[0]).collect()
}

fn header(operation: u32) -> Vec<u8> {
    let mut body = operation.to_le_bytes().to_vec();
    body.resize(36, 0);
    body
}

impl FcopyHost {
    fn job(words: &str) -> Option<Job> {
        let (verb, rest) = words.split_once(' ')?;
        let mut words = rest.splitn(if verb == "copy" { 5 } else { 4 }, ' ');
        let mut number = || words.next()?.parse::<u64>().ok();
        let (flags, bytes) = (u32::try_from(number()?).ok()?, number()?);
        let seed = if verb == "copy" { Some(number()?) } else { None };
        let (folder, name) = (words.next()?.to_owned(), words.next()?.to_owned());
        ["copy", "start"].contains(&verb).then_some(Job { flags, bytes, seed, folder, name })
    }
}

impl Part for FcopyHost {
    const KIND: u16 = 7;
    const CLASS: Class = Class::FCOPY;
    const INSTANCE: Option<Uuid> = Some(uuid!("eb765408-105f-49b6-b4aa-c123b64d17d4"));
    const VERSIONS: &'static [Version] = &[(1, 0), (1, 1)];

    fn agreed(&mut self, _: Version, _: Duration) {}

    fn next(&mut self, _: Duration) -> Option<(u8, Vec<u8>)> {
        if self.current.as_ref().is_none_or(|(_, _, step)| *step == Step::Nothing)
            && let Some(job) = self.jobs.pop_front()
        {
            let random = Random::new(job.seed.unwrap_or_default());
            self.current = Some((job, random, Step::Start));
        }
        let (job, random, step) = self.current.as_mut()?;
        if std::mem::take(&mut self.cancel) {
            *step = Step::Cancel;
        }
        let body = match *step {
            Step::Start => {
                let mut body = header(0);
                for text in [&job.name, &job.folder] {
                    let from = body.len();
                    body.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
                    body.resize(from + 520, 0);
                }
                [&body, &job.flags.to_le_bytes()[..], &job.bytes.to_le_bytes()].concat()
            }
            Step::Write(offset) => {
                let bytes = (job.bytes - offset).min(FRAGMENT_BYTES);
                let data: Vec<u8> = (0..bytes).map(|_| random.next_u64().to_le_bytes()[0]).collect();
                let count = u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
                [&header(1), &[0; 4][..], &offset.to_le_bytes(), &count, &data].concat()
            }
            Step::Complete => header(2),
            Step::Cancel => header(3),
            Step::Nothing => return None,
        };
        Some((ASKS, body))
    }

    fn answered(&mut self, _: &[u8], status: u32, _: &[u8]) -> Result<(), String> {
        self.status = status.into();
        let Some((job, _, step)) = self.current.as_mut() else { return Ok(()) };
        let after = |written: u64| if written < job.bytes { Step::Write(written) } else { Step::Complete };
        *step = match *step {
            _ if status != 0 => {
                self.failed += 1;
                Step::Nothing
            }
            Step::Start if job.seed.is_none() => Step::Nothing,
            Step::Start => after(0),
            Step::Write(offset) => {
                self.fragments += 1;
                after(offset.saturating_add(FRAGMENT_BYTES))
            }
            Step::Complete => {
                self.copied += 1;
                Step::Nothing
            }
            Step::Cancel | Step::Nothing => {
                self.cancelled += 1;
                Step::Nothing
            }
        };
        Ok(())
    }

    fn closed(&mut self) {
        self.jobs.clear();
        self.current = None;
    }

    fn command(&mut self, words: &str) -> bool {
        let job = Self::job(words);
        self.cancel |= words == "cancel";
        let is = job.is_some() || words == "cancel";
        if self.jobs.len() < 64 {
            self.jobs.extend(job);
        }
        is
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("copied", self.copied),
            ("failed", self.failed),
            ("cancelled", self.cancelled),
            ("fragments", self.fragments),
            ("status", self.status),
        ]
    }
}
