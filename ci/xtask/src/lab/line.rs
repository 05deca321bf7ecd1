//! Lines over a Unix socket that stands for one of the guest's serial ports, each read with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process::check_interrupt;

/// The other end is closed: the guest, or the QEMU it runs in, has ended.
#[derive(Debug)]
pub(crate) struct Gone;

impl std::fmt::Display for Gone {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the guest has ended")
    }
}

impl std::error::Error for Gone {}

/// A serial port of the guest.
#[derive(Debug)]
pub(crate) struct Line {
    stream: UnixStream,
    pending: Vec<u8>,
}

impl Line {
    /// Connects as soon as the socket is there.
    ///
    /// # Errors
    /// It is not there in time, or this process was interrupted.
    pub(crate) fn connect(path: &Path, timeout: Duration) -> Result<Self> {
        let deadline = Instant::now() + timeout;
        loop {
            check_interrupt()?;
            match UnixStream::connect(path) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
                    stream.set_write_timeout(Some(Duration::from_secs(30)))?;
                    return Ok(Self { stream, pending: Vec::new() });
                }
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("connect to {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Writes bytes, newline included.
    ///
    /// # Errors
    /// [`Gone`], or the port takes nothing for 30 s.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => bail!(Gone),
            result => result.context("write to a serial port of the guest"),
        }
    }

    /// The next line without its newline; `None` if none is complete in time.
    ///
    /// # Errors
    /// [`Gone`], or this process was interrupted.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let mut line: Vec<u8> = self.pending.drain(..=end).collect();
                line.pop();
                return Ok(Some(line));
            }
            check_interrupt()?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!(Gone),
                Ok(length) => self.pending.extend_from_slice(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => bail!(Gone),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                    if Instant::now() >= deadline {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error).context("read from a serial port of the guest"),
            }
        }
    }
}
