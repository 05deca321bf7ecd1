//! From a mapping to the ring memory that `vmbus-ringbuf` works on: where the control page and the data are.

use core::ptr::NonNull;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::param::page_size;
use vmbus_ringbuf::Mapped;

use super::mapping::{Mapping, Piece};
use super::pages::pieces;

/// One ring in revocable memory.
pub type Ring = Mapped<Arc<Mapping>>;

/// Maps the ring of `ring_bytes` bytes (control page and data) that starts at `file_offset` of a channel's `ring`
/// file (or of a memfd that stands for one), with its data a second time behind their end. The mapping is returned
/// too, for who may have to revoke it.
///
/// # Errors
/// As [`Mapping::new`]; `EINVAL` also for a ring without data or one that `vmbus-ringbuf` does not take.
pub fn map_mirrored(file: BorrowedFd<'_>, file_offset: u64, ring_bytes: usize) -> Result<(Ring, Arc<Mapping>), Errno> {
    let data_bytes = ring_bytes.checked_sub(page_size()).ok_or(Errno::INVAL)?;
    let page = u64::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
    let data_offset = file_offset.checked_add(page).ok_or(Errno::OVERFLOW)?;
    let once = Piece { file, file_offset, bytes: ring_bytes };
    mirrored(&[once], &[Piece { file, file_offset: data_offset, bytes: data_bytes }])
}

/// Maps a ring that lies in these pages of a file: the first is the control page, the others are the data in their
/// order, and the data are mapped a second time behind their end. The mapping is returned too, for who may have to
/// revoke it.
///
/// # Errors
/// As [`map_pages`](super::map_pages); `EINVAL` also for a ring without data or one that `vmbus-ringbuf` does not take.
pub fn map_ring_pages(file: BorrowedFd<'_>, pages: &[u64]) -> Result<(Ring, Arc<Mapping>), Errno> {
    let (_, data) = pages.split_first().ok_or(Errno::INVAL)?;
    mirrored(&pieces(file, pages)?, &pieces(file, data)?)
}

/// As [`map_ring_pages`], for both rings of a channel in one mapping: half the calls, and one flush of the processors'
/// address caches instead of two when it goes.
///
/// # Errors
/// As [`map_ring_pages`].
pub(crate) fn map_ring_pair(file: BorrowedFd<'_>, rings: [&[u64]; 2]) -> Result<([Ring; 2], Arc<Mapping>), Errno> {
    let [first, second] = rings;
    let data = |pages: &[u64]| pages.split_first().map(|(_, data)| data.to_vec()).ok_or(Errno::INVAL);
    let (first_data, second_data) = (data(first)?, data(second)?);
    // As one list of pages: where neighbours in it are neighbours in the file, also across the rings, one call does.
    let mapping = Arc::new(Mapping::new(&pieces(file, &[first, &first_data, second, &second_data].concat())?)?);
    let at = (first.len() + first_data.len()) * page_size();
    let rings =
        [in_mapping(&mapping, 0, first.len() * page_size())?, in_mapping(&mapping, at, second.len() * page_size())?];
    Ok((rings, mapping))
}

/// A ring in `once`: the control page and the data. `data` are the data alone, which are mapped again behind them.
fn mirrored(once: &[Piece<'_>], data: &[Piece<'_>]) -> Result<(Ring, Arc<Mapping>), Errno> {
    let bytes = |pieces: &[Piece<'_>]| pieces.iter().try_fold(0_usize, |sum, piece| sum.checked_add(piece.bytes));
    let ring_bytes = bytes(once).ok_or(Errno::OVERFLOW)?;
    if bytes(data).and_then(|data_bytes| data_bytes.checked_add(page_size())) != Some(ring_bytes) {
        return Err(Errno::INVAL);
    }
    let mapping = Arc::new(Mapping::new(&[once, data].concat())?);
    Ok((in_mapping(&mapping, 0, ring_bytes)?, mapping))
}

/// The ring of `ring_bytes` bytes that lies `at` bytes into a mapping which shows its data again right behind it.
fn in_mapping(mapping: &Arc<Mapping>, at: usize, ring_bytes: usize) -> Result<Ring, Errno> {
    let place = Place::within(mapping, at, ring_bytes)?;
    let again =
        ring_bytes.checked_sub(page_size()).and_then(|data_bytes| at.checked_add(ring_bytes)?.checked_add(data_bytes));
    if again.is_none_or(|end| end > mapping.bytes()) {
        return Err(Errno::INVAL);
    }
    // SAFETY: the place and as many bytes as its data behind it lie inside the mapping, and those are the same data (the
    // callers put them there from the same pages of the file); the mapping given along keeps the addresses valid. A revocation puts separate zeroes where the two views were: they
    // no longer mirror each other, but stay readable and writable. The host writes these bytes, and so may any process
    // that maps the same file, also through a page that the list names twice; nothing in this program ever holds a
    // reference to them.
    let ring = unsafe { Mapped::mirrored(place.control, place.data, place.data_bytes, Arc::clone(mapping)) };
    ring.map_err(|_| Errno::INVAL)
}

/// The ring of `ring_bytes` bytes that starts `at` bytes into a mapping, which shows it once.
///
/// # Errors
/// `EINVAL` when it does not lie inside the mapping, or is one that `vmbus-ringbuf` does not take.
pub(crate) fn contiguous(mapping: Arc<Mapping>, at: usize, ring_bytes: usize) -> Result<Ring, Errno> {
    let place = Place::within(&mapping, at, ring_bytes)?;
    // SAFETY: the place lies inside the mapping, which is given along and keeps the addresses valid, also across a
    // revocation. The host writes these bytes, and so may any process that maps the same device; nothing in this
    // program ever holds a reference to them.
    let ring = unsafe { Mapped::contiguous(place.control, place.data, place.data_bytes, mapping) };
    ring.map_err(|_| Errno::INVAL)
}

/// A control page and the data right behind it, checked to lie inside a mapping.
struct Place {
    control: NonNull<u8>,
    data: NonNull<u8>,
    data_bytes: u32,
}

impl Place {
    fn within(mapping: &Mapping, at: usize, ring_bytes: usize) -> Result<Self, Errno> {
        let inside = at.checked_add(ring_bytes).is_some_and(|end| end <= mapping.bytes());
        let data_bytes = ring_bytes.checked_sub(page_size()).ok_or(Errno::INVAL)?;
        if !inside || !at.is_multiple_of(page_size()) || !ring_bytes.is_multiple_of(page_size()) {
            return Err(Errno::INVAL);
        }
        let control = mapping.base().as_ptr().wrapping_add(at);
        Ok(Self {
            control: NonNull::new(control).ok_or(Errno::FAULT)?,
            data: NonNull::new(control.wrapping_add(page_size())).ok_or(Errno::FAULT)?,
            data_bytes: u32::try_from(data_bytes).map_err(|_| Errno::OVERFLOW)?,
        })
    }
}
