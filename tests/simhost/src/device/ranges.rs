//! Guest memory that a packet names by page numbers.

/// One range of guest memory, as a GPA-direct packet names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestRange {
    /// Where it begins in its first page, below 4096.
    pub byte_offset: u32,
    /// Its bytes.
    pub byte_count: u32,
    /// Numbers of the pages that it touches.
    pub pages: Vec<u64>,
}

impl GuestRange {
    /// Where `bytes` from `offset` of the range on are, counted from its first page. `None`: it has not so many.
    pub(crate) fn place(&self, offset: u64, bytes: usize) -> Option<u64> {
        let end = offset.checked_add(u64::try_from(bytes).ok()?)?;
        (end <= u64::from(self.byte_count)).then_some(u64::from(self.byte_offset) + offset)
    }
}
