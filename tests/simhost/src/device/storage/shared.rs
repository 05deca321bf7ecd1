//! What the channels of one simulated controller have in common: its disks, what was agreed on, and what was counted.

use std::collections::BTreeMap;
use std::collections::VecDeque;

use super::StorageSettings;
use super::format::{operation, status};
use super::unit::{CAPACITY_CHANGED, DiskSettings, POWER_ON, Unit};
use crate::Error;

/// Announcements that wait for the guest.
const ANNOUNCEMENTS: usize = 64;

/// Where the conversation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Begin,
    Version,
    Properties,
    End,
    Running,
}

/// A lie about the next completion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lie {
    /// Bytes at a place are others: place, bytes, value.
    Field(usize, usize, u64),
    /// It is so short.
    Short(usize),
    /// It comes twice.
    Twice,
    /// It does not come.
    Never,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Counted {
    pub(super) commands: u64,
    pub(super) reads: u64,
    pub(super) writes: u64,
    pub(super) flushes: u64,
    pub(super) unmaps: u64,
    pub(super) resets: u64,
    pub(super) through_subchannels: u64,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) settings: StorageSettings,
    pub(super) stage: Stage,
    pub(super) version: u16,
    /// Of the first bus's first device.
    pub(super) units: BTreeMap<u8, Unit>,
    next_identity: u64,
    /// Operations to be said.
    pub(super) announcements: VecDeque<u32>,
    /// Commands are kept and not carried out.
    pub(super) holds: bool,
    /// How many, on all channels.
    pub(super) held: u64,
    /// Of resets: commands that came before are aborted.
    pub(super) epoch: u64,
    pub(super) lies: VecDeque<Lie>,
    pub(super) counted: Counted,
}

impl Shared {
    pub(super) fn new(settings: StorageSettings) -> Result<Self, Error> {
        let mut shared = Self {
            stage: Stage::Begin,
            version: 0,
            units: BTreeMap::new(),
            next_identity: 1,
            announcements: VecDeque::new(),
            holds: false,
            held: 0,
            epoch: 0,
            lies: VecDeque::new(),
            counted: Counted::default(),
            settings,
        };
        for (lun, disk) in shared.settings.disks.clone() {
            shared.add(lun, disk)?;
        }
        Ok(shared)
    }

    fn add(&mut self, lun: u8, disk: DiskSettings) -> Result<(), Error> {
        if self.units.contains_key(&lun) {
            return Err(Error::Nonsense("there is a disk at this number; remove it first"));
        }
        self.units.insert(lun, Unit::new(disk, self.next_identity)?);
        self.next_identity += 1;
        Ok(())
    }

    /// Says something by itself, if the guest listens.
    fn announce(&mut self, operation: u32) {
        if self.stage == Stage::Running && self.announcements.len() < ANNOUNCEMENTS {
            self.announcements.push_back(operation);
        }
    }

    fn unit(&mut self, lun: u8) -> Result<&mut Unit, Error> {
        self.units.get_mut(&lun).ok_or(Error::Nonsense("there is no disk at this number"))
    }

    /// Everything that is under way is aborted, on one unit or on all, and told of.
    pub(super) fn reset(&mut self, lun: Option<u8>) -> u32 {
        let there = lun.is_none_or(|lun| self.units.contains_key(&lun));
        if !there {
            return status::INVALID_PARAMETER;
        }
        self.counted.resets += 1;
        self.epoch += 1;
        for (number, unit) in &mut self.units {
            if lun.is_none_or(|lun| lun == *number) {
                unit.tell(POWER_ON);
            }
        }
        status::SUCCESS
    }

    /// The conversation is over; the disks stay.
    pub(super) fn closed(&mut self) {
        (self.stage, self.version, self.holds) = (Stage::Begin, 0, false);
        self.announcements.clear();
        self.lies.clear();
    }

    /// A command of whoever plays the host's administrator.
    pub(super) fn command(&mut self, words: &str) -> Result<(), Error> {
        const NONSENSE: Error = Error::Nonsense(
            "a controller takes: hold, release, add LUN BYTES [read-only], remove LUN, grow LUN BYTES, protect LUN, \
             permit LUN, attention LUN, fail LUN COUNT, announce, remove-device, lie FIELD VALUE, short BYTES, twice, never, honest",
        );
        let mut words = words.split_ascii_whitespace();
        let verb = words.next().ok_or(NONSENSE)?;
        let (first, second, third) = (words.next(), words.next(), words.next());
        let lun = || first.and_then(|word| word.parse::<u8>().ok()).ok_or(NONSENSE);
        let number = |word: Option<&str>| word.and_then(bytes).ok_or(NONSENSE);
        match verb {
            "hold" => self.holds = true,
            "release" => self.holds = false,
            "add" => {
                let disk =
                    DiskSettings { read_only: third == Some("read-only"), ..DiskSettings::in_memory(number(second)?) };
                self.add(lun()?, disk)?;
                self.announce(operation::ENUMERATE_BUS);
            }
            "remove" => {
                let lun = lun()?;
                self.unit(lun)?;
                self.units.remove(&lun);
                self.announce(operation::ENUMERATE_BUS);
            }
            "grow" => {
                let more = number(second)?;
                let unit = self.unit(lun()?)?;
                if more < unit.settings.bytes || !more.is_multiple_of(unit.settings.block_bytes.into()) {
                    return Err(Error::Nonsense("a disk grows by whole blocks"));
                }
                unit.medium.grow(more).map_err(|error| Error::System { what: "make a file longer", error })?;
                unit.settings.bytes = more;
                unit.tell(CAPACITY_CHANGED);
            }
            "protect" | "permit" => self.unit(lun()?)?.settings.read_only = verb == "protect",
            "attention" => self.unit(lun()?)?.tell(POWER_ON),
            "fail" => self.unit(lun()?)?.failures = u32::try_from(number(second)?).map_err(|_| NONSENSE)?,
            "announce" => self.announce(operation::ENUMERATE_BUS),
            "remove-device" => self.announce(operation::REMOVE_DEVICE),
            "twice" => self.lies.push_back(Lie::Twice),
            "honest" => self.lies.clear(),
            "never" => self.lies.push_back(Lie::Never),
            "short" => self.lies.push_back(Lie::Short(usize::try_from(number(first)?).map_err(|_| NONSENSE)?)),
            "lie" => {
                let (at, size) = match first {
                    Some("operation") => (0, 4),
                    Some("status") => (8, 4),
                    Some("length") => (12, 2),
                    Some("srb-status") => (14, 1),
                    Some("scsi-status") => (15, 1),
                    Some("sense-bytes") => (21, 1),
                    Some("transfer-bytes") => (24, 4),
                    Some("sense") => (28, 1),
                    _ => return Err(NONSENSE),
                };
                self.lies.push_back(Lie::Field(at, size, number(second)?));
            }
            _ => return Err(NONSENSE),
        }
        Ok(())
    }
}

/// A number of bytes, such as 4096, 64KiB, 1MiB or 2GiB.
fn bytes(word: &str) -> Option<u64> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
    let found = units.iter().find_map(|(unit, shift)| Some((word.strip_suffix(unit)?, *shift)));
    let (digits, shift) = found.unwrap_or((word, 0));
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}
