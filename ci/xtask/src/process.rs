//! Child processes that do not outlive this one, whichever way it ends: return, panic, signal or kill.
//! Each child is ended by its guard; the kernel ends what is left (parent death signal) if there was no time.

use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, set_parent_process_death_signal};

/// A signal asked this process to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interrupted {
    signal: usize,
}

impl std::fmt::Display for Interrupted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "interrupted by signal {}", self.signal)
    }
}

impl std::error::Error for Interrupted {}

/// A mistake on the command line that clap cannot see; exits 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints an error and chooses the exit code: 2 for usage, 128 + signal for an interruption, else 1.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let _ = writeln!(std::io::stderr().lock(), "error: {error:#}");
    if error.is::<Usage>() {
        return ExitCode::from(2);
    }
    let interrupted = error.downcast_ref::<Interrupted>();
    interrupted
        .map_or(ExitCode::FAILURE, |interrupted| ExitCode::from(u8::try_from(128 + interrupted.signal).unwrap_or(255)))
}

static STOP: OnceLock<Arc<AtomicUsize>> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP make [`check_interrupt`] fail; a second one ends the process at once.
///
/// # Errors
/// The handlers cannot be installed.
pub(crate) fn catch_signals() -> Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        let code = usize::try_from(signal).unwrap_or(1);
        let again = Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))
            .context("install signal handlers")?;
        signal_hook::flag::register(signal, again).context("install signal handlers")?;
        signal_hook::flag::register_usize(signal, Arc::clone(stop), code).context("install signal handlers")?;
    }
    Ok(())
}

/// Fails once a signal has asked this process to stop; every loop that waits calls it.
///
/// # Errors
/// [`Interrupted`].
pub(crate) fn check_interrupt() -> Result<()> {
    match STOP.get().map_or(0, |stop| stop.load(Ordering::SeqCst)) {
        0 => Ok(()),
        signal => bail!(Interrupted { signal }),
    }
}

/// The hidden subcommand: another program's command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Held {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    argv: Vec<std::ffi::OsString>,
}

/// Replaces this process by the program, which the kernel kills when the thread that started it ends.
///
/// # Errors
/// The program cannot be executed; on success this does not return.
pub(crate) fn become_held(held: &Held) -> Result<ExitCode> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("ask for the parent death signal")?;
    let Some((program, arguments)) = held.argv.split_first() else { bail!("no program named") };
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("execute {}", program.display()))
}

/// A child in a process group of its own; dropping it kills the group.
#[derive(Debug)]
pub(crate) struct Guarded {
    child: Child,
    name: String,
    ended: Option<ExitStatus>,
}

impl Guarded {
    /// Starts `command` (arguments, environment, folder and pipes are taken from it), without standard input.
    ///
    /// # Errors
    /// The process cannot be created. That the program is missing shows only in its exit code and output.
    pub(crate) fn spawn(command: &Command) -> Result<Self> {
        Self::spawn_with(command, Stdio::piped(), Stdio::piped())
    }

    /// As [`Guarded::spawn`], with the given standard output and error.
    ///
    /// # Errors
    /// The process cannot be created.
    pub(crate) fn spawn_with(command: &Command, stdout: Stdio, stderr: Stdio) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut held = Command::new("/proc/self/exe");
        held.arg("held").arg("--").arg(command.get_program()).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => held.env(variable, value),
                None => held.env_remove(variable),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            held.current_dir(folder);
        }
        let child = held.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0).spawn();
        Ok(Self { child: child.with_context(|| format!("start {name}"))?, name, ended: None })
    }

    /// How the child ended, if it has.
    ///
    /// # Errors
    /// The child's state cannot be read.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().with_context(|| format!("state of {}", self.name))?;
        }
        Ok(self.ended)
    }

    /// Waits for the end at most `timeout`; `None` if it still runs then.
    ///
    /// # Errors
    /// [`Interrupted`], or the child's state cannot be read.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + timeout;
        let pidfd = match self.ended()? {
            Some(status) => return Ok(Some(status)),
            None => pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())?,
        };
        loop {
            check_interrupt()?;
            let slice = deadline.saturating_duration_since(Instant::now()).min(Duration::from_millis(200));
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&Timespec::try_from(slice)?)) {
                Ok(0) if slice.is_zero() => return Ok(None),
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return self.ended(),
                Err(error) => return Err(error).with_context(|| format!("wait for {}", self.name)),
            }
        }
    }

    /// Standard output and error, each once, if they are pipes.
    pub(crate) fn take_pipes(&mut self) -> (Option<std::process::ChildStdout>, Option<std::process::ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// What a child that has ended wrote to standard error, if that is a pipe.
    pub(crate) fn words(&mut self) -> String {
        let (_, stderr) = self.take_pipes();
        String::from_utf8_lossy(&drain(stderr)).into_owned()
    }

    /// Kills the child and everything in its process group, and reaps it.
    pub(crate) fn kill(&mut self) {
        if !matches!(self.ended(), Ok(None)) {
            return;
        }
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        self.ended = self.child.wait().ok();
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a program to its end and returns its standard output.
///
/// # Errors
/// It cannot be started, was interrupted, or failed; then the message ends with what it wrote to standard error.
pub(crate) fn output(command: &Command) -> Result<Vec<u8>> {
    let mut child = Guarded::spawn(command)?;
    let (stdout, stderr) = child.take_pipes();
    let stdout = std::thread::spawn(move || drain(stdout));
    let stderr = std::thread::spawn(move || drain(stderr));
    let status = child.wait(Duration::from_secs(3600))?;
    child.kill();
    let (Ok(stdout), Ok(stderr)) = (stdout.join(), stderr.join()) else { bail!("{}: lost its output", child.name) };
    match status {
        Some(status) if status.success() => Ok(stdout),
        status => bail!("{} {}: {}", child.name, ending(status), String::from_utf8_lossy(&stderr).trim()),
    }
}

fn drain(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

/// How a process ended, in words.
pub(crate) fn ending(status: Option<ExitStatus>) -> String {
    match status {
        None => "took too long".to_owned(),
        Some(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
    }
}
