//! Freezing with a watchdog. What is about to be frozen is on the list before it is; the list belongs to whoever takes
//! it first, the thread that froze or the watchdog; no lock is held while a file system freezes or thaws.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::mounts;
use crate::ic::hook::Hook;

/// What freezes and thaws.
pub trait FileSystems: Send + Sync + 'static {
    /// What there is to be frozen, in this order.
    ///
    /// # Errors
    /// Why it is not known.
    fn list(&self) -> Result<Vec<PathBuf>, String>;

    /// Freezes one; may take long.
    ///
    /// # Errors
    /// Why it doesn't.
    fn freeze(&self, point: &Path) -> Result<(), String>;

    /// Thaws one; an error if it is not frozen.
    ///
    /// # Errors
    /// Why it doesn't.
    fn thaw(&self, point: &Path) -> Result<(), String>;

    /// What thaws these should this process die.
    ///
    /// # Errors
    /// There is no such thing: nothing is frozen then.
    fn guard(&self, points: &[PathBuf]) -> Result<Guard, String>;
}

/// A process that thaws when this one has died. Dropping it ends it.
#[derive(Debug, Default)]
pub struct Guard(Option<Child>);

impl Guard {
    /// None is needed.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// Runs `program` with each of `points` when this process has gone.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(program: &[&str], points: &[PathBuf]) -> Result<Self, String> {
        // `cat` ends when the pipe's other end goes with this process, however it ends.
        const SCRIPT: &str = "cat >/dev/null; points=$1; shift; \
            n=0; while [ $n -lt $points ]; do p=$1; shift; set -- \"$@\" \"$p\"; n=$((n+1)); done; \
            program=; while [ $# -gt $points ]; do program=\"$program $1\"; shift; done; \
            for p; do $program \"$p\"; done";
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "vss-guard", &points.len().to_string()]);
        command.args(points).args(program).stdin(Stdio::piped()).stdout(Stdio::null());
        let child = command.spawn().map_err(|error| format!("can't start the guard process: {error}"))?;
        Ok(Self(Some(child)))
    }

    /// Closes the pipe, and waits for what comes of it.
    #[cfg(test)]
    pub(super) fn die_instead_of_this_process(mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            child.wait().unwrap();
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Not by closing its pipe: it would thaw what somebody else has frozen meanwhile.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The file systems of this system, by the commands of util-linux.
#[derive(Debug, Clone)]
pub struct FsFreeze {
    root: PathBuf,
}

impl Default for FsFreeze {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl FsFreeze {
    fn run(option: &str, point: &Path) -> Result<(), String> {
        let hook = Hook::new("fsfreeze").arg(option).arg(point).within(Duration::from_secs(600));
        hook.run(&[]).map_err(|error| format!("{}: {error}", point.display()))
    }
}

impl FileSystems for FsFreeze {
    fn list(&self) -> Result<Vec<PathBuf>, String> {
        mounts::freezable(&self.root).map_err(|error| format!("can't read the list of mounts: {error}"))
    }

    fn freeze(&self, point: &Path) -> Result<(), String> {
        Self::run("--freeze", point)
    }

    fn thaw(&self, point: &Path) -> Result<(), String> {
        Self::run("--unfreeze", point)
    }

    fn guard(&self, points: &[PathBuf]) -> Result<Guard, String> {
        Guard::start(&["fsfreeze", "--unfreeze"], points)
    }
}

/// What came of a thaw.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Thaw {
    /// File systems that thawed.
    pub thawed: usize,
    /// Those that did not, and why.
    pub failed: Vec<String>,
}

/// Why nothing is frozen; what had been is thawed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotFrozen {
    /// The list, the guard or the watchdog is missing.
    #[error("nothing was frozen: {0}")]
    NotReady(String),
    /// One would not freeze.
    #[error("not frozen: {0}; the others are thawed again")]
    Refused(String),
    /// It took too long.
    #[error("freezing took longer than {} s; all is thawed again", .0.as_secs())]
    Slow(Duration),
}

/// Freezes, and sees to it that there is a thaw.
#[derive(Debug)]
pub struct Freezer<F: FileSystems> {
    shared: Arc<Shared<F>>,
    watchdog: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<F> {
    file_systems: F,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Frozen, or about to be.
    frozen: Vec<PathBuf>,
    guard: Guard,
    /// The watchdog's time; `None` when there is nothing to watch.
    deadline: Option<Instant>,
    /// The watchdog thawed, and what came of it.
    expired: Option<Thaw>,
}

impl<F: FileSystems> Freezer<F> {
    pub(super) fn new(file_systems: F) -> Self {
        let shared = Shared { file_systems, state: Mutex::default(), changed: Condvar::new() };
        Self { shared: Arc::new(shared), watchdog: None }
    }

    /// Freezes all, for `limit` at most; how many.
    pub(super) fn freeze(&mut self, limit: Duration) -> Result<usize, NotFrozen> {
        self.shared
            .ready(limit)
            .map_err(NotFrozen::NotReady)
            .and_then(|points| {
                let watched = Arc::clone(&self.shared);
                let started = Builder::new().name("vss-watchdog".to_owned()).spawn(move || watched.watch());
                self.watchdog = Some(started.map_err(|error| NotFrozen::NotReady(error.to_string()))?);
                self.shared.freeze(&points, limit)
            })
            .inspect_err(|_| drop(self.thaw()))
    }

    /// Thaws all; and whether the watchdog had to.
    pub(super) fn thaw(&mut self) -> (Thaw, bool) {
        let thaw = self.shared.thaw();
        if let Some(watchdog) = self.watchdog.take() {
            // It ends: there is nothing to watch any more. If it is thawing, this waits for that.
            let _ = watchdog.join();
        }
        let expired = self.shared.state().expired.take();
        let has_expired = expired.is_some();
        (expired.unwrap_or(thaw), has_expired)
    }
}

impl<F: FileSystems> Drop for Freezer<F> {
    fn drop(&mut self) {
        let _ = self.thaw();
    }
}

impl<F: FileSystems> Shared<F> {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that is needed before the first is frozen, after which a process might not start any more.
    fn ready(&self, limit: Duration) -> Result<Vec<PathBuf>, String> {
        let points = self.file_systems.list()?;
        let guard = self.file_systems.guard(&points)?;
        *self.state() = State { guard, deadline: Some(Instant::now() + limit), ..State::default() };
        Ok(points)
    }

    fn freeze(&self, points: &[PathBuf], limit: Duration) -> Result<usize, NotFrozen> {
        for point in points {
            self.state().frozen.push(point.clone());
            self.file_systems.freeze(point).map_err(NotFrozen::Refused)?;
            let mut state = self.state();
            if state.expired.is_some() {
                // The watchdog was here while this one froze: maybe too early for it.
                if !state.frozen.contains(point) {
                    state.frozen.push(point.clone());
                }
                return Err(NotFrozen::Slow(limit));
            }
        }
        Ok(points.len())
    }

    /// Thaws what is on the list, the last first.
    fn thaw(&self) -> Thaw {
        let (frozen, guard) = {
            let mut state = self.state();
            state.deadline = None;
            (std::mem::take(&mut state.frozen), std::mem::take(&mut state.guard))
        };
        self.changed.notify_all();
        let mut thaw = Thaw::default();
        for point in frozen.iter().rev() {
            match self.file_systems.thaw(point) {
                Ok(()) => thaw.thawed += 1,
                Err(why) => thaw.failed.push(why),
            }
        }
        // Not earlier: until now there is something to guard.
        drop(guard);
        thaw
    }

    fn watch(&self) {
        let mut state = self.state();
        while let Some(deadline) = state.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                // Said before it is done, so that whoever is freezing stops.
                state.expired = Some(Thaw::default());
                drop(state);
                let thaw = self.thaw();
                log::warn!(target: "vmbus::ic", "vss: the watchdog thawed {} file systems", thaw.thawed);
                self.state().expired = Some(thaw);
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
