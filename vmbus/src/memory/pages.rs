//! Guest memory by page numbers, as a GPADL names it: a list of pages of one file, mapped in its order.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;
use rustix::param::page_size;

use super::mapping::{Mapping, Piece};

/// The pieces that a list of page numbers makes: neighbours in both list and file become one piece, so that a mapping
/// of them costs one call and one area of the kernel's, not one for each page.
pub(super) fn pieces<'a>(file: BorrowedFd<'a>, pages: &[u64]) -> Result<Vec<Piece<'a>>, Errno> {
    let page_bytes = u64::try_from(page_size()).map_err(|_| Errno::OVERFLOW)?;
    let mut pieces: Vec<Piece<'a>> = Vec::new();
    let mut expected = None;
    for &page in pages {
        match pieces.last_mut() {
            Some(last) if expected == Some(page) => {
                last.bytes = last.bytes.checked_add(page_size()).ok_or(Errno::OVERFLOW)?;
            }
            _ => {
                let file_offset = page.checked_mul(page_bytes).ok_or(Errno::OVERFLOW)?;
                pieces.push(Piece { file, file_offset, bytes: page_size() });
            }
        }
        expected = page.checked_add(1);
    }
    Ok(pieces)
}

/// Maps pages of a file, by their numbers, one behind the other. A page that is named twice is mapped twice.
///
/// Whether the file has these pages is not checked: an access to one that it lacks revokes the mapping.
///
/// # Errors
/// As [`Mapping::new`]; `EINVAL` for an empty list, `EOVERFLOW` for a page number past any file's end, `ENOMEM` also
/// when the list is more scattered than the kernel has areas for.
pub fn map_pages(file: BorrowedFd<'_>, pages: &[u64]) -> Result<Mapping, Errno> {
    Mapping::new(&pieces(file, pages)?)
}
