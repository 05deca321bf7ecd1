//! The guest's side: ranges into messages.

use std::iter;

use super::super::{GpadlBody, GpadlHeader, GuestMessage};
use super::{BODY_WORDS, GpadlError, GpadlId, HEADER_WORDS, MAX_BYTES, Range};

/// Cuts a GPADL into a header and as many bodies as it takes, in the order in which they must be posted. Nothing is
/// built before it is asked for. Beyond [`ANY_HOST_WORDS`](super::ANY_HOST_WORDS) not every host understands it.
///
/// # Errors
/// No ranges, or more than 65,535; one whose pages don't fit its bytes; more than [`MAX_BYTES`] in all.
pub fn split(
    relid: u32,
    gpadl: GpadlId,
    ranges: &[Range],
) -> Result<impl Iterator<Item = GuestMessage> + use<'_>, GpadlError> {
    let count = match u16::try_from(ranges.len()) {
        Ok(count) if count != 0 => count,
        _ => return Err(GpadlError::Ranges { ranges: ranges.len(), most: u16::MAX }),
    };
    let mut bytes = 0_u64;
    let mut words = 0_usize;
    for range in ranges {
        range.check()?;
        bytes = bytes.saturating_add(range.byte_count.into());
        words = words.saturating_add(range.words());
    }
    if bytes > MAX_BYTES.into() {
        return Err(GpadlError::Bytes { bytes, most: MAX_BYTES });
    }

    let mut rest = ranges.iter().flat_map(|range| iter::once(head(range)).chain(range.pages.iter().copied()));
    let header = GpadlHeader {
        relid,
        gpadl,
        range_bytes: stated(words),
        ranges: count,
        words: rest.by_ref().take(HEADER_WORDS).collect(),
    };
    let mut number = 0_u32;
    let bodies = iter::from_fn(move || {
        let words: Vec<u64> = rest.by_ref().take(BODY_WORDS).collect();
        number = number.saturating_add(1);
        (!words.is_empty()).then_some(GuestMessage::GpadlBody(GpadlBody { number, gpadl, words }))
    });
    Ok(iter::once(GuestMessage::GpadlHeader(header)).chain(bodies))
}

/// The word before a range's pages.
fn head(range: &Range) -> u64 {
    u64::from(range.byte_offset) << 32 | u64::from(range.byte_count)
}

/// The length of so many words as the header states it: what is left of it in 16 bits.
pub(super) fn stated(words: usize) -> u16 {
    let [low, high, ..] = words.wrapping_mul(size_of::<u64>()).to_le_bytes();
    u16::from_le_bytes([low, high])
}
