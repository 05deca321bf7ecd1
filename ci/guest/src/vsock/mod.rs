//! The kernel's hv_sock on our host: connections both ways with every byte checked, and how fast messages go.
//!
//! The bytes are those of the simulated host's pipes (each its place modulo 251), and so is the checksum, so that both
//! ends can be compared. `stream` is the exchange over any stream, `bench` the messages.

mod bench;
mod stream;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::json;
use vsock::{VMADDR_CID_ANY, VMADDR_CID_HOST, VsockAddr, VsockListener, VsockStream};

pub(crate) use self::bench::{Messages, run as messages};
use crate::say::Say;

/// Which service, and how much is sent to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConnectArgs {
    /// The port of the host's service, which sends back what it gets.
    port: u32,
    /// Bytes to send, and to get back.
    #[arg(long, default_value_t = 1 << 20)]
    bytes: u64,
    #[command(flatten)]
    patience: Patience,
}

/// On which port, and who speaks.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListenArgs {
    /// The port to listen on.
    port: u32,
    /// Send this many bytes and get them back; without, send back what comes.
    #[arg(long)]
    bytes: Option<u64>,
    /// Connections, one after the other.
    #[arg(long, default_value_t = 1)]
    connections: u32,
    #[command(flatten)]
    patience: Patience,
}

/// Which service, and what is sent to it.
#[derive(Debug, Clone, Args)]
pub(crate) struct BenchArgs {
    /// The port of the host's service, which sends back what it gets.
    port: u32,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    patience: Patience,
}

/// How long the other side may be silent.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Patience {
    /// How long the other side may be silent.
    #[arg(long, default_value_t = 20)]
    patience_seconds: u64,
}

impl Patience {
    /// What the programs have unless told otherwise.
    pub(crate) const SHORT: Self = Self { patience_seconds: 20 };
}

/// Connects to a service of the host, sends bytes, closes its half, and checks what comes back.
///
/// # Errors
/// Nobody listens there; the other side is silent, or sends something else.
pub(crate) fn connect(args: &ConnectArgs) -> anyhow::Result<ExitCode> {
    let stream = to_host(args.port, args.patience)?;
    let sums = stream::exchange(&stream, args.bytes)?;
    Say::aloud().line(&json!({ "event": "end", "port": args.port, "sums": sums }))?;
    Ok(ExitCode::SUCCESS)
}

/// Accepts connections of the host, and sends back what comes, or sends and checks what comes back.
///
/// # Errors
/// As [`connect`].
pub(crate) fn listen(args: &ListenArgs) -> anyhow::Result<ExitCode> {
    let say = Say::aloud();
    let listener = VsockListener::bind_with_cid_port(VMADDR_CID_ANY, args.port)
        .with_context(|| format!("listen on port {}", args.port))?;
    say.line(&json!({ "event": "listening", "port": args.port }))?;
    for number in 1..=args.connections {
        let (stream, peer) = accept(&listener, args.patience)?;
        say.line(&json!({ "event": "accepted", "number": number, "peer_port": peer.port() }))?;
        patient(&stream, args.patience)?;
        let sums = match args.bytes {
            Some(bytes) => stream::exchange(&stream, bytes)?,
            None => stream::echo(&stream)?,
        };
        say.line(&json!({ "event": "connection", "number": number, "sums": sums }))?;
    }
    say.line(&json!({ "event": "end", "connections": args.connections }))?;
    Ok(ExitCode::SUCCESS)
}

/// Sends messages to a service of the host and waits for each to come back.
///
/// # Errors
/// As [`connect`].
pub(crate) fn bench(args: &BenchArgs) -> anyhow::Result<ExitCode> {
    let stream = to_host(args.port, args.patience)?;
    let end = bench::run(&stream, &args.messages)?;
    Say::aloud().line(&end)?;
    Ok(ExitCode::SUCCESS)
}

/// The next connection, if one comes in time.
fn accept(listener: &VsockListener, patience: Patience) -> anyhow::Result<(VsockStream, VsockAddr)> {
    let limit = Timespec::try_from(Duration::from_secs(patience.patience_seconds)).ok();
    let mut waited = [PollFd::new(listener, PollFlags::IN)];
    let ready = poll(&mut waited, limit.as_ref()).context("wait for a connection")?;
    ensure!(ready != 0, "the host does not connect within {} s", patience.patience_seconds);
    listener.accept().context("accept a connection")
}

/// A connection to a service of the host.
///
/// # Errors
/// Nobody listens there.
pub(crate) fn to_host(port: u32, patience: Patience) -> anyhow::Result<VsockStream> {
    let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, port);
    let stream = stream.with_context(|| format!("connect to port {port} of the host"))?;
    patient(&stream, patience)?;
    Ok(stream)
}

fn patient(stream: &VsockStream, patience: Patience) -> anyhow::Result<()> {
    let limit = Some(Duration::from_secs(patience.patience_seconds));
    stream.set_read_timeout(limit)?;
    Ok(stream.set_write_timeout(limit)?)
}
