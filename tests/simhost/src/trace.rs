//! The trace: every message, signal and interrupt with its time and direction. What is kept is decoded when printed.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use vmbus::message::{GuestMessage, HostMessage, Message, Protocol};

/// One thing that crossed between guest and host, or that was done to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The guest posted.
    Posted(Message, Protocol),
    /// The host's message was delivered.
    Delivered(Message, Protocol),
    /// A processor was interrupted.
    Interrupt {
        /// Which.
        processor: u32,
        /// With which flag.
        flag: u32,
    },
    /// The guest signalled.
    Signal {
        /// Connection, or monitor id.
        number: u32,
        /// By a monitor page.
        monitored: bool,
    },
    /// A fault, a command, a remark.
    Note(String),
}

/// One line of the trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up from 1.
    pub number: u64,
    /// When, in the host's time.
    pub at: Duration,
    /// What.
    pub event: Event,
}

/// The last lines, and a digest of all of them.
#[derive(Debug, Clone)]
pub struct Trace {
    seed: u64,
    entries: VecDeque<Entry>,
    keep: usize,
    count: u64,
    digest: u64,
}

impl Trace {
    /// Keeps that many lines.
    #[must_use]
    pub fn new(seed: u64, keep: usize) -> Self {
        Self { seed, entries: VecDeque::new(), keep, count: 0, digest: 0xcbf2_9ce4_8422_2325 }
    }

    /// Adds a line.
    pub fn record(&mut self, at: Duration, event: Event) {
        self.count += 1;
        self.mix(&at.as_nanos().to_le_bytes());
        match &event {
            Event::Posted(message, _) => self.mix_tagged(1, message.as_ref()),
            Event::Delivered(message, _) => self.mix_tagged(2, message.as_ref()),
            Event::Interrupt { processor, flag } => {
                self.mix_tagged(3, &processor.to_le_bytes());
                self.mix(&flag.to_le_bytes());
            }
            Event::Signal { number, monitored } => {
                self.mix_tagged(4 + u8::from(*monitored), &number.to_le_bytes());
            }
            Event::Note(text) => self.mix_tagged(6, text.as_bytes()),
        }
        while self.entries.len() >= self.keep.max(1) {
            self.entries.pop_front();
        }
        if self.keep != 0 {
            self.entries.push_back(Entry { number: self.count, at, event });
        }
    }

    /// The lines that were kept, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Lines so far, kept or not.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// A number that two runs have in common only if all their lines are the same.
    #[must_use]
    pub const fn digest(&self) -> u64 {
        self.digest
    }

    fn mix_tagged(&mut self, tag: u8, bytes: &[u8]) {
        self.mix(&[tag]);
        self.mix(bytes);
    }

    /// Words of eight bytes, the last filled up with zeroes, each mixed in by a product and folded. (Not byte by byte, which
    /// takes longer than all else that is done with a message here.)
    fn mix(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        let words = words.iter().chain(Some(&last).filter(|_| !rest.is_empty()));
        for word in words.map(|word| u64::from_le_bytes(*word)) {
            let mixed = (self.digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            // A product's low bits know nothing of the word's high ones.
            self.digest = mixed ^ mixed >> 32;
        }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "seed {}, {} lines, the last {}:", self.seed, self.count, self.entries.len())?;
        self.entries.iter().try_for_each(|entry| writeln!(formatter, "{entry}"))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:>6} {:>12.6}s ", self.number, self.at.as_secs_f64())?;
        match &self.event {
            Event::Posted(message, protocol) => match GuestMessage::parse(message.as_ref(), *protocol) {
                Ok(decoded) => write!(formatter, "guest -> host  {}", brief(&decoded)),
                Err(error) => write!(formatter, "guest -> host  {message:?}: {error}"),
            },
            Event::Delivered(message, protocol) => match HostMessage::parse(message.as_ref(), *protocol) {
                Ok(decoded) => write!(formatter, "host -> guest  {}", brief(&decoded)),
                Err(error) => write!(formatter, "host -> guest  {message:?}: {error}"),
            },
            Event::Interrupt { processor, flag } => {
                write!(formatter, "host -> guest  interrupt of processor {processor}, flag {flag}")
            }
            Event::Signal { number, monitored: false } => write!(formatter, "guest -> host  signal {number}"),
            Event::Signal { number, monitored: true } => write!(formatter, "guest -> host  monitor bit {number}"),
            Event::Note(text) => write!(formatter, "               {text}"),
        }
    }
}

/// The debug text without the 120 bytes of user-defined data when they are zero, which they nearly always are.
fn brief(message: &impl fmt::Debug) -> String {
    let text = format!("{message:?}");
    match (text.find("user_defined: ["), text.find("], ")) {
        (Some(start), Some(end)) if start < end => {
            let (before, rest) = text.split_at(start);
            let (bytes, after) = rest.split_at(end - start + 1);
            let zero = bytes.trim_start_matches("user_defined: [").trim_end_matches(']').split(", ").all(|b| b == "0");
            if zero { format!("{before}user_defined: 0{after}") } else { text.clone() }
        }
        _ => text,
    }
}
