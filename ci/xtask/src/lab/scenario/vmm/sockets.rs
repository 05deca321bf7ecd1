//! The kernel's `hv_sock` and our host's byte pipes: `vmm-sockets`, `vmm-unaccepted`; and our socket API over the
//! kernel's sockets: `vmm-vsock-suite`.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use crate::lab::control_wire::{Call, HostSettings};
use crate::lab::guest::describe;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        every_time: true,
        ..vmm(
            "vmm-sockets",
            "the kernel's hv_sock connects and accepts, closes half by half, every byte checked",
            alone,
        )
    },
    Scenario {
        every_time: true,
        ..vmm("vmm-vsock-suite", "the suite of our socket API over AF_VSOCK, by the kernel's loopback", suite)
    },
    Scenario {
        // The host waits for half a minute, whatever the kernel.
        kernels: super::UIO,
        ..vmm("vmm-unaccepted", "a connection that nobody in the guest accepts is taken back", unaccepted)
    },
];

/// Ports: of a service of the host, of one that it does not have, and two that the guest listens on.
const SERVICE: u32 = 5000;
const NO_SERVICE: u32 = 5999;
const LISTENER: u32 = 6000;
const SPEAKER: u32 = 6001;

/// Bytes that go each way; some ring's worth, and no multiple of anything.
const BYTES: u64 = 200_003;

/// How long the whole suite may take.
const SUITE: Duration = Duration::from_secs(180);

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(40);

fn alone(scene: &mut Scene<'_>) -> Result<()> {
    let text = both_ways(scene)?;
    scene.say(text);
    Ok(())
}

/// All that the suite has for that family; what it leaves out is said.
fn suite(scene: &mut Scene<'_>) -> Result<()> {
    scene.guest.shell("load vsock_loopback")?;
    let finished = scene.guest.run(&["vmbus-sockets", "--family=vsock"], SUITE)?;
    let lines = finished.stdout.lines();
    let last = lines.clone().last().unwrap_or_default().to_owned();
    ensure!(finished.code == Some(0), "the suite: {}", describe(&finished));
    let (passed, left_out): (Vec<&str>, Vec<&str>) =
        lines.filter(|line| line.starts_with("test vsock")).partition(|line| line.contains("... ok"));
    for line in &left_out {
        scene.say(*line);
    }
    // Some of it is about hosts that are told what to do; most runs on any.
    ensure!(passed.len() > 2 * left_out.len(), "most was left out: {last}");
    scene.say(last);
    Ok(())
}

/// The guest connects; the host connects, and speaks, and lets speak; what to tell.
pub(super) fn both_ways(scene: &mut Scene<'_>) -> Result<String> {
    scene.guest.shell("load hv_sock")?;
    let services = Some(vec![SERVICE.to_string()]);
    scene.control()?.call(Call::Configure(HostSettings { services, ..HostSettings::default() }))?;
    guest_connects(scene).context("the guest connects")?;
    refused(scene).context("the guest connects to nobody")?;
    host_connects(scene, LISTENER, None).context("the host connects and speaks")?;
    host_connects(scene, SPEAKER, Some(BYTES)).context("the host connects and the guest speaks")?;
    Ok(format!("hv_sock {BYTES} bytes each way, connected by the guest, and twice by the host"))
}

/// A kernel that knows no such connections says so, and so does the host.
pub(super) fn none(scene: &mut Scene<'_>) -> Result<String> {
    let loaded = scene.guest.run(&["load", "hv_sock"], PATIENCE)?;
    ensure!(loaded.code != Some(0), "hv_sock should not load: {}", describe(&loaded));
    let connected = scene.control()?.call(Call::Connect { service: LISTENER.to_string(), echoes: false });
    ensure!(connected.is_err(), "the host has connected");
    Ok("no hv_sock, as it should be".to_owned())
}

fn guest_connects(scene: &mut Scene<'_>) -> Result<()> {
    let next = next_offer(scene)?;
    let (port, bytes) = (SERVICE.to_string(), BYTES.to_string());
    let end = scene.program(&["vsock-connect", &port, "--bytes", &bytes], PATIENCE)?;
    let sums = end.get("sums").context("no sums")?.clone();
    // The connection's number is the next one after those that were there.
    compare(scene, next, &sums)
}

/// The number that the next offer will have.
fn next_offer(scene: &mut Scene<'_>) -> Result<u64> {
    // Whatever is offered and taken back at once tells it; a hidden device would, too, but stays.
    let device = crate::lab::control_wire::Device { kind: "mute".to_owned(), number: 9, ..Default::default() };
    let offer = scene.control()?.offer(device)?;
    scene.control()?.rescind(offer)?;
    scene.control()?.wait_state(offer, "gone", super::KERNEL)?;
    Ok(offer + 1)
}

/// The host refuses, in its own words; Linux does not listen and gives up after a while.
fn refused(scene: &mut Scene<'_>) -> Result<()> {
    let before = counter(scene, "refused")?;
    let finished = scene.guest.run(&["vmbus-lab-guest", "vsock-connect", &NO_SERVICE.to_string()], PATIENCE)?;
    ensure!(finished.code.is_some_and(|code| code != 0), "it should fail: {}", describe(&finished));
    let refused = counter(scene, "refused")? - before;
    ensure!(refused == 1, "the host refused {refused} connections");
    Ok(())
}

/// The host connects to a program that sends back, or that speaks and checks what comes back.
fn host_connects(scene: &mut Scene<'_>, port: u32, speaks: Option<u64>) -> Result<()> {
    let text = port.to_string();
    let mut argv = vec!["vmbus-lab-guest", "vsock-listen", &text];
    let bytes = speaks.map(|bytes| bytes.to_string());
    argv.extend(bytes.iter().flat_map(|bytes| ["--bytes", bytes]));
    let mut job = scene.guest.spawn(&argv)?;
    if job.line(scene.guest, PATIENCE)?.is_none() {
        bail!("the program does not listen: {}", describe(&job.poll(scene.guest, Duration::ZERO)?));
    }
    let answer = scene.control()?.call(Call::Connect { service: text.clone(), echoes: speaks.is_some() })?;
    let offer = answer.get("offer").and_then(Value::as_u64).with_context(|| format!("odd answer {answer}"))?;
    if speaks.is_none() {
        scene.control()?.wait_state(offer, "open", PATIENCE)?;
        // Its half is closed while most of the bytes are still under way.
        for words in [format!("send {BYTES}"), "end".to_owned()] {
            scene.control()?.call(Call::Command { offer, words })?;
        }
    }
    let finished = job.wait(scene.guest, PATIENCE)?;
    ensure!(finished.code == Some(0), "{}: {}", argv.join(" "), describe(&finished));
    let line = finished.stdout.lines().find(|line| line.contains("\"connection\"")).context("no connection told")?;
    let line: Value = serde_json::from_str(line)?;
    let sums = line.get("sums").context("no sums")?.clone();
    compare(scene, offer, &sums)
}

/// When the connection is over, both ends have counted the same, and all of it.
fn compare(scene: &mut Scene<'_>, offer: u64, guest: &Value) -> Result<()> {
    scene.control()?.wait_state(offer, "gone", PATIENCE)?;
    let host = scene.control()?.call(Call::Report { offer })?;
    let number = |of: &Value, name: &str| of.get(name).and_then(Value::as_u64);
    let same = |here: &str, there: &str| number(&host, here) == number(guest, there);
    let all = number(&host, "received") == Some(BYTES) && number(&host, "sent") == Some(BYTES);
    let same = same("received", "sent") && same("sent", "received") && same("checksum", "checksum");
    ensure!(all && same && number(&host, "end_received") == Some(1), "the host counts {host}, the guest {guest}");
    Ok(())
}

fn counter(scene: &mut Scene<'_>, name: &str) -> Result<u64> {
    let counters = scene.control()?.counters()?;
    counters.get(name).and_then(Value::as_u64).with_context(|| format!("no counter {name}"))
}

/// Linux leaves the channel alone; after 30 s the host takes it back, and it is released.
fn unaccepted(scene: &mut Scene<'_>) -> Result<()> {
    scene.guest.shell("load hv_sock")?;
    let answer = scene.control()?.call(Call::Connect { service: NO_SERVICE.to_string(), echoes: false })?;
    let offer = answer.get("offer").and_then(Value::as_u64).with_context(|| format!("odd answer {answer}"))?;
    let relid = scene.offered(offer)?.relid.context("an offer without a relid")?;
    scene.control()?.wait_state(offer, "gone", Duration::from_secs(60))?;
    let released = scene.control()?.released(relid)?;
    ensure!(released == 1, "relid {relid} was released {released} times");
    scene.say("taken back and released");
    Ok(())
}
