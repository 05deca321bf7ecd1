//! A command of the administrator's that a component runs: bounded in time, and never through a shell.

use std::ffi::OsString;
use std::io;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A program, its arguments, and how long it may take. What it writes goes to where this process' errors go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    program: OsString,
    arguments: Vec<OsString>,
    timeout: Duration,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HookError {
    /// It could not be started or watched.
    #[error("can't run {program}: {source}; see that it is there and may be run")]
    Start {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("{program} failed: {status}")]
    Failed {
        /// Which.
        program: String,
        /// How.
        status: ExitStatus,
    },
    /// It took too long and was killed.
    #[error("{program} did not end within {} s and was killed", timeout.as_secs())]
    Timeout {
        /// Which.
        program: String,
        /// How long it had.
        timeout: Duration,
    },
}

impl Hook {
    /// Without arguments; 20 seconds, which is less than a host waits.
    #[must_use]
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), arguments: Vec::new(), timeout: Duration::from_secs(20) }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With another limit.
    #[must_use]
    pub const fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Runs it with further arguments behind its own, and waits for its end.
    ///
    /// # Errors
    /// [`HookError`].
    pub fn run(&self, further: &[&str]) -> Result<(), HookError> {
        let program = || self.program.to_string_lossy().into_owned();
        let start = |source| HookError::Start { program: program(), source };
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(further).stdin(Stdio::null()).stdout(io::stderr());
        let mut child = command.spawn().map_err(start)?;
        match wait(&mut child, self.timeout) {
            Ok(Some(status)) if status.success() => Ok(()),
            Ok(Some(status)) => Err(HookError::Failed { program: program(), status }),
            unfinished => {
                // Gone meanwhile is as good.
                let _ = child.kill();
                child.wait().map_err(start)?;
                unfinished.map_err(start)?;
                Err(HookError::Timeout { program: program(), timeout: self.timeout })
            }
        }
    }
}

/// Waits for a child's end; `None` when the time is over.
fn wait(child: &mut Child, timeout: Duration) -> io::Result<Option<ExitStatus>> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_well_or_says_why_not() {
        Hook::new("sh").arg("-c").arg("test \"$0\" = now").run(&["now"]).unwrap();
        let failed = Hook::new("false").run(&[]).unwrap_err();
        assert!(matches!(failed, HookError::Failed { .. }), "{failed}");
        let absent = Hook::new("/nonexistent/hook").run(&[]).unwrap_err();
        assert!(matches!(absent, HookError::Start { .. }), "{absent}");
        let slow = Hook::new("sleep").arg("1000").within(Duration::from_millis(20)).run(&[]).unwrap_err();
        assert!(matches!(slow, HookError::Timeout { .. }), "{slow}");
    }
}
