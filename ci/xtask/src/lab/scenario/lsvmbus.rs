//! Scenarios that compare `vmbusctl list --format lsvmbus` with the kernel's own tool: `lsvmbus`, `vmm-lsvmbus`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Scene;
use crate::lab::control_wire::{Call, Device};
use crate::lab::guest::describe;

/// Classes of devices that the tool has names for, and one that it has none for.
const CLASSES: [&str; 5] = [
    "f8615163-df3e-46c5-913f-f2d2f965ed0e",
    "ba6163d9-04a1-4d29-b605-72e2ffb1dc7f",
    "57164f39-9115-4e78-ab55-382f3bd5422d",
    "cfa8b69e-5b4a-4cc0-b98b-8ba1a1f3f95a",
    "99999999-5b4a-4cc0-b98b-8ba1a1f3f95a",
];

/// Byte for byte the same at each level of detail.
pub(super) fn equal(scene: &mut Scene<'_>) -> Result<()> {
    for level in [&[][..], &["-v"], &["-vv"]] {
        let theirs = scene.guest.run(&[&["lsvmbus"], level].concat(), Duration::from_secs(60))?;
        ensure!(theirs.code == Some(0), "the kernel's lsvmbus: {}", describe(&theirs));
        let ours = scene.vmbusctl(&[&["list", "--format", "lsvmbus"], level].concat(), 0)?.stdout;
        ensure!(ours == theirs.stdout, "with {level:?} lsvmbus prints\n{}\nand vmbusctl\n{ours}", theirs.stdout);
        let text = if level.is_empty() { "as it is".to_owned() } else { level.concat() };
        scene.say(format!("{text}: the same {} lines", ours.lines().count()));
    }
    Ok(())
}

/// The same with a dozen devices, some of them with monitor ids, and two with subchannels.
pub(super) fn equal_for_many(scene: &mut Scene<'_>) -> Result<()> {
    let mut offers = Vec::new();
    for number in 0..12 {
        let class = CLASSES.get(number).map(|class| (*class).to_owned());
        let (kind, monitored) = ("echo".to_owned(), number % 3 == 0);
        let device = Device { kind, number: number as u64, class, monitored, ..Device::default() };
        offers.push(scene.control()?.offer(device)?);
    }
    for offer in &offers {
        let instance = scene.control()?.offered(*offer)?.instance;
        scene.await_device(&instance, true)?;
    }
    let with_subchannels: Vec<u64> = [1, 1, 5].iter().filter_map(|of| offers.get(*of).copied()).collect();
    for offer in with_subchannels {
        let answer = scene.control()?.call(Call::Subchannel { offer })?;
        let subchannel = answer.get("offer").and_then(Value::as_u64).with_context(|| format!("odd answer {answer}"))?;
        // First of all to go: a primary waits for them.
        offers.insert(0, subchannel);
    }
    let channels = "ls -d /sys/bus/vmbus/devices/*/channels/* | wc -l";
    super::eventually("the kernel shows all channels", Duration::from_secs(20), || {
        Ok((scene.guest.shell(channels)?.trim().parse::<usize>()? >= offers.len()).then_some(()))
    })?;
    equal(scene)?;
    for offer in offers {
        scene.control()?.rescind(offer)?;
        scene.control()?.wait_state(offer, "gone", Duration::from_secs(20))?;
    }
    Ok(())
}
