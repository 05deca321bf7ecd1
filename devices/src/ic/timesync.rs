//! Time synchronisation: the host tells its time, once as an order and then as samples; what that does to this guest's
//! clock is a choice, and a sample that can't be right does nothing.
//!
//! Source of the format: `ictimesync_data` and `ictimesync_ref_data` in `include/linux/hyperv.h` of Linux 6.12.

mod judge;

use std::time::{Duration, SystemTime};

use vmbus::class::Class;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::component::{Component, Profile, Tell};
use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version, wire};
use super::{FRAMEWORKS, VERSION_1_0, VERSION_3_0};

pub use judge::{Discipline, Judge, Rejected, Settings, Verdict};

const VERSION_4_0: Version = Version::new(4, 0);

wire!(/// Before version 4.0.
Plain, 25 {
    /// The host's time: units of 100 ns since 1601.
    host_time: U64,
    /// Not used.
    guest_time: U64,
    /// Not used.
    round_trip: U64,
    /// Bit 0 "set the clock", bit 1 a sample.
    flags: u8,
});
wire!(/// From 4.0 on.
Referenced, 22 {
    /// The host's time: units of 100 ns since 1601.
    host_time: U64,
    /// What the guest's reference counter said then: units of 100 ns.
    reference: U64,
    /// Bit 0 "set the clock", bit 1 a sample.
    flags: u8,
    /// As in NTP: 0, a second more (1) or less (2) today, or not synchronised (3).
    leap: u8,
    /// As in NTP; hosts send 0.
    stratum: u8,
    /// 0.
    reserved: [u8; 3],
});

/// What the host says of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Units of 100 ns since 1601, when it was sent.
    pub host_time: u64,
    /// The guest's reference counter then.
    pub reference: Option<u64>,
    /// The host wants the clock set: after a start, a resume, a restore.
    pub sync: bool,
    /// A sample to go by, or not.
    pub sample: bool,
    /// As in NTP.
    pub leap: u8,
}

/// What came of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What the host said.
    pub sample: Sample,
    /// How far the host is ahead of this guest, in nanoseconds, where that makes sense.
    pub offset_ns: Option<i64>,
    /// What was decided.
    pub verdict: Verdict,
    /// Why it could not be done, if it could not.
    pub failed: Option<String>,
}

/// The clock of this guest.
pub trait Clock: Send {
    /// What it says.
    fn now(&self) -> SystemTime;

    /// The partition's reference counter, in units of 100 ns, where it can be read.
    fn reference(&self) -> Option<u64> {
        None
    }

    /// Sets it ahead by so many nanoseconds, or back.
    ///
    /// # Errors
    /// Why it can't.
    fn step(&mut self, offset_ns: i64) -> Result<(), String>;

    /// Has it run faster or slower until it has made up for so many nanoseconds.
    ///
    /// # Errors
    /// Why it can't.
    fn slew(&mut self, offset_ns: i64) -> Result<(), String>;
}

/// The system's clock, which can be stepped. It can't be slewed from here; a clock that can be is the caller's to bring.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn step(&mut self, offset_ns: i64) -> Result<(), String> {
        use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
        let now = clock_gettime(ClockId::Realtime);
        let nanoseconds = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec) + i128::from(offset_ns);
        let seconds = i64::try_from(nanoseconds.div_euclid(1_000_000_000)).map_err(|error| error.to_string())?;
        let rest = i64::try_from(nanoseconds.rem_euclid(1_000_000_000)).map_err(|error| error.to_string())?;
        let set = clock_settime(ClockId::Realtime, Timespec { tv_sec: seconds, tv_nsec: rest });
        set.map_err(|error| format!("can't set the system's clock: {error}; it takes CAP_SYS_TIME"))
    }

    fn slew(&mut self, _: i64) -> Result<(), String> {
        Err("the system's clock can't be slewed from here; choose to step it, or to report only".to_owned())
    }
}

/// The time component of this guest.
#[derive(Debug)]
pub struct TimeSync<C> {
    judge: Judge,
    clock: C,
}

impl<C: Clock> TimeSync<C> {
    /// One that does to `clock` what `settings` say.
    #[must_use]
    pub const fn new(settings: Settings, clock: C) -> Self {
        Self { judge: Judge::new(settings), clock }
    }
}

impl TimeSync<SystemClock> {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "timesync",
        class: Class::TIME_SYNC,
        kind: MessageType::TIME_SYNC,
        known: Known { frameworks: FRAMEWORKS, messages: &[VERSION_4_0, VERSION_3_0, VERSION_1_0] },
    };
}

/// Reads a sample as a version has it.
fn parse(version: Version, body: &[u8]) -> Option<Sample> {
    let (host_time, reference, flags, leap) = if version >= VERSION_4_0 {
        let (data, _) = Referenced::read_from_prefix(body).ok()?;
        (data.host_time, Some(data.reference.get()), data.flags, data.leap)
    } else {
        let (data, _) = Plain::read_from_prefix(body).ok()?;
        (data.host_time, None, data.flags, 0)
    };
    Some(Sample { host_time: host_time.get(), reference, sync: flags & 1 != 0, sample: flags & 2 != 0, leap })
}

impl<C: Clock> Component for TimeSync<C> {
    fn profile(&self) -> Profile {
        TimeSync::PROFILE
    }

    fn agreed(&mut self, _: Version) {
        self.judge.forget();
    }

    fn request(&mut self, _: Duration, version: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        let Some(sample) = parse(version, body) else { return Status::INVALID_ARGUMENT };
        let (offset_ns, verdict) = self.judge.judge(sample, self.clock.now(), self.clock.reference());
        let done = match verdict {
            Verdict::Step(offset_ns) => self.clock.step(offset_ns),
            Verdict::Slew(offset_ns) => self.clock.slew(offset_ns),
            Verdict::Nothing | Verdict::Rejected(_) => Ok(()),
        };
        tell(Event::Time(Notice { sample, offset_ns, verdict, failed: done.err() }));
        // The host needn't know what a guest makes of its time.
        Status::OK
    }
}

#[cfg(test)]
mod tests;
