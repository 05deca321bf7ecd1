//! Programs that load one device: `hammer` while it is unbound (scenario `unbind-under-load`), `reopen` over and over.
//!
//! Each prints one JSON line when it is ready and one when it is done; `hammer` ends with exit code 6.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use vmbus::memory::{Ring, bus_errors_answered};
use vmbus::sysfs::Bus;
use vmbus::uio::{Event, Layout, OpenDevice, Options};
use vmbus_ringbuf::{ControlField, Memory as _};

/// Two words that differ from each other and from zero, and which no host writes.
const PATTERNS: [u64; 2] = [0x5a5a_0001_5a5a_0001, 0xa5a5_0002_a5a5_0002];
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

/// What to open, and how often.
#[derive(Debug, Args)]
pub(crate) struct ReopenArgs {
    /// The device: class, GUID, relid or uioN. It must be bound to uio_hv_generic.
    selector: String,
    /// How often.
    #[arg(long, default_value_t = 100)]
    times: u32,
}

/// [`Layout`] for the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mapping {
    Auto,
    Mirrored,
    Contiguous,
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
    let layout = match args.layout {
        Mapping::Auto => Layout::Auto,
        Mapping::Mirrored => Layout::Mirrored,
        Mapping::Contiguous => Layout::Contiguous,
    };
    let link = OpenDevice::open(&bus, &device, Options { layout, ..Options::default() })?;
    let rings = link.rings(device.relid)?;
    let mirrored = rings.outgoing.is_mirrored();
    let passes = AtomicU64::new(0);
    let limit = Duration::from_secs(args.limit_seconds);
    let (outcome, outgoing, incoming) = thread::scope(|scope| {
        let hammers =
            [&rings.outgoing, &rings.incoming].map(|ring| scope.spawn(|| hammer(&link, ring, &passes, limit)));
        // Ready once both have been through their ring.
        while passes.load(Ordering::Relaxed) < 4 && !hammers.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::yield_now();
        }
        let ready = say(&json!({ "event": "hammering", "device": device.name, "mirrored": mirrored }));
        let outcome = ready.and_then(|()| wait_for_the_end(&link, limit));
        let [outgoing, incoming] = hammers.map(|hammer| hammer.join().unwrap_or_default());
        (outcome, outgoing, incoming)
    });
    let error = outcome?;
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
    link.close()?;
    ensure!(clean, "a ring was still reachable after it was revoked");
    Ok(ExitCode::from(code))
}

/// Reads and writes all data of a ring until the link is revoked, then reads all of it, and the control fields, once
/// more. The ring's indices are left alone, so the host never looks at what is written.
fn hammer(link: &OpenDevice, ring: &Ring, passes: &AtomicU64, limit: Duration) -> Seen {
    let start = Instant::now();
    let mut seen = Seen::default();
    while start.elapsed() < limit.saturating_add(Duration::from_secs(5)) {
        for offset in lines(ring) {
            if link.is_rescinded() {
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
    /// of the whole link, so the lines right before `stopped_at`, where it stopped, may hold what it wrote into its own
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
fn lines(ring: &Ring) -> impl DoubleEndedIterator<Item = u32> {
    (0..ring.data_bytes() / LINE_BYTES).map(|line| line.saturating_mul(LINE_BYTES))
}

fn wait_for_the_end(link: &OpenDevice, limit: Duration) -> anyhow::Result<vmbus::Error> {
    let start = Instant::now();
    loop {
        match link.wait(None, Some(limit.saturating_sub(start.elapsed()))) {
            Ok(Event::TimedOut) => anyhow::bail!("the device is still there after {} s", limit.as_secs()),
            Ok(_) => {}
            Err(error) => return Ok(error),
        }
    }
}

/// Opens and closes the device over and over; each time the channel must be new.
///
/// # Errors
/// When an open or a close fails, or the channel is not new.
pub(crate) fn reopen(args: &ReopenArgs) -> anyhow::Result<ExitCode> {
    let bus = Bus::system();
    let device = bus.find(&args.selector)?;
    for time in 1..=args.times {
        let open = || -> anyhow::Result<()> {
            let link = OpenDevice::open(&bus, &device, Options::default())?;
            let rings = link.rings(device.relid)?;
            let index = rings.outgoing.load(ControlField::WriteIndex);
            ensure!(index == 0, "the outgoing ring of a new channel is at {index}");
            link.signal(device.relid)?;
            link.check()?;
            Ok(link.close()?)
        };
        open().with_context(|| format!("open number {time}"))?;
    }
    say(&json!({ "event": "end", "opened": args.times }))?;
    Ok(ExitCode::SUCCESS)
}

fn say(line: &Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
