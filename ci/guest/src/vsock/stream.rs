//! Bytes over a stream and back, each checked: sent by a thread of their own, so that neither side waits for the other.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::thread;

use anyhow::{Context as _, bail, ensure};
use serde::Serialize;
use vsock::VsockStream;

/// Bytes in one call; no multiple of anything.
const PIECE: usize = 5000;
/// The bytes repeat after so many.
const PERIOD: u64 = 251;

/// What can be read and written by two threads at a time.
pub(crate) trait Stream: Sync {
    /// As [`Read::read`].
    fn read(&self, bytes: &mut [u8]) -> std::io::Result<usize>;
    /// As [`Write::write_all`].
    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()>;
    /// Says that nothing more is sent; the other direction stays.
    fn finish(&self) -> std::io::Result<()>;
}

impl Stream for VsockStream {
    fn read(&self, bytes: &mut [u8]) -> std::io::Result<usize> {
        let mut stream = self;
        Read::read(&mut stream, bytes)
    }

    fn write_all(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stream = self;
        Write::write_all(&mut stream, bytes)
    }

    fn finish(&self) -> std::io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// What went over a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Sums {
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Each byte that was received times its place, added up: as the host's pipes have it.
    pub(super) checksum: u64,
    /// Whether all that was received were the bytes that pipes send.
    pub(super) is_pattern: bool,
}

impl Sums {
    fn new() -> Self {
        Self { is_pattern: true, ..Self::default() }
    }

    fn take(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.checksum = self.checksum.wrapping_add(self.received.wrapping_mul(u64::from(*byte)));
            self.is_pattern &= self.received % PERIOD == u64::from(*byte);
            self.received += 1;
        }
    }
}

/// Sends so many bytes of the pattern, closes that half, and reads until the other side has closed its own.
///
/// # Errors
/// The stream fails; something else comes back.
pub(super) fn exchange(stream: &impl Stream, bytes: u64) -> anyhow::Result<Sums> {
    thread::scope(|scope| {
        let sender = scope.spawn(|| send(stream, bytes));
        let received = receive(stream, |_| Ok(()));
        let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        let mut sums = received?;
        sums.sent = sent?;
        ensure!(sums.received == bytes, "{bytes} bytes were sent, {} came back", sums.received);
        ensure!(sums.is_pattern, "{bytes} bytes came back, and not all as they were");
        Ok(sums)
    })
}

/// Sends back what comes, until the other side has closed its half, then closes its own.
///
/// # Errors
/// The stream fails.
pub(super) fn echo(stream: &impl Stream) -> anyhow::Result<Sums> {
    let mut sums = receive(stream, |bytes| stream.write_all(bytes))?;
    stream.finish().context("close one half")?;
    sums.sent = sums.received;
    Ok(sums)
}

fn send(stream: &impl Stream, bytes: u64) -> anyhow::Result<u64> {
    let mut piece = Vec::with_capacity(PIECE);
    let mut sent = 0;
    while sent < bytes {
        let end = bytes.min(sent + u64::try_from(PIECE)?);
        piece.clear();
        piece.extend((sent..end).map(|place| u8::try_from(place % PERIOD).unwrap_or(0)));
        stream.write_all(&piece).with_context(|| format!("send, {sent} bytes were sent"))?;
        sent = end;
    }
    stream.finish().context("close one half")?;
    Ok(sent)
}

fn receive(stream: &impl Stream, mut each: impl FnMut(&[u8]) -> std::io::Result<()>) -> anyhow::Result<Sums> {
    let (mut sums, mut piece) = (Sums::new(), vec![0; PIECE]);
    loop {
        let bytes = match stream.read(&mut piece) {
            Ok(0) => return Ok(sums),
            Ok(bytes) => piece.get(..bytes).unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => bail!("receive, {} bytes came: {error}", sums.received),
        };
        sums.take(bytes);
        each(bytes).with_context(|| format!("send back, {} bytes came", sums.received))?;
    }
}
