//! The far ends of the agent's and the control channel: a character device, or a Unix socket that listens.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;

use anyhow::{Context, Result};

use crate::devices::serial::raw;

/// A far end, opened; bytes go both ways.
#[derive(Debug)]
pub enum Endpoint {
    /// A character device, or any file. It is connected once and for all.
    Device(File),
    /// A socket, for one connection at a time.
    Socket(UnixListener),
}

impl Endpoint {
    /// Opens `PATH`, or listens on the path of `unix:PATH`, which must not exist yet.
    ///
    /// # Errors
    /// The path can't be opened, or not be bound.
    pub fn open(name: &str) -> Result<Self> {
        if let Some(path) = name.strip_prefix("unix:") {
            let socket = UnixListener::bind(path).with_context(|| format!("listen on {path}"))?;
            return Ok(Self::Socket(socket));
        }
        let file = OpenOptions::new().read(true).write(true).open(Path::new(name));
        let file = file.with_context(|| format!("open {name}"))?;
        raw(&file).with_context(|| format!("set up the terminal {name}"))?;
        Ok(Self::Device(file))
    }

    /// Waits for a connection: what comes from it, and what goes to it.
    ///
    /// # Errors
    /// The socket is broken, or no file descriptors are left.
    pub fn connect(&self) -> Result<(File, File)> {
        let input = match self {
            Self::Device(file) => file.try_clone().context("a second descriptor of a device")?,
            Self::Socket(socket) => File::from(OwnedFd::from(socket.accept().context("wait for a connection")?.0)),
        };
        let output = input.try_clone().context("a second descriptor of a connection")?;
        Ok((input, output))
    }

    /// Whether another connection can come when one has ended. A device's end of file is none: a port reads as ended
    /// while nobody holds its other side.
    #[must_use]
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Socket(_))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::Endpoint;

    #[test]
    fn a_socket_is_connected_again_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        let endpoint = Endpoint::open(&format!("unix:{}", path.display())).unwrap();
        for _ in 0..2 {
            let mut far = UnixStream::connect(&path).unwrap();
            let (mut input, mut output) = endpoint.connect().unwrap();
            far.write_all(b"in").unwrap();
            output.write_all(b"out").unwrap();
            let (mut from, mut to) = ([0; 2], [0; 3]);
            input.read_exact(&mut from).unwrap();
            far.read_exact(&mut to).unwrap();
            assert_eq!((&from, &to), (b"in", b"out"));
        }
        assert!(endpoint.is_socket());
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        for name in ["/none/agent", "unix:/none/agent"] {
            assert!(Endpoint::open(name).unwrap_err().to_string().contains("/none/agent"), "{name}");
        }
    }
}
