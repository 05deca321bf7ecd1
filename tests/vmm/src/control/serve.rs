//! The control socket's threads: one reads requests and answers them in order, one writes replies, and each wait has its
//! own, so that nobody waits for it. Everything that can pile up is bounded.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, Sender, bounded};
use serde_json::json;

use super::call::Host;
use super::lines::{self, Line};
use super::wire::{Call, Outcome, Reply, Request};

/// Replies that wait to be written; with more of them no further request is read.
const REPLIES_AT_MOST: usize = 64;
/// Waits at a time, of all connections.
const WAITS_AT_MOST: usize = 64;
/// Connections at a time.
const CONNECTIONS_AT_MOST: usize = 8;
/// A device whose other end is closed is looked at again after this.
const PAUSE: Duration = Duration::from_millis(100);

/// What is to be written, or done behind what was written.
enum Out {
    Line(String),
    Kill,
}

/// A control socket that is served, by threads that end with the process.
#[derive(Debug)]
pub struct Serving(());

/// What all connections share.
#[derive(Debug, Clone)]
struct Desk {
    host: Host,
    waits: Arc<AtomicUsize>,
}

impl Serving {
    /// Serves a path: a character device (or pipe) that is opened for both ways, or `unix:PATH` to listen on.
    ///
    /// # Errors
    /// It can't be opened or listened on.
    pub fn start(path: &str, host: Host) -> Result<Self> {
        let desk = Desk { host, waits: Arc::default() };
        if let Some(path) = path.strip_prefix("unix:") {
            let listener = UnixListener::bind(path).with_context(|| {
                format!("listen on {path}: does the folder exist, and is nothing there from an earlier run?")
            })?;
            spawn("control-listen", move || listen(&listener, &desk))?;
        } else {
            let device = OpenOptions::new().read(true).write(true).open(path);
            let device = device.with_context(|| format!("open {path} for control"))?;
            spawn("control", move || device_sessions(&device, &desk))?;
        }
        Ok(Self(()))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    Builder::new().name(name.to_owned()).spawn(work).with_context(|| format!("start the thread {name}"))?;
    Ok(())
}

fn listen(listener: &UnixListener, desk: &Desk) {
    let connections = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        let stream = match stream {
            Ok(stream) => stream,
            Err(error) => {
                log::warn!(target: "vmbus::vmm", "accept on the control socket: {error}");
                std::thread::sleep(PAUSE);
                continue;
            }
        };
        if connections.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_AT_MOST {
            connections.fetch_sub(1, Ordering::SeqCst);
            log::warn!(target: "vmbus::vmm", "more than {CONNECTIONS_AT_MOST} control connections");
            continue;
        }
        let (desk, left) = (desk.clone(), Arc::clone(&connections));
        let work = move || {
            let writer: std::io::Result<UnixStream> = stream.try_clone();
            match writer {
                Ok(writer) => desk.session(stream, writer),
                Err(error) => log::warn!(target: "vmbus::vmm", "a control connection: {error}"),
            }
            left.fetch_sub(1, Ordering::SeqCst);
        };
        if let Err(error) = spawn("control", work) {
            connections.fetch_sub(1, Ordering::SeqCst);
            log::warn!(target: "vmbus::vmm", "{error:#}");
        }
    }
}

/// A device has one session after the other: its other end may be opened again.
fn device_sessions(device: &File, desk: &Desk) {
    loop {
        match (device.try_clone(), device.try_clone()) {
            (Ok(reader), Ok(writer)) => desk.session(reader, writer),
            (Err(error), _) | (_, Err(error)) => log::warn!(target: "vmbus::vmm", "the control device: {error}"),
        }
        std::thread::sleep(PAUSE);
    }
}

impl Desk {
    /// Serves one connection until its other side closes.
    fn session(&self, reader: impl Read, writer: impl Write + Send + 'static) {
        let (replies, queue) = bounded(REPLIES_AT_MOST);
        let host = self.host.clone();
        if let Err(error) = spawn("control-write", move || write(writer, &queue, &host)) {
            return log::warn!(target: "vmbus::vmm", "{error:#}");
        }
        let (mut reader, mut line) = (BufReader::new(reader), Vec::new());
        loop {
            let reply = match lines::read(&mut reader, &mut line) {
                Ok(Line::Text) => match lines::parse(&line) {
                    None => continue,
                    Some(Ok(request)) => match self.answer(request, &replies) {
                        Some(reply) => reply,
                        None => continue,
                    },
                    Some(Err(reply)) => reply,
                },
                Ok(Line::TooLong) => lines::refused(0, &format!("a line has {} bytes at most", lines::LINE_AT_MOST)),
                Ok(Line::End) => return,
                Err(error) => return log::debug!(target: "vmbus::vmm", "read the control socket: {error}"),
            };
            if !send(&replies, &reply) {
                return;
            }
        }
    }

    /// Answers a request, unless it is one that is answered later.
    fn answer(&self, request: Request, replies: &Sender<Out>) -> Option<Reply> {
        let Request { id, call } = request;
        match call {
            Call::Wait { until, timeout_ms } => {
                let waiting = self.waits.fetch_add(1, Ordering::SeqCst);
                let outcome = if waiting >= WAITS_AT_MOST {
                    Err(anyhow::anyhow!("{WAITS_AT_MOST} waits are under way"))
                } else {
                    self.host.expect(until, timeout_ms).and_then(|expected| {
                        let (replies, waits) = (replies.clone(), Arc::clone(&self.waits));
                        spawn("control-wait", move || {
                            let came = expected.wait().map(|came| json!({ "came": came }));
                            waits.fetch_sub(1, Ordering::SeqCst);
                            send(&replies, &reply(id, came.map_err(Into::into)));
                        })
                    })
                };
                let error = outcome.err()?;
                self.waits.fetch_sub(1, Ordering::SeqCst);
                Some(reply(id, Err(error)))
            }
            Call::Kill => {
                send(replies, &reply(id, Ok(serde_json::Value::Null)));
                // Nobody is left to write: then there is nothing to wait for.
                if replies.send(Out::Kill).is_err() {
                    self.host.kill();
                }
                None
            }
            call => Some(reply(id, self.host.run(call))),
        }
    }
}

fn reply(id: u64, outcome: Result<serde_json::Value>) -> Reply {
    match outcome {
        Ok(value) => Reply { id, outcome: Outcome::Ok(value) },
        Err(error) => lines::refused(id, &format!("{error:#}")),
    }
}

/// Queues a reply, behind others that the other side has not read yet; whether somebody writes them.
fn send(replies: &Sender<Out>, reply: &Reply) -> bool {
    match serde_json::to_string(reply) {
        Ok(line) => replies.send(Out::Line(line)).is_ok(),
        Err(error) => {
            log::error!(target: "vmbus::vmm", "a reply can't be written: {error}");
            true
        }
    }
}

fn write(mut writer: impl Write, queue: &Receiver<Out>, host: &Host) {
    for out in queue {
        match out {
            Out::Line(line) => {
                let written = writer.write_all(line.as_bytes()).and_then(|()| writer.write_all(b"\n"));
                if let Err(error) = written.and_then(|()| writer.flush()) {
                    return log::debug!(target: "vmbus::vmm", "write the control socket: {error}");
                }
            }
            Out::Kill => host.kill(),
        }
    }
}
