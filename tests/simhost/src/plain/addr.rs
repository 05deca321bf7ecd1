//! Addresses of TCP and Unix sockets as text: `tcp:HOST:PORT`, `unix:PATH`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a TCP or Unix socket is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PlainAddr {
    /// A name or number and a port: `localhost:80`, `[::1]:80`.
    Tcp(String),
    /// A path.
    Unix(PathBuf),
}

/// Text that is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address; write tcp:HOST:PORT or unix:PATH")]
pub struct ParsePlainAddrError {
    text: String,
}

impl FromStr for PlainAddr {
    type Err = ParsePlainAddrError;

    fn from_str(text: &str) -> Result<Self, ParsePlainAddrError> {
        let error = || ParsePlainAddrError { text: text.chars().take(120).collect() };
        let addr = match text.split_once(':') {
            Some(("tcp", name)) => {
                let (host, port) = name.rsplit_once(':').ok_or_else(error)?;
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
                let is_host = !host.is_empty() && (host.starts_with('[') || !host.contains(':'));
                Some(Self::Tcp(name.to_owned())).filter(|_| is_number && is_host)
            }
            Some(("unix", path)) if !path.is_empty() => Some(Self::Unix(path.into())),
            _ => None,
        };
        addr.ok_or_else(error)
    }
}

impl fmt::Display for PlainAddr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(name) => write!(formatter, "tcp:{name}"),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}
