//! Connecting without blocking. Dropping the future closes the connect.

use std::io;
use std::time::Duration;

use tokio::io::Interest;

use super::ready::Ready;
use crate::socket::{Family, ToPlace, VmConnect, VmStream};

/// Connects, waiting for the peer as long as its family does.
pub(super) async fn connect(to: impl ToPlace) -> io::Result<VmStream> {
    let place = to.to_place()?;
    let interest = match place.sockets().family() {
        Family::Vsock => Interest::WRITABLE,
        Family::Hvsock | Family::Pipe | Family::Local => Interest::READABLE,
    };
    let mut connect = VmConnect::start(place)?;
    let ready = match connect.descriptor() {
        Some(descriptor) => Ready::new(descriptor, interest, None)?,
        None => return connect.wait(None),
    };
    loop {
        match connect.wait(Some(Duration::ZERO)) {
            // Not yet. A peer's own time that is over has a number of the system's, or leaves nothing to wait for.
            Err(error)
                if error.kind() == io::ErrorKind::TimedOut
                    && error.raw_os_error().is_none()
                    && connect.descriptor().is_some() =>
            {
                ready.event().await?;
            }
            outcome => return outcome,
        }
    }
}
