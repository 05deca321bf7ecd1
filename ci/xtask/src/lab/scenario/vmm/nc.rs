//! VM sockets at the command line, inside the guest: `vmm-nc`.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::super::{Scenario, Scene, vmm};
use super::KERNEL;
use crate::lab::control_wire::Device;
use crate::lab::guest::describe;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    kernels: super::UIO,
    every_time: true,
    ..vmm("vmm-nc", "vmbusctl nc and echo by AF_VSOCK, and nc by a byte pipe over UIO", both)
}];

/// How long one transfer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes there and back; no multiple of anything.
const BYTES: u32 = 300_007;
/// Where the echo service listens.
const PORT: u32 = 7000;

fn both(scene: &mut Scene<'_>) -> Result<()> {
    scene.guest.shell(&format!("head -c {BYTES} /dev/urandom > /tmp/said"))?;
    kernel(scene)?;
    uio(scene)
}

/// The kernel's sockets at both ends.
fn kernel(scene: &mut Scene<'_>) -> Result<()> {
    scene.guest.shell("load vsock_loopback")?;
    let echo = scene.guest.spawn(&["vmbusctl", "echo", &format!("any:{PORT}")])?;
    // Nobody is there until it listens.
    let ask = format!("vmbusctl nc 1:{PORT} < /tmp/said > /tmp/heard");
    super::super::eventually("the echo service answers", KERNEL, || {
        let finished = scene.guest.run(&["sh", "-c", &ask], PATIENCE)?;
        Ok((finished.code == Some(0)).then_some(()))
    })?;
    scene.guest.shell("cmp /tmp/said /tmp/heard")?;
    scene.guest.shell("kill -TERM $(pidof vmbusctl)")?;
    let finished = echo.wait(scene.guest, PATIENCE)?;
    ensure!(finished.code == Some(0), "the echo service, after SIGTERM: {}", describe(&finished));
    scene.say(format!("AF_VSOCK: {BYTES} bytes to `vmbusctl echo` and back, half-closed; SIGTERM ends it with 0"));
    Ok(())
}

/// A pipe that the host offers, through the kernel.
fn uio(scene: &mut Scene<'_>) -> Result<()> {
    let settings = [("echoes".to_owned(), 1)].into();
    let device = Device { kind: "pipe".to_owned(), number: 8, monitored: true, settings, ..Device::default() };
    let offer = scene.control()?.offer(device)?;
    let instance = scene.offered(offer)?.instance;
    scene.await_device(&instance, true)?;
    scene.vmbusctl(&["bind", &instance], 0)?;
    let ask = format!("vmbusctl nc --link uio {instance} < /tmp/said > /tmp/heard");
    let finished = scene.guest.run(&["sh", "-c", &ask], PATIENCE)?;
    ensure!(finished.code == Some(0), "`{ask}`: {}", describe(&finished));
    scene.guest.shell("cmp /tmp/said /tmp/heard")?;
    scene.control()?.rescind(offer)?;
    scene.control()?.wait_state(offer, "gone", KERNEL)?;
    scene.say(format!("a byte pipe over UIO: {BYTES} bytes there and back"));
    Ok(())
}
