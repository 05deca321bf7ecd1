//! The agent: reads requests from a serial device or virtio port, executes them one at a time, and writes replies.
//! A request is executed at most once: the last reply is kept and sent again when its request comes again.

mod jobs;
mod kernel_log;

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::termios::{self, OptionalActions};

use self::jobs::Jobs;
use crate::wire::{self, Call, Chunk, Fault, Hello, Reply, Request, TEXT_LIMIT};

/// Serves requests on the serial device or virtio port until one says power off.
///
/// # Errors
/// The device cannot be opened, set up, read or written.
pub(crate) fn serve(device: &Path) -> Result<()> {
    let (input, mut output) = open(device).with_context(|| format!("open {}", device.display()))?;
    let mut input = BufReader::new(input);
    let mut jobs = Jobs::default();
    let mut last = (0, wire::encode(&Reply { id: 0, result: hello() })?);
    output.write_all(&last.1)?;
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(request) = wire::decode::<Request>(&line) else {
            output.write_all(&wire::encode(&Reply { id: 0, result: Err(garbled(line.len())) })?)?;
            continue;
        };
        if request.id != last.0 || request.id == 0 {
            if matches!(request.call, Call::PowerOff) {
                return power_off();
            }
            last = (request.id, wire::encode(&Reply { id: request.id, result: execute(&mut jobs, request.call) })?);
        }
        output.write_all(&last.1)?;
    }
}

/// Opens the device for both directions; a terminal is made raw: no echo, no flow control, the fastest common speed.
fn open(device: &Path) -> Result<(File, File)> {
    let output = OpenOptions::new().read(true).write(true).open(device)?;
    if termios::isatty(&output) {
        let mut settings = termios::tcgetattr(&output)?;
        settings.make_raw();
        settings.set_speed(115_200)?;
        termios::tcsetattr(&output, OptionalActions::Flush, &settings)?;
    }
    Ok((output.try_clone()?, output))
}

fn execute(jobs: &mut Jobs, call: Call) -> Result<serde_json::Value, Fault> {
    match call {
        Call::Hello => hello(),
        Call::Echo { text } => value(&Chunk { next: text.len() as u64, text }),
        Call::Run { argv, env, timeout_ms } => {
            value(&jobs.run(&argv, &env, Duration::from_millis(timeout_ms)).map_err(fault)?)
        }
        Call::Spawn { argv, env } => value(&jobs.spawn(&argv, &env).map_err(fault)?),
        Call::Wait { job, timeout_ms } => value(&jobs.wait(job, Duration::from_millis(timeout_ms)).map_err(fault)?),
        Call::Kill { job, signal } => value(&jobs.kill(job, signal).map_err(fault)?),
        Call::Read { path, offset } => value(&read(&path, offset).map_err(fault)?),
        Call::Write { path, text, create } => value(&write(&path, &text, create).map_err(fault)?),
        Call::KernelLog { since } => value(&kernel_log::since(since).map_err(fault)?),
        Call::PowerOff => value(&()),
    }
}

fn hello() -> Result<serde_json::Value, Fault> {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    value(&Hello {
        release: rustix::system::uname().release().to_string_lossy().into_owned(),
        uptime_seconds: uptime.split(' ').next().and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0),
        kernel_log_next: kernel_log::end().map_err(fault)?,
    })
}

fn read(path: &str, offset: u64) -> Result<Chunk> {
    let mut file = File::open(path).with_context(|| format!("open {path}"))?;
    if offset > 0 {
        file.seek(SeekFrom::Start(offset)).with_context(|| format!("seek in {path}"))?;
    }
    let mut bytes = Vec::new();
    file.take(TEXT_LIMIT as u64).read_to_end(&mut bytes).with_context(|| format!("read {path}"))?;
    Ok(Chunk { next: offset + bytes.len() as u64, text: String::from_utf8_lossy(&bytes).into_owned() })
}

fn write(path: &str, text: &str, create: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if create {
        options.create(true).truncate(true);
    }
    let mut file = options.open(path).with_context(|| format!("open {path} for writing"))?;
    file.write_all(text.as_bytes()).with_context(|| format!("write {text:?} to {path}"))
}

fn power_off() -> Result<()> {
    rustix::system::reboot(rustix::system::RebootCommand::PowerOff).context("power off")
}

fn value<T: serde::Serialize>(value: &T) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(value).map_err(|error| fault(error.into()))
}

fn fault(error: anyhow::Error) -> Fault {
    let errno = error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        io.or_else(|| cause.downcast_ref::<rustix::io::Errno>().map(|errno| errno.raw_os_error()))
    });
    Fault { errno, message: format!("{error:#}"), garbled: false }
}

fn garbled(bytes: usize) -> Fault {
    Fault { errno: None, message: format!("a line of {bytes} bytes arrived damaged"), garbled: true }
}
