//! A booted guest as scenarios see it: programs run in it, its files, its kernel's log, and the line to its host.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::agent::Agent;
use super::control::{Control, Violations};
use super::host::HostLine;
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
    /// The process on this machine that is L1's machine, or the guest's own.
    pub(crate) machine: Guarded,
    /// The line to the VMBus host that the guest under test has.
    pub(crate) host: HostLine,
    /// How it runs.
    pub(crate) acceleration: Acceleration,
    /// Who the agent said it is.
    pub(crate) hello: Hello,
    /// What the guest had done wrong when its host was last asked, where that says so.
    pub(crate) violations: Violations,
    agent: Agent,
    bus_modules: &'static [&'static str],
    jobs: Vec<u64>,
    /// Folder of this boot's logs.
    pub(crate) logs: PathBuf,
    /// Folder of the sockets, removed with the guest.
    pub(crate) sockets: tempfile::TempDir,
}

impl Guest {
    /// Waits for the agent's greeting on a fresh line, then greets the host.
    ///
    /// # Errors
    /// There is no greeting within `timeout`, or the guest ended before.
    pub(crate) fn greet(parts: Parts, timeout: Duration) -> Result<Self> {
        let Parts { mut machine, host, mut agent, acceleration, bus_modules, logs, sockets } = parts;
        let hello = match agent.greet(timeout) {
            Ok(hello) => hello,
            Err(error) => {
                if error.is::<Gone>() {
                    machine.wait(LAST_WORDS)?;
                }
                return Err(error);
            }
        };
        let (jobs, violations) = (Vec::new(), Violations::default());
        let mut guest =
            Self { machine, host, acceleration, hello, violations, agent, bus_modules, jobs, logs, sockets };
        guest.host.greet()?;
        Ok(guest)
    }

    /// QEMU's monitor.
    ///
    /// # Errors
    /// The host is another.
    pub(crate) fn qmp(&mut self) -> Result<&mut Qmp> {
        self.host.qmp()
    }

    /// The VMM's control socket.
    ///
    /// # Errors
    /// The host is another.
    pub(crate) fn control(&mut self) -> Result<&mut Control> {
        self.host.control()
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

    /// Loads the modules that make the bus, in their order, where they are not there yet. Those of the bus itself can't
    /// be unloaded: `hv_balloon` does not know how, and with `hv_vmbus` the kernel falls when QEMU is the host.
    ///
    /// # Errors
    /// One can't be loaded, or the guest is gone.
    pub(crate) fn load_modules(&mut self) -> Result<()> {
        let load: Vec<String> = self.bus_modules.iter().map(|module| format!("load {module}")).collect();
        self.shell(&load.join(" && ")).map(drop)
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

    /// Lets go of the line to the host, so that others can talk to it; the guest goes on as long as the parts live.
    pub(crate) fn into_kept(self) -> (Guarded, Agent, tempfile::TempDir, PathBuf) {
        (self.machine, self.agent, self.sockets, self.logs)
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
        self.machine.wait(LAST_WORDS)?;
        Ok(post_mortem(&self.logs, self.acceleration))
    }

    /// How many requests had to be sent again because a line lost bytes.
    pub(crate) fn resent(&self) -> u64 {
        self.agent.resent()
    }

    /// Has the guest's kernel do something that resets the machine, such as `reboot -f`, and waits until the guest is up
    /// again. The machine must be one that starts its guest anew.
    ///
    /// # Errors
    /// It does not come back.
    pub(crate) fn reset(&mut self, how: &str, timeout: Duration) -> Result<()> {
        let before = self.boot_id()?;
        // The agent answers before its kernel goes.
        self.spawn(&["sh", "-c", &format!("usleep 200000; {how}")])?;
        self.jobs.clear();
        let hello = self.agent.greet(timeout).with_context(|| format!("after `{how}`"))?;
        if self.boot_id()? == before {
            bail!("`{how}` did not reset the guest");
        }
        self.hello = hello;
        Ok(())
    }

    /// What the kernel made up when it started.
    fn boot_id(&mut self) -> Result<String> {
        Ok(self.read_at("/proc/sys/kernel/random/boot_id", 0)?.text)
    }

    /// Powers the guest off and waits until its machine has ended; false if it had to be killed.
    ///
    /// # Errors
    /// This process was interrupted.
    pub(crate) fn power_off(&mut self) -> Result<bool> {
        let ended = self.agent.power_off().is_ok() && self.machine.wait(Duration::from_secs(30))?.is_some();
        self.machine.kill();
        Ok(ended)
    }
}

/// What a guest is made of before its agent has greeted.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The process on this machine.
    pub(crate) machine: Guarded,
    /// The line to the host, which has not been greeted yet.
    pub(crate) host: HostLine,
    /// The agent, which has not greeted yet.
    pub(crate) agent: Agent,
    /// How it runs.
    pub(crate) acceleration: Acceleration,
    /// Modules that make the bus, each with its options.
    pub(crate) bus_modules: &'static [&'static str],
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
