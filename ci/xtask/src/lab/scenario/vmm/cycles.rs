//! Offer, bind, open, traffic, rescind, release, over and over: `vmm-cycles-50`, `vmm-cycles-1000`.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use super::bound::{Counted, LONG, Program, echo, field, number};
use crate::lab::control_wire::{Call, Until};
use crate::lab::kernel::Kernel;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        every_time: true,
        kernels: super::UIO,
        ..vmm(
            "vmm-cycles-50",
            "50 times offered, bound, opened, used, taken back: counters exact, memory level",
            |scene| cycles(scene, 50),
        )
    },
    Scenario {
        own_boot: true,
        // Minutes, since this kernel makes 47 MiB of buffers for each device; one kernel is enough for that.
        kernels: &[Kernel::V6_12],
        ..vmm("vmm-cycles-1000", "1,000 times the same", |scene| cycles(scene, 1000))
    },
];

/// Cycles before the level is looked at.
const WARM_UP: u64 = 10;
/// What a kernel keeps of a channel that was taken back while open; see `vmm-rescind`.
const RING_KEPT_KIB: u64 = 256;
/// What else of any kind of memory may be in use afterwards, in KiB, however many cycles there were.
const SLACK_KIB: u64 = 2 << 10;
/// Packets that the host sees before it takes the device back.
const PACKETS: u64 = 8;

fn cycles(scene: &mut Scene<'_>, count: u64) -> Result<()> {
    let total = count + WARM_UP;
    // The program's own bound holds for everything; a closer one is below.
    let line =
        format!("cycles --count {count} --warm-up {WARM_UP} --patience-seconds 60 --kernel-keeps-kib {RING_KEPT_KIB}");
    let mut program = Program::start(scene, &line)?;
    program.hear(scene, "waiting")?;
    let (before, start) = (Counted::now(scene)?, Instant::now());
    let offer = scene.control()?.offer(echo(40, false))?;
    // The guest looks at its level when the first and the last cycle after the warm-up begin.
    let mut kept = Vec::new();
    for cycle in 1..=total {
        if let Err(error) = one(scene, offer, cycle) {
            let told = program.state(scene)?;
            return Err(error.context(format!("cycle {cycle}: the program: {told}")));
        }
        if cycle == total {
            scene.control()?.rescind(offer)?;
        } else {
            scene.control()?.call(Call::Reoffer { offer })?;
        }
        let until = Until::Counter { name: "released".to_owned(), at_least: before.of("released")? + cycle };
        scene.control()?.wait(until, LONG).with_context(|| format!("cycle {cycle}: its relid is not released"))?;
        if cycle == WARM_UP || cycle + 1 == total {
            let now = Counted::now(scene)?;
            kept.push(now.of("opens")?.saturating_sub(now.of("closes")?));
        }
    }
    let kept = kept.last().zip(kept.first()).map_or(0, |(last, first)| last - first);
    let took = start.elapsed();
    let end = program.end(scene, &[0])?.last()?;
    scene.control()?.wait_state(offer, "gone", LONG)?;
    let after = Counted::now(scene)?;
    for name in ["offers", "rescinds", "released"] {
        let counted = after.since(&before, name)?;
        ensure!(counted == total, "{counted} {name} for {total} cycles");
    }
    let gpadls: Vec<u32> = scene.control()?.ask(Call::Gpadls)?;
    ensure!(gpadls.is_empty(), "GPADLs {gpadls:?} are up");
    scene.say(format!(
        "{total} offers, rescinds and releases in {} s; {} opens and {} closes seen by the host",
        took.as_secs(),
        after.since(&before, "opens")?,
        after.since(&before, "closes")?
    ));
    let opened = number(&end, "/opened")?;
    scene.say(format!(
        "the driver opened {opened}: {} ({} too late, {} refused and tried again), {} packets back",
        field(&end, "ended"),
        field(&end, "too_late"),
        field(&end, "refused"),
        field(&end, "received")
    ));
    ensure!(opened * 10 >= total * 6, "{opened} of {total} devices were opened");
    let counters = field(&end, "counters");
    ensure!(
        field(counters, "offers") == field(counters, "released") && field(counters, "offers") == total,
        "our driver: {counters}"
    );
    level(scene, &end, kept)
}

/// Waits until this cycle is where the device is to be taken back: just opened, idle, under load, about to be closed.
fn one(scene: &mut Scene<'_>, offer: u64, cycle: u64) -> Result<()> {
    if cycle.is_multiple_of(4) {
        return scene.control()?.wait_state(offer, "open", LONG);
    }
    scene.control()?.wait(Until::Report { offer, name: "packets".to_owned(), at_least: PACKETS }, LONG)
}

/// Memory, but for what the kernel keeps of `kept` rings, is level.
fn level(scene: &mut Scene<'_>, end: &Value, kept: u64) -> Result<()> {
    let grown = |name: &str| -> Result<i64> {
        let at =
            |when: &str| field(field(end, when), name).as_i64().with_context(|| format!("no {when} {name}: {end}"));
        Ok(at("after")? - at("before")?)
    };
    let (free, slab, resident) = (grown("free_kib")?, grown("slab_kib")?, grown("resident_kib")?);
    let (vmalloc, descriptors) = (grown("vmalloc_kib")?, grown("descriptors")?);
    scene.say(format!(
        "in use since cycle {WARM_UP}: memory {} KiB, slabs {slab} KiB, vmalloc {vmalloc} KiB, the driver {resident} KiB, \
         descriptors {descriptors}; the kernel keeps {RING_KEPT_KIB} KiB of each of {kept} rings that were open",
        -free
    ));
    let allowed = i64::try_from(kept * RING_KEPT_KIB + SLACK_KIB)?;
    ensure!(-free <= allowed, "{} KiB more are in use, {allowed} are allowed", -free);
    for (what, kib) in [("slabs", slab), ("vmalloc", vmalloc), ("the driver", resident)] {
        ensure!(kib <= i64::try_from(SLACK_KIB)?, "{what}: {kib} KiB more, {SLACK_KIB} are allowed");
    }
    Ok(())
}
