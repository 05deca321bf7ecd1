//! Sleeping until something happens: on what a dispatcher raises, on the channel's own descriptor, or on the
//! interrupts of a processor that the channel has for itself.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::hold::{Hold, Way};
use crate::Error;
use crate::dispatch::{Direct, Half};

/// What an event of a sleeper's epoll is about.
const WOKEN: u64 = 1;
const EVENT: u64 = 2;

/// Why a sleep ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sleep {
    /// Something happened, and it was taken note of: look.
    Event,
    /// The waker was used, or the channel has ended.
    Woken,
    /// The time is over.
    TimedOut,
}

/// One who sleeps: a half of a channel, or its only owner.
#[derive(Debug)]
pub(super) struct Sleeper {
    half: Half,
    /// Where one is needed: what it watches.
    epoll: Option<OwnedFd>,
    /// Whether interrupts are watched. Not before the first sleep: it costs the host's interrupts time.
    watches: bool,
}

impl Sleeper {
    /// One who makes what it needs when it first sleeps.
    pub(super) fn new(half: Half) -> Self {
        Self { half, epoll: None, watches: false }
    }

    /// One whose descriptor can be asked for.
    pub(super) fn ready(half: Half, hold: &Hold) -> Result<Self, Error> {
        let mut sleeper = Self::new(half);
        if matches!(hold.way(), Way::Direct(_)) || (matches!(hold.way(), Way::Alone) && hold.bells().is_split()) {
            sleeper.epoll(hold)?;
        }
        Ok(sleeper)
    }

    pub(super) fn half(&self) -> Half {
        self.half
    }

    /// What becomes readable when there is something.
    pub(super) fn descriptor<'a>(&'a self, hold: &'a Hold) -> BorrowedFd<'a> {
        let line = if hold.is_told() { None } else { hold.line().descriptor() };
        let shared = self.epoll.as_ref().map(AsFd::as_fd).or(line);
        shared.unwrap_or_else(|| hold.bells().of(self.half).as_fd())
    }

    /// Takes note of what has happened so far.
    pub(super) fn acknowledge(&mut self, hold: &Hold) -> Result<(), Error> {
        match hold.way() {
            Way::Told => hold.bells().of(self.half).clear(),
            Way::Alone => {
                self.take_from_line(hold)?;
                if hold.bells().is_split() {
                    hold.bells().of(self.half).clear();
                }
            }
            Way::Direct(direct) => {
                self.sleep_direct(hold, direct, Some(Duration::ZERO))?;
            }
        }
        Ok(())
    }

    /// Sleeps until something happens, which is taken note of, the waker is used or the channel ends, or for so long.
    pub(super) fn sleep(&mut self, hold: &Hold, timeout: Option<Duration>) -> Result<Sleep, Error> {
        match hold.way() {
            Way::Told => self.sleep_told(hold, timeout),
            Way::Alone => self.sleep_alone(hold, timeout),
            // Its event may have been heard of before, and comes once.
            Way::Direct(_) if hold.waker(self.half).is_woken() => Ok(Sleep::Woken),
            Way::Direct(direct) => self.sleep_direct(hold, direct, timeout),
        }
    }

    fn sleep_told(&self, hold: &Hold, timeout: Option<Duration>) -> Result<Sleep, Error> {
        let bell = hold.bells().of(self.half);
        let mut on = [PollFd::new(bell, PollFlags::IN), PollFd::new(hold.waker(self.half), PollFlags::IN)];
        let Some(over) = polled(hold, &mut on, timeout)? else {
            let [bell_rang, waker] = on.map(|polled| !polled.revents().is_empty());
            if bell_rang {
                bell.clear();
                return Ok(Sleep::Event);
            }
            return Ok(if waker { Sleep::Woken } else { Sleep::TimedOut });
        };
        Ok(over)
    }

    fn sleep_alone(&self, hold: &Hold, timeout: Option<Duration>) -> Result<Sleep, Error> {
        let bell = hold.bells().of(self.half);
        let Some(line) = hold.line().descriptor() else { return self.sleep_told(hold, timeout) };
        let mut on = [
            PollFd::from_borrowed_fd(line, PollFlags::IN),
            PollFd::new(hold.waker(self.half), PollFlags::IN),
            PollFd::new(bell, PollFlags::IN),
        ];
        // Who is alone hears of its end by the waker, and of anything else by the line.
        let count = if hold.bells().is_split() { 3 } else { 2 };
        let polled = polled(hold, on.get_mut(..count).unwrap_or_default(), timeout)?;
        if let Some(over) = polled {
            return Ok(over);
        }
        let [line, waker, rang] = on.map(|polled| polled.revents());
        if line.intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL) {
            // Nothing undoes these bits of a device's node, and they come before any event count.
            hold.line().end();
            return Err(hold.gone());
        }
        if !rang.is_empty() {
            bell.clear();
        }
        if !line.is_empty() {
            self.take_from_line(hold)?;
        }
        Ok(match (line.is_empty() && rang.is_empty(), waker.is_empty()) {
            (false, _) => Sleep::Event,
            (true, false) => Sleep::Woken,
            (true, true) => Sleep::TimedOut,
        })
    }

    /// Reads the line's descriptor, and tells the other half what it does not find there any more.
    fn take_from_line(&self, hold: &Hold) -> Result<(), Error> {
        if hold.line().acknowledge().map_err(|error| hold.named(error))? {
            hold.bells().pass_on(self.half);
        }
        Ok(())
    }

    fn sleep_direct(&mut self, hold: &Hold, direct: &Direct, timeout: Option<Duration>) -> Result<Sleep, Error> {
        let first = !self.watches;
        if first {
            let flags = EventFlags::IN | EventFlags::ET;
            let (epoll, data) = (self.epoll(hold)?, EventData::new_u64(EVENT));
            epoll::add(epoll, direct.event(), data, flags).map_err(|error| failed(hold, error))?;
            self.watches = true;
        }
        // It counts what came before as an event, if there ever was an interrupt: that one is taken at once, and looked after.
        let timeout = if first { Some(Duration::ZERO) } else { timeout };
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let mut events = [MaybeUninit::uninit(); 2];
        let events = match epoll::wait(self.epoll(hold)?, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            // The caller looks at the clock and comes again.
            Err(Errno::INTR) => return Ok(Sleep::Event),
            Err(error) => return Err(failed(hold, error)),
        };
        let mut slept = Sleep::TimedOut;
        for event in events.iter() {
            match event.data.u64() {
                WOKEN if slept != Sleep::Event => slept = Sleep::Woken,
                WOKEN => {}
                _ => slept = Sleep::Event,
            }
        }
        match (first, slept) {
            (true, _) => direct.begin(),
            (false, Sleep::Event) => direct.take(),
            (false, _) => return Ok(slept),
        }
        Ok(Sleep::Event)
    }

    /// The epoll, made when it is first needed.
    fn epoll(&mut self, hold: &Hold) -> Result<BorrowedFd<'_>, Error> {
        let epoll = match self.epoll.take() {
            Some(epoll) => epoll,
            None => self.make(hold).map_err(|error| failed(hold, error))?,
        };
        let epoll: &OwnedFd = self.epoll.insert(epoll);
        Ok(epoll.as_fd())
    }

    fn make(&self, hold: &Hold) -> Result<OwnedFd, Errno> {
        let set = epoll::create(CreateFlags::CLOEXEC)?;
        let add = |on, data, flags| epoll::add(&set, on, EventData::new_u64(data), flags);
        match hold.line().descriptor() {
            // For loops of others alone; who sleeps here polls.
            Some(line) => {
                add(line, EVENT, EventFlags::IN)?;
                add(hold.bells().of(self.half).as_fd(), EVENT, EventFlags::IN)?;
            }
            None => add(hold.waker(self.half).as_fd(), WOKEN, EventFlags::IN | EventFlags::ET)?,
        }
        Ok(set)
    }
}

/// Waits for one of these. `None`: one of them is ready.
fn polled(hold: &Hold, on: &mut [PollFd<'_>], timeout: Option<Duration>) -> Result<Option<Sleep>, Error> {
    let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
    match poll(on, timeout.as_ref()) {
        Ok(0) => Ok(Some(Sleep::TimedOut)),
        // The caller looks at the clock and comes again.
        Err(Errno::INTR) => Ok(Some(Sleep::Event)),
        Ok(_) => Ok(None),
        Err(error) => Err(failed(hold, error)),
    }
}

fn failed(hold: &Hold, error: Errno) -> Error {
    vmbus::Error::io("wait for", hold.device(), error).into()
}
