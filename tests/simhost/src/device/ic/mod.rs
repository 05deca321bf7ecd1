//! The host of integration components: offers versions, asks one thing at a time, and checks every answer.
//!
//! Format: include/linux/hyperv.h and drivers/hv/hv_util.c of Linux 6.12. A [`Part`] is one component.

mod fcopy;
pub mod format;
mod heartbeat;
mod kvp;
mod shutdown;
mod timesync;
mod vss;

pub use fcopy::{FcopyHost, fcopy_content};
pub use format::{Request, Version};
pub use heartbeat::{HeartbeatHost, HeartbeatSettings};
pub use kvp::{KvpAnswer, KvpAnswers, KvpHost};
pub use shutdown::ShutdownHost;
pub use timesync::{TimeSyncHost, TimeSyncSettings};
pub use vss::VssHost;

use std::collections::VecDeque;
use std::time::Duration;

use vmbus::class::Class;
use vmbus::message::OfferFlags;
use vmbus_ringbuf::{OutgoingPacket, PacketType, WriteError};

use super::{Device, Port};
use crate::{DeviceSpec, Error, Random};
use format::{ASKS, Answer, NEGOTIATE, chosen, offer};

/// Raw packets that wait for room.
const WAITING_AT_MOST: usize = 256;

/// What one component asks, and how it takes the answers.
pub trait Part: Send + 'static {
    /// The type of its messages.
    const KIND: u16;
    /// Its devices.
    const CLASS: Class;
    /// The one device of a virtual machine, where it is known.
    const INSTANCE: Option<uuid::Uuid> = None;
    /// Versions of its messages that hosts offer.
    const VERSIONS: &'static [Version];

    /// Host and guest have agreed.
    fn agreed(&mut self, version: Version, now: Duration);

    /// The next request, if there is one: its flags and its body. Nothing is under way.
    fn next(&mut self, now: Duration) -> Option<(u8, Vec<u8>)>;

    /// The answer to the last request. What is wrong with it, if anything is.
    ///
    /// # Errors
    /// What the guest did wrong.
    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String>;

    /// The channel is over.
    fn closed(&mut self);

    /// When it asks by itself.
    fn deadline(&self) -> Option<Duration> {
        None
    }

    /// A command; whether it is one.
    fn command(&mut self, words: &str) -> bool;

    /// Numbers by name.
    fn report(&self) -> Vec<(&'static str, u64)>;
}

/// A device of each component, as a new virtual machine has them; the time is that of 2026.
#[must_use]
pub fn all_devices() -> Vec<DeviceSpec> {
    let settings = HostSettings::default;
    let time =
        TimeSyncSettings { start: Duration::from_secs(1_780_000_000), interval: Duration::from_secs(5), asks: true };
    vec![
        ComponentHost::spec(|| HeartbeatHost::new(HeartbeatSettings::default()), settings()),
        ComponentHost::spec(ShutdownHost::default, settings()),
        ComponentHost::spec(move || TimeSyncHost::new(time), settings()),
        ComponentHost::spec(KvpHost::default, settings()),
        ComponentHost::spec(VssHost::default, settings()),
        ComponentHost::spec(FcopyHost::default, settings()),
    ]
}

/// What every host of a component can be like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSettings {
    /// Versions of the framework that it offers.
    pub frameworks: Vec<Version>,
    /// Versions of the messages that it offers; all that there are, if none is said.
    pub versions: Vec<Version>,
}

impl Default for HostSettings {
    fn default() -> Self {
        Self { frameworks: vec![(1, 0), (3, 0)], versions: Vec::new() }
    }
}

/// Where the conversation is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// The offer has not been sent.
    Opened,
    /// Its answer is awaited.
    Offered,
    /// Both speak these.
    Agreed([Version; 2]),
    /// Nothing in common.
    Apart,
}

/// What the guest owes an answer to.
#[derive(Debug)]
struct Owed {
    number: u64,
    request: Request,
}

/// The host of one component. Commands: those of its part; `negotiate` offers the versions again; `raw HEX` sends any
/// bytes as a packet, `raw-type KIND HEX` as one of any type, and from then on answers that nothing awaits are counted and not held against the guest.
#[derive(Debug)]
pub struct ComponentHost<P> {
    part: P,
    settings: HostSettings,
    stage: Stage,
    owed: Option<Owed>,
    /// Packets that wait for room, or for their turn.
    waiting: VecDeque<(OutgoingPacket<'static>, Vec<u8>)>,
    raw: VecDeque<(OutgoingPacket<'static>, Vec<u8>)>,
    tolerant: bool,
    /// The versions are to be offered again, as soon as nothing is owed.
    again: bool,
    transaction: u8,
    number: u64,
    requests: u64,
    answers: u64,
    refused: u64,
    stray: u64,
}

impl<P: Part> ComponentHost<P> {
    /// A host that offers its versions when the channel is opened.
    pub fn new(part: P, mut settings: HostSettings) -> Self {
        if settings.versions.is_empty() {
            settings.versions = P::VERSIONS.to_vec();
        }
        let (stage, raw, waiting) = (Stage::Opened, VecDeque::new(), VecDeque::new());
        Self {
            part,
            settings,
            stage,
            owed: None,
            waiting,
            raw,
            tolerant: false,
            again: false,
            transaction: 0,
            number: 0x1c_0000,
            requests: 0,
            answers: 0,
            refused: 0,
            stray: 0,
        }
    }

    /// The device to offer, with a part of its own for each offer.
    pub fn spec(part: impl Fn() -> P + Send + Sync + 'static, settings: HostSettings) -> DeviceSpec {
        let instance = P::INSTANCE.unwrap_or_else(|| Random::new(0x6963 << 16 | u64::from(P::KIND)).guid());
        let spec = DeviceSpec::new(P::CLASS, instance, move || Box::new(Self::new(part(), settings.clone())));
        spec.with_flags(OfferFlags::NAMED_PIPE_MODE)
    }

    /// Asks, if the guest is to answer; or just says.
    fn say(&mut self, kind: u16, versions: [Version; 2], flags: u8, body: Vec<u8>) {
        self.transaction = self.transaction.wrapping_add(1);
        self.number += 1;
        let request = Request { versions, kind, transaction: self.transaction, flags, body };
        self.waiting.push_back((OutgoingPacket::in_band(self.number), request.to_bytes()));
        self.requests += 1;
        if flags & ASKS != 0 {
            self.owed = Some(Owed { number: self.number, request });
        }
    }

    /// What comes next, when the guest owes nothing.
    fn next(&mut self, now: Duration) {
        self.waiting.extend(self.raw.drain(..));
        while self.owed.is_none() && self.waiting.len() < WAITING_AT_MOST {
            if std::mem::take(&mut self.again) {
                self.stage = Stage::Opened;
            }
            match self.stage {
                Stage::Opened => {
                    let body = offer(&self.settings.frameworks, &self.settings.versions);
                    self.stage = Stage::Offered;
                    self.say(NEGOTIATE, [(0, 0); 2], ASKS, body);
                }
                Stage::Agreed(versions) => match self.part.next(now) {
                    Some((flags, body)) => self.say(P::KIND, versions, flags, body),
                    None => return,
                },
                Stage::Offered | Stage::Apart => return,
            }
        }
    }

    fn flush(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        while let Some((packet, bytes)) = self.waiting.front() {
            match port.send(packet, bytes) {
                Ok(()) => {}
                Err(Error::Write(WriteError::Full { .. })) => return Ok(()),
                Err(Error::Write(WriteError::Corrupt(corrupt))) => return Err(corrupt.into()),
                Err(error) => log::debug!(target: "vmbus::simhost", "a packet is dropped: {error}"),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    /// What the guest said. What is wrong with it, if anything is.
    fn take(&mut self, number: u64, bytes: &[u8], now: Duration) -> Result<(), String> {
        let answer = match Answer::parse(bytes) {
            Err(_) if self.tolerant => {
                self.stray += 1;
                return Ok(());
            }
            parsed => parsed?,
        };
        let awaited = self.owed.take_if(|owed| owed.number == number && owed.request.transaction == answer.transaction);
        let Some(Owed { request, .. }) = awaited else {
            self.stray += 1;
            let text = format!("an answer to {number:#x} (transaction {}) that nothing awaits", answer.transaction);
            return if self.tolerant { Ok(()) } else { Err(text) };
        };
        self.answers += 1;
        if answer.kind != request.kind || answer.body.len() < request.body.len() {
            return Err(format!("{answer:?} does not answer {request:?}"));
        }
        if request.kind == NEGOTIATE {
            self.stage = match chosen(&answer.body, &self.settings.frameworks, &self.settings.versions)? {
                Some(versions) => {
                    self.part.agreed(versions[1], now);
                    Stage::Agreed(versions)
                }
                None => Stage::Apart,
            };
            return Ok(());
        }
        self.refused += u64::from(answer.status != 0);
        // A guest that was offered nonsense has nothing in common with its host any more.
        let taken = self.part.answered(&request.body, answer.status, &answer.body);
        if self.tolerant { Ok(()) } else { taken }
    }

    fn version(&self) -> u64 {
        match self.stage {
            Stage::Agreed([_, (major, minor)]) => u64::from(major) << 16 | u64::from(minor),
            _ => 0,
        }
    }
}

impl<P: Part> Device for ComponentHost<P> {
    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let (now, mut payload) = (port.now(), Vec::new());
        self.next(now);
        self.flush(port)?;
        while let Some(descriptor) = port.receive(&mut payload)? {
            let taken = match descriptor.kind() {
                PacketType::IN_BAND => self.take(descriptor.transaction_id(), &payload, now),
                kind => Err(format!("a packet of type {kind:?}")),
            };
            if let Err(text) = taken {
                port.violation(text);
            }
            self.next(now);
            self.flush(port)?;
        }
        Ok(())
    }

    fn closed(&mut self) {
        (self.stage, self.owed) = (Stage::Opened, None);
        self.waiting.clear();
        self.raw.clear();
        self.part.closed();
    }

    fn deadline(&self) -> Option<Duration> {
        if self.owed.is_none() { self.part.deadline() } else { None }
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        let (verb, rest) = words.split_once(' ').unwrap_or((words, ""));
        let raw = match verb {
            "negotiate" => {
                self.again = true;
                return Ok(());
            }
            "raw" => unhex(rest).map(|bytes| (OutgoingPacket::in_band(7), bytes)),
            "raw-type" => rest.split_once(' ').and_then(|(kind, bytes)| {
                Some((OutgoingPacket::of_type(PacketType(kind.parse().ok()?), 7), unhex(bytes)?))
            }),
            _ if self.part.command(words) => return Ok(()),
            _ => None,
        };
        let raw = raw.filter(|_| self.raw.len() < WAITING_AT_MOST);
        self.raw.push_back(raw.ok_or(Error::Nonsense("it takes: negotiate, raw HEX, and what its component does"))?);
        self.tolerant = true;
        Ok(())
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        let mut all = vec![
            ("version", self.version()),
            ("apart", u64::from(self.stage == Stage::Apart)),
            ("requests", self.requests),
            ("answers", self.answers),
            ("refused", self.refused),
            ("stray", self.stray),
            ("owed", u64::from(self.owed.is_some())),
        ];
        all.extend(self.part.report());
        all
    }
}

/// Bytes as pairs of digits.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digits = pairs.iter().map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    if rest.is_empty() { digits.collect() } else { None }
}
