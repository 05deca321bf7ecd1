//! Channels with and without a monitor id, and by what each is signalled: `vmm-monitor`.

use anyhow::{Result, ensure};

use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, Counted, Program, echo, field};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    kernels: super::UIO,
    ..vmm(
        "vmm-monitor",
        "a channel with a monitor id is signalled by its page, one without by the 4-byte write",
        monitor,
    )
}];

const PACKETS: u64 = 200;

fn monitor(scene: &mut Scene<'_>) -> Result<()> {
    for monitored in [true, false] {
        let device = Bound::offer(scene, echo(20, monitored))?;
        let mut program = Program::start(scene, &format!("echo {} --count {PACKETS}", device.instance))?;
        let signals_by = field(&program.hear(scene, "open")?, "signals_by").as_str().unwrap_or_default().to_owned();
        let before = Counted::now(scene)?;
        program.end(scene, &[0])?;
        let after = Counted::now(scene)?;
        let calls = after.since(&before, "signals")?;
        let (pages, strays) = (after.since(&before, "monitor_signals")?, after.since(&before, "stray_signals")?);
        scene.say(format!("signals by {signals_by}: {pages} by monitor page, {calls} by hypercall, {strays} stray"));
        if monitored {
            ensure!(signals_by.starts_with("monitor bit "), "the driver signals by {signals_by}");
            ensure!(pages > 0 && calls == 0, "a channel with a monitor id is signalled by its page alone");
        } else {
            ensure!(signals_by == "call", "the driver signals by {signals_by}");
            ensure!(calls > 0 && pages == 0, "a channel without a monitor id is signalled by call alone");
        }
        ensure!(strays == 0, "{strays} signals were for nobody");
        device.take_back(scene)?;
    }
    Ok(())
}
