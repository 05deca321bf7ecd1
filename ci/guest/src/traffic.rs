//! Packets to an echo device and back: each reply's bytes and order are checked, and each round trip is timed.
//!
//! The payload of packet `n` follows from `n`, so nothing of it is kept. Whatever goes wrong is a [`Trouble`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};
use vmbus_channels::{Channel, Error, OutgoingPacket, Wake};
use vmbus_ringbuf::{FLAG_COMPLETION_REQUESTED, Memory, Packet, PacketType, WriteError};

/// Packets that are received in one go.
const BUDGET: usize = 64;
/// Round trips that are kept for the percentiles.
const SAMPLES: usize = 1 << 20;
/// Looks at the ring between two looks at the clock.
const LOOKS: u32 = 256;

/// How packets are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Bytes of payload, in whole words: what is sent is padded to them.
    pub(crate) words: usize,
    /// Packets that are under way at a time.
    pub(crate) window: usize,
    /// Whether each packet wants a completion.
    pub(crate) completions: bool,
    /// Whether to look without pause, with interrupts off, instead of sleeping.
    pub(crate) polls: bool,
    /// How long a reply may take.
    pub(crate) patience: Duration,
}

impl Plan {
    /// One small packet at a time, sleeping.
    pub(crate) const PLAIN: Self =
        Self { words: 8, window: 1, completions: false, polls: false, patience: Duration::from_secs(20) };
}

/// Why traffic ended before its time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    /// The channel: rescinded, corrupt, or else.
    #[error(transparent)]
    Channel(#[from] Error),
    /// A reply that is not what was sent.
    #[error("device {device}: reply {number}: {what}")]
    Wrong {
        /// The device.
        device: String,
        /// Which reply, from 0 on.
        number: u64,
        /// What about it.
        what: String,
    },
    /// No reply.
    #[error("device {device}: no reply to packet {number} within {waited_ms} ms, and the channel is said to be there")]
    Silent {
        /// The device.
        device: String,
        /// To which packet, from 0 on.
        number: u64,
        /// How long it was waited for.
        waited_ms: u128,
    },
}

impl Trouble {
    /// As the exit code of a program.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Channel(error) => error.kind().exit_code(),
            _ => 1,
        }
    }

    /// In a word, for tallies.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Channel(error) => word_for(error),
            Self::Silent { .. } => "silent",
            Self::Wrong { .. } => "wrong",
        }
    }
}

/// An error of a channel in a word.
pub(crate) fn word_for(error: &Error) -> &'static str {
    match error {
        Error::Gone(_) => "rescinded",
        error if error.is_rescinded() => "rescinded",
        Error::Corrupt { .. } => "corrupt",
        Error::Stalled { .. } => "silent",
        _ => "failed",
    }
}

/// What went to and fro.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) bytes: u64,
    /// Replies that asked for a completion, and got it.
    pub(crate) asked: u64,
}

/// A packet that waits for its reply.
#[derive(Debug)]
struct Waiting {
    number: u64,
    since: Instant,
}

/// The traffic of one channel.
#[derive(Debug)]
pub(crate) struct Traffic {
    channel: Channel,
    plan: Plan,
    waiting: VecDeque<Waiting>,
    /// Completions that are to be sent.
    owed: VecDeque<u64>,
    next: u64,
    heard: Instant,
    pub(crate) tally: Tally,
    round_trips: Vec<u32>,
    text: Vec<u8>,
}

impl Traffic {
    pub(crate) fn new(channel: Channel, plan: Plan) -> Self {
        Self {
            channel,
            plan,
            waiting: VecDeque::new(),
            owed: VecDeque::new(),
            next: 0,
            heard: Instant::now(),
            tally: Tally::default(),
            round_trips: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Ends the traffic, not the channel.
    pub(crate) fn into_channel(self) -> Channel {
        self.channel
    }

    /// Sends `packets` and waits for all replies.
    pub(crate) fn exchange(&mut self, packets: u64) -> Result<(), Trouble> {
        let end = self.next.saturating_add(packets);
        self.run(|traffic| traffic.next < end)
    }

    /// Sends as long as `more` says so, then waits for the replies that are missing.
    pub(crate) fn run(&mut self, mut more: impl FnMut(&Self) -> bool) -> Result<(), Trouble> {
        self.heard = Instant::now();
        loop {
            self.answer()?;
            while self.waiting.len() < self.plan.window && more(self) && self.send_one()? {}
            if self.waiting.is_empty() && self.owed.is_empty() && !more(self) {
                return Ok(());
            }
            self.hear()?;
        }
    }

    /// Sends nothing and shows that nothing comes, for so long.
    pub(crate) fn idle(&mut self, limit: Duration) -> Result<(), Trouble> {
        let start = Instant::now();
        loop {
            match self.channel.wait(Some(limit.saturating_sub(start.elapsed())))? {
                Wake::TimedOut => return Ok(()),
                Wake::Woken => {}
                Wake::Packets => drop(self.receive()?),
            }
        }
    }

    /// Sends the next packet, if there is room.
    fn send_one(&mut self) -> Result<bool, Trouble> {
        let number = self.next;
        fill(&mut self.text, number, self.plan.words);
        let packet = OutgoingPacket::in_band(number);
        let packet = if self.plan.completions { packet.with_completion_requested() } else { packet };
        if !self.sent(packet, true)? {
            return Ok(false);
        }
        self.waiting.push_back(Waiting { number, since: Instant::now() });
        self.next = self.next.wrapping_add(1);
        self.tally.sent += 1;
        Ok(true)
    }

    fn sent(&mut self, packet: OutgoingPacket<'_>, with_text: bool) -> Result<bool, Trouble> {
        let text: &[&[u8]] = if with_text { &[&self.text] } else { &[] };
        match self.channel.try_send(packet, text) {
            Ok(()) => Ok(true),
            Err(Error::Full { .. } | Error::Packet { source: WriteError::Full { .. }, .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the completions that are owed, as far as there is room.
    fn answer(&mut self) -> Result<(), Trouble> {
        while let Some(id) = self.owed.front() {
            let packet = OutgoingPacket::completion(*id);
            if !self.sent(packet, false)? {
                break;
            }
            self.owed.pop_front();
        }
        Ok(())
    }

    /// Waits for replies, and takes them.
    fn hear(&mut self) -> Result<(), Trouble> {
        if self.plan.polls {
            for _ in 0..LOOKS {
                if self.receive()? != 0 {
                    return Ok(());
                }
                std::hint::spin_loop();
            }
        } else if self.channel.wait(Some(self.plan.patience.saturating_sub(self.heard.elapsed())))? == Wake::Packets {
            self.receive()?;
        }
        let waited = self.heard.elapsed();
        if waited >= self.plan.patience {
            let number = self.waiting.front().map_or(self.next, |waiting| waiting.number);
            return Err(Trouble::Silent { device: self.device(), number, waited_ms: waited.as_millis() });
        }
        Ok(())
    }

    /// Takes the replies that are there. How many there were.
    fn receive(&mut self) -> Result<usize, Trouble> {
        let Self { channel, plan, waiting, owed, tally, round_trips, text, .. } = self;
        let mut wrong = None;
        let received = channel.receive(BUDGET, |packet| {
            if wrong.is_some() {
                return Ok::<_, Error>(());
            }
            match check(packet, waiting.front().map(|waiting| waiting.number), plan, text) {
                Ok(()) => {
                    let since = waiting.pop_front().map(|waiting| waiting.since.elapsed());
                    if let Some(took) = since.filter(|_| round_trips.len() < SAMPLES) {
                        round_trips.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
                    }
                    tally.received += 1;
                    tally.bytes += u64::try_from(text.len()).unwrap_or(0);
                    if packet.descriptor().flags() & FLAG_COMPLETION_REQUESTED != 0 {
                        tally.asked += 1;
                        owed.push_back(packet.transaction_id());
                    }
                }
                Err(what) => wrong = Some((tally.received, what)),
            }
            Ok(())
        })?;
        if let Some((number, what)) = wrong {
            return Err(Trouble::Wrong { device: self.device(), number, what });
        }
        if received != 0 {
            self.heard = Instant::now();
        }
        Ok(received)
    }

    fn device(&self) -> String {
        self.channel.device().to_owned()
    }

    /// Percentiles of the round trips in nanoseconds: `{"p50", "p99", "most"}`.
    pub(crate) fn round_trips(&mut self) -> Value {
        percentiles(&mut self.round_trips)
    }
}

/// Percentiles of times in nanoseconds, which are sorted.
pub(crate) fn percentiles(times: &mut [u32]) -> Value {
    times.sort_unstable();
    let at = |permille: usize| {
        let place = (times.len().saturating_mul(permille) / 1000).min(times.len().saturating_sub(1));
        times.get(place).copied()
    };
    json!({ "p50": at(500), "p99": at(990), "most": times.last() })
}

/// Makes the payload of packet `number`.
pub(crate) fn fill(text: &mut Vec<u8>, number: u64, words: usize) {
    text.clear();
    (0..words).for_each(|place| text.extend_from_slice(&word(number, place).to_le_bytes()));
}

/// Word `place` of packet `number`: no two are alike for long, and zero is none of the first.
pub(crate) fn word(number: u64, place: usize) -> u64 {
    let place = u64::try_from(place).unwrap_or(0);
    if place == 0 { number } else { (number ^ place.rotate_left(40)).wrapping_mul(0x9e37_79b9_7f4a_7c15) }
}

/// What is wrong with a reply, which `text` is used for.
pub(crate) fn check<M: Memory>(
    packet: &Packet<'_, M>,
    waiting: Option<u64>,
    plan: &Plan,
    text: &mut Vec<u8>,
) -> Result<(), String> {
    let Some(number) = waiting else {
        return Err(format!("packet {:#x}, and nothing is owed", packet.transaction_id()));
    };
    let bytes = plan.words.saturating_mul(size_of::<u64>());
    if packet.payload().len() != bytes {
        return Err(format!("{} bytes, not {bytes}", packet.payload().len()));
    }
    text.resize(bytes, 0);
    packet.payload().copy_to(text).map_err(|error| error.to_string())?;
    let (words, _) = text.as_chunks::<8>();
    for (place, found) in words.iter().enumerate() {
        let expected = word(number, place);
        if *found != expected.to_le_bytes() {
            let found = u64::from_le_bytes(*found);
            return Err(format!("word {place} of {number} is {found:#x}, not {expected:#x}"));
        }
    }
    let asks = packet.descriptor().flags() & FLAG_COMPLETION_REQUESTED != 0;
    let kind = if plan.completions { PacketType::COMPLETION } else { PacketType::IN_BAND };
    if packet.descriptor().kind() != kind {
        return Err(format!("a packet of type {:?}", packet.descriptor().kind()));
    }
    // A reply that asks for a completion has an id of the host's choice.
    if !asks && packet.transaction_id() != number {
        return Err(format!("id {:#x}, not {number:#x}", packet.transaction_id()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use vmbus_ringbuf::{Mapped, Reader, Writer};

    use super::*;

    /// What is said of a reply of these words to packet 7, of two words.
    fn judged(packet: OutgoingPacket<'_>, words: &[u64], plan: Plan) -> Result<(), String> {
        let control: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
        let data: [AtomicU64; 512] = [const { AtomicU64::new(0) }; 512];
        let ring = Mapped::in_memory(&control, &data).unwrap();
        let (mut writer, mut reader) = (Writer::new(&ring).unwrap(), Reader::new(&ring).unwrap());
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let _ = writer.try_write(&packet, &[&bytes]).unwrap();
        let mut batch = reader.batch();
        let packet = batch.next().unwrap().unwrap();
        check(&packet, Some(7), &plan, &mut Vec::new())
    }

    #[test]
    fn only_what_was_sent_is_a_reply() {
        let plan = Plan { words: 2, ..Plan::PLAIN };
        let words = [word(7, 0), word(7, 1)];
        assert_eq!(judged(OutgoingPacket::in_band(7), &words, plan), Ok(()));
        for (packet, words, complaint) in [
            (OutgoingPacket::in_band(8), &words[..], "id 0x8"),
            (OutgoingPacket::in_band(7), &words[..1], "8 bytes, not 16"),
            (OutgoingPacket::in_band(7), &[word(8, 0), word(8, 1)], "word 0"),
            (OutgoingPacket::in_band(7), &[word(7, 0), word(7, 1) ^ 1], "word 1"),
            (OutgoingPacket::completion(7), &words, "type"),
        ] {
            let said = judged(packet, words, plan).unwrap_err();
            assert!(said.contains(complaint), "{said}");
        }
        // Who asks for a completion has ids of its own.
        assert_eq!(judged(OutgoingPacket::in_band(1 << 32).with_completion_requested(), &words, plan), Ok(()));
        let completions = Plan { completions: true, ..plan };
        assert_eq!(judged(OutgoingPacket::completion(7), &words, completions), Ok(()));
        assert!(judged(OutgoingPacket::in_band(7), &words, completions).is_err());
    }
}
