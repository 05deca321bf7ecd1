//! The bytes of a disk: in memory, of which only what was written takes room, or in a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes that are kept together.
const PIECE: u64 = 65_536;

/// Where a disk has its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backing {
    /// In memory: zeroes at first.
    Memory,
    /// In a file, which is made if it is not there, and made as long as the disk.
    File(PathBuf),
}

#[derive(Debug)]
pub(super) enum Medium {
    Memory(BTreeMap<u64, Box<[u8]>>),
    File(File),
}

impl Medium {
    pub(super) fn open(backing: &Backing, bytes: u64) -> io::Result<Self> {
        let Backing::File(path) = backing else { return Ok(Self::Memory(BTreeMap::new())) };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        if file.metadata()?.len() < bytes {
            file.set_len(bytes)?;
        }
        Ok(Self::File(file))
    }

    pub(super) fn read(&self, offset: u64, destination: &mut [u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(destination, offset),
            Self::Memory(pieces) => {
                for (place, at, part) in parts(offset, destination.len()) {
                    let to = destination.get_mut(at..at + part.len()).unwrap_or_default();
                    match pieces.get(&place).and_then(|piece| piece.get(part)) {
                        Some(from) => to.copy_from_slice(from),
                        None => to.fill(0),
                    }
                }
                Ok(())
            }
        }
    }

    pub(super) fn write(&mut self, offset: u64, source: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file) => file.write_all_at(source, offset),
            Self::Memory(pieces) => {
                for (place, at, part) in parts(offset, source.len()) {
                    let piece = pieces.entry(place).or_insert_with(|| vec![0; 65_536].into_boxed_slice());
                    if let (Some(to), Some(from)) = (piece.get_mut(part.clone()), source.get(at..at + part.len())) {
                        to.copy_from_slice(from);
                    }
                }
                Ok(())
            }
        }
    }

    /// Makes zeroes of a range, and gives its room back where that is possible.
    pub(super) fn discard(&mut self, offset: u64, bytes: u64) -> io::Result<()> {
        let end = offset.saturating_add(bytes);
        if let Self::Memory(pieces) = self {
            let whole = offset.div_ceil(PIECE)..end / PIECE;
            pieces.retain(|place, _| !whole.contains(place));
        }
        let zeroes = [0; 4096];
        let mut at = offset;
        while at < end {
            let here = (4096 - at % 4096).min(end - at);
            let there = match self {
                Self::Memory(pieces) => pieces.contains_key(&(at / PIECE)),
                Self::File(_) => true,
            };
            if there {
                self.write(at, zeroes.get(..usize::try_from(here).unwrap_or(0)).unwrap_or_default())?;
            }
            at += here;
        }
        Ok(())
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        match self {
            Self::File(file) => file.sync_data(),
            Self::Memory(_) => Ok(()),
        }
    }

    /// A file is made longer with its disk.
    pub(super) fn grow(&self, bytes: u64) -> io::Result<()> {
        match self {
            Self::File(file) if file.metadata()?.len() < bytes => file.set_len(bytes),
            _ => Ok(()),
        }
    }
}

/// The pieces that bytes lie in: number of the piece, where in the bytes, where in the piece.
fn parts(offset: u64, bytes: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + u64::try_from(done).unwrap_or(0);
        let inside = usize::try_from(at % PIECE).unwrap_or(0);
        let here = (65_536 - inside).min(bytes - done);
        let part = (at / PIECE, done, inside..inside + here);
        done += here;
        (here != 0).then_some(part)
    })
}
