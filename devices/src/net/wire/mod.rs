//! Formats of the network protocol, as little-endian structs with asserted sizes: NVSP, and RNDIS inside of it.
//!
//! Sources: `drivers/net/hyperv/hyperv_net.h` and `include/linux/rndis.h` of Linux 6.12; `vm/devices/net/netvsp` of
//! OpenVMM for what a host accepts. Values that the host chooses are open newtypes.

/// Declares a wire struct and asserts its size.
macro_rules! wire {
    ($(#[$doc:meta])* $name:ident, $bytes:literal { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$field_doc])* pub $field: $kind,)* }
        const _: () = assert!(size_of::<$name>() == $bytes);
    };
}

pub mod info;
pub mod nvsp;
pub mod offload;
pub mod oid;
pub mod rndis;
pub mod scale;

use zerocopy::FromBytes;

/// Why bytes are not what a host may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Shorter than its kind needs.
    #[error("{what} has {have} bytes and needs {need}")]
    TooShort {
        /// What it would have been.
        what: &'static str,
        /// Bytes that there were.
        have: usize,
        /// Bytes that there should be at least.
        need: usize,
    },
    /// A field has a value that can't be.
    #[error("{what} is {value:#x}, which can't be")]
    Value {
        /// Which field of what.
        what: &'static str,
        /// What the host says.
        value: u64,
    },
    /// A type that only a guest sends.
    #[error("message type {0:#x} goes from guest to host, not back")]
    Direction(u32),
    /// A type that this protocol doesn't know.
    #[error("unknown message type {0:#x}")]
    Unknown(u32),
}

/// Copies a `T` from the front of `bytes`, and gives what is behind it.
fn prefix<'a, T: FromBytes>(bytes: &'a [u8], what: &'static str) -> Result<(T, &'a [u8]), WireError> {
    T::read_from_prefix(bytes).map_err(|_| WireError::TooShort { what, have: bytes.len(), need: size_of::<T>() })
}

/// `length` bytes of `body` from `offset` on, which must not lie in its first `fixed` bytes. None are there wherever
/// the offset points.
fn part<'a>(
    body: &'a [u8],
    fixed: usize,
    (offset, length): (u32, u32),
    what: &'static str,
) -> Result<&'a [u8], WireError> {
    if length == 0 {
        return Ok(&[]);
    }
    let start = usize::try_from(offset).ok().filter(|start| *start >= fixed);
    let start = start.ok_or(WireError::Value { what, value: offset.into() })?;
    let wanted = usize::try_from(length).unwrap_or(usize::MAX);
    let rest = body.get(start..).ok_or(WireError::Value { what, value: offset.into() })?;
    rest.get(..wanted).ok_or(WireError::TooShort { what, have: rest.len(), need: wanted })
}

#[cfg(test)]
mod tests;
