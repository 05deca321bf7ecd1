//! Lines over a Unix socket that stands for one of the guest's ports, each read with a deadline. A thread drains the
//! socket all the time: a serial port fills it a byte a packet, and 280 unread bytes are enough to stall the guest.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
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

/// A port of the guest; dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Line {
    stream: UnixStream,
    lines: Receiver<Vec<u8>>,
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
                Ok(stream) => return Self::start(stream),
                Err(error) if Instant::now() >= deadline => {
                    return Err(error).with_context(|| format!("connect to {}", path.display()));
                }
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn start(stream: UnixStream) -> Result<Self> {
        stream.set_write_timeout(Some(Duration::from_secs(30)))?;
        let mut input = BufReader::new(stream.try_clone()?);
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            loop {
                let mut line = Vec::new();
                let whole = input.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n');
                if !whole || sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { stream, lines })
    }

    /// Writes bytes, newline included.
    ///
    /// # Errors
    /// [`Gone`], or the port takes nothing for 30 s.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self.stream.write_all(bytes) {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => bail!(Gone),
            result => result.context("write to a port of the guest"),
        }
    }

    /// The next line without its newline; `None` if none is complete in time.
    ///
    /// # Errors
    /// [`Gone`], or this process was interrupted.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            check_interrupt()?;
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(line) => return Ok(Some(line)),
                Err(RecvTimeoutError::Disconnected) => bail!(Gone),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::{Gone, Line};
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::{Duration, Instant};

    #[test]
    fn lines_come_whole_and_the_end_is_told() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        let mut line = Line::start(host).unwrap();
        assert!(line.receive(Instant::now()).unwrap().is_none());
        let soon = || Instant::now() + Duration::from_secs(10);
        guest.write_all(b"one\ntw").unwrap();
        assert_eq!(line.receive(soon()).unwrap().unwrap(), b"one");
        guest.write_all(b"o\nrest").unwrap();
        assert_eq!(line.receive(soon()).unwrap().unwrap(), b"two");
        drop(guest);
        assert!(line.receive(soon()).unwrap_err().is::<Gone>());
    }

    #[test]
    fn a_port_that_sends_byte_by_byte_is_never_stalled() {
        let (mut guest, host) = UnixStream::pair().unwrap();
        guest.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        let _line = Line::start(host).unwrap();
        for _ in 0..4096 {
            guest.write_all(b"x").unwrap();
        }
    }
}
