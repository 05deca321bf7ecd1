//! The host's side of a network adapter: NVSP, RNDIS, buffers, queues, and a far end for the frames.
//!
//! Format: drivers/net/hyperv of Linux 6.12. Each channel of an adapter is a [`Network`] of its own; what they have in
//! common is in `adapter`. Transaction ids are the number of a packet's first part of the receive buffer, as on other hosts.

mod adapter;
mod command;
mod control;
mod flow;
mod format;
mod give;
mod settings;

pub use format::{Nvsp, Rndis};
pub use settings::{Far, Layer, Lie, NetworkSettings};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmbus::class::Class;
use vmbus_ringbuf::{Descriptor, FLAG_COMPLETION_REQUESTED, PacketType};

use super::{Device, Port};
use crate::{DeviceSpec, Error, Random};
use adapter::Adapter;
use command::Forged;
use format::{info_word, word, words};
use give::Packet;

/// Completions that wait before the host stops to listen.
const WAITING_AT_MOST: usize = 8192;
/// Completions that a host which reorders keeps back while there is more to come.
const LATE: usize = 24;
const SUCCESS: u32 = 1;
const FAILURE: u32 = 2;

/// One channel of a network adapter, on the host's side. Commands: `link up`, `link down`, `speed HUNDREDS`, `network`,
/// `keep-alive`, `vf SERIAL`, `vf none`, `table QUEUE ...` (16), `send FRAMES BYTES`, `hold` and `release` (completions),
/// `silent` and `talk` (answers, which come late then); and what no honest host does: `transfer ID SET OFFSET BYTES`, `complete ID`.
#[derive(Debug)]
pub struct Network {
    adapter: Arc<Mutex<Adapter>>,
    index: u16,
    /// Completions that wait: transaction id, message, section that is free then.
    completions: VecDeque<(u64, Vec<u8>, Option<u32>)>,
    /// Sections whose frames are not completed.
    busy: BTreeSet<u32>,
    /// A packet that found no room.
    pending: Option<Packet>,
    /// Packets that the guest has not completed, with their parts.
    outstanding: BTreeMap<u64, Vec<u32>>,
    forged: VecDeque<Forged>,
    /// Ids of forged packets, whose completions are nobody's.
    forged_ids: BTreeSet<u64>,
    counters: Counters,
}

/// What is counted.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    frames: u64,
    bytes: u64,
    delivered: u64,
    completed: u64,
    failed: u64,
    checksums: u64,
    segmented: u64,
    tagged: u64,
    alive: u64,
}

impl Network {
    /// A channel of an adapter.
    fn over(adapter: Arc<Mutex<Adapter>>) -> Self {
        Self {
            adapter,
            index: 0,
            completions: VecDeque::new(),
            busy: BTreeSet::new(),
            pending: None,
            outstanding: BTreeMap::new(),
            forged: VecDeque::new(),
            forged_ids: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// An adapter to be offered; its instance is made of this number.
    #[must_use]
    pub fn offer(number: u64, settings: NetworkSettings) -> DeviceSpec {
        let instance = Random::new(number ^ 0x6e65_7477_6f72_6b21).guid();
        // One for all channels of it.
        let adapter = Arc::new(Mutex::new(Adapter::new(settings)));
        DeviceSpec::new(Class::NIC, instance, move || Box::new(Self::over(Arc::clone(&adapter))))
    }

    fn adapter(&self) -> MutexGuard<'_, Adapter> {
        self.adapter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&mut self, descriptor: Descriptor, payload: &[u8], port: &mut dyn Port) {
        let id = descriptor.transaction_id();
        match descriptor.kind() {
            PacketType::COMPLETION => self.completed(id, payload, port),
            PacketType::IN_BAND | PacketType::GPA_DIRECT => {
                let wants = descriptor.flags() & FLAG_COMPLETION_REQUESTED != 0;
                match Nvsp::parse(payload) {
                    Some(message) => self.said(id, wants, message, port),
                    None => port.violation(format!("{} bytes that are no message of NVSP", payload.len())),
                }
            }
            other => port.violation(format!("{other:?} to a network adapter")),
        }
    }

    /// The guest gives parts of the receive buffer back.
    fn completed(&mut self, id: u64, payload: &[u8], port: &mut dyn Port) {
        let status = word(payload, 1).filter(|_| word(payload, 0) == Some(108));
        let Some(parts) = self.outstanding.remove(&id) else {
            if !self.forged_ids.remove(&id) {
                port.violation(format!("completion {id:#x} that nobody asked for"));
            }
            self.counters.failed += u64::from(status != Some(SUCCESS));
            return;
        };
        self.adapter().free.extend(parts);
        match status {
            Some(SUCCESS) => self.counters.completed += 1,
            Some(_) => self.counters.failed += 1,
            None => port.violation("a completion that says nothing".to_owned()),
        }
    }

    fn said(&mut self, id: u64, wants: bool, message: Nvsp, port: &mut dyn Port) {
        let mut adapter = self.adapter();
        let primary = self.index == 0;
        let answer = match message {
            Nvsp::Init { version } if adapter.version.is_none() && primary => {
                let known = adapter.settings.versions.contains(&version);
                adapter.version = known.then_some(version);
                words(&[2, version, 34, if known { SUCCESS } else { FAILURE }])
            }
            Nvsp::NdisVersion | Nvsp::NdisConfig { .. } if adapter.version.is_some() && primary => return,
            Nvsp::ReceiveBuffer { gpadl } if adapter.version.is_some() && primary => {
                match adapter.take_receive(gpadl, port) {
                    Some([offset, bytes, parts, end]) => words(&[102, SUCCESS, 1, offset, bytes, parts, end]),
                    None => words(&[102, FAILURE, 0]),
                }
            }
            Nvsp::SendBuffer { gpadl } if adapter.version.is_some() && primary => {
                let status = if adapter.take_send(gpadl, port) { SUCCESS } else { FAILURE };
                words(&[105, status, adapter.settings.section_bytes])
            }
            Nvsp::RevokeReceiveBuffer if adapter.receive.is_some() && primary => {
                adapter.receive = None;
                return;
            }
            Nvsp::RevokeSendBuffer if adapter.send.is_some() && primary => {
                adapter.send = None;
                return;
            }
            Nvsp::Subchannels { count } if adapter.version >= Some(0x5_0000) && primary => {
                let most = adapter.settings.queues.saturating_sub(1);
                let granted = u16::try_from(count).unwrap_or(u16::MAX).min(most);
                port.offer_subchannels(granted);
                words(&[133, SUCCESS, granted.into()])
            }
            Nvsp::Rndis { control, section } if adapter.send.is_some() && adapter.receive.is_some() => {
                drop(adapter);
                return self.rndis(id, wants, control, section, port);
            }
            _ => return port.violation(format!("{message:?} out of turn")),
        };
        drop(adapter);
        if wants {
            self.complete(id, answer, None);
        } else {
            port.violation(format!("{message:?} that wants no answer"));
        }
    }

    fn complete(&mut self, id: u64, mut message: Vec<u8>, section: Option<u32>) {
        self.adapter().settings.lie(Layer::Nvsp, &mut message);
        self.completions.push_back((id, message, section));
    }

    /// RNDIS messages of the guest, in a section or in pages of the packet.
    fn rndis(&mut self, id: u64, wants: bool, control: bool, section: Option<(u32, u32)>, port: &mut dyn Port) {
        // What is in pages of the packet continues what is in a section.
        let messages = match section {
            Some(place) => {
                if !self.busy.insert(place.0) {
                    port.violation(format!("section {} is in use", place.0));
                }
                let start = self.adapter().section(place, port);
                start.and_then(|start| if port.ranges().is_empty() { Some(start) } else { give::pages(port, start) })
            }
            None => give::pages(port, Vec::new()),
        };
        let section = section.map(|(section, _)| section);
        let Some(messages) = messages else {
            port.violation(format!("section {section:?} that is not there"));
            return self.complete(id, words(&[108, FAILURE]), section);
        };
        let (mut rest, mut echoed) = (messages.as_slice(), false);
        while let Some((message, length)) = Rndis::parse(rest) {
            rest = rest.get(length..).unwrap_or_default();
            match message {
                Rndis::Packet { frame, info } if !control => {
                    // One completion for all frames of a section: with the echo of the last.
                    let last = rest.len() < 8;
                    echoed = self.frame(last.then_some((id, section)), frame, info);
                }
                Rndis::KeepAliveComplete { .. } => self.counters.alive += 1,
                message if control => {
                    if let Some(complaint) = self.adapter().control(message) {
                        port.violation(complaint);
                    }
                }
                message => port.violation(format!("{message:?} among frames")),
            }
        }
        // Between messages there may be a few bytes, as they are aligned.
        if rest.len() >= 8 {
            port.violation(format!("{} bytes that are no message of RNDIS", rest.len()));
        }
        if !wants {
            return port.violation("RNDIS that wants no completion".to_owned());
        }
        if !echoed {
            self.complete(id, words(&[108, SUCCESS]), section);
        }
    }

    /// A frame goes to the far end. Whether its echo waits, and will complete `cause`: transaction id and section.
    fn frame(&mut self, cause: Option<(u64, Option<u32>)>, frame: &[u8], info: &[u8]) -> bool {
        self.counters.frames += 1;
        self.counters.bytes += u64::try_from(frame.len()).unwrap_or(0);
        let (checksum, tag) = (info_word(info, 0), info_word(info, 6));
        self.counters.checksums += u64::from(checksum.is_some());
        self.counters.segmented += u64::from(info_word(info, 2).is_some());
        self.counters.tagged += u64::from(tag.is_some());
        let mut adapter = self.adapter();
        let (Far::Echo, Some((destination, rest))) = (adapter.settings.far, frame.split_first_chunk::<6>()) else {
            return false;
        };
        let Some((source, rest)) = rest.split_first_chunk::<6>() else { return false };
        let echo = [source, destination, rest].concat();
        let mut info: Vec<_> = tag.map(|tag| (6, tag)).into_iter().collect();
        // Found to be right: the transport's and the network's.
        info.extend(checksum.map(|_| (0, 1 << 3 | 1 << 5)));
        adapter.deliver(self.index, &echo, info, cause)
    }
}

impl Device for Network {
    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        self.index = port.subchannel_index();
        self.turn(port)
    }

    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let mut payload = Vec::new();
        while self.completions.len() < WAITING_AT_MOST {
            let Some(descriptor) = port.receive(&mut payload)? else { break };
            self.take(descriptor, &payload, port);
            self.give(port, LATE)?;
        }
        self.give(port, 0)
    }

    fn closed(&mut self) {
        let parts = std::mem::take(&mut self.outstanding).into_values().flatten();
        let pending = self.pending.take().map(|packet| packet.parts).unwrap_or_default();
        if self.index == 0 {
            self.adapter().reset();
        } else {
            let parts: Vec<_> = parts.chain(pending).collect();
            self.adapter().free.extend(parts);
        }
        self.completions.clear();
        self.busy.clear();
        self.forged.clear();
        self.forged_ids.clear();
    }

    fn deadline(&self) -> Option<Duration> {
        let waits = self.pending.is_none() && self.adapter().wants_turn(self.index);
        waits.then_some(Duration::ZERO)
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        self.commanded(words)
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        let adapter = self.adapter();
        let Counters { frames, bytes, delivered, completed, failed, checksums, segmented, tagged, alive } =
            self.counters;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        vec![
            ("frames", frames),
            ("bytes", bytes),
            ("delivered", delivered),
            ("completed", completed),
            ("failed", failed),
            ("checksums", checksums),
            ("segmented", segmented),
            ("tagged", tagged),
            ("alive", alive),
            ("dropped", adapter.dropped),
            ("filter", adapter.filter.into()),
            ("version", adapter.version.unwrap_or(0).into()),
            ("parts", adapter.parts.into()),
            ("free", count(adapter.free.len())),
            ("outstanding", count(self.outstanding.len())),
            ("sections", count(self.busy.len())),
            ("offloads", adapter.offloads_set.get(5).copied().unwrap_or(0).into()),
        ]
    }
}
