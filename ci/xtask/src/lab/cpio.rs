//! Archives in cpio's "newc" format, which the kernel unpacks into the root of its memory file system
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::io::{Result, Write};

/// Writes an archive entry by entry; a parent folder comes before what is in it.
#[derive(Debug)]
pub(crate) struct Archive<W> {
    output: W,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// An archive that is still empty.
    pub(crate) fn new(output: W) -> Self {
        Self { output, entries: 0 }
    }

    /// Adds a folder.
    ///
    /// # Errors
    /// Writing fails.
    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.entry(path, 0o040_755, &[])
    }

    /// Adds a file; `executable` files can be run by everybody.
    ///
    /// # Errors
    /// Writing fails, or the content has 4 GiB or more.
    pub(crate) fn file(&mut self, path: &str, executable: bool, content: &[u8]) -> Result<()> {
        self.entry(path, if executable { 0o100_755 } else { 0o100_644 }, content)
    }

    /// Writes the end mark and gives the output back.
    ///
    /// # Errors
    /// Writing fails.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, &[])?;
        self.output.flush()?;
        Ok(self.output)
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let too_long = |_| std::io::Error::other(format!("{path} is too long for a cpio archive"));
        let length = u32::try_from(content.len()).map_err(too_long)?;
        let name_length = u32::try_from(path.len() + 1).map_err(too_long)?;
        self.entries += 1;
        // inode, mode, user, group, links, time, size, device numbers (4), name length, no checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name_length, 0];
        self.output.write_all(b"070701")?;
        for field in fields {
            write!(self.output, "{field:08X}")?;
        }
        self.output.write_all(path.as_bytes())?;
        self.output.write_all(&[0])?;
        self.pad(110 + path.len() + 1)?;
        self.output.write_all(content)?;
        self.pad(content.len())
    }

    fn pad(&mut self, written: usize) -> Result<()> {
        let padding = written.next_multiple_of(4) - written;
        self.output.write_all([0; 3].get(..padding).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_start_at_multiples_of_four_and_end_with_the_trailer() {
        let mut archive = Archive::new(Vec::new());
        archive.folder("bin").unwrap();
        archive.file("bin/sh", true, b"12345").unwrap();
        let bytes = archive.finish().unwrap();
        let starts: Vec<usize> = (0..bytes.len() - 5).filter(|at| bytes[*at..].starts_with(b"070701")).collect();
        assert_eq!(starts, [0, 116, 244]);
        assert!(starts.iter().all(|start| start % 4 == 0));
        assert_eq!(&bytes[116 + 14..116 + 22], b"000081ED");
        assert_eq!(&bytes[116 + 54..116 + 62], b"00000005");
        assert_eq!(&bytes[116 + 110..116 + 117], b"bin/sh\0");
        assert_eq!(&bytes[236..241], b"12345");
        assert_eq!(&bytes[244 + 110..244 + 121], b"TRAILER!!!\0");
    }
}
