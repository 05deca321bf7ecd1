//! The host takes a device back while its rings are written to; then nothing of that may land in the guest's memory:
//! `vmm-revocation`, and `vmm-revocation-off`, which shows that the judges would see it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::super::{Scenario, Scene, vmm};
use super::bound::{Bound, Ended, Program, echo, field, number};
use crate::lab::control_wire::Call;
use crate::lab::host::Host;
use crate::lab::machine::Shape;

pub(super) const SCENARIOS: &[Scenario] = &[
    Scenario {
        every_time: true,
        kernels: super::UIO,
        shape: SMALL,
        ..vmm("vmm-revocation", "taken back while written to: no late write lands in memory", with_revocation)
    },
    Scenario {
        own_boot: true,
        kernels: super::UIO,
        shape: SMALL,
        ..vmm("vmm-revocation-off", "the same without revocation: the judges find late writes", without_revocation)
    },
];

/// All free memory is taken, and under emulation each of its pages costs a lot when it is touched for the first time.
const SMALL: Shape = Shape { memory_mib: 256, ..Shape::of(Host::Vmm) };
/// How mappings are made: of the UIO node, which the kernel leaves alone when the device goes, and of the channel's
/// `ring` file, whose mappings newer kernels end by themselves.
const LAYOUTS: [&str; 2] = ["contiguous", "mirrored"];
/// How long the memory of the rings is looked at from outside.
const LOOK: Duration = Duration::from_secs(2);
/// Looks at each page.
const LOOKS: usize = 4;
/// What the writers write, as bytes.
const PATTERNS: [u64; 2] = [0x5a5a_0001_5a5a_0001, 0xa5a5_0002_a5a5_0002];

/// What came of one device.
struct Judged {
    /// Pages of the rings that changed after the driver knew of the rescind.
    changed: usize,
    /// Pages that were looked at.
    pages: usize,
    ended: Ended,
}

impl Judged {
    fn say(&self, scene: &mut Scene<'_>, what: &str) -> Result<()> {
        let last = self.ended.last()?;
        let memory = field(&last, "memory");
        scene.say(format!(
            "{what}: {} passes over the rings before the end was known, {} after; {} MiB taken, filled and checked {} times: \
             {} words damaged; from outside {} of the rings' {} pages changed; {} bus errors, {} mappings left",
            number(&last, "/passes")?.saturating_sub(number(&last, "/passes_after")?),
            field(&last, "passes_after"),
            field(memory, "taken_mib"),
            field(memory, "checks"),
            field(memory, "words"),
            self.changed,
            self.pages,
            field(&last, "bus_errors"),
            field(&last, "still_mapped"),
        ));
        Ok(())
    }
}

fn with_revocation(scene: &mut Scene<'_>) -> Result<()> {
    for (number, layout) in (60..).zip(LAYOUTS) {
        let judged = judge(scene, number, &format!("--layout {layout}"), &[6])?;
        judged.say(scene, layout)?;
        let last = judged.ended.last()?;
        ensure!(self::number(&last, "/passes_after")? > 0, "the writers did not go on: {last}");
        ensure!(self::number(&last, "/memory/words")? == 0, "late writes landed in memory: {last}");
        ensure!(judged.changed == 0, "{} pages of the rings were written to afterwards", judged.changed);
        ensure!(field(&last, "still_mapped") == 0, "mappings of the device are left: {last}");
    }
    Ok(())
}

/// Where revocation is switched off late writes go on: the rings' memory changes, seen from outside. Whether the kernel
/// has given it to somebody else is told, and is no condition: kernels that keep the rings of channels that were taken
/// back while open never do.
fn without_revocation(scene: &mut Scene<'_>) -> Result<()> {
    let mut damaged = 0;
    for number in 62..65 {
        let judged = judge(scene, number, "--layout contiguous --no-revocation", &[1, 6])?;
        judged.say(scene, "without revocation")?;
        let last = judged.ended.last()?;
        damaged += self::number(&last, "/memory/words")?;
        ensure!(
            judged.changed > 0 || self::number(&last, "/memory/words")? > 0,
            "the writers went on, and none of the judges saw it: {last}"
        );
    }
    scene.say(if damaged > 0 {
        format!("{damaged} words of memory that others had were damaged")
    } else {
        "late writes reached the rings' memory each time; this kernel keeps that memory and gives it to nobody, so no \
         memory of others was damaged in 3 attempts"
            .to_owned()
    });
    Ok(())
}

/// Lets the writers write, takes the device back, and looks at the memory of its rings from outside while the program takes
/// and checks all that is free.
fn judge(scene: &mut Scene<'_>, number: u64, words: &str, codes: &[i32]) -> Result<Judged> {
    let device = Bound::offer(scene, echo(number, false))?;
    let line = format!("revocation {} --check-seconds 2 {words}", device.instance);
    let mut program = Program::start(scene, &line)?;
    program.hear(scene, "writing")?;
    let pages: Vec<u64> = scene.control()?.ask(Call::RingPages { offer: device.offer })?;
    ensure!(!pages.is_empty(), "the host does not know the rings' pages");
    let moving = changes(scene, &pages)?;
    ensure!(moving > 0, "nobody writes to the rings");
    scene.control()?.rescind(device.offer)?;
    program.hear(scene, "rescinded")?;
    let changed = changes(scene, &pages)?;
    let ended = program.end(scene, codes)?;
    device.gone(scene)?;
    Ok(Judged { changed, pages: pages.len(), ended })
}

/// How many of these pages change between writers' words while they are looked at. Whoever else gets such a page writes
/// other words: that is no late write.
fn changes(scene: &mut Scene<'_>, pages: &[u64]) -> Result<usize> {
    let start = Instant::now();
    let mut seen = vec![BTreeSet::new(); pages.len()];
    for look in 0..LOOKS {
        for (page, seen) in pages.iter().zip(&mut seen) {
            let answer = scene.control()?.call(Call::Peek { address: page + 64, bytes: 8 })?;
            seen.extend(pattern(&answer));
        }
        if look > 0 && start.elapsed() > LOOK {
            break;
        }
    }
    Ok(seen.iter().filter(|seen| seen.len() > 1).count())
}

/// Which of the writers' words these bytes are, if any.
fn pattern(answer: &Value) -> Option<u64> {
    let word = u64::from_str_radix(field(answer, "hex").as_str()?, 16).ok()?.swap_bytes();
    PATTERNS.contains(&word).then_some(word)
}
