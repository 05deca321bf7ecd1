//! Threads write to a device's rings without pause while the host takes the device back; then all free memory is taken,
//! filled with a pattern and checked over and over, while they still write: no write of theirs may land there.
//!
//! Prints `writing`, `rescinded` and `end`, which says how many of the rings' own pages were among those taken. Ends with
//! 6 when nothing was damaged, with 1 otherwise. `memory` takes and checks.

mod memory;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use serde_json::json;
use vmbus::link::Port;
use vmbus::memory::{Ring, bus_errors_answered};
use vmbus::sysfs::Bus;
use vmbus::uio::Options;
use vmbus_ringbuf::Memory as _;

use crate::hammer::{Mapping, PATTERNS, lines};
use crate::raw::Raw;
use crate::say::Say;
use memory::{Damage, Frames, Taken};

/// What to write to, and how much memory to check.
#[derive(Debug, Clone, Args)]
pub(crate) struct RevocationArgs {
    /// The device: class, GUID, relid or uioN. It must be bound to uio_hv_generic.
    selector: String,
    /// How rings are mapped. The kernel takes mappings of a channel's `ring` file back by itself; those of the UIO node
    /// (`contiguous`) it leaves.
    #[arg(long, value_enum, default_value_t = Mapping::Contiguous)]
    layout: Mapping,
    /// Leave the mappings when the device goes: what the library exists to rule out. The guest may not survive it.
    #[arg(long, hide = true)]
    no_revocation: bool,
    /// Threads that write to each ring.
    #[arg(long, default_value_t = 1)]
    writers: usize,
    #[command(flatten)]
    memory: MemoryArgs,
    /// Give up when the device is still there after this many seconds.
    #[arg(long, default_value_t = 60)]
    limit_seconds: u64,
}

/// How memory is taken and checked.
#[derive(Debug, Clone, Args)]
pub(crate) struct MemoryArgs {
    /// Check the memory for so long.
    #[arg(long, default_value_t = 5.0)]
    check_seconds: f64,
    /// Leave this much of the free memory, in KiB.
    #[arg(long, default_value_t = 8192)]
    reserve_kib: u64,
    /// Take no more than this, in MiB.
    #[arg(long, default_value_t = 1 << 20)]
    most_mib: usize,
    /// Take and check all of it this many times anew.
    #[arg(long, default_value_t = 1)]
    rounds: u32,
}

/// Plays on the kernel's bus.
///
/// # Errors
/// As [`play`].
pub(crate) fn run(args: &RevocationArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.selector)?;
    if args.no_revocation {
        log::warn!("mappings are left as they are: this guest may not survive it");
        vmbus::mutation::leave_mappings();
    }
    let mut raw = Raw::connect(bus, Options { layout: args.layout.into(), ..Options::default() })?;
    play(&mut raw, device.relid, args, &Say::aloud()).map(ExitCode::from)
}

/// Takes and checks memory while another program writes to rings.
///
/// # Errors
/// /proc can't be read.
pub(crate) fn run_memory(args: &MemoryArgs) -> anyhow::Result<ExitCode> {
    let found = check(args, &Frames::none(), &Say::aloud())?;
    Say::aloud().line(&json!({ "event": "end", "memory": found }))?;
    Ok(if found.words == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Opens, writes, waits for the end of the device, takes and checks memory; the exit code.
///
/// # Errors
/// The device can't be opened, or is still there at the limit.
fn play(raw: &mut Raw, relid: u32, args: &RevocationArgs, say: &Say) -> anyhow::Result<u8> {
    let limit = Duration::from_secs(args.limit_seconds);
    let port = raw.open(relid)?;
    let frames = Frames::of(&[&port.outgoing, &port.incoming]);
    let (over, calm, passes) = (AtomicBool::new(false), AtomicBool::new(false), AtomicU64::new(0));
    let found = thread::scope(|scope| {
        for ring in [&port.outgoing, &port.incoming] {
            (0..args.writers.max(1)).for_each(|_| drop(scope.spawn(|| write(ring, &over, &calm, &passes))));
        }
        let found = judge(raw, relid, &port, &frames, &passes, &calm, args, limit, say);
        over.store(true, Ordering::Release);
        found
    });
    let (found, after) = found?;
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let still_mapped = maps.lines().filter(|map| map.contains("/dev/uio") || map.ends_with("/ring")).count();
    let code = port.line.check().map_or_else(|error| error.kind().exit_code(), |()| 0);
    say.line(&json!({
        "event": "end", "memory": found, "passes": passes.load(Ordering::Relaxed), "passes_after": after,
        "ring_pages": frames.count(), "bus_errors": bus_errors_answered(), "still_mapped": still_mapped,
        "revocation": !args.no_revocation,
    }))?;
    drop(port);
    raw.give_back(relid)?;
    Ok(if found.words == 0 { code } else { 1 })
}

/// Waits for the end of the device, then checks. What was found, and how often the writers went through a ring meanwhile.
#[expect(clippy::too_many_arguments, reason = "one caller")]
fn judge(
    raw: &Raw,
    relid: u32,
    port: &Port,
    frames: &Frames,
    passes: &AtomicU64,
    calm: &AtomicBool,
    args: &RevocationArgs,
    limit: Duration,
    say: &Say,
) -> anyhow::Result<(Damage, u64)> {
    let start = Instant::now();
    while passes.load(Ordering::Relaxed) < 4 && start.elapsed() < limit {
        thread::yield_now();
    }
    say.line(&json!({ "event": "writing", "ring_pages": frames.count(), "mirrored": port.outgoing.is_mirrored() }))?;
    ensure!(raw.is_rescinded(relid, &port.line, limit)?, "the device is still there after {} s", limit.as_secs());
    let before = passes.load(Ordering::Relaxed);
    say.line(&json!({ "event": "rescinded", "passes": before }))?;
    calm.store(true, Ordering::Release);
    let found = check(&args.memory, frames, say)?;
    Ok((found, passes.load(Ordering::Relaxed).saturating_sub(before)))
}

/// Takes all memory and checks it, as often as it is asked for.
fn check(args: &MemoryArgs, frames: &Frames, say: &Say) -> anyhow::Result<Damage> {
    let mut found = Damage::default();
    let rounds = args.rounds.max(1);
    let limit = Duration::from_secs_f64(args.check_seconds.max(0.0) / f64::from(rounds));
    for _ in 0..rounds {
        let start = Instant::now();
        let mut taken = Taken::all(args.reserve_kib, args.most_mib)?;
        say.line(&json!({ "event": "taken", "mib": taken.mib(), "ms": start.elapsed().as_millis() }))?;
        found.ring_pages_taken = found.ring_pages_taken.max(taken.holds(frames));
        let start = Instant::now();
        loop {
            taken.check(&mut found);
            if start.elapsed() >= limit {
                break;
            }
        }
    }
    Ok(found)
}

/// Writes the patterns to all data of a ring until it is over, whatever becomes of the ring, each pass the other way round:
/// whoever looks at the memory from outside sees whether it is written to. Its indices are left alone. Once calm, it
/// pauses between two passes, or nothing would be left of a small guest for who takes its memory.
fn write(ring: &Ring, over: &AtomicBool, calm: &AtomicBool, passes: &AtomicU64) {
    let [mut odd, mut even] = PATTERNS;
    while !over.load(Ordering::Acquire) {
        for offset in lines(ring) {
            ring.store_words(offset, [odd, even, odd, even, odd, even, odd, even]);
        }
        passes.fetch_add(1, Ordering::Relaxed);
        std::mem::swap(&mut odd, &mut even);
        if calm.load(Ordering::Acquire) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}
