//! What the suite needs of a family: streams to peers that do as they are told.

use std::time::{Duration, Instant};

use vmbus_devices::socket::{Place, VmStream};

/// Longer than anything takes; for when it goes wrong.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// Long enough to see that nothing happens.
pub(crate) const SHORT: Duration = Duration::from_millis(50);

/// A family, with its peers.
pub(crate) trait World: Send {
    /// A stream to a peer that sends back all it gets, its end included.
    fn echo(&mut self) -> VmStream;
    /// A stream to a peer that does as it is told.
    fn told(&mut self) -> (VmStream, Box<dyn Peer>);
    /// A place where somebody echoes, for tests that connect by themselves; none where there is no connecting.
    fn echo_place(&mut self) -> Result<Place, String>;
    /// A place where nobody listens.
    fn nobody(&mut self) -> Result<Place, String>;
    /// A place to listen on, and what makes peers connect there: those echo.
    fn listening(&mut self) -> Result<(Place, Box<dyn Dialer>), String>;
    /// Looks for what was left behind, and ends.
    fn end(&mut self);
}

/// The other end of a stream.
pub(crate) trait Peer: Send {
    /// It sends so many bytes of the pattern, after those before.
    fn send(&mut self, bytes: u64);
    /// It says its end, behind what it was told to send.
    fn end(&mut self);
    /// It reads no more, until `go`.
    fn stop(&mut self);
    /// It reads again.
    fn go(&mut self);
    /// It is gone without an end; or why that can't be had.
    fn reset(&mut self) -> Result<(), String>;
    /// Waits until what carries the stream is gone, where its host takes it back: both ends were said, or it was reset.
    fn wait_gone(&mut self) {}
    /// Bytes that it has read, a sum over them that their order changes, and whether it has read our end.
    fn received(&mut self) -> (u64, u64, bool);

    /// Waits until it has read that.
    fn wait_received(&mut self, wanted: (u64, u64, bool)) {
        let start = Instant::now();
        while self.received() != wanted {
            assert!(start.elapsed() < LONG, "the peer has read {:?} and not {wanted:?}", self.received());
            std::thread::yield_now();
        }
    }
}

/// Makes peers connect.
pub(crate) trait Dialer: Send {
    /// One more connects, soon.
    fn dial(&mut self);
}

/// Bytes of the pattern that peers send, each its place modulo 251, from a place on.
pub(crate) fn pattern(place: u64, bytes: usize) -> Vec<u8> {
    let start = u8::try_from(place % 251).unwrap();
    (0..=250_u8).cycle().skip(usize::from(start)).take(bytes).collect()
}

/// The sum over bytes whose order changes it: each times its place.
pub(crate) fn checksum(bytes: &[u8]) -> u64 {
    (0_u64..).zip(bytes).fold(0, |sum, (place, byte)| sum.wrapping_add(place.wrapping_mul(u64::from(*byte))))
}
