//! The receive and send buffers that kernels make for devices of a network adapter's class: `vmm-buffers`.

use anyhow::{Result, ensure};

use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, Program, field, number, run};
use crate::lab::control_wire::{Call, Device, Until};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    kernels: super::UIO,
    ..vmm("vmm-buffers", "receive and send buffers: both ends write, both check, and a rescind ends them", buffers)
}];

/// What the kernel makes for a network adapter, in bytes.
const RECEIVE: u64 = 31 << 20;
const SEND: u64 = 16 << 20;

fn buffers(scene: &mut Scene<'_>) -> Result<()> {
    let spec = |number| Device { kind: "buffers".to_owned(), number, ..Device::default() };
    let device = Bound::offer(scene, spec(1))?;
    let mut program = Program::start(scene, &format!("buffers {}", device.instance))?;
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let buffer = program.hear(scene, "buffer")?;
        let name = field(&buffer, "name").as_str().unwrap_or_default();
        scene.say(format!("{name}: {} bytes, written and checked by both ends", field(&buffer, "bytes")));
        bytes.push(number(&buffer, "/bytes")?);
    }
    ensure!(bytes == [RECEIVE, SEND], "buffers of {bytes:?} bytes; {RECEIVE} and {SEND} expected");
    program.end(scene, &[0])?;
    let report = scene.control()?.call(Call::Report { offer: device.offer })?;
    ensure!(number(&report, "/filled")? == RECEIVE + SEND && number(&report, "/summed")? == RECEIVE + SEND, "{report}");
    let gpadls: Vec<u32> = scene.control()?.ask(Call::Gpadls)?;
    ensure!(gpadls.len() == 2, "while it is closed two GPADLs are up, not {gpadls:?}");
    device.take_back(scene)?;
    scene.say("taken back while closed: no GPADL is up");

    // In the middle of the first buffer.
    let device = Bound::offer(scene, spec(2))?;
    let until = Until::Report { offer: device.offer, name: "filled".to_owned(), at_least: RECEIVE / 2 };
    device.take_back_when(scene, until)?;
    let ended = run(scene, &format!("buffers {}", device.instance), &[6])?;
    device.gone(scene)?;
    scene.say(format!("taken back in the middle: exit 6: {}; no GPADL is up", ended.complaint()));
    Ok(())
}
