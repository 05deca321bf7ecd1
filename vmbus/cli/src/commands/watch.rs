//! `vmbusctl watch`: a line for everything that comes to the bus and goes from it, until a signal ends it.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use anyhow::Context as _;
use serde::Serialize;
use signal_hook::consts::{SIGINT, SIGTERM};
use vmbus::uevent::{self, Change, Seen, What};

use crate::args::Watch;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, BOLD, DIM};
use crate::table::or_dash;
use crate::time::utc;

/// The shape of a line with `--json`. Fields may be added.
#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    event: &'a What,
    class_name: Option<&'static str>,
    #[serde(flatten)]
    seen: &'a Seen,
}

/// The shape of a line that is about no device.
#[derive(Serialize)]
struct Lost<'a> {
    time: &'a str,
    event: &'static str,
}

pub(crate) fn run(context: &Context, args: &Watch) -> anyhow::Result<Exit> {
    let stop = stop()?;
    let mut watch = uevent::Watch::begin(&context.bus)?;
    while let Some(change) = watch.next(stop.as_fd())? {
        match change {
            Change::Device { what: What::Present, .. } if args.no_initial => {}
            Change::Device { at, what, seen } => tell(context, at, what, &seen)?,
            Change::Lost { at } => tell_lost(context, at)?,
            // The library may tell more some day.
            _ => {}
        }
    }
    Ok(Exit::Ok)
}

/// Becomes readable at the first SIGINT or SIGTERM; the second one ends the process, should it not come to its end.
fn stop() -> anyhow::Result<UnixStream> {
    let (stop, sender) = UnixStream::pair().context("cannot handle signals")?;
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let handled = || -> std::io::Result<()> {
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&asked))?;
            signal_hook::flag::register(signal, Arc::clone(&asked))?;
            signal_hook::low_level::pipe::register(signal, sender.try_clone()?)?;
            Ok(())
        };
        handled().context("cannot handle signals")?;
    }
    Ok(stop)
}

fn tell(context: &Context, at: SystemTime, what: What, seen: &Seen) -> anyhow::Result<()> {
    let time = utc(at);
    let class_name = seen.class.and_then(vmbus::class::Class::short_name);
    if context.json {
        return output::json_line(&Line { time: &time, event: &what, class_name, seen });
    }
    let class = match (class_name, seen.class) {
        (Some(name), _) => name.to_owned(),
        (None, class) => or_dash(class),
    };
    let mut text = format!("{DIM}{time}{DIM:#}  {BOLD}{:<8}{BOLD:#} {class:<10} {}", word(what), seen.device);
    if let Some(relid) = seen.relid {
        text += &format!("  relid {relid}");
    }
    text += &match (&seen.driver, &seen.uio) {
        (Some(driver), Some(uio)) => format!("  {driver} (/dev/{uio})"),
        (Some(driver), None) => format!("  {driver}"),
        (None, _) => "  no driver".to_owned(),
    };
    output::line_now(text)
}

fn tell_lost(context: &Context, at: SystemTime) -> anyhow::Result<()> {
    let time = utc(at);
    if context.json {
        return output::json_line(&Lost { time: &time, event: "lost" });
    }
    output::line_now(format!(
        "{DIM}{time}{DIM:#}  {BOLD}lost{BOLD:#}     too much happened at once; what differs now follows"
    ))
}

fn word(what: What) -> &'static str {
    match what {
        What::Present => "present",
        What::Arrived => "arrived",
        What::Bound => "bound",
        What::Unbound => "unbound",
        What::Removed => "removed",
        _ => "changed",
    }
}
