//! The host takes a device back at the worst moments of an open: `vmm-rescind`.

use anyhow::{Context, Result, ensure};

use super::super::device::Memory;
use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, Counted, LONG, Program, echo, field, latency, run};
use crate::lab::control_wire::{Call, Until};

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    kernels: super::UIO,
    ..vmm("vmm-rescind", "taken back while opening, idle, under load, closing, and offered again at once", rescind)
}];

/// What a kernel keeps of a channel that was taken back while open: its ring, 17 pages each way, in a block of a power
/// of two. Nobody tears its GPADL down then, and memory that a host may still reach is not given back.
const RING_KEPT_KIB: u64 = 256;
/// Devices of this scenario that are taken back with a GPADL of their ring.
const RINGS_KEPT: u64 = 5;
/// What else may be in use afterwards: caches of the first open, page tables.
const SLACK_KIB: u64 = 2 << 10;
/// Long enough for a rescind to come in between, in milliseconds.
const SLOW: u64 = 300;

fn rescind(scene: &mut Scene<'_>) -> Result<()> {
    // The first open of all warms the caches up.
    let device = Bound::offer(scene, echo(10, false))?;
    run(scene, &format!("echo {} --count 50", device.instance), &[0])?;
    device.take_back(scene)?;

    let (before, memory) = (Counted::now(scene)?, Memory::read(scene.guest)?);
    opening(scene)?;
    idle(scene)?;
    load(scene)?;
    closing(scene)?;
    again(scene)?;
    let (after, left) = (Counted::now(scene)?, Memory::read(scene.guest)?);

    let [offers, rescinds, released] = ["offers", "rescinds", "released"].map(|name| after.since(&before, name));
    let (offers, rescinds, released) = (offers?, rescinds?, released?);
    ensure!(offers == rescinds && offers == released, "{offers} offers, {rescinds} rescinds, {released} releases");
    scene.say(format!("{offers} offers, {rescinds} rescinds, {released} releases"));
    let used = memory.kib("Free")?.saturating_sub(left.kib("Free")?);
    let allowed = RINGS_KEPT * RING_KEPT_KIB + SLACK_KIB;
    ensure!(used <= allowed, "{used} KiB more are in use, {allowed} are allowed");
    scene.say(format!("{used} KiB more are in use: the kernel keeps {RING_KEPT_KIB} KiB of each ring that was open"));
    Ok(())
}

/// While the guest waits for the ring's GPADL; then while it waits for the answer to OPEN.
fn opening(scene: &mut Scene<'_>) -> Result<()> {
    for (number, what) in [(1, "GPADL"), (2, "OPEN")] {
        let device = Bound::offer(scene, echo(number, false))?;
        let before = Counted::now(scene)?;
        let until = if what == "GPADL" {
            latency(scene, [0, SLOW, 0, 0])?;
            // The first message of an open is its ring's GPADL.
            Until::Counter { name: "messages_in".to_owned(), at_least: before.of("messages_in")? + 1 }
        } else {
            latency(scene, [SLOW, 0, 0, 0])?;
            Until::State { offer: device.offer, state: "opening".to_owned() }
        };
        device.take_back_when(scene, until)?;
        let ended = run(scene, &format!("echo {} --count 1", device.instance), &[6])?;
        latency(scene, [0; 4])?;
        device.gone(scene)?;
        let after = Counted::now(scene)?;
        let (opens, closes) = (after.since(&before, "opens")?, after.since(&before, "closes")?);
        ensure!(opens == 0, "{opens} opens came to an end");
        scene.say(format!(
            "while it waits for {what}: exit 6 after {} ms: {}; {closes} closes",
            ended.took.as_millis(),
            ended.complaint()
        ));
    }
    Ok(())
}

/// Who sleeps until a reply comes is woken.
fn idle(scene: &mut Scene<'_>) -> Result<()> {
    let device = Bound::offer(scene, echo(3, false))?;
    let mut program = Program::start(scene, &format!("echo {} --patience-ms 60000", device.instance))?;
    program.hear(scene, "open")?;
    scene.control()?.call(Call::Command { offer: device.offer, words: "hold".to_owned() })?;
    // What came before that has been answered; what comes now is kept.
    let held = quiet(scene, &device)?;
    ensure!(program.runs(scene)?, "the program has ended");
    scene.control()?.rescind(device.offer)?;
    let since = std::time::Instant::now();
    let ended = program.end(scene, &[6])?;
    scene.say(format!(
        "while it sleeps for reply {held}: exit 6, {} ms after the rescind: {}",
        since.elapsed().as_millis(),
        ended.complaint()
    ));
    device.gone(scene)
}

/// Waits until the device gets no packets any more; how many it has.
fn quiet(scene: &mut Scene<'_>, device: &Bound) -> Result<u64> {
    let (start, mut before) = (std::time::Instant::now(), None);
    loop {
        let report = scene.control()?.call(Call::Report { offer: device.offer })?;
        let packets = field(&report, "packets").as_u64().context("an echo counts packets")?;
        if before == Some(packets) && packets > 0 {
            return Ok(packets);
        }
        ensure!(start.elapsed() < LONG, "packets do not cease");
        before = Some(packets);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

/// Packets without pause, eight under way.
fn load(scene: &mut Scene<'_>) -> Result<()> {
    let device = Bound::offer(scene, echo(4, false))?;
    let mut program = Program::start(scene, &format!("echo {} --batch 8", device.instance))?;
    program.hear(scene, "traffic")?;
    device.report(scene, "packets", 200)?;
    scene.control()?.rescind(device.offer)?;
    let ended = program.end(scene, &[6])?;
    let last = ended.last()?;
    ensure!(field(&last, "how") == "rescinded", "{last}");
    scene.say(format!("under load, after {} packets: exit 6: {}", field(&last, "received"), ended.complaint()));
    device.gone(scene)
}

/// In the moment of CLOSE, and while the guest waits for the GPADL's end.
fn closing(scene: &mut Scene<'_>) -> Result<()> {
    for (number, counter) in [(5, "closes"), (6, "teardowns")] {
        let device = Bound::offer(scene, echo(number, false))?;
        latency(scene, [0, 0, SLOW, 0])?;
        let before = Counted::now(scene)?;
        let at_least = before.of(counter)? + 1;
        device.take_back_when(scene, Until::Counter { name: counter.to_owned(), at_least })?;
        let ended = run(scene, &format!("echo {} --count 20", device.instance), &[0, 6])?;
        latency(scene, [0; 4])?;
        device.gone(scene)?;
        scene.say(format!("while it closes ({counter}): exit {} after {} ms", ended.code, ended.took.as_millis()));
    }
    Ok(())
}

/// Offered again in the moment of its release, which is bound, opened and used again, three times.
fn again(scene: &mut Scene<'_>) -> Result<()> {
    let mut device = Bound::offer(scene, echo(7, false))?;
    for _ in 0..2 {
        let mut program = Program::start(scene, &format!("echo {} --batch 8", device.instance))?;
        program.hear(scene, "traffic")?;
        let offers = Counted::now(scene)?.of("offers")?;
        scene.control()?.call(Call::Reoffer { offer: device.offer })?;
        program.end(scene, &[6])?;
        let until = Until::Counter { name: "offers".to_owned(), at_least: offers + 1 };
        scene.control()?.wait(until, LONG)?;
        device = Bound::bind(scene, device.offer)?;
    }
    let ended = run(scene, &format!("echo {} --count 100", device.instance), &[0])?;
    scene.say(format!(
        "offered again at once, twice: the third open gets {} of 100 replies",
        field(&ended.last()?, "received")
    ));
    device.take_back(scene)
}
