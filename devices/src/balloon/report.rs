//! Memory figures as the kernel's own driver counts them, from `/proc/meminfo`, in pages of 4 KiB.
//!
//! The kernel driver takes pages out of the kernel's total and adds them to what is committed. Here they are
//! memory of a process: still part of `MemTotal`, and part of `Committed_AS` already, so nothing is added.

use std::fs;
use std::path::Path;
use vmbus::Error;

/// Pages of 4 KiB in a mebibyte.
const MIB: u64 = 256;

/// The guest's memory at one moment, in pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// `MemTotal`: what the kernel manages, ballooned pages included.
    pub total_pages: u64,
    /// `MemAvailable`: what could be had without swapping.
    pub available_pages: u64,
    /// `Committed_AS`: what is promised to processes, ballooned pages included.
    pub committed_pages: u64,
    /// What the balloon holds.
    pub ballooned_pages: u64,
}

impl Memory {
    /// Reads the file `/proc/meminfo`, which is at `path` (elsewhere in tests).
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Permission`] if it can't be read, [`Error::Malformed`] if a figure is missing.
    pub fn read(path: &Path, ballooned_pages: u64) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(|source| Error::io("read", path, source))?;
        Self::parse(&text, ballooned_pages).map_err(|missing| Error::malformed(path, missing, text))
    }

    /// The figures in the text of `/proc/meminfo`, or the first one that is missing.
    fn parse(text: &str, ballooned_pages: u64) -> Result<Self, &'static str> {
        let pages = |name: &'static str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
            kib.map(|kib| kib / 4).ok_or(name)
        };
        Ok(Self {
            total_pages: pages("MemTotal")?,
            available_pages: pages("MemAvailable")?,
            committed_pages: pages("Committed_AS")?,
            ballooned_pages,
        })
    }

    /// Pages that must stay available by the protocol's own rule.
    ///
    /// The kernel's rule is a piecewise linear function of the memory that it manages, from which its own driver
    /// subtracts what is ballooned.
    #[must_use]
    pub fn floor_pages(&self) -> u64 {
        let managed = self.total_pages.saturating_sub(self.ballooned_pages);
        match managed {
            0x0000..0x8000 => 8 * MIB + managed / 2,         // below 128 MiB
            0x8000..0x2_0000 => 40 * MIB + managed / 4,      // below 512 MiB
            0x2_0000..0x8_0000 => 104 * MIB + managed / 8,   // below 2 GiB
            0x8_0000..0x20_0000 => 232 * MIB + managed / 16, // below 8 GiB
            _ => 488 * MIB + managed / 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "MemTotal:         524288 kB\nMemFree:          300000 kB\nMemAvailable:     400004 kB\n\
                        CommitLimit:      262144 kB\nCommitted_AS:      12348 kB\nHugePages_Total:       0\n";

    #[test]
    fn figures_are_pages_of_4_kib() {
        let memory = Memory::parse(TEXT, 7).unwrap();
        let expected =
            Memory { total_pages: 131_072, available_pages: 100_001, committed_pages: 3087, ballooned_pages: 7 };
        assert_eq!(memory, expected);
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [("MemTotal", "MemTota1"), ("MemAvailable:", "MemAvailable"), ("Committed_AS:      12348 kB", "x")];
        for (old, new) in cases {
            let missing = Memory::parse(&TEXT.replace(old, new), 0).unwrap_err();
            assert!(old.starts_with(missing), "{old}: {missing}");
        }
    }

    #[test]
    fn a_missing_file_and_a_strange_one_are_named_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meminfo");
        assert!(matches!(Memory::read(&path, 0), Err(Error::Io { .. })));
        fs::write(&path, "what?").unwrap();
        let error = Memory::read(&path, 0).unwrap_err();
        assert!(error.to_string().contains("MemTotal"), "{error}");
        fs::write(&path, TEXT).unwrap();
        assert_eq!(Memory::read(&path, 0).unwrap().committed_pages, 3087);
    }

    #[test]
    fn the_real_file_has_them() {
        let memory = Memory::read(Path::new("/proc/meminfo"), 0).unwrap();
        assert!(memory.total_pages > 0 && memory.available_pages <= memory.total_pages);
    }

    /// MiB managed and the floor in MiB: the corner points that the kernel's comment gives, and it is continuous.
    #[test]
    fn the_floor_goes_through_the_kernels_corner_points() {
        for (managed, floor) in
            [(0, 8), (16, 16), (32, 24), (128, 72), (512, 168), (2048, 360), (8192, 744), (32768, 1512)]
        {
            let at = |pages: u64| Memory { total_pages: pages, ..Memory::default() }.floor_pages();
            assert_eq!(at(managed * MIB), floor * MIB, "{managed} MiB");
            if managed > 0 {
                assert!(at(managed * MIB - 1).abs_diff(floor * MIB) <= 1, "just below {managed} MiB");
            }
        }
    }

    #[test]
    fn ballooned_pages_count_neither_for_the_floor_nor_twice() {
        let full = Memory { total_pages: 512 * MIB, ballooned_pages: 384 * MIB, ..Memory::default() };
        let small = Memory { total_pages: 128 * MIB, ..Memory::default() };
        assert_eq!(full.floor_pages(), small.floor_pages());
    }
}
