//! A dispatcher's thread: turns, busy polling, and sleep in epoll.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::dispatcher::{Dispatcher, Role};
use super::lines::Lines;
use super::mailbox::Mailbox;
use super::tally::Tally;
use super::{Flags, Settings};
use crate::Error;

/// What an event in epoll is about; smaller numbers are descriptors of devices.
const MAIL: u64 = u64::MAX;
const INTERRUPT: u64 = u64::MAX - 1;

/// Events taken from epoll at a time.
const AT_A_TIME: usize = 32;

/// What a thread needs beside its dispatcher.
pub(super) struct Loop<F> {
    dispatcher: Dispatcher<F>,
    /// Readable after an interrupt, where flags are used.
    interrupt: Option<OwnedFd>,
    busy_poll: Duration,
}

impl<F: Flags + Send + 'static> Loop<F> {
    /// Makes what a dispatcher sleeps on.
    ///
    /// # Errors
    /// A descriptor can't be had.
    pub(super) fn new(
        role: Role,
        flags: F,
        interrupt: Option<OwnedFd>,
        tally: Arc<Tally>,
        settings: &Settings,
    ) -> Result<Self, Error> {
        let failed = |error: Errno| vmbus::Error::io("create", "an epoll descriptor", error);
        let set = epoll::create(CreateFlags::CLOEXEC).map_err(failed)?;
        let add = |descriptor, data| epoll::add(&set, descriptor, EventData::new_u64(data), EventFlags::IN);
        if let Some(mail) = role.mail.get(role.number) {
            add(mail.event.as_fd(), MAIL).map_err(failed)?;
        }
        if let Some(interrupt) = &interrupt {
            add(interrupt.as_fd(), INTERRUPT).map_err(failed)?;
        }
        let dispatcher = Dispatcher::new(role, flags, Lines::with(set), tally);
        Ok(Self { dispatcher, interrupt, busy_poll: settings.busy_poll })
    }

    /// Starts the thread.
    ///
    /// # Errors
    /// It can't be had.
    pub(super) fn start(self, settings: &Settings) -> Result<JoinHandle<()>, Error> {
        let (number, pinned) = (self.dispatcher.role.number, settings.pinned);
        let run = move || {
            crate::here::serves_the_bus();
            if pinned {
                pin(number);
            }
            self.run();
        };
        let thread = std::thread::Builder::new().name(format!("vmbus-{number}")).spawn(run);
        thread.map_err(|error| vmbus::Error::io("start", "a dispatcher's thread", error).into())
    }

    fn run(mut self) {
        loop {
            let busy = self.dispatcher.turn() || self.poll_on();
            if self.dispatcher.is_stopping() {
                return;
            }
            // Devices have no flags to look at: asking costs a system call, between any two turns.
            if !busy {
                self.sleep();
            } else if !self.dispatcher.lines.is_empty() {
                self.wait(Some(Duration::ZERO));
            }
        }
    }

    /// Goes on looking for a while before it sleeps. Whether something came.
    fn poll_on(&mut self) -> bool {
        if self.busy_poll.is_zero() || self.dispatcher.is_stopping() {
            return false;
        }
        let start = Instant::now();
        let before = self.dispatcher.tally.seen();
        while start.elapsed() < self.busy_poll {
            if !self.dispatcher.lines.is_empty() {
                self.wait(Some(Duration::ZERO));
            }
            if self.dispatcher.turn() || self.dispatcher.tally.seen() != before || self.dispatcher.is_stopping() {
                return true;
            }
            std::hint::spin_loop();
        }
        false
    }

    fn sleep(&mut self) {
        let left = self.dispatcher.time_left(Instant::now);
        let Some(true) = self.dispatcher.mail().map(Mailbox::lie_down) else { return };
        self.dispatcher.tally.sleeps.add(1);
        let mailed = self.wait(left);
        if let Some(mail) = self.dispatcher.mail() {
            mail.get_up(mailed);
        }
    }

    /// Waits for descriptors and takes note of them. Whether mail's is among them.
    fn wait(&mut self, timeout: Option<Duration>) -> bool {
        let mut events = [MaybeUninit::uninit(); AT_A_TIME];
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let Some(set) = self.dispatcher.lines.epoll() else { return false };
        let events = match epoll::wait(set, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => return false,
            Err(error) => {
                log::error!(target: "vmbus::dispatch", "a dispatcher can't sleep: {error}");
                return false;
            }
        };
        let mut mailed = false;
        for event in events.iter() {
            match event.data.u64() {
                MAIL => mailed = true,
                // Before the flags are looked at, in the next turn: a flag that comes later makes it readable again.
                INTERRUPT => {
                    let mut count = [0_u8; 8];
                    let _ = self.interrupt.as_ref().map(|interrupt| rustix::io::read(interrupt, &mut count));
                }
                device => self.dispatcher.interrupted(device),
            }
        }
        mailed
    }
}

/// Binds the thread to the CPU of this number, where it may run there.
fn pin(cpu: usize) {
    let allowed = sched_getaffinity(None).is_ok_and(|mask| cpu < CpuSet::MAX_CPU && mask.is_set(cpu));
    if !allowed {
        log::info!(target: "vmbus::dispatch", "dispatcher {cpu} runs on any CPU: it may not run on CPU {cpu}");
        return;
    }
    let mut mask = CpuSet::new();
    mask.set(cpu);
    if let Err(error) = sched_setaffinity(None, &mask) {
        log::info!(target: "vmbus::dispatch", "dispatcher {cpu} runs on any CPU: {error}");
    }
}
