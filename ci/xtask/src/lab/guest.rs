//! A booted guest as scenarios see it: programs run in it, its files, its kernel's log, and its QEMU's monitor.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::image::L2_MODULES;
use super::line::Gone;
use super::machine::Acceleration;
use super::post_mortem::{Sign, post_mortem};
use super::qmp::Qmp;
use super::wire::{Call, Chunk, Finished, Hello, KernelLog, Started};
use crate::process::Guarded;

/// How long the outer layer may take to say how the inner one ended.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// A booted guest; dropping it ends it.
#[derive(Debug)]
pub(crate) struct Guest {
    /// The QEMU on this machine: L1's, or the guest's own.
    pub(crate) qemu: Guarded,
    /// Monitor of the QEMU that the guest under test runs in.
    pub(crate) qmp: Qmp,
    /// How it runs.
    pub(crate) acceleration: Acceleration,
    /// Who the agent said it is.
    pub(crate) hello: Hello,
    agent: Agent,
    jobs: Vec<u64>,
    /// Folder of this boot's logs.
    pub(crate) logs: PathBuf,
    /// Folder of the sockets, removed with the guest.
    pub(crate) sockets: tempfile::TempDir,
}

impl Guest {
    /// Waits for the agent's greeting on a fresh line, then sets up the monitor.
    ///
    /// # Errors
    /// There is no greeting within `timeout`, or the guest ended before.
    pub(crate) fn greet(parts: Parts, timeout: Duration) -> Result<Self> {
        let Parts { mut qemu, qmp, mut agent, acceleration, logs, sockets } = parts;
        let hello = match agent.greet(timeout) {
            Ok(hello) => hello,
            Err(error) => {
                if error.is::<Gone>() {
                    qemu.wait(LAST_WORDS)?;
                }
                return Err(error);
            }
        };
        let mut guest = Self { qemu, qmp, acceleration, hello, agent, jobs: Vec::new(), logs, sockets };
        guest.qmp.negotiate().context("set up QMP")?;
        Ok(guest)
    }

    /// Runs a program to its end; the guest kills it after `timeout`, which [`Finished::timed_out`] tells.
    ///
    /// # Errors
    /// It cannot be started, or the guest is gone.
    pub(crate) fn run(&mut self, argv: &[&str], timeout: Duration) -> Result<Finished> {
        let call = Call::Run { argv: owned(argv), env: Vec::new(), timeout_ms: millis(timeout) };
        self.agent.call(call, timeout).with_context(|| format!("run {argv:?}"))
    }

    /// Runs a line of shell and returns its output without the last newline.
    ///
    /// # Errors
    /// It fails, or the guest is gone.
    pub(crate) fn shell(&mut self, line: &str) -> Result<String> {
        let finished = self.run(&["sh", "-c", line], Duration::from_secs(20))?;
        if finished.code != Some(0) {
            bail!("`{line}` in the guest: {}", describe(&finished));
        }
        Ok(finished.stdout.trim_end().to_owned())
    }

    /// Loads the modules that make the bus, in their order, where they are not there yet. (By default `hv_balloon` is
    /// silent for 45 s.) They can't be unloaded: `hv_balloon` does not know how, and with `hv_vmbus` the kernel falls.
    ///
    /// # Errors
    /// One can't be loaded, or the guest is gone.
    pub(crate) fn load_modules(&mut self) -> Result<()> {
        let load = |module: &str| {
            let options = if module == "hv_balloon" { "pressure_report_delay=0" } else { "" };
            format!("grep -q '^{module} ' /proc/modules || insmod /lib/{module}.ko {options}")
        };
        self.shell(&L2_MODULES.map(load).join(" && ")).map(|_| ())
    }

    /// Starts a program in the background.
    ///
    /// # Errors
    /// It cannot be started, or the guest is gone.
    pub(crate) fn spawn(&mut self, argv: &[&str]) -> Result<Job> {
        let call = Call::Spawn { argv: owned(argv), env: Vec::new() };
        let started: Started = self.agent.call(call, Duration::ZERO).with_context(|| format!("start {argv:?}"))?;
        self.jobs.push(started.job);
        Ok(Job { started, name: argv.join(" "), read: 0, pending: String::new() })
    }

    /// Ends what background programs are left.
    ///
    /// # Errors
    /// One does not end, or the guest is gone.
    pub(crate) fn end_jobs(&mut self) -> Result<()> {
        for job in std::mem::take(&mut self.jobs) {
            self.agent.call::<()>(Call::Kill { job, signal: 9 }, Duration::ZERO)?;
            let patience = Duration::from_secs(10);
            let finished: Finished = self.agent.call(Call::Wait { job, timeout_ms: millis(patience) }, patience)?;
            if finished.timed_out {
                bail!("a background program in the guest does not end");
            }
        }
        Ok(())
    }

    /// Lets go of the monitor, so that others can talk to it; the guest goes on as long as the parts live.
    pub(crate) fn into_kept(self) -> (Guarded, Agent, tempfile::TempDir, PathBuf) {
        (self.qemu, self.agent, self.sockets, self.logs)
    }

    /// Reads a file from `offset` on, at most one reply's worth.
    ///
    /// # Errors
    /// [`Refused`](super::agent::Refused), or the guest is gone.
    pub(crate) fn read_at(&mut self, path: &str, offset: u64) -> Result<Chunk> {
        self.agent.call(Call::Read { path: path.to_owned(), offset }, Duration::ZERO)
    }

    /// Writes an existing file, such as one in sysfs, with one `write`.
    ///
    /// # Errors
    /// [`Refused`](super::agent::Refused) with the kernel's error number, or the guest is gone.
    pub(crate) fn write(&mut self, path: &str, text: &str) -> Result<()> {
        self.agent.call(Call::Write { path: path.to_owned(), text: text.to_owned(), create: false }, Duration::ZERO)
    }

    /// The kernel's log from record `since` on, and the number of the record after it.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn kernel_log(&mut self, since: u64) -> Result<(Vec<String>, u64)> {
        let (mut lines, mut next) = (Vec::new(), since);
        loop {
            let part: KernelLog = self.agent.call(Call::KernelLog { since: next }, Duration::ZERO)?;
            lines.extend(part.lines);
            next = part.next;
            if !part.more {
                return Ok((lines, next));
            }
        }
    }

    /// Number of the kernel log record that comes next.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn kernel_log_mark(&mut self) -> Result<u64> {
        let hello: Hello = self.agent.call(Call::Hello, Duration::ZERO)?;
        Ok(hello.kernel_log_next)
    }

    /// Sends text through the agent and back.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn echo(&mut self, text: &str) -> Result<String> {
        let chunk: Chunk = self.agent.call(Call::Echo { text: text.to_owned() }, Duration::ZERO)?;
        Ok(chunk.text)
    }

    /// What the logs say about a guest that has ended or does not answer.
    ///
    /// # Errors
    /// This process was interrupted.
    pub(crate) fn post_mortem(&mut self) -> Result<Option<Sign>> {
        self.qemu.wait(LAST_WORDS)?;
        Ok(post_mortem(&self.logs, self.acceleration))
    }

    /// How many requests had to be sent again because a line lost bytes.
    pub(crate) fn resent(&self) -> u64 {
        self.agent.resent()
    }

    /// Powers the guest off and waits until its QEMU has ended; false if it had to be killed.
    ///
    /// # Errors
    /// This process was interrupted.
    pub(crate) fn power_off(&mut self) -> Result<bool> {
        let ended = self.agent.power_off().is_ok() && self.qemu.wait(Duration::from_secs(30))?.is_some();
        self.qemu.kill();
        Ok(ended)
    }
}

/// What a guest is made of before its agent has greeted.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The QEMU on this machine.
    pub(crate) qemu: Guarded,
    /// Monitor of the guest's QEMU, not set up yet.
    pub(crate) qmp: Qmp,
    /// The agent, which has not greeted yet.
    pub(crate) agent: Agent,
    /// How it runs.
    pub(crate) acceleration: Acceleration,
    /// Folder of the logs.
    pub(crate) logs: PathBuf,
    /// Folder of the sockets.
    pub(crate) sockets: tempfile::TempDir,
}

/// A program in the background of the guest. It is not ended by dropping this.
#[derive(Debug)]
pub(crate) struct Job {
    started: Started,
    name: String,
    read: u64,
    pending: String,
}

impl Job {
    /// The next whole line of its standard output; `None` if there is none in time.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn line(&mut self, guest: &mut Guest, timeout: Duration) -> Result<Option<String>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some((line, rest)) = self.pending.split_once('\n') {
                let line = line.to_owned();
                self.pending = rest.to_owned();
                return Ok(Some(line));
            }
            let chunk = guest.read_at(&self.started.stdout_path, self.read)?;
            self.read = chunk.next;
            self.pending.push_str(&chunk.text);
            if chunk.text.is_empty() {
                if Instant::now() >= deadline {
                    return Ok(None);
                }
                crate::process::check_interrupt()?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn kill(&self, guest: &mut Guest, signal: i32) -> Result<()> {
        guest.agent.call(Call::Kill { job: self.started.job, signal }, Duration::ZERO)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It still runs after `timeout`, or the guest is gone.
    pub(crate) fn wait(&self, guest: &mut Guest, timeout: Duration) -> Result<Finished> {
        let finished = self.poll(guest, timeout)?;
        if finished.timed_out {
            bail!("`{}` still runs after {} s: {}", self.name, timeout.as_secs(), describe(&finished));
        }
        Ok(finished)
    }

    /// How it stands after at most `timeout`.
    ///
    /// # Errors
    /// The guest is gone.
    pub(crate) fn poll(&self, guest: &mut Guest, timeout: Duration) -> Result<Finished> {
        guest.agent.call(Call::Wait { job: self.started.job, timeout_ms: millis(timeout) }, timeout)
    }
}

/// How a program ended and what it said, for a message.
pub(crate) fn describe(finished: &Finished) -> String {
    let end = match (finished.code, finished.signal, finished.timed_out) {
        (_, _, true) => "timed out".to_owned(),
        (Some(code), _, _) => format!("exit {code}"),
        (None, signal, _) => format!("signal {}", signal.unwrap_or(0)),
    };
    let said: Vec<&str> =
        [finished.stderr.trim(), finished.stdout.trim()].into_iter().filter(|t| !t.is_empty()).collect();
    let said = said.join(" | ");
    if said.is_empty() { end } else { format!("{end}: {}", tail(&said, 800)) }
}

/// At most the last `limit` bytes of a text, cut between characters.
pub(crate) fn tail(text: &str, limit: usize) -> &str {
    let start = text.len().saturating_sub(limit);
    let start = (start..text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(start..).unwrap_or(text)
}

fn owned(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|argument| (*argument).to_owned()).collect()
}

fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)
}
