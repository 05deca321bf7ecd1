//! The other process: a simulated host that sleeps, one that polls, and Unix sockets, all with the same services.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use vmbus_simhost::server::{Server, ServerSettings};
use vmbus_simhost::{Config, hvsock_service};

use super::party::{BLOCKING, BUSY_POLL, POLLING, Service};
use crate::exit::Exit;
use crate::output;

/// What the other process prints when all its sockets are there.
const READY: &str = "ready";
/// Bytes that a Unix socket's service reads at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// The other process, and the folder of its sockets. Both go with the drop.
pub(super) struct Peer {
    child: Child,
    folder: PathBuf,
}

impl Peer {
    /// Starts it, and waits until it listens.
    pub(super) fn start() -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("vmbus-bench-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let child = std::env::current_exe().and_then(|program| {
            let mut command = Command::new(program);
            command.args(["bench", "socket", "--peer"]).arg(&folder);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
        });
        let child = child.inspect_err(|_| drop(std::fs::remove_dir_all(&folder)));
        let mut peer = Self { child: child.context("cannot start the other process")?, folder };
        let mut line = String::new();
        if let Some(stdout) = peer.child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).context("cannot hear the other process")?;
        }
        ensure!(line.trim_end() == READY, "the other process did not get ready; its error is above");
        Ok(peer)
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Ends it, and asks whether all went by the protocol.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        drop(self.child.stdin.take());
        let status = self.child.wait().context("cannot wait for the other process")?;
        ensure!(status.success(), "the simulated host has complaints, or failed ({status}); see above");
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The other process's work: until standard input ends.
pub(super) fn run(folder: &Path) -> anyhow::Result<Exit> {
    let mut config = Config::seeded(1);
    config.services.push(hvsock_service(Service::Echo.port()));
    config.sinks.push(hvsock_service(Service::Sink.port()));
    let listen = |name: &str, busy_poll| {
        let (path, settings) = (folder.join(name), ServerSettings { busy_poll, ..ServerSettings::default() });
        Server::listen(&path, config.clone(), settings).with_context(|| format!("cannot listen on {}", path.display()))
    };
    let servers = [listen(BLOCKING, Duration::ZERO)?, listen(POLLING, BUSY_POLL)?];
    for service in Service::ALL {
        let path = service.path(folder);
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
        let name = format!("unix-{}", service.port());
        std::thread::Builder::new().name(name).spawn(move || serve(&listener, service)).context("no thread")?;
    }
    output::line_now(READY)?;
    io::stdin().read_to_end(&mut Vec::new()).context("cannot read standard input")?;
    let mut violations = 0;
    for server in servers {
        while let Some(guest) = server.next_guest(Duration::ZERO) {
            for violation in guest.violations().context("a guest has gone before the end")? {
                violations += 1;
                anstream::eprintln!("the guest broke the protocol: {violation:?}");
            }
        }
    }
    Ok(if violations == 0 { Exit::Ok } else { Exit::Failed })
}

/// Serves Unix sockets, one connection after the other but for those that last: each has a thread of its own.
fn serve(listener: &UnixListener, service: Service) {
    let mut buffer = vec![0; BUFFER_BYTES];
    for stream in listener.incoming().map_while(Result::ok) {
        let outcome = match one(&stream, service, &mut buffer) {
            Ok(true) => Ok(()),
            Ok(false) => std::thread::Builder::new()
                .name("unix-stream".into())
                .spawn(move || drop(rest(&stream, service, &mut vec![0; BUFFER_BYTES])))
                .map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = outcome {
            log::debug!(target: "vmbus::bench", "a connection failed: {error}");
        }
    }
}

/// The first bytes of a connection; whether it is over with that: then no thread is needed for it.
fn one(stream: &UnixStream, service: Service, buffer: &mut [u8]) -> io::Result<bool> {
    let bytes = (&*stream).read(buffer)?;
    back(stream, service, buffer.get(..bytes).unwrap_or_default())?;
    Ok(bytes == 0)
}

/// What follows, until the end.
fn rest(stream: &UnixStream, service: Service, buffer: &mut [u8]) -> io::Result<()> {
    while !one(stream, service, buffer)? {}
    Ok(())
}

fn back(mut stream: &UnixStream, service: Service, bytes: &[u8]) -> io::Result<()> {
    match service {
        Service::Echo => stream.write_all(bytes),
        Service::Sink => Ok(()),
    }
}
