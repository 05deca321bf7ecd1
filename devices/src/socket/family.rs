//! The families of sockets behind the same types.

use std::fmt;

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// A hvsock channel of a bus on the wire link: asked for by TL_CONNECT, or offered by the host.
    Hvsock,
    /// The kernel's AF_VSOCK, which owns hvsock channels on a real Hyper-V.
    Vsock,
    /// A byte pipe over a channel that a device offers, on any link.
    Pipe,
    /// Two ends in this process: a pair of Unix sockets.
    Local,
}

impl fmt::Display for Family {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Hvsock => "hvsock",
            Self::Vsock => "vsock",
            Self::Pipe => "pipe",
            Self::Local => "local",
        })
    }
}
