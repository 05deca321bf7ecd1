//! `vmbusctl demo`: the whole stack against a simulated host, in some seconds, on any machine.

mod echo;
mod memory;
mod pipe;
mod report;
mod rescind;

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmbus::class::Class;
use vmbus_channels::{Offer, OpenOptions};
use vmbus_simhost::device::{Echo, Pipe};
use vmbus_simhost::{Config, DeviceSpec};

use self::report::{Latency, Report, Row, Traffic};
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::simulated::{self, PATIENCE, Simulated};

/// How long traffic lasts with each device.
const LASTS: Duration = Duration::from_secs(1);
/// Rounds of a latency.
const ROUNDS: u64 = 5000;
/// Devices that are taken back under load.
const LOADED: usize = 8;

pub(crate) fn run(context: &Context) -> anyhow::Result<Exit> {
    let stage = stage_line(context);
    let report = play(&stage)?;
    stage.finish_and_clear();
    let passed = report.leaks == 0 && report.violations.is_empty();
    if context.json {
        output::json(&report)?;
    } else if !context.quiet || !passed {
        report.print()?;
    }
    Ok(if passed { Exit::Ok } else { Exit::Failed })
}

fn play(stage: &ProgressBar) -> anyhow::Result<Report> {
    let start = Instant::now();
    let processors = simulated::processors();
    let mut config = simulated::with_devices(Config::seeded(1), 1);
    let loaded: Vec<_> = (1..=LOADED as u64).map(DeviceSpec::echo).collect();
    config.devices.extend(loaded.iter().cloned());
    stage.set_message("connecting to the simulated host");
    let both = Simulated::start(config, processors)?;
    let version = both.bus.version()?.to_string();

    let mut devices = Vec::new();
    for offer in both.bus.offers()? {
        if loaded.iter().any(|spec| spec.instance == offer.instance) {
            continue;
        }
        stage.set_message(format!("moving traffic through {}", simulated::title(offer.class)));
        devices.push(use_device(&both, &offer)?);
    }
    stage.set_message(format!("taking {LOADED} busy channels back"));
    let instances: Vec<_> = loaded.iter().map(|spec| spec.instance).collect();
    let rescinded = rescind::under_load(&both, &instances)?;
    devices.push(rescinded.row);

    stage.set_message("taking everything else back, and looking for what is left");
    both.host.with(|sim| {
        let host = sim.host();
        for offered in host.offered() {
            // Those that are on their way out already say so.
            let _ = host.rescind_device(offered.id);
        }
    })?;
    let gone = both.host.wait_for(PATIENCE, |sim| sim.host().offered().is_empty())?;
    let guest = both.bus.counters()?;
    let host = both.host.counters()?;
    let gpadls = both.host.live_gpadls()?.len() as u64;
    let left = guest.channels + guest.gpadls + guest.open + guest.waiting + guest.dispatch.entries + gpadls;
    let leaks = left + host.offers.saturating_sub(host.released) + u64::from(!gone);
    let violations = both.finish()?;
    Ok(Report {
        version,
        processors,
        devices,
        rescinded_under_load: rescinded.channels,
        events: guest.dispatch.events,
        offers: host.offers,
        releases: host.released,
        leaks,
        violations: violations.iter().map(|violation| format!("{violation:?}")).collect(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

fn use_device(both: &Simulated, offer: &Offer) -> anyhow::Result<Row> {
    let used = match offer.class {
        Echo::CLASS => {
            let mut channel = both.bus.open(offer.id, OpenOptions::default())?;
            let latency = echo::ping(&mut channel, ROUNDS, &[0x5a; 64])?;
            let traffic = echo::stream(&mut channel, LASTS, &[0x5a; 1024])?;
            channel.close()?;
            ("1 KiB packets echoed".to_owned(), Some(traffic), Some(latency))
        }
        Pipe::CLASS => {
            let mut channel = both.bus.open(offer.id, OpenOptions::default())?;
            let traffic = pipe::stream(&mut channel, LASTS)?;
            channel.close()?;
            ("bytes there and back".to_owned(), Some(traffic), None)
        }
        Class::DYNAMIC_MEMORY => (memory::balloon(both, offer)?, None, None),
        _ => ("not touched".to_owned(), None, None),
    };
    Ok(row(offer, used).with_title(simulated::title(offer.class)))
}

/// A line of the report.
fn row(offer: &Offer, (work, traffic, latency): (String, Option<Traffic>, Option<Latency>)) -> Row {
    Row {
        device: "",
        class: offer.class.0.to_string(),
        instance: offer.instance.to_string(),
        relid: offer.relid,
        work,
        traffic,
        latency,
    }
}

impl Row {
    fn with_title(self, device: &'static str) -> Self {
        Self { device, ..self }
    }
}

/// A line on the terminal that says what is going on.
fn stage_line(context: &Context) -> ProgressBar {
    if context.json || context.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is constant; where it did not parse, indicatif's own style would do.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(100));
    line
}
