//! One disk of the simulated controller: its bytes, what it is called, and what it has to tell.

use std::collections::VecDeque;

use super::medium::{Backing, Medium};
use crate::Error;

/// A disk, as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskSettings {
    /// All its bytes, whole blocks.
    pub bytes: u64,
    /// Bytes of a block: 512 or 4096.
    pub block_bytes: u32,
    /// It can't be written.
    pub read_only: bool,
    /// Ranges may be given up.
    pub thin: bool,
    /// It knows the commands of large disks: READ CAPACITY(16).
    pub modern: bool,
    /// Where its bytes are.
    pub backing: Backing,
}

impl DiskSettings {
    /// A disk in memory with blocks of 512 bytes.
    #[must_use]
    pub const fn in_memory(bytes: u64) -> Self {
        Self { bytes, block_bytes: 512, read_only: false, thin: true, modern: true, backing: Backing::Memory }
    }
}

/// Key, code and qualifier of sense data.
pub(super) type SenseCode = (u8, u8, u8);

pub(super) const POWER_ON: SenseCode = (6, 0x29, 0);
pub(super) const CAPACITY_CHANGED: SenseCode = (6, 0x2a, 9);
pub(super) const UNKNOWN_COMMAND: SenseCode = (5, 0x20, 0);
pub(super) const OUT_OF_RANGE: SenseCode = (5, 0x21, 0);
pub(super) const BAD_FIELD: SenseCode = (5, 0x24, 0);
pub(super) const PROTECTED: SenseCode = (7, 0x27, 0);
pub(super) const MEDIUM_ERROR: SenseCode = (3, 0x11, 0);
pub(super) const WRITE_ERROR: SenseCode = (3, 0x0c, 0);

/// Things that a unit may have to tell at a time.
const ATTENTIONS: usize = 8;

#[derive(Debug)]
pub(super) struct Unit {
    pub(super) settings: DiskSettings,
    pub(super) medium: Medium,
    /// Distinguishes this disk from all others.
    pub(super) identity: u64,
    attentions: VecDeque<SenseCode>,
    /// Commands that are to fail.
    pub(super) failures: u32,
}

impl Unit {
    pub(super) fn new(settings: DiskSettings, identity: u64) -> Result<Self, Error> {
        let whole = matches!(settings.block_bytes, 512 | 4096) && settings.bytes != 0;
        if !whole || !settings.bytes.is_multiple_of(settings.block_bytes.into()) {
            return Err(Error::Nonsense("a disk has whole blocks of 512 or 4096 bytes"));
        }
        let failed = |error| Error::System { what: "open the file of a disk", error };
        let medium = Medium::open(&settings.backing, settings.bytes).map_err(failed)?;
        Ok(Self { settings, medium, identity, attentions: VecDeque::from([POWER_ON]), failures: 0 })
    }

    pub(super) fn blocks(&self) -> u64 {
        self.settings.bytes / u64::from(self.settings.block_bytes)
    }

    /// The next command is answered by this instead.
    pub(super) fn tell(&mut self, what: SenseCode) {
        if self.attentions.len() < ATTENTIONS {
            self.attentions.push_back(what);
        }
    }

    pub(super) fn told(&mut self) -> Option<SenseCode> {
        self.attentions.pop_front()
    }

    /// Where in bytes some blocks begin, and how many bytes they are.
    pub(super) fn place(&self, block: u64, blocks: u64) -> Option<(u64, u64)> {
        let end = block.checked_add(blocks)?;
        let bytes = u64::from(self.settings.block_bytes);
        (end <= self.blocks()).then(|| (block * bytes, blocks * bytes))
    }
}
