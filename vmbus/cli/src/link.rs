//! Which host a command asks, when it is not the kernel; and who carries VM sockets.

use std::path::PathBuf;
use std::str::FromStr;

/// A way to a host other than the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Link {
    /// A simulated host in this process.
    Sim,
    /// A host process that listens there.
    Path(PathBuf),
}

impl FromStr for Link {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "sim" { Self::Sim } else { Self::Path(text.into()) })
    }
}

/// Who carries VM sockets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SocketLink {
    /// The kernel's AF_VSOCK.
    Kernel,
    /// Byte pipes of devices that are bound to uio_hv_generic.
    Uio,
    /// hvsock over the wire link.
    Wire(Link),
}

impl FromStr for SocketLink {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "kernel" => Self::Kernel,
            "uio" => Self::Uio,
            other => Self::Wire(other.parse()?),
        })
    }
}
