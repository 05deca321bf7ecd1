//! Bytes from the host to a packet that is valid, or to a named error.
//!
//! The bytes are a private copy. A body that is shorter than the largest one is filled up with zeroes.

use zerocopy::FromBytes;

use super::{Header, MAX_BODY_BYTES, Operation, PAYLOAD_BYTES, Properties, Request, SrbStatus};
use vmbus::message::Status;

/// Everything that a host may say.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostPacket {
    /// A request is done, in whatever way.
    Completed(Completion),
    /// A device has gone: look at all of them.
    RemoveDevice,
    /// Devices have come or gone: look at all of them.
    EnumerateBus,
    /// Something about one device.
    Event {
        /// Which unit.
        lun: u8,
        /// Of which device.
        target: u8,
        /// On which bus.
        path: u8,
    },
}

/// The answer to a packet of the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// Of the packet as such.
    pub status: Status,
    body: [u8; MAX_BODY_BYTES],
}

impl Completion {
    /// The answer to a SCSI request.
    #[must_use]
    pub fn request(&self) -> Request {
        Request::read_from_prefix(&self.body).map(|(request, _)| request).unwrap_or_default()
    }

    /// The answer to a question for properties.
    #[must_use]
    pub fn properties(&self) -> Properties {
        Properties::read_from_prefix(&self.body).map(|(properties, _)| properties).unwrap_or_default()
    }

    /// The sense data of the answer to a SCSI request: never more than there are bytes, whatever the host says.
    #[must_use]
    pub fn sense(&self) -> Option<Vec<u8>> {
        let request = self.request();
        let bytes = usize::from(request.sense_bytes).min(PAYLOAD_BYTES);
        let sense = request.payload.get(..bytes)?;
        SrbStatus(request.srb_status).has_sense().then(|| sense.to_vec())
    }
}

/// Why bytes are no packet of a host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Shorter than its operation needs.
    #[error("a packet with operation {operation} has {have} bytes and needs {need}")]
    TooShort {
        /// Which; 0 if not even that was there.
        operation: u32,
        /// Bytes that there were.
        have: usize,
        /// Bytes that there should be at least.
        need: usize,
    },
    /// Only a guest says that.
    #[error("operation {0} goes from guest to host, not back")]
    Direction(u32),
    /// The protocol knows no such operation.
    #[error("unknown operation {0}")]
    Unknown(u32),
}

/// Reads a packet; what is behind the largest one is no part of it.
///
/// # Errors
/// [`WireError`].
pub fn parse(bytes: &[u8]) -> Result<HostPacket, WireError> {
    let short = |operation, need| WireError::TooShort { operation, have: bytes.len(), need };
    let Ok((header, rest)) = Header::read_from_prefix(bytes) else {
        // What the host wants to be noticed is said by the first word alone.
        return match bytes.first_chunk().map(|word| u32::from_le_bytes(*word)) {
            Some(operation) if Operation(operation) == Operation::ENUMERATE_BUS => Ok(HostPacket::EnumerateBus),
            Some(operation) if Operation(operation) == Operation::REMOVE_DEVICE => Ok(HostPacket::RemoveDevice),
            operation => Err(short(operation.unwrap_or(0), size_of::<Header>())),
        };
    };
    let operation = header.operation.get();
    match Operation(operation) {
        Operation::COMPLETE_IO => {
            let mut body = [0; MAX_BODY_BYTES];
            body.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            Ok(HostPacket::Completed(Completion { status: Status(header.status.get()), body }))
        }
        Operation::REMOVE_DEVICE => Ok(HostPacket::RemoveDevice),
        Operation::ENUMERATE_BUS => Ok(HostPacket::EnumerateBus),
        Operation::EVENT_NOTIFICATION => match rest {
            [lun, target, path, ..] => Ok(HostPacket::Event { lun: *lun, target: *target, path: *path }),
            _ => Err(short(operation, size_of::<Header>() + 3)),
        },
        Operation(0) => Err(WireError::Unknown(0)),
        Operation(known) if known <= Operation::EVENT_NOTIFICATION.0 => Err(WireError::Direction(known)),
        Operation(unknown) => Err(WireError::Unknown(unknown)),
    }
}
