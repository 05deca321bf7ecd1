//! How much of the guest is in use: memory of the machine and of this process, descriptors, threads.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use serde::Serialize;

/// What is in use, memory in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Level {
    free_kib: i64,
    available_kib: i64,
    slab_kib: i64,
    unreclaimable_kib: i64,
    vmalloc_kib: i64,
    resident_kib: i64,
    descriptors: usize,
    threads: usize,
}

/// How much more may be in use at the end.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Slack {
    /// How much more memory of any kind may be in use at the end, in KiB.
    #[arg(long, default_value_t = 8192)]
    slack_kib: i64,
    /// How much the kernel is known to lose with each cycle, in KiB: since CVE-2024-36910 it keeps the ring of a channel that
    /// was taken back while open, because nobody has torn its GPADL down.
    #[arg(long, default_value_t = 0)]
    kernel_keeps_kib: i64,
    /// How many more descriptors, and how many more threads.
    #[arg(long, default_value_t = 0)]
    slack_handles: usize,
}

impl Slack {
    /// What is allowed after so many cycles.
    pub(crate) fn after(self, cycles: u32) -> Self {
        let kept = self.kernel_keeps_kib.saturating_mul(i64::from(cycles));
        Self { slack_kib: self.slack_kib.saturating_add(kept), ..self }
    }
}

impl Level {
    /// Now.
    ///
    /// # Errors
    /// /proc can't be read.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let machine = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
        let process = fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
        let entries =
            |folder: &str| fs::read_dir(folder).map(Iterator::count).with_context(|| format!("list {folder}"));
        Ok(Self {
            free_kib: kib(&machine, "MemFree"),
            available_kib: kib(&machine, "MemAvailable"),
            slab_kib: kib(&machine, "Slab"),
            unreclaimable_kib: kib(&machine, "SUnreclaim"),
            vmalloc_kib: kib(&machine, "VmallocUsed"),
            resident_kib: kib(&process, "VmRSS"),
            descriptors: entries("/proc/self/fd")?,
            threads: entries("/proc/self/task")?,
        })
    }

    /// What is wrong with this level, compared with that of `before`.
    pub(crate) fn risen(&self, before: &Self, slack: &Slack) -> Vec<String> {
        let more = [
            ("memory", before.free_kib - self.free_kib),
            ("slabs", self.slab_kib - before.slab_kib),
            ("slabs that can't be reclaimed", self.unreclaimable_kib - before.unreclaimable_kib),
            ("vmalloc", self.vmalloc_kib - before.vmalloc_kib),
            ("this process", self.resident_kib - before.resident_kib),
        ];
        let risen = more.iter().filter(|(_, more)| *more > slack.slack_kib);
        let mut wrong: Vec<_> = risen.map(|(what, more)| format!("{what}: {more} KiB more in use")).collect();
        if self.descriptors > before.descriptors.saturating_add(slack.slack_handles) {
            wrong.push(format!("{} descriptors, {} before", self.descriptors, before.descriptors));
        }
        if self.threads > before.threads.saturating_add(slack.slack_handles) {
            wrong.push(format!("{} threads, {} before", self.threads, before.threads));
        }
        wrong
    }

    /// Memory that is in use now and was not before, in KiB.
    pub(crate) fn grown_kib(&self, before: &Self) -> i64 {
        before.free_kib - self.free_kib
    }

    /// As [`now`](Self::now), but what is about to be given back has `limit` to go.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub(crate) fn settled(before: &Self, slack: &Slack, limit: Duration) -> anyhow::Result<Self> {
        let start = Instant::now();
        loop {
            let now = Self::now()?;
            if now.risen(before, slack).is_empty() || start.elapsed() > limit {
                return Ok(now);
            }
            // Nothing announces that a thread of a pool has ended, or that the kernel has freed a slab.
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The number behind a name, in files whose lines are `Name:  number kB`.
fn kib(text: &str, name: &str) -> i64 {
    let of_line = |line: &str| line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok();
    text.lines().find_map(of_line).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_risen_is_named() {
        let before = Level::now().unwrap();
        let slack = |slack_kib, slack_handles| Slack { slack_kib, slack_handles, kernel_keeps_kib: 256 };
        assert_eq!(slack(100, 0).after(3).slack_kib, 868);
        assert!(before.free_kib > 0 && before.resident_kib > 0 && before.descriptors > 2 && before.threads > 0);
        assert_eq!(before.risen(&before, &slack(0, 0)), Vec::<String>::new());
        let after = Level { free_kib: before.free_kib - 4097, descriptors: before.descriptors + 1, ..before };
        assert_eq!(after.risen(&before, &slack(4096, 0)).len(), 2);
        assert_eq!(after.risen(&before, &slack(4097, 0)).len(), 1);
        assert_eq!(after.risen(&before, &slack(4097, 1)).len(), 0);
        assert_eq!(Level { threads: before.threads + 2, ..before }.risen(&before, &slack(0, 1)).len(), 1);
    }
}
