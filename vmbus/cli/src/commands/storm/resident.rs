//! Resident memory of this process.

use std::fs;

use anyhow::Context;

/// Bytes resident now: anonymous, file and shared pages alike.
///
/// Format: `/proc/self/statm`, in pages; the second figure (proc(5)).
pub(super) fn bytes() -> anyhow::Result<i64> {
    let text = fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).and_then(|pages| pages.parse::<i64>().ok());
    let pages = pages.with_context(|| format!("/proc/self/statm holds no resident set: {text:?}"))?;
    let page = i64::try_from(rustix::param::page_size()).context("the page size makes no sense")?;
    Ok(pages.saturating_mul(page))
}

#[cfg(test)]
mod tests {
    #[test]
    fn resident_memory_follows_what_is_touched() {
        let before = super::bytes().unwrap();
        let block = vec![1_u8; 64 << 20];
        let with_block = super::bytes().unwrap();
        assert!(with_block - before > 32 << 20, "{before} {with_block}");
        drop(std::hint::black_box(block));
    }
}
