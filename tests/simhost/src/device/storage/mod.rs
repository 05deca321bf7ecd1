//! The host of a synthetic SCSI controller: agrees on a version, carries commands out on its disks, which come and go.
//!
//! Format: drivers/scsi/storvsc_drv.c of Linux 6.12. Commands are in-band or beside one range of guest memory; answers
//! are completions of the same bytes; what the host says by itself is in-band with the id 0.

mod format;
mod medium;
mod scsi;
mod serve;
mod shared;
#[cfg(test)]
mod tests;
mod unit;

pub use medium::Backing;
pub use unit::DiskSettings;

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vmbus::class::Class;
use vmbus_ringbuf::{FLAG_COMPLETION_REQUESTED, OutgoingPacket, PacketType, WriteError};

use super::{Device, GuestRange, Port};
use crate::{DeviceSpec, Error, Random};
use format::Packet;
use shared::{Lie, Shared, Stage};

/// Answers that wait for room before the controller stops to read.
const WAITING_AT_MOST: usize = 256;
/// Commands that are kept before it stops to read.
const HELD_AT_MOST: usize = 4096;

/// What a controller is like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageSettings {
    /// Versions that it accepts: major in the upper byte.
    pub versions: Vec<u16>,
    /// Subchannels that it offers when it is asked to.
    pub subchannels: u16,
    /// The most that one command may move.
    pub max_transfer_bytes: u32,
    /// Its disks, by their numbers.
    pub disks: Vec<(u8, DiskSettings)>,
}

impl Default for StorageSettings {
    /// Every version, four subchannels, no disk.
    fn default() -> Self {
        Self {
            versions: vec![0x0602, 0x0600, 0x0501, 0x0402],
            subchannels: 4,
            max_transfer_bytes: 8 << 20,
            disks: Vec::new(),
        }
    }
}

/// A command that is kept.
#[derive(Debug)]
struct Held {
    id: u64,
    packet: Packet,
    range: Option<GuestRange>,
    epoch: u64,
}

/// One channel of a controller. Commands: see [`StorageController::spec`].
#[derive(Debug)]
pub struct StorageController {
    shared: Arc<Mutex<Shared>>,
    /// Opened while another channel has begun.
    is_subchannel: bool,
    waiting: VecDeque<(OutgoingPacket<'static>, Vec<u8>)>,
    held: VecDeque<Held>,
    /// Ids that are under way.
    ids: BTreeSet<u64>,
}

impl StorageController {
    /// The controller whose instance is made of this number, to be offered. Its disks stay as they are between one open and
    /// the next. It takes the commands `hold` and `release` (what is asked for meanwhile), `add LUN BYTES [read-only]`,
    /// `remove LUN`, `grow LUN BYTES`, `protect LUN`, `permit LUN`, `attention LUN`, `fail LUN COUNT`, `announce` and
    /// `remove-device`; and what no honest host does with its next answer: `lie FIELD VALUE`, `short BYTES`, `twice`,
    /// `never`; `honest` takes lies back.
    ///
    /// # Errors
    /// [`Error::Nonsense`] for disks that can't be; [`Error::System`] for the file of one.
    pub fn spec(number: u64, settings: StorageSettings) -> Result<DeviceSpec, Error> {
        let shared = Arc::new(Mutex::new(Shared::new(settings)?));
        let instance = Random::new(number ^ 0x73_746f_7261_6765).guid();
        Ok(DeviceSpec::new(Class::SCSI, instance, move || {
            Box::new(Self {
                shared: Arc::clone(&shared),
                is_subchannel: false,
                waiting: VecDeque::new(),
                held: VecDeque::new(),
                ids: BTreeSet::new(),
            })
        }))
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends what waits, as far as there is room. Whether all of it went.
    fn flush(&mut self, port: &mut dyn Port) -> Result<bool, Error> {
        while let Some((packet, payload)) = self.waiting.front() {
            match port.send(packet, payload) {
                Ok(()) => {}
                Err(Error::Write(WriteError::Full { .. })) => return Ok(false),
                Err(error) => return Err(error),
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// Answers a packet, with whatever is to be wrong about it.
    fn answer(&mut self, id: u64, mut bytes: Vec<u8>) {
        self.ids.remove(&id);
        let mut times = 1;
        let lie = self.shared().lies.pop_front();
        match lie {
            Some(Lie::Field(at, size, value)) => {
                let value = value.to_le_bytes();
                format::put(&mut bytes, at, value.get(..size).unwrap_or_default());
            }
            Some(Lie::Short(length)) => bytes.truncate(length),
            Some(Lie::Twice) => times = 2,
            Some(Lie::Never) => times = 0,
            None => {}
        }
        for _ in 0..times {
            self.waiting.push_back((OutgoingPacket::completion(id), bytes.clone()));
        }
    }

    /// What was kept and need not be any more: carried out, or aborted by a reset.
    fn unhold(&mut self, port: &mut dyn Port) {
        loop {
            let (epoch, holds) = {
                let shared = self.shared();
                (shared.epoch, shared.holds)
            };
            let due = |held: &Held| !holds || held.epoch != epoch;
            let Some(place) = self.held.iter().position(due) else { return };
            let Some(held) = self.held.remove(place) else { return };
            self.shared().held -= 1;
            let bytes = match held.epoch == epoch {
                true => self.carry_out(&held.packet, held.range.as_ref(), port),
                false => held.packet.outcome(format::srb::BUS_RESET, 0, 0, &[]),
            };
            self.answer(held.id, bytes);
        }
    }
}

impl Device for StorageController {
    fn opened(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        let running = self.shared().stage == Stage::Running;
        self.is_subchannel = running;
        self.turn(port)
    }

    fn turn(&mut self, port: &mut dyn Port) -> Result<(), Error> {
        self.unhold(port);
        if !self.is_subchannel {
            let announcements = std::mem::take(&mut self.shared().announcements);
            let said = announcements
                .into_iter()
                .map(|operation| (OutgoingPacket::in_band(0), format::announcement(operation)));
            self.waiting.extend(said);
        }
        let mut payload = Vec::new();
        while (self.flush(port)? || self.waiting.len() < WAITING_AT_MOST) && self.held.len() < HELD_AT_MOST {
            let Some(descriptor) = port.receive(&mut payload)? else { break };
            let id = descriptor.transaction_id();
            let asks = descriptor.flags() & FLAG_COMPLETION_REQUESTED != 0;
            let kind = descriptor.kind();
            if !matches!(kind, PacketType::IN_BAND | PacketType::GPA_DIRECT) || !asks || id == 0 {
                port.violation(format!(
                    "storage: a {kind:?} with the id {id:#x} that asks for no completion, or can't"
                ));
                continue;
            }
            if !self.ids.insert(id) {
                port.violation(format!("storage: the id {id:#x} is under way already"));
                continue;
            }
            self.take(id, &payload, port);
        }
        self.flush(port)?;
        Ok(())
    }

    fn closed(&mut self) {
        self.waiting.clear();
        let held = u64::try_from(self.held.drain(..).count()).unwrap_or(0);
        self.shared().held -= held;
        self.ids.clear();
        if !self.is_subchannel {
            self.shared().closed();
        }
        self.is_subchannel = false;
    }

    fn deadline(&self) -> Option<Duration> {
        let shared = self.shared();
        let announces = !self.is_subchannel && !shared.announcements.is_empty();
        let releases = self.held.iter().any(|held| !shared.holds || held.epoch != shared.epoch);
        (announces || releases).then_some(Duration::ZERO)
    }

    fn command(&mut self, words: &str) -> Result<(), Error> {
        self.shared().command(words)
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        let shared = self.shared();
        let counted = shared.counted;
        vec![
            ("commands", counted.commands),
            ("reads", counted.reads),
            ("writes", counted.writes),
            ("flushes", counted.flushes),
            ("unmaps", counted.unmaps),
            ("resets", counted.resets),
            ("through_subchannels", counted.through_subchannels),
            ("held", shared.held),
            ("units", u64::try_from(shared.units.len()).unwrap_or(u64::MAX)),
            ("version", shared.version.into()),
        ]
    }
}
