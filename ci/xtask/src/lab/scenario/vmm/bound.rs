//! A device of the host that is with `uio_hv_generic`, a guest's program that plays on it, and what the host has counted
//! when it is over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::super::Scene;
use crate::lab::control_wire::{Call, Device, HostSettings, Until};
use crate::lab::guest::{Job, describe};
use crate::lab::wire::Finished;

/// Longest wait for anything that a guest two layers deep does.
pub(super) const LONG: Duration = Duration::from_secs(60);

/// A device that is with `uio_hv_generic`.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    /// Its number at the host.
    pub(super) offer: u64,
    /// Its relid.
    pub(super) relid: u32,
    /// Its instance GUID.
    pub(super) instance: String,
}

/// The host's counters at some time.
#[derive(Debug, Clone)]
pub(super) struct Counted(BTreeMap<String, u64>);

impl Counted {
    pub(super) fn now(scene: &mut Scene<'_>) -> Result<Self> {
        Ok(Self(serde_json::from_value(scene.control()?.counters()?)?))
    }

    pub(super) fn of(&self, name: &str) -> Result<u64> {
        self.0.get(name).copied().with_context(|| format!("the host does not count `{name}`"))
    }

    /// How much more it is now.
    pub(super) fn since(&self, before: &Self, name: &str) -> Result<u64> {
        Ok(self.of(name)?.saturating_sub(before.of(name)?))
    }
}

/// An echo device; `monitored` for one that is signalled by monitor page.
pub(super) fn echo(number: u64, monitored: bool) -> Device {
    Device { kind: "echo".to_owned(), number, monitored, ..Device::default() }
}

/// A field of a line; null where it has none of that name.
pub(super) fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    line.get(name).unwrap_or(&Value::Null)
}

/// Numbers of a program's line.
pub(super) fn number(line: &Value, pointer: &str) -> Result<u64> {
    line.pointer(pointer).and_then(Value::as_u64).with_context(|| format!("no number {pointer} in {line}"))
}

impl Bound {
    /// Offers a device and binds it.
    pub(super) fn offer(scene: &mut Scene<'_>, device: Device) -> Result<Self> {
        let offer = scene.control()?.offer(device)?;
        Self::bind(scene, offer)
    }

    /// Binds a device that is on offer.
    pub(super) fn bind(scene: &mut Scene<'_>, offer: u64) -> Result<Self> {
        let offered = scene.offered(offer)?;
        let (instance, relid) = (offered.instance, offered.relid.context("an offer without a relid")?);
        scene.await_device(&instance, true)?;
        scene.vmbusctl(&["bind", &instance], 0)?;
        Ok(Self { offer, relid, instance })
    }

    /// Insists that the device, which the host has taken back, goes: from sysfs, its relid released once, its GPADLs down.
    pub(super) fn gone(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.control()?.wait_state(self.offer, "gone", LONG)?;
        scene.await_device(&self.instance, false)?;
        let released = scene.control()?.released(self.relid)?;
        ensure!(released == 1, "relid {} was released {released} times", self.relid);
        let gpadls: Vec<u32> = scene.control()?.ask(Call::Gpadls)?;
        ensure!(gpadls.is_empty(), "GPADLs {gpadls:?} are up, and no device is");
        Ok(())
    }

    /// Takes it back and insists that it goes.
    pub(super) fn take_back(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.control()?.call(Call::RescindDevice { offer: self.offer })?;
        self.gone(scene)
    }

    /// Takes it back as soon as something is true.
    pub(super) fn take_back_when(&self, scene: &mut Scene<'_>, until: Until) -> Result<()> {
        scene.control()?.call(Call::RescindWhen { offer: self.offer, until }).map(drop)
    }

    /// A number of its device at the host.
    pub(super) fn report(&self, scene: &mut Scene<'_>, name: &str, at_least: u64) -> Result<()> {
        let until = Until::Report { offer: self.offer, name: name.to_owned(), at_least };
        scene.control()?.wait(until, LONG)
    }
}

/// Latencies over OPEN, GPADL, teardown and MODIFYCHANNEL, in milliseconds.
pub(super) fn latency(scene: &mut Scene<'_>, milliseconds: [u64; 4]) -> Result<()> {
    let latency_us = Some(milliseconds.map(|time| time.saturating_mul(1000)));
    scene.control()?.call(Call::Configure(HostSettings { latency_us, ..HostSettings::default() })).map(drop)
}

/// One of `vmbus-lab-guest`'s programs.
#[derive(Debug)]
pub(super) struct Program {
    job: Job,
    words: String,
    started: Instant,
}

impl Program {
    pub(super) fn start(scene: &mut Scene<'_>, words: &str) -> Result<Self> {
        let argv: Vec<&str> = std::iter::once("vmbus-lab-guest").chain(words.split_whitespace()).collect();
        Ok(Self { job: scene.guest.spawn(&argv)?, words: words.to_owned(), started: Instant::now() })
    }

    /// The next line that tells this event; others are passed over.
    pub(super) fn hear(&mut self, scene: &mut Scene<'_>, event: &str) -> Result<Value> {
        let start = Instant::now();
        while start.elapsed() < LONG {
            let Some(line) = self.job.line(scene.guest, Duration::from_secs(1))? else {
                let state = self.job.poll(scene.guest, Duration::ZERO)?;
                ensure!(state.timed_out, "`{}` ended without `{event}`: {}", self.words, describe(&state));
                continue;
            };
            let value: Value = serde_json::from_str(&line).with_context(|| format!("`{}`: {line}", self.words))?;
            if field(&value, "event") == event {
                return Ok(value);
            }
        }
        let state = self.job.poll(scene.guest, Duration::ZERO)?;
        bail!("`{}` does not tell `{event}`: {}", self.words, describe(&state))
    }

    /// How it stands and what it has said, for a message.
    pub(super) fn state(&self, scene: &mut Scene<'_>) -> Result<String> {
        Ok(describe(&self.job.poll(scene.guest, Duration::ZERO)?))
    }

    /// Whether it still runs.
    pub(super) fn runs(&self, scene: &mut Scene<'_>) -> Result<bool> {
        Ok(self.job.poll(scene.guest, Duration::ZERO)?.timed_out)
    }

    /// Waits for its end and insists on its exit code.
    pub(super) fn end(self, scene: &mut Scene<'_>, codes: &[i32]) -> Result<Ended> {
        self.ended(scene, codes)
    }

    /// As [`end`](Self::end), of a program that something is still to be asked about.
    pub(super) fn ended(&self, scene: &mut Scene<'_>, codes: &[i32]) -> Result<Ended> {
        let finished = self.job.wait(scene.guest, LONG)?;
        let code = finished.code.filter(|code| codes.contains(code));
        let Some(code) = code else {
            bail!("`{}`: exit {codes:?} expected, got {}", self.words, describe(&finished));
        };
        let Finished { stdout, stderr, .. } = finished;
        Ok(Ended { code, stdout, stderr, took: self.started.elapsed() })
    }
}

/// How a program ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: i32,
    stdout: String,
    stderr: String,
    pub(super) took: Duration,
}

impl Ended {
    /// What it said last.
    pub(super) fn last(&self) -> Result<Value> {
        let line = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(line).with_context(|| format!("the last line: {line:?}; {}", self.stderr))
    }

    /// What it complained of, without time and place.
    pub(super) fn complaint(&self) -> &str {
        let line = self.stderr.trim().lines().last().unwrap_or_default();
        line.split_once("] ").map_or(line, |(_, text)| text)
    }
}

/// Runs a program to its end.
pub(super) fn run(scene: &mut Scene<'_>, words: &str, codes: &[i32]) -> Result<Ended> {
    Program::start(scene, words)?.end(scene, codes)
}
