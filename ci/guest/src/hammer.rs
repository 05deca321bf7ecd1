//! Hammers a device's rings while it is unbound (scenarios `unbind-under-load` and `unbind-contiguous`).
//!
//! Prints one JSON line when it is ready and one when it is done; ends with exit code 6.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;
use vmbus::link::Line;
use vmbus::memory::{Ring, bus_errors_answered};
use vmbus::sysfs::Bus;
use vmbus::uio::{Layout, Options};
use vmbus_ringbuf::{ControlField, Memory as _};

use crate::raw::Raw;
use crate::say;

/// Two words that differ from each other and from zero, and which no host writes.
pub(crate) const PATTERNS: [u64; 2] = [0x5a5a_0001_5a5a_0001, 0xa5a5_0002_a5a5_0002];
/// Bytes that are looked at in one go: a cache line. Its first word is written, too.
const LINE_BYTES: u32 = 64;

/// What to load, and how it is mapped.
#[derive(Debug, Args)]
pub(crate) struct HammerArgs {
    /// The device: class, GUID, relid or uioN. It must be bound to uio_hv_generic.
    selector: String,
    /// How rings are mapped.
    #[arg(long, value_enum, default_value_t = Mapping::Auto)]
    layout: Mapping,
    /// Give up when the device is still there after this many seconds.
    #[arg(long, default_value_t = 60)]
    limit_seconds: u64,
}

/// [`Layout`] for the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Mapping {
    Auto,
    Mirrored,
    Contiguous,
}

impl From<Mapping> for Layout {
    fn from(mapping: Mapping) -> Self {
        match mapping {
            Mapping::Auto => Self::Auto,
            Mapping::Mirrored => Self::Mirrored,
            Mapping::Contiguous => Self::Contiguous,
        }
    }
}

/// What one hammer saw.
#[derive(Debug, Default)]
struct Seen {
    passes: u64,
    /// Lines that this hammer wrote after its ring was revoked and before it knew: they are in its own memory.
    written_after: usize,
    /// Other lines and fields that were not zero after the revocation.
    not_zero_after: usize,
}

/// Opens the device; one thread hammers each ring, this one waits, until the device is unbound.
///
/// # Errors
/// When the device can't be opened, or is still there at the limit.
pub(crate) fn run(args: &HammerArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.selector)?;
    let mut raw = Raw::connect(bus, Options { layout: args.layout.into(), ..Options::default() })?;
    let port = raw.open(device.relid)?;
    let mirrored = port.outgoing.is_mirrored();
    let passes = AtomicU64::new(0);
    let limit = Duration::from_secs(args.limit_seconds);
    let (rescinded, outgoing, incoming) = thread::scope(|scope| {
        let hammers =
            [&port.outgoing, &port.incoming].map(|ring| scope.spawn(|| hammer(&port.line, ring, &passes, limit)));
        // Ready once both have been through their ring.
        while passes.load(Ordering::Relaxed) < 4 && !hammers.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::yield_now();
        }
        let ready = say(&json!({ "event": "hammering", "device": device.name, "mirrored": mirrored }));
        let rescinded = ready.and_then(|()| raw.is_rescinded(device.relid, &port.line, limit));
        let [outgoing, incoming] = hammers.map(|hammer| hammer.join().unwrap_or_default());
        (rescinded, outgoing, incoming)
    });
    ensure!(rescinded?, "the device is still there after {} s", limit.as_secs());
    let Err(error) = port.line.check() else { bail!("the channel is rescinded, and its line does not know it") };
    let code = error.kind().exit_code();
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let still_mapped = maps.lines().filter(|map| map.contains("/dev/uio") || map.ends_with("/ring")).count();
    let clean = outgoing.not_zero_after == 0 && incoming.not_zero_after == 0 && still_mapped == 0;
    let of = |Seen { passes, written_after, not_zero_after }: &Seen| json!({ "passes": passes, "written_after": written_after, "not_zero_after": not_zero_after });
    say(&json!({
        "event": "end", "error": error, "mirrored": mirrored, "only_zeroes": clean, "bus_errors": bus_errors_answered(),
        "still_mapped": still_mapped,
        "outgoing": of(&outgoing), "incoming": of(&incoming),
    }))?;
    drop(port);
    raw.give_back(device.relid)?;
    ensure!(clean, "a ring was still reachable after it was revoked");
    Ok(ExitCode::from(code))
}

/// Reads and writes all data of a ring until its channel is revoked, then reads all of it, and the control fields, once
/// more. The ring's indices are left alone, so the host never looks at what is written.
fn hammer(line: &Line, ring: &Ring, passes: &AtomicU64, limit: Duration) -> Seen {
    let start = Instant::now();
    let mut seen = Seen::default();
    while start.elapsed() < limit.saturating_add(Duration::from_secs(5)) {
        for offset in lines(ring) {
            if line.is_rescinded() {
                seen.look_again(ring, offset);
                return seen;
            }
            let line: [u64; 8] = ring.load_words(offset);
            let [odd, even] = PATTERNS;
            ring.store_words(offset, [if line.starts_with(&[odd]) { even } else { odd }]);
        }
        seen.passes = seen.passes.saturating_add(1);
        passes.fetch_add(1, Ordering::Relaxed);
    }
    seen
}

impl Seen {
    /// Reads all of a ring that is revoked. The hammer went on for a moment between the revocation of its ring and that
    /// of the whole device, so the lines right before `stopped_at`, where it stopped, may hold what it wrote into its own
    /// new pages; old pages that are still there show as a ring full of lines that are not zero.
    fn look_again(&mut self, ring: &Ring, stopped_at: u32) {
        let is_zero = |offset: u32| ring.load_words::<8>(offset) == [0; 8];
        let fields = ControlField::ALL.iter().filter(|field| ring.load(**field) != 0).count();
        let not_zero = lines(ring).filter(|offset| !is_zero(*offset)).count();
        let before = lines(ring).rev().skip_while(|offset| *offset >= stopped_at);
        let wrapped = lines(ring).rev().take_while(|offset| *offset >= stopped_at);
        let own = before.chain(wrapped).take_while(|offset| !is_zero(*offset)).count();
        self.written_after = if own > lines(ring).count() / 2 { 0 } else { own };
        self.not_zero_after = fields.saturating_add(not_zero).saturating_sub(self.written_after);
    }
}

/// Offsets of all lines of a ring; the last one is left out where it would not be whole.
pub(crate) fn lines(ring: &Ring) -> impl DoubleEndedIterator<Item = u32> {
    (0..ring.data_bytes() / LINE_BYTES).map(|line| line.saturating_mul(LINE_BYTES))
}
