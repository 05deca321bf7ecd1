//! Exit codes: what they mean, and which error ends with which.

use std::process::ExitCode;

use vmbus::ErrorKind;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Ok,
    Failed,
    Usage,
    NoDevice,
    Permission,
    Busy,
    Rescinded,
}

/// Shown below `--help` and in the manual pages.
pub(crate) const TABLE: &str = "\
Exit codes:
  0  ok
  1  failed
  2  usage
  3  no VMBus, or no such device
  4  permission denied
  5  busy: another process uses the device
  6  rescinded: the host took the device back";

/// Shown below the long help of every subcommand.
pub(crate) const POINTER: &str = "Exit codes: see `vmbusctl --help`.";

impl Exit {
    /// The kind's name in JSON.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NoDevice => "no_device",
            Self::Permission => "permission",
            Self::Busy => "busy",
            Self::Rescinded => "rescinded",
        }
    }

    /// The exit code. The library has the numbers, since other programs of ours end with them too.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => ErrorKind::Failed.exit_code(),
            Self::Usage => ErrorKind::Usage.exit_code(),
            Self::NoDevice => ErrorKind::NoDevice.exit_code(),
            Self::Permission => ErrorKind::Permission.exit_code(),
            Self::Busy => ErrorKind::Busy.exit_code(),
            Self::Rescinded => ErrorKind::Rescinded.exit_code(),
        }
    }
}

impl From<ErrorKind> for Exit {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Usage => Self::Usage,
            ErrorKind::NoDevice => Self::NoDevice,
            ErrorKind::Permission => Self::Permission,
            ErrorKind::Busy => Self::Busy,
            ErrorKind::Rescinded => Self::Rescinded,
            _ => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_agree_with_the_library_and_the_table() {
        let kinds = [
            ErrorKind::Failed,
            ErrorKind::Usage,
            ErrorKind::NoDevice,
            ErrorKind::Permission,
            ErrorKind::Busy,
            ErrorKind::Rescinded,
        ];
        for kind in kinds {
            assert_eq!(Exit::from(kind).code(), kind.exit_code(), "{kind:?}");
            assert!(TABLE.contains(&format!("\n  {}  ", kind.exit_code())));
        }
    }
}
