//! Programs that the lab has the agent run: each with its output in files, so that nothing blocks on a pipe.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open};

use crate::wire::{Finished, Started, TEXT_LIMIT};

/// All background programs of this agent, finished ones included.
#[derive(Debug, Default)]
pub(crate) struct Jobs {
    next: u64,
    jobs: BTreeMap<u64, Job>,
}

#[derive(Debug)]
struct Job {
    child: Child,
    status: Option<ExitStatus>,
    started: Started,
}

impl Jobs {
    /// Starts a program in a process group of its own, without standard input.
    pub(crate) fn spawn(&mut self, argv: &[String], env: &[(String, String)]) -> Result<Started> {
        let Some((program, arguments)) = argv.split_first() else { bail!("no program named") };
        self.next += 1;
        let job = self.next;
        let (stdout_path, stderr_path) = (format!("/tmp/job-{job}.out"), format!("/tmp/job-{job}.err"));
        let child = Command::new(program)
            .args(arguments)
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&stdout_path).with_context(|| stdout_path.clone())?)
            .stderr(File::create(&stderr_path).with_context(|| stderr_path.clone())?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        let pid = Pid::from_child(&child).as_raw_nonzero().get();
        let started = Started { job, pid, stdout_path, stderr_path };
        self.jobs.insert(job, Job { child, status: None, started: started.clone() });
        Ok(started)
    }

    /// Runs a program to its end; when the time is up the whole process group is killed.
    pub(crate) fn run(&mut self, argv: &[String], env: &[(String, String)], timeout: Duration) -> Result<Finished> {
        let started = self.spawn(argv, env)?;
        let mut finished = self.wait(started.job, timeout)?;
        if finished.timed_out {
            if let Some(group) = Pid::from_raw(started.pid) {
                kill_process_group(group, Signal::KILL).with_context(|| format!("kill {argv:?}"))?;
            }
            finished = Finished { timed_out: true, ..self.wait(started.job, Duration::from_secs(5))? };
        }
        self.jobs.remove(&started.job);
        for path in [&started.stdout_path, &started.stderr_path] {
            fs::remove_file(path).with_context(|| path.clone())?;
        }
        Ok(finished)
    }

    /// Waits for a program; can be asked again after it has ended.
    pub(crate) fn wait(&mut self, job: u64, timeout: Duration) -> Result<Finished> {
        let job = self.job(job)?;
        if job.status.is_none() && ended(&job.child, timeout)? {
            job.status = Some(job.child.wait()?);
        }
        Ok(Finished {
            code: job.status.and_then(|status| status.code()),
            signal: job.status.and_then(|status| status.signal()),
            timed_out: job.status.is_none(),
            stdout: tail(&job.started.stdout_path, TEXT_LIMIT)?,
            stderr: tail(&job.started.stderr_path, TEXT_LIMIT / 4)?,
        })
    }

    /// Sends a signal to a program, not to its children. A program that has been waited for is left alone.
    pub(crate) fn kill(&mut self, job: u64, signal: i32) -> Result<()> {
        let job = self.job(job)?;
        if job.status.is_some() {
            return Ok(());
        }
        let signal = Signal::from_named_raw(signal).with_context(|| format!("no signal has number {signal}"))?;
        Ok(kill_process(Pid::from_child(&job.child), signal)?)
    }

    fn job(&mut self, job: u64) -> Result<&mut Job> {
        self.jobs.get_mut(&job).with_context(|| format!("no background program has number {job}"))
    }
}

/// True once the child has ended; false if it still runs when the time is up.
fn ended(child: &Child, timeout: Duration) -> Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(timeout)?;
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&timeout))? > 0)
}

fn tail(path: &str, limit: usize) -> Result<String> {
    let mut file = File::open(path).with_context(|| path.to_owned())?;
    let skip = file.metadata()?.len().saturating_sub(limit as u64);
    file.seek(SeekFrom::Start(skip))?;
    let mut bytes = Vec::new();
    file.take(limit as u64).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
