//! Subchannels: used, moved, taken back one at a time and with their primary: `vmm-subchannels`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, Counted, LONG, Program, echo, field, number, run};
use crate::lab::control_wire::Call;
use crate::lab::host::Host;
use crate::lab::machine::Shape;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    kernels: super::UIO,
    // Two processors, between which channels move.
    shape: Shape { processors: 2, ..Shape::of(Host::Vmm) },
    ..vmm("vmm-subchannels", "opened, used, moved, taken back singly and with their primary", subchannels)
}];

/// Subchannels of each device.
const COUNT: usize = 2;
/// A channel without a reply for so long is silent.
const SILENT_MS: u64 = 1500;

/// How long a release may take that nothing stands in the way of.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// A device with its subchannels, and the program that uses them.
struct Play {
    device: Bound,
    /// Numbers and relids.
    subchannels: Vec<(u64, u32)>,
    program: Program,
}

impl Play {
    /// Offers subchannels when the device is open: earlier ones are never opened by the kernel.
    fn start(scene: &mut Scene<'_>, number: u64, words: &str) -> Result<Self> {
        let device = Bound::offer(scene, echo(number, false))?;
        let line = format!("subchannels {} --expect {COUNT} --silent-ms {SILENT_MS} {words}", device.instance);
        let mut program = Program::start(scene, &line)?;
        program.hear(scene, "open")?;
        let mut subchannels = Vec::new();
        for _ in 0..COUNT {
            let answer = scene.control()?.call(Call::Subchannel { offer: device.offer })?;
            let offer = field(&answer, "offer").as_u64().with_context(|| format!("subchannel: odd answer {answer}"))?;
            subchannels.push((offer, scene.offered(offer)?.relid.context("an offer without a relid")?));
        }
        program.hear(scene, "traffic")?;
        Ok(Self { device, subchannels, program })
    }

    /// States of the device's channels as the host has them, the primary first.
    fn states(&self, scene: &mut Scene<'_>) -> Result<Vec<String>> {
        let all = scene.control()?.offers()?;
        let offers = std::iter::once(self.device.offer).chain(self.subchannels.iter().map(|(offer, _)| *offer));
        let state = |offer| all.iter().find(|channel| channel.offer == offer).map(|channel| channel.state.clone());
        Ok(offers.map(|offer| state(offer).unwrap_or_else(|| "gone".to_owned())).collect())
    }
}

fn subchannels(scene: &mut Scene<'_>) -> Result<()> {
    moved(scene)?;
    single(scene)?;
    with_primary(scene)
}

/// Traffic on all while each goes from processor to processor; then the last close, which ends the subchannels.
fn moved(scene: &mut Scene<'_>) -> Result<()> {
    let before = Counted::now(scene)?;
    let play = Play::start(scene, 50, "--seconds 3 --retarget-ms 100")?;
    let (start, mut processors) = (Instant::now(), BTreeMap::<u64, BTreeSet<u64>>::new());
    while play.program.runs(scene)? && start.elapsed() < LONG {
        let all = scene.control()?.call(Call::Offers)?;
        for channel in all.as_array().into_iter().flatten() {
            let (Some(offer), Some(processor)) =
                (field(channel, "offer").as_u64(), field(channel, "processor").as_u64())
            else {
                continue;
            };
            processors.entry(offer).or_default().insert(processor);
        }
    }
    let Play { device, subchannels, program } = play;
    let end = program.end(scene, &[0])?.last()?;
    for channel in field(&end, "channels").as_array().into_iter().flatten() {
        let (sent, received) = (number(channel, "/sent")?, number(channel, "/received")?);
        ensure!(field(channel, "how") == "done" && sent == received && sent > 0, "{channel}");
    }
    let moves = Counted::now(scene)?.since(&before, "moves")?;
    scene.say(format!(
        "{COUNT} subchannels and their primary: {} replies, all that were asked for; {} writes to `cpu`, {moves} \
         MODIFYCHANNEL at the host, which sent to {processors:?}",
        replies(&end),
        field(&end, "moves")
    ));
    ensure!(moves > 0 && *field(&end, "refused_moves") == Value::Array(Vec::new()), "{moves} moves: {end}");
    ensure!(processors.values().all(|of_channel| of_channel.len() == 2), "not all were moved: {processors:?}");
    for (offer, relid) in &subchannels {
        scene.control()?.wait_state(*offer, "gone", LONG)?;
        ensure!(scene.control()?.released(*relid)? == 1, "relid {relid}");
    }
    ensure!(scene.offered(device.offer)?.state == "offered", "the primary is not on offer any more");
    scene.say(
        "after the last close the host takes the subchannels back, and each relid is released once; the primary stays",
    );
    device.take_back(scene)
}

/// One subchannel is taken back while all are in use: nobody is told, and only it falls silent.
fn single(scene: &mut Scene<'_>) -> Result<()> {
    let mut play = Play::start(scene, 51, "--seconds 5")?;
    let (offer, relid) = play.subchannels.first().copied().context("there are two")?;
    scene.control()?.rescind(offer)?;
    let silent = play.program.hear(scene, "silent")?;
    ensure!(number(&silent, "/relid")? == u64::from(relid), "relid {relid} was taken back, silent is {silent}");
    ensure!(field(&silent, "known_gone") == false, "somebody told: {silent}");
    ensure!(scene.control()?.released(relid)? == 0, "relid {relid} is released while it is open");
    let states = play.states(scene)?;
    scene.say(format!(
        "taken back singly: the kernel says nothing, relid {relid} is silent after {SILENT_MS} ms, the host waits for its \
         release: {states:?}"
    ));
    let end = finish(scene, &mut play, &[0])?;
    ensure!(field(&end, "silent") == 1, "{end}");
    scene.say(format!("the other channels go on, {} replies; closing took {}", replies(&end), close_times(&end)));
    scene.control()?.wait_state(offer, "gone", LONG)?;
    ensure!(scene.control()?.released(relid)? == 1, "relid {relid} is not released once after the last close");
    let states = play.states(scene)?;
    scene.say(format!("after the last close: {states:?}; it was released then, once"));
    play.device.take_back(scene)?;
    for (_, relid) in &play.subchannels {
        ensure!(scene.control()?.released(*relid)? == 1, "relid {relid} is not released once");
    }
    scene.say("the other subchannel is released with the primary");
    Ok(())
}

/// All are taken back while in use. Linux forgets the subchannels then: `uio_hv_generic` unregisters the device while it is
/// open, so that its last close finds nothing to close, and nobody releases what was open beside the primary. That is
/// told; what is insisted on is the primary, and that nothing is released twice.
fn with_primary(scene: &mut Scene<'_>) -> Result<()> {
    let mut play = Play::start(scene, 52, "--until-silent")?;
    let before = Counted::now(scene)?;
    scene.control()?.call(Call::RescindDevice { offer: play.device.offer })?;
    let end = finish(scene, &mut play, &[6])?;
    scene.say(format!("taken back with their primary: exit 6; closing took {}", close_times(&end)));
    scene.control()?.wait_state(play.device.offer, "gone", LONG)?;
    scene.await_device(&play.device.instance, false)?;
    ensure!(scene.control()?.released(play.device.relid)? == 1, "the primary's relid is not released once");
    let (start, mut states) = (Instant::now(), play.states(scene)?);
    while states.iter().any(|state| state != "gone") && start.elapsed() < FORGOTTEN {
        std::thread::sleep(Duration::from_millis(200));
        states = play.states(scene)?;
    }
    let after = Counted::now(scene)?;
    let (closes, released) = (after.since(&before, "closes")?, after.since(&before, "released")?);
    let waited = start.elapsed().as_millis();
    scene.say(format!("{waited} ms later: {states:?}; {closes} of 3 closes, {released} of 3 releases"));
    for (_, relid) in &play.subchannels {
        ensure!(scene.control()?.released(*relid)? <= 1, "relid {relid} is released twice");
    }
    if released < 3 {
        scene.say("this kernel never releases subchannels that were open when their primary was taken back");
    }

    // The bus goes on.
    let device = Bound::offer(scene, echo(53, false))?;
    let ended = run(scene, &format!("echo {} --count 50", device.instance), &[0])?;
    scene.control()?.rescind(device.offer)?;
    scene.control()?.wait_state(device.offer, "gone", LONG)?;
    scene.say(format!("another device works: {} of 50 packets come back", field(&ended.last()?, "received")));
    Ok(())
}

/// Waits for the program's end; what it said last.
fn finish(scene: &mut Scene<'_>, play: &mut Play, codes: &[i32]) -> Result<Value> {
    let end = play.program.hear(scene, "end")?;
    play.program.ended(scene, codes)?;
    Ok(end)
}

fn replies(end: &Value) -> u64 {
    field(end, "channels")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|channel| field(channel, "received").as_u64())
        .sum()
}

fn close_times(end: &Value) -> String {
    let times = field(end, "channels")
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|channel| field(channel, "close_ms").as_u64());
    let times: Vec<String> = times.map(|time| time.to_string()).collect();
    format!("{} ms", times.join(", "))
}
