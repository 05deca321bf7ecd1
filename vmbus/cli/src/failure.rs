//! How errors are told: to people on standard error, with `--json` to programs on standard output.

use std::io::{self, ErrorKind, Write};

use anstyle::{AnsiColor, Style};
use serde::Serialize;
use vmbus::Error;

use crate::exit::Exit;
use crate::output;

/// The shape of an error with `--json`.
#[derive(Serialize)]
struct Json<'a> {
    error: JsonError<'a>,
}

#[derive(Serialize)]
struct JsonError<'a> {
    kind: &'static str,
    message: &'a str,
    device: Option<&'a str>,
    hint: Option<&'a str>,
    exit_code: u8,
}

/// What is said about an error that ends the program.
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    device: Option<String>,
    hint: Option<String>,
}

impl Failure {
    /// What to say about `error`, or `None` if its only cause is that nobody reads our output any more.
    pub(crate) fn of(error: &anyhow::Error) -> Option<Self> {
        // A bare io::Error is ours, from printing: the library wraps those of devices and files.
        let output = error.downcast_ref::<io::Error>();
        if output.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe) {
            return None;
        }
        let printing =
            if output.is_some() && error.chain().count() == 1 { "cannot write to standard output: " } else { "" };
        let known = error.chain().find_map(known);
        let kind = known.map(Error::kind).or_else(|| error.chain().find_map(kind));
        Some(Self {
            exit: kind.map_or(Exit::Failed, Exit::from),
            message: format!("{printing}{}", message(error)),
            device: known.and_then(Error::device).map(str::to_owned),
            hint: known.and_then(hint),
        })
    }

    /// What to say about an error of the library.
    pub(crate) fn known(error: &Error) -> Self {
        Self {
            exit: error.kind().into(),
            message: error.to_string(),
            device: error.device().map(str::to_owned),
            hint: hint(error),
        }
    }

    /// A command line that could not be understood, as clap words it.
    pub(crate) fn usage(text: &str) -> Self {
        let text = text.trim_start_matches("error: ");
        let message = text.split("\n\n").next().unwrap_or(text).split_whitespace().collect::<Vec<_>>().join(" ");
        Self { exit: Exit::Usage, message, device: None, hint: Some("run `vmbusctl --help`".to_owned()) }
    }

    /// Says it, and returns how the program ends. Errors while saying it are dropped: there is nobody left to tell.
    pub(crate) fn report(&self, as_json: bool) -> Exit {
        let told = if as_json { self.tell_programs() } else { self.tell_people() };
        drop(told);
        self.exit
    }

    fn tell_programs(&self) -> anyhow::Result<()> {
        output::json_line(&Json {
            error: JsonError {
                kind: self.exit.kind(),
                message: &self.message,
                device: self.device.as_deref(),
                hint: self.hint.as_deref(),
                exit_code: self.exit.code(),
            },
        })
    }

    fn tell_people(&self) -> anyhow::Result<()> {
        const RED: Style = AnsiColor::Red.on_default().bold();
        let mut stderr = anstream::stderr().lock();
        writeln!(stderr, "vmbusctl: {RED}error{RED:#}: {}", self.message)?;
        // What the message says already is not said twice.
        if let Some(hint) = self.hint.as_ref().filter(|_| !self.message.contains("; ")) {
            writeln!(stderr, "  try: {hint}")?;
        }
        Ok(())
    }
}

/// The library's error in one cause. Those of channels and devices are transparent shells, which the chain passes over.
fn known<'a>(cause: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    use vmbus_channels::Error as Channel;
    use vmbus_devices::Error as Device;
    if let Some(Channel::Link(error)) = cause.downcast_ref() {
        return Some(error);
    }
    match cause.downcast_ref() {
        Some(Device::Channel(Channel::Link(error)) | Device::System(error)) => Some(error),
        _ => cause.downcast_ref(),
    }
}

/// The kind of an error of channels or devices that is none of the library below.
fn kind(cause: &(dyn std::error::Error + 'static)) -> Option<vmbus::ErrorKind> {
    let channel = cause.downcast_ref().map(vmbus_channels::Error::kind);
    channel.or_else(|| cause.downcast_ref().map(vmbus_devices::Error::kind))
}

/// The error and its causes in one line; a cause that its effect already names is left out.
fn message(error: &anyhow::Error) -> String {
    let mut message = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if message.is_empty() {
            message = cause;
        } else if !message.contains(&cause) {
            message = format!("{message}: {cause}");
        }
    }
    message
}

/// What to try, for each error that leaves something to try.
fn hint(error: &Error) -> Option<String> {
    let hint = match error {
        Error::NoBus { .. } => "run `vmbusctl doctor`: it says whether a module or the host is missing",
        Error::NotFound { .. } | Error::Selector { .. } => {
            "run `vmbusctl list -v` and name the device by its instance or relid"
        }
        Error::Permission { .. } => "run it as root",
        Error::Busy { .. } => "run `vmbusctl status DEVICE` to see which process holds it",
        Error::Rescinded { .. } => "wait for the host to offer the device again",
        Error::NoDriver { driver, .. } => return Some(format!("run `modprobe {driver}`")),
        Error::Timeout { hint, .. } => hint,
        Error::BindFailed { hint, .. } | Error::Unsupported { hint, .. } => hint,
        Error::Refused { .. } => "pass --force if that is really meant",
        Error::Malformed { .. } => "report it with the kernel's version",
        _ => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_not_an_error_but_one_from_a_device_is() {
        let closed = || io::Error::from(ErrorKind::BrokenPipe);
        assert!(Failure::of(&closed().into()).is_none());
        assert!(Failure::of(&Error::io("read", "/dev/uio0", closed()).into()).is_some());
    }

    #[test]
    fn the_kind_is_found_below_any_context() {
        let error = anyhow::Error::new(Error::Rescinded { device: "d".to_owned() }).context("the balloon ended");
        let failure = Failure::of(&error).unwrap();
        assert_eq!(failure.exit, Exit::Rescinded);
        assert_eq!(failure.device.as_deref(), Some("d"));
        assert!(failure.message.starts_with("the balloon ended: device d is gone"));
    }

    #[test]
    fn the_kind_is_found_inside_the_errors_of_other_crates() {
        let busy = || Error::Busy { device: "d".to_owned(), why: "held by 1".to_owned() };
        let channel = || vmbus_channels::Error::from(busy());
        let device = vmbus_devices::Error::from(channel());
        for error in [channel().into(), device.into(), vmbus_devices::Error::from(busy()).into()] {
            let failure = Failure::of(&error).unwrap();
            assert_eq!((failure.exit, failure.message.as_str()), (Exit::Busy, "device d is busy: held by 1"));
        }
    }

    #[test]
    fn channels_have_kinds_of_their_own() {
        let in_use = || vmbus_channels::Error::InUse { device: "d".to_owned() };
        for error in [in_use().into(), vmbus_devices::Error::from(in_use()).into()] {
            assert_eq!(Failure::of(&error).unwrap().exit, Exit::Busy);
        }
    }

    #[test]
    fn usage_is_one_line() {
        let failure = Failure::usage("error: unexpected argument '--x' found\n\nUsage: vmbusctl [OPTIONS]\n");
        assert_eq!(failure.message, "unexpected argument '--x' found");
    }
}
