//! `nc`, `forward` and `echo` as processes of their own, with a simulated host as another, and sockets of the test's at
//! either end.

mod forward;
mod killed;
mod nc;
mod volume;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::net::sockopt;
use tempfile::TempDir;

use crate::process::{LONG, Process};

/// A simulated host in a process of its own.
pub(crate) struct Host {
    folder: TempDir,
    pub(crate) process: Process,
    /// Where it listens for what it publishes.
    pub(crate) published: Vec<SocketAddr>,
}

impl Host {
    /// With these services (`PORT=TARGET`), and a TCP port for each of these ports of the guest.
    pub(crate) fn start(services: &[&str], published: &[u32]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host").to_str().unwrap().to_owned();
        let published: Vec<_> = published.iter().map(|port| format!("tcp:127.0.0.1:0={port}")).collect();
        let mut arguments = vec!["sim", "--json", "--listen", &path];
        services.iter().for_each(|service| arguments.extend(["--service", service]));
        published.iter().for_each(|published| arguments.extend(["--publish", published]));
        let process = Process::start(&arguments);
        let addresses = published.iter().map(|_| address(&process.event()["address"]));
        let published = addresses.collect();
        assert_eq!(process.event()["event"], "listening");
        Self { folder, process, published }
    }

    /// What to give to `--link`.
    pub(crate) fn path(&self) -> String {
        self.folder.path().join("host").to_str().unwrap().to_owned()
    }

    /// Something else in its folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts `vmbusctl forward`, and says where it listens if that is TCP.
    pub(crate) fn forward(&self, from: &str, to: &str, more: &[&str]) -> (Process, Option<SocketAddr>) {
        let link = self.path();
        let process = Process::start(&[&["forward", from, to, "--json", "--link", &link], more].concat());
        let event = process.wait_for("listening");
        let is_tcp = event["from"].as_str().unwrap().starts_with("tcp:");
        let at = is_tcp.then(|| address(&event["from"]));
        (process, at)
    }
}

/// The address in `tcp:HOST:PORT`.
fn address(text: &serde_json::Value) -> SocketAddr {
    text.as_str().unwrap().strip_prefix("tcp:").unwrap().parse().unwrap()
}

/// A listener of the test's, and what leads to it.
pub(crate) fn server() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = format!("tcp:{}", listener.local_addr().unwrap());
    (listener, target)
}

/// What connects to the listener next; whatever waits on it fails in the end.
pub(crate) fn accept(listener: &TcpListener) -> TcpStream {
    impatient(listener.accept().unwrap().0)
}

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    impatient(TcpStream::connect(to).unwrap())
}

fn impatient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.set_write_timeout(Some(LONG)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Closes it with a reset.
pub(crate) fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(stream.as_fd(), Some(std::time::Duration::ZERO)).unwrap();
}

/// Says all of it, then the end.
pub(crate) fn say(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
}

/// Everything until the end.
pub(crate) fn hear(mut stream: &TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).unwrap();
    heard
}

/// The stream is reset, and before that nothing comes.
pub(crate) fn is_reset(mut stream: &TcpStream) {
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
}
