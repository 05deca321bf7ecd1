//! `vmbusctl bind`, `unbind` and `restore`: handing devices to user space and back.

use serde::Serialize;
use vmbus::bind::{Attempt, BindOptions, Method, Outcome, Restored, UIO_DRIVER};
use vmbus::sysfs::Device;
use vmbus::{Error, class::Class};

use super::describe::name;
use crate::args::{Bind, Restore, Unbind};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output;

/// The shape of `restore --all --json`.
#[derive(Serialize)]
struct AllRestored<'a> {
    restored: Vec<&'a Restored>,
    failed: Vec<&'a Error>,
}

pub(crate) fn bind(context: &Context, args: &Bind) -> anyhow::Result<Exit> {
    let device = context.bus.find(&args.device)?;
    let binder = if args.new_id { context.binder().with_new_id() } else { context.binder() };
    let bound = binder.bind(&device, BindOptions { force: args.force })?;
    if context.json {
        output::json(&bound)?;
    } else if !context.quiet {
        let taken = match (&bound.former_driver, bound.method) {
            (_, Method::Already) => format!("was bound to {UIO_DRIVER} already"),
            (Some(driver), _) => format!("taken from {driver}; `vmbusctl unbind {}` gives it back", args.device),
            (None, _) => "no kernel driver had it".to_owned(),
        };
        output::line(format!("{} is {} ({taken})", name(&device), bound.node.display()))?;
    }
    Ok(Exit::Ok)
}

pub(crate) fn unbind(context: &Context, args: &Unbind) -> anyhow::Result<Exit> {
    let device = context.bus.find(&args.device)?;
    let restored = context.binder().unbind(&device)?;
    tell(context, &name(&device), &restored)?;
    Ok(Exit::Ok)
}

pub(crate) fn restore(context: &Context, args: &Restore) -> anyhow::Result<Exit> {
    let binder = context.binder();
    let Some(selector) = &args.device else {
        return restore_all(context, &binder.restore_all()?);
    };
    let device = select(context, selector, &binder.pending()?)?;
    let restored = binder.restore(&device)?;
    tell(context, &device, &restored)?;
    Ok(Exit::Ok)
}

/// The sysfs name that a selector stands for: of a device on the bus, or of one that only the journal still knows.
fn select(context: &Context, selector: &str, pending: &[String]) -> Result<String, Error> {
    match context.bus.find(selector) {
        Ok(device) => Ok(device.name),
        Err(error @ (Error::NotFound { .. } | Error::NoBus { .. })) => {
            // A GUID may be written with braces and in either case; Class::parse reads any GUID.
            let wanted = Class::parse(selector).map_or_else(|| selector.to_owned(), |guid| guid.to_string());
            pending.iter().find(|name| name.eq_ignore_ascii_case(&wanted)).cloned().ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn restore_all(context: &Context, attempts: &[Attempt]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    let mut restored = Vec::new();
    let mut failed = Vec::new();
    for attempt in attempts {
        match &attempt.result {
            Ok(done) if context.json => restored.push(done),
            Ok(done) => tell(context, &attempt.device, done)?,
            Err(error) => {
                // The first failure decides how the command ends.
                exit = if exit == Exit::Ok { error.kind().into() } else { exit };
                failed.push(error);
            }
        }
    }
    if context.json {
        output::json(&AllRestored { restored, failed })?;
    } else {
        for error in failed {
            Failure::known(error).report(false);
        }
        if attempts.is_empty() && !context.quiet {
            output::line("The journal is empty: there is nothing to restore.")?;
        }
    }
    Ok(exit)
}

fn tell(context: &Context, name: &str, restored: &Restored) -> anyhow::Result<()> {
    if context.json {
        return output::json(restored);
    }
    if context.quiet {
        return Ok(());
    }
    let what = match (restored.outcome, &restored.driver) {
        (Outcome::Restored, Some(driver)) => format!("is back with {driver}"),
        (Outcome::Restored, None) => "is back as it was: no driver has it".to_owned(),
        (Outcome::Nothing, Some(driver)) if driver == UIO_DRIVER => {
            format!("has no journal entry; {driver} keeps it, and `vmbusctl unbind` gives it to the kernel")
        }
        (Outcome::Nothing, Some(driver)) => format!("needs nothing: {driver} has it"),
        (Outcome::Nothing, None) => "needs nothing: no driver has it".to_owned(),
        (Outcome::Gone, _) => "is gone from the bus; its journal entry was dropped".to_owned(),
        (Outcome::Stale, _) => "was reset by a reboot; its journal entry was dropped".to_owned(),
        (_, Some(driver)) => format!("is with {driver} now"),
        (_, None) => "has no driver now".to_owned(),
    };
    output::line(format!("{name} {what}"))
}

/// Whether user space has the device.
pub(super) fn in_user_space(device: &Device) -> bool {
    device.driver.as_deref() == Some(UIO_DRIVER)
}
