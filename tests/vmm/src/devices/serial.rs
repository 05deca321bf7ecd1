//! The serial console: a 16550A whose output goes to a file line by line. Nothing is ever typed into it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use vm_superio::{Serial, Trigger};

use crate::exits::Ports;
use crate::kvm::Line;

/// A line is written when it is this long, at the latest.
const LINE_AT_MOST: usize = 1024;

/// The serial console.
#[derive(Debug)]
pub struct Console {
    uart: Mutex<Serial<Line, vm_superio::serial::NoEvents, Lines>>,
}

impl Console {
    /// A console that writes to `path`: a file, which is made, or a character device.
    ///
    /// # Errors
    /// The file can't be opened for writing.
    pub fn new(path: &Path, interrupt: Line) -> Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path);
        let file = file.with_context(|| format!("open the console {}", path.display()))?;
        raw(&file).with_context(|| format!("set up the terminal {}", path.display()))?;
        Ok(Self { uart: Mutex::new(Serial::new(interrupt, Lines::new(file))) })
    }

    /// Writes what has been said of an unfinished line.
    pub fn flush(&self) {
        self.uart.lock().unwrap_or_else(PoisonError::into_inner).writer_mut().write_out();
    }
}

impl Ports for Console {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
        data.fill(uart.read(register(offset)));
    }

    fn write(&self, offset: u16, data: &[u8]) {
        let mut uart = self.uart.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in data {
            if let Err(error) = uart.write(register(offset), *byte) {
                log::debug!(target: "vmbus::vmm", "serial console: {error:?}");
            }
        }
    }
}

impl Trigger for Line {
    type E = anyhow::Error;

    fn trigger(&self) -> Result<()> {
        self.pulse()
    }
}

fn register(offset: u16) -> u8 {
    u8::try_from(offset).unwrap_or(u8::MAX)
}

/// Makes a terminal carry bytes as they are; other files do so anyway.
pub(crate) fn raw(file: &impl AsFd) -> io::Result<()> {
    use rustix::termios;
    if termios::isatty(file) {
        let mut settings = termios::tcgetattr(file)?;
        settings.make_raw();
        termios::tcsetattr(file, termios::OptionalActions::Now, &settings)?;
    }
    Ok(())
}

/// Collects bytes to lines: the UART asks for a flush after each byte, and a system call for each is too much.
#[derive(Debug)]
struct Lines {
    file: File,
    line: Vec<u8>,
}

impl Lines {
    fn new(file: File) -> Self {
        Self { file, line: Vec::with_capacity(LINE_AT_MOST) }
    }

    /// Output that can't be written is lost: a full disk is no reason to stop the guest.
    fn write_out(&mut self) {
        if let Err(error) = self.file.write_all(&self.line) {
            log::debug!(target: "vmbus::vmm", "console output lost: {error}");
        }
        self.line.clear();
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if bytes.contains(&b'\n') || self.line.len() >= LINE_AT_MOST {
            self.write_out();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::Lines;

    #[test]
    fn a_line_is_one_write_and_a_long_one_is_not_kept_for_ever() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut lines = Lines::new(file.reopen().unwrap());
        let said = || std::fs::read_to_string(file.path()).unwrap();
        for byte in b"hello" {
            lines.write_all(&[*byte]).unwrap();
            lines.flush().unwrap();
        }
        assert_eq!(said(), "");
        lines.write_all(b"\n").unwrap();
        assert_eq!(said(), "hello\n");
        for _ in 0..1024 {
            lines.write_all(b"x").unwrap();
        }
        assert_eq!(said().len(), 6 + 1024);
        lines.write_all(b"tail").unwrap();
        lines.write_out();
        assert!(said().ends_with("xtail"));
    }
}
