//! One disk: what it is, and its bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::controller::{Controller, Data};
use super::inventory::{Unit, is_illegal};
use super::requests::{Pending, Time};
use super::scsi::{BlockLimits, Capacity, Command, Mode, Provisioning};
use super::{Address, Failure, Outcome};
use crate::Error;

/// Requests of one read or write that are under way at a time.
const AT_A_TIME: usize = 4;
/// How often a request is sent again because the unit had something to tell, or a subchannel went.
const AGAIN: usize = 8;
/// Room for the answers to questions for capacity and setup.
const CAPACITY_BYTES: u32 = 32;
const MODE_BYTES: u8 = 192;

/// What a disk says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Where it is, and what it is called.
    pub unit: Unit,
    /// How large it is.
    pub capacity: Capacity,
    /// How it is set up.
    pub mode: Mode,
    /// What a request may be about, if it says.
    pub limits: BlockLimits,
    /// How ranges that were given up are.
    pub provisioning: Provisioning,
}

impl Identity {
    /// Whether ranges can be given up.
    #[must_use]
    pub const fn unmaps(&self) -> bool {
        self.provisioning.unmaps && self.limits.unmap_blocks != 0 && self.limits.unmap_ranges != 0
    }
}

/// A disk. Any number of threads may use one, and any number of these may be of one disk.
#[derive(Debug, Clone)]
pub struct Disk {
    controller: Arc<Controller>,
    identity: Identity,
}

impl Disk {
    pub(super) fn open(controller: Arc<Controller>, address: Address) -> Result<Self, Error> {
        let absent = || controller.requests.failed(Failure::NoUnit(address));
        let unit = controller.unit(address)?.ok_or_else(absent)?;
        if !unit.inquiry.is_disk() {
            return Err(controller.requests.failed(Failure::Unsupported { unit: address, what: "be used as a disk" }));
        }
        controller.good(address, Command::test_unit_ready(), &mut [])?;
        let capacity = capacity(&controller, address)?;
        let mode = mode(&controller, address)?;
        let limits = controller.page(address, BlockLimits::PAGE)?.as_deref().and_then(BlockLimits::parse);
        let provisioning = controller.page(address, Provisioning::PAGE)?.as_deref().and_then(Provisioning::parse);
        let identity = Identity {
            unit,
            capacity,
            mode,
            limits: limits.unwrap_or_default(),
            provisioning: provisioning.unwrap_or_default(),
        };
        Ok(Self { controller, identity })
    }

    /// What it said of itself when it was looked at.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// All its bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.identity.capacity.bytes()
    }

    /// Reads whole blocks from byte `offset` on.
    ///
    /// # Errors
    /// [`Failure::Range`], [`Failure::Command`], [`Failure::NoUnit`], [`Failure::Timeout`], [`Failure::Busy`],
    /// [`Failure::Closed`]; the device is gone. What was read is nothing to go by then.
    pub fn read_at(&self, offset: u64, destination: &mut [u8]) -> Result<(), Error> {
        let mut block = self.block(offset, destination.len())?;
        let pieces = destination.chunks_mut(self.piece_bytes()).map(Piece::In);
        self.transfer(pieces.map(|piece| {
            let blocks = self.blocks(piece.bytes());
            let command = Command::read(block, blocks);
            block += u64::from(blocks);
            (command, piece)
        }))
    }

    /// Writes whole blocks from byte `offset` on. They survive a loss of power after a [`flush`](Self::flush), or when this
    /// returns if they are to go `through` the cache.
    ///
    /// # Errors
    /// [`Failure::ReadOnly`]; as [`read_at`](Self::read_at). Which blocks are written is not known then.
    pub fn write_at(&self, offset: u64, source: &[u8], through: bool) -> Result<(), Error> {
        self.writable()?;
        let mut block = self.block(offset, source.len())?;
        let pieces = source.chunks(self.piece_bytes()).map(Piece::Out);
        self.transfer(pieces.map(|piece| {
            let blocks = self.blocks(piece.bytes());
            let command = Command::write(block, blocks, through);
            block += u64::from(blocks);
            (command, piece)
        }))
    }

    /// Has everything that was written before survive a loss of power.
    ///
    /// # Errors
    /// As [`read_at`](Self::read_at): then nothing is known to survive.
    pub fn flush(&self) -> Result<(), Error> {
        self.controller.good(self.address(), Command::synchronize_cache(), &mut []).map(drop)
    }

    /// Gives whole blocks up. Whether they read as zeroes from then on says [`Provisioning::reads_zeroes`].
    ///
    /// # Errors
    /// [`Failure::Unsupported`], [`Failure::ReadOnly`]; as [`read_at`](Self::read_at).
    pub fn unmap(&self, offset: u64, bytes: u64) -> Result<(), Error> {
        self.writable()?;
        let (unit, limits) = (self.address(), self.identity.limits);
        if !self.identity.unmaps() {
            return Err(self.failed(Failure::Unsupported { unit, what: "give blocks up" }));
        }
        let whole = usize::try_from(bytes).map_err(|_| self.out_of_range(offset, offset.saturating_add(bytes)))?;
        let mut block = self.block(offset, whole)?;
        let mut left = bytes / u64::from(self.identity.capacity.block_bytes);
        while left > 0 {
            let blocks = u32::try_from(left).unwrap_or(u32::MAX).min(limits.unmap_blocks);
            let list = Command::unmap_list(&[(block, blocks)]);
            let command = Command::unmap(u16::try_from(list.len()).unwrap_or(u16::MAX));
            self.transfer([(command, Piece::Out(&list))].into_iter())?;
            block += u64::from(blocks);
            left -= u64::from(blocks);
        }
        Ok(())
    }

    /// Looks again: a disk may have grown, or have become write-protected. Of another disk at its place this is an error.
    ///
    /// # Errors
    /// [`Failure::NoUnit`]; as [`read_at`](Self::read_at).
    pub fn refresh(&mut self) -> Result<(), Error> {
        let now = Self::open(Arc::clone(&self.controller), self.address())?;
        if now.identity.unit != self.identity.unit {
            return Err(self.failed(Failure::NoUnit(self.address())));
        }
        *self = now;
        Ok(())
    }

    /// Sends a request for each piece, some at a time, and waits for all of them.
    fn transfer<'a>(&self, pieces: impl Iterator<Item = (Command, Piece<'a>)>) -> Result<(), Error> {
        let mut under_way = VecDeque::new();
        let mut redo = Vec::new();
        for (command, piece) in pieces {
            let mut pending = None;
            // Who waits for room waits with nothing of its own under way: others may wait for just that.
            while pending.is_none() && !under_way.is_empty() {
                if under_way.len() < AT_A_TIME {
                    pending = self.submit_now(command, &piece)?;
                }
                if pending.is_none() {
                    redo.extend(self.finish(under_way.pop_front(), &mut (0..1))?);
                }
            }
            let pending = match pending {
                Some(pending) => pending,
                None => self.submit(command, &piece)?,
            };
            under_way.push_back((pending, command, piece));
        }
        while !under_way.is_empty() {
            redo.extend(self.finish(under_way.pop_front(), &mut (0..1))?);
        }
        for (command, piece) in redo {
            let (mut again, mut rest) = (0..AGAIN, Some((command, piece)));
            while let Some((command, piece)) = rest {
                let pending = self.submit(command, &piece)?;
                rest = self.finish(Some((pending, command, piece)), &mut again)?;
            }
        }
        Ok(())
    }

    /// Waits for a request. Gives it back if it is to be sent again.
    fn finish<'a>(
        &self,
        one: Option<(Pending, Command, Piece<'a>)>,
        again: &mut impl Iterator,
    ) -> Result<Option<(Command, Piece<'a>)>, Error> {
        let Some((pending, command, mut piece)) = one else { return Ok(None) };
        let outcome = pending.wait(piece.destination());
        let done = self.is_done(outcome, command, piece.bytes(), again)?;
        Ok((!done).then_some((command, piece)))
    }

    /// Whether a request is done; `false`: it is to be sent again.
    fn is_done(
        &self,
        outcome: Result<Outcome, Error>,
        command: Command,
        bytes: usize,
        again: &mut impl Iterator,
    ) -> Result<bool, Error> {
        let outcome = match outcome {
            Err(Error::Storage { failure: Failure::LinkLost(_), .. }) if again.next().is_some() => return Ok(false),
            outcome => outcome?,
        };
        if outcome.is_good() && outcome.transferred == bytes {
            return Ok(true);
        }
        if outcome.is_attention() && again.next().is_some() {
            return Ok(false);
        }
        Err(self.failed(Failure::Command { unit: self.address(), command: command.name(), outcome }))
    }

    fn submit(&self, command: Command, piece: &Piece<'_>) -> Result<Pending, Error> {
        let timeout = self.controller.settings.command_timeout;
        self.controller.submit(self.address(), command, &piece.data(), (Time::from_now(timeout), timeout))
    }

    /// `None`: there is no room now.
    fn submit_now(&self, command: Command, piece: &Piece<'_>) -> Result<Option<Pending>, Error> {
        let (now, timeout) = (Time::from_now(Duration::ZERO), self.controller.settings.command_timeout);
        match self.controller.submit(self.address(), command, &piece.data(), (now, timeout)) {
            Ok(pending) => Ok(Some(pending)),
            Err(Error::Storage { failure: Failure::Busy { .. }, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The block at a byte, if so many bytes from there on are whole blocks of the disk.
    fn block(&self, offset: u64, bytes: usize) -> Result<u64, Error> {
        let block_bytes = u64::from(self.identity.capacity.block_bytes);
        let end = u64::try_from(bytes).ok().and_then(|bytes| offset.checked_add(bytes)).unwrap_or(u64::MAX);
        if !offset.is_multiple_of(block_bytes) || !end.is_multiple_of(block_bytes) || end > self.bytes() {
            return Err(self.out_of_range(offset, end));
        }
        Ok(offset / block_bytes)
    }

    fn out_of_range(&self, offset: u64, end: u64) -> Error {
        let block_bytes = self.identity.capacity.block_bytes;
        self.failed(Failure::Range { offset, end, block_bytes, disk_bytes: self.bytes() })
    }

    fn blocks(&self, bytes: usize) -> u32 {
        let block_bytes = usize::try_from(self.identity.capacity.block_bytes).unwrap_or(usize::MAX);
        u32::try_from(bytes / block_bytes).unwrap_or(u32::MAX)
    }

    /// The most that one request moves, in whole blocks.
    fn piece_bytes(&self) -> usize {
        let block_bytes = usize::try_from(self.identity.capacity.block_bytes).unwrap_or(usize::MAX);
        let said = usize::try_from(self.identity.limits.transfer_blocks).ok().filter(|blocks| *blocks != 0);
        let said = said.map_or(usize::MAX, |blocks| blocks.saturating_mul(block_bytes));
        let most = self.controller.max_command_bytes().min(said);
        (most - most % block_bytes).max(block_bytes)
    }

    fn writable(&self) -> Result<(), Error> {
        match self.identity.mode.read_only {
            true => Err(self.failed(Failure::ReadOnly(self.address()))),
            false => Ok(()),
        }
    }

    fn address(&self) -> Address {
        self.identity.unit.address
    }

    fn failed(&self, failure: Failure) -> Error {
        self.controller.requests.failed(failure)
    }
}

/// Bytes of one request.
enum Piece<'a> {
    /// They come.
    In(&'a mut [u8]),
    /// They go.
    Out(&'a [u8]),
}

impl Piece<'_> {
    fn bytes(&self) -> usize {
        match self {
            Self::In(bytes) => bytes.len(),
            Self::Out(bytes) => bytes.len(),
        }
    }

    fn data(&self) -> Data<'_> {
        match self {
            Self::In(bytes) => Data::In(bytes.len()),
            Self::Out(bytes) => Data::Out(bytes),
        }
    }

    fn destination(&mut self) -> &mut [u8] {
        match self {
            Self::In(bytes) => bytes,
            Self::Out(_) => &mut [],
        }
    }
}

/// By the long command; by the short one, if the unit knows no other.
fn capacity(controller: &Controller, unit: Address) -> Result<Capacity, Error> {
    let nonsense = |command: Command| controller.requests.failed(Failure::Nonsense { unit, command: command.name() });
    let long = Command::read_capacity_16(CAPACITY_BYTES);
    match controller.answer(unit, long, usize::try_from(CAPACITY_BYTES).unwrap_or(0)) {
        Ok(bytes) => return Capacity::parse_16(&bytes).ok_or_else(|| nonsense(long)),
        Err(Error::Storage { failure: Failure::Command { outcome, .. }, .. }) if is_illegal(&outcome) => {}
        Err(error) => return Err(error),
    }
    let short = Command::read_capacity_10();
    let bytes = controller.answer(unit, short, 8)?;
    Capacity::parse_10(&bytes).and_then(Result::ok).ok_or_else(|| nonsense(short))
}

/// How it is set up, as far as it says.
fn mode(controller: &Controller, unit: Address) -> Result<Mode, Error> {
    let asked = [
        (Command::mode_sense_6(Mode::CACHING, MODE_BYTES), Mode::parse_6 as fn(&[u8]) -> Option<Mode>),
        (Command::mode_sense_10(Mode::CACHING, MODE_BYTES.into()), Mode::parse_10),
    ];
    for (command, parse) in asked {
        match controller.answer(unit, command, MODE_BYTES.into()) {
            Ok(bytes) => return Ok(parse(&bytes).unwrap_or_default()),
            // Some hosts can't say.
            Err(Error::Storage { failure: Failure::Command { .. }, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Mode::default())
}
