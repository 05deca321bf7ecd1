//! The host writes nonsense into the rings of a device that is in use: `vmm-hostile`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, LONG, Program, echo, field, number, run};
use crate::lab::control_wire::Call;

pub(super) const SCENARIOS: &[Scenario] = &[Scenario {
    every_time: true,
    kernels: super::UIO,
    // A packet whose flags are spoiled may ask for a completion, and gets it.
    tolerates: &["that nobody asked for"],
    ..vmm("vmm-hostile", "corrupt indices, lengths and ids: exit 1 with a message, and the device works again", hostile)
}];

/// What is spoiled, and the words for the ends that may come of it.
const FAULTS: [(&str, &[&str]); 8] = [
    ("write-index", &["corrupt", "wrong", "silent"]),
    ("read-index", &["corrupt", "silent"]),
    ("packet-head", &["corrupt", "wrong", "silent"]),
    ("transaction-id", &["wrong"]),
    ("data", &["wrong", "corrupt", "silent"]),
    // With these a host harms itself: it is not signalled, or signalled too often.
    ("interrupt-mask", &["silent"]),
    ("pending-send-size", &[]),
    ("feature-bits", &[]),
];
/// How often one is written before it is said to do no harm.
const TRIES: u32 = 40;
/// How long all of them at random go on.
const STORM: Duration = Duration::from_secs(5);

fn hostile(scene: &mut Scene<'_>) -> Result<()> {
    let device = Bound::offer(scene, echo(30, false))?;
    for (fault, words) in FAULTS {
        one(scene, &device, fault, words)?;
    }
    storm(scene, &device)?;
    let ended = run(scene, &format!("echo {} --count 200", device.instance), &[0])?;
    scene.say(format!("after it all {} of 200 packets come back", field(&ended.last()?, "received")));
    device.take_back(scene)
}

/// One kind of fault until the program ends, or is done with its time.
fn one(scene: &mut Scene<'_>, device: &Bound, fault: &str, words: &[&str]) -> Result<()> {
    let seconds = if words.is_empty() { 1 } else { 5 };
    let line = format!("hostile {} --once --silent-ms 500 --seconds {seconds}", device.instance);
    let mut program = Program::start(scene, &line)?;
    program.hear(scene, "storm")?;
    scene.control()?.wait_state(device.offer, "open", LONG)?;
    let mut tries = 0;
    while tries < TRIES && program.runs(scene)? {
        tries += u32::from(spoil(scene, device, fault)?);
    }
    let ended = program.end(scene, &[0, 1])?;
    let last = ended.last()?;
    let ends: Vec<(String, Value)> = field(&last, "ends")
        .as_object()
        .into_iter()
        .flatten()
        .map(|(word, told)| (word.clone(), told.clone()))
        .collect();
    match ends.first() {
        None => {
            ensure!(ended.code == 0, "{fault}: exit {} without a reason: {last}", ended.code);
            scene.say(format!("{fault}: {tries} times, and no harm; {} packets came back", field(&last, "received")));
        }
        Some((word, told)) => {
            let said = field(told, "first").as_str().unwrap_or_default();
            ensure!(ended.code == 1, "{fault}: exit {}, not 1: {said}", ended.code);
            ensure!(words.contains(&word.as_str()), "{fault} ends as {word}: {said}");
            ensure!(said.contains(&device.instance), "the message does not name the device: {said}");
            scene.say(format!("{fault}: exit 1: {word}: {said}"));
        }
    }
    scene.control()?.wait_state(device.offer, "offered", LONG)
}

/// Whether there was an open ring to spoil.
fn spoil(scene: &mut Scene<'_>, device: &Bound, fault: &str) -> Result<bool> {
    let done = match scene.control()?.call(Call::Spoil { offer: device.offer, fault: fault.to_owned() }) {
        Ok(answer) => field(&answer, "done") == true,
        Err(error) if error.is::<crate::lab::control::Refused>() => false,
        Err(error) => return Err(error),
    };
    if !done {
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(done)
}

/// All at random, while the device is opened again and again.
fn storm(scene: &mut Scene<'_>, device: &Bound) -> Result<()> {
    let seconds = STORM.as_secs();
    let line = format!("hostile {} --seconds {seconds} --silent-ms 300", device.instance);
    let mut program = Program::start(scene, &line)?;
    program.hear(scene, "storm")?;
    let (start, mut spoiled) = (Instant::now(), 0_u64);
    while start.elapsed() < STORM {
        spoiled += u64::from(spoil(scene, device, "any")?);
        std::thread::sleep(Duration::from_millis(20));
    }
    let last = program.end(scene, &[0])?.last()?;
    let kinds: BTreeSet<&String> =
        field(&last, "ends").as_object().into_iter().flatten().map(|(word, _)| word).collect();
    ensure!(!kinds.is_empty(), "{spoiled} faults did no harm at all: {last}");
    let refused = field(&last, "refused").as_object().map_or(0, serde_json::Map::len);
    scene.say(format!(
        "{spoiled} faults in {seconds} s: opened {} times, ends: {kinds:?}, {refused} kinds of refused opens and closes, \
         the slowest took {} ms",
        field(&last, "opened"), field(&last, "slowest_ms"),
    ));
    ensure!(number(&last, "/slowest_ms")? < 15_000, "an open or a close took too long: {last}");
    // A ring may be spoiled before its first use; then the open fails, and the next one may find the channel closing.
    for (word, told) in field(&last, "refused").as_object().into_iter().flatten() {
        let said = field(told, "first").as_str().unwrap_or_default();
        let expected = word == "corrupt" || said.contains("is being closed");
        ensure!(expected, "an open or a close was refused: {word}: {said}");
    }
    Ok(())
}
