//! Shutdown: the host asks this guest to power off, to restart or to hibernate, and gets its answer before it happens.
//!
//! Source of the format: `shutdown_msg_data` in `include/linux/hyperv.h` of Linux 6.12, and `hv_util.c` for the flags.

use std::time::Duration;

use vmbus::class::Class;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::component::{Component, Ending, Profile, Tell};
use super::event::Event;
use super::hook::Hook;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version, wire};
use super::{FRAMEWORKS, VERSION_1_0, VERSION_3_0};

wire!(/// The order; up to 2 KiB of UTF-8 text to be shown may follow, which nobody reads.
Request, 12 {
    /// A Windows reason code.
    reason: U32,
    /// How long the host waits for it to be done; 0 is not said.
    timeout_seconds: U32,
    /// Bit 0 by force, bit 1 restart, bit 2 hibernate.
    flags: U32,
});

/// What the host wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Off.
    PowerOff,
    /// Off and on.
    Restart,
    /// Off, with everything kept.
    Hibernate,
}

impl Kind {
    /// In one word, which is also what `systemctl` calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PowerOff => "poweroff",
            Self::Restart => "reboot",
            Self::Hibernate => "hibernate",
        }
    }
}

/// One order of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// What.
    pub kind: Kind,
    /// Whether programs may be ended that object.
    pub force: bool,
    /// A Windows reason code.
    pub reason: u32,
    /// How long the host waits, if it says so.
    pub timeout: Option<Duration>,
}

/// What happens to orders.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// One came and was accepted; it is carried out after this time.
    Accepted {
        /// The order.
        order: Order,
        /// The grace.
        grace: Duration,
    },
    /// Its time has come in a dry run: nothing is done.
    DryRun(Order),
    /// It is being carried out.
    Done(Order),
    /// It could not be.
    Failed {
        /// The order.
        order: Order,
        /// Why.
        why: String,
    },
    /// The service was stopped before its time had come: nothing is done.
    Abandoned(Order),
}

/// How orders are carried out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// From the answer to the deed.
    pub grace: Duration,
    /// Hibernation is refused unless the system can do it.
    pub hibernates: bool,
    /// Orders are accepted and told, and that is all.
    pub dry_run: bool,
    /// Runs first, with the name of the order as its last argument. If it fails nothing more is done.
    pub before: Option<Hook>,
}

/// What brings the system down.
pub trait Power: Send {
    /// Begins it, and does not wait for it.
    ///
    /// # Errors
    /// Why it can't.
    fn carry_out(&mut self, order: Order) -> Result<(), String>;
}

/// Power by `systemctl`, or whatever command is given the name of the order as its last argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(pub Hook);

impl Default for Command {
    fn default() -> Self {
        Self(Hook::new("systemctl").arg("--no-block"))
    }
}

impl Power for Command {
    fn carry_out(&mut self, order: Order) -> Result<(), String> {
        self.0.run(&[order.kind.name()]).map_err(|error| error.to_string())
    }
}

/// The shutdown component of this guest.
#[derive(Debug)]
pub struct Shutdown<P> {
    settings: Settings,
    power: P,
    /// Accepted, and not answered yet.
    accepted: Option<Order>,
    /// Answered, and due then.
    pending: Option<(Duration, Order)>,
}

impl<P: Power> Shutdown<P> {
    /// One that carries orders out by `power`.
    #[must_use]
    pub const fn new(settings: Settings, power: P) -> Self {
        Self { settings, power, accepted: None, pending: None }
    }

    fn carry_out(&mut self, order: Order, tell: Tell<'_>) {
        if self.settings.dry_run {
            return tell(Event::Shutdown(Notice::DryRun(order)));
        }
        let before = self.settings.before.as_ref().map_or(Ok(()), |hook| hook.run(&[order.kind.name()]));
        let done = before.map_err(|error| error.to_string()).and_then(|()| self.power.carry_out(order));
        tell(Event::Shutdown(match done {
            Ok(()) => Notice::Done(order),
            Err(why) => Notice::Failed { order, why },
        }));
    }

    /// The order in a request, if it is one that can be carried out.
    fn understand(&self, body: &[u8]) -> Result<Order, Status> {
        let (request, _) = Request::read_from_prefix(body).map_err(|_| Status::INVALID_ARGUMENT)?;
        let flags = request.flags.get();
        let kind = match flags & !1 {
            0 => Kind::PowerOff,
            2 => Kind::Restart,
            4 if self.settings.hibernates => Kind::Hibernate,
            _ => return Err(Status::FAIL),
        };
        let seconds = request.timeout_seconds.get();
        let timeout = (seconds != 0).then(|| Duration::from_secs(seconds.into()));
        Ok(Order { kind, force: flags & 1 != 0, reason: request.reason.get(), timeout })
    }
}

impl Shutdown<Command> {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "shutdown",
        class: Class::SHUTDOWN,
        kind: MessageType::SHUTDOWN,
        known: Known {
            frameworks: FRAMEWORKS,
            messages: &[Version::new(3, 2), Version::new(3, 1), VERSION_3_0, VERSION_1_0],
        },
    };
}

impl<P: Power> Component for Shutdown<P> {
    fn profile(&self) -> Profile {
        Shutdown::PROFILE
    }

    fn request(&mut self, _: Duration, _: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        match self.understand(body) {
            Ok(order) => {
                self.accepted = Some(order);
                tell(Event::Shutdown(Notice::Accepted { order, grace: self.settings.grace }));
                Status::OK
            }
            Err(status) => status,
        }
    }

    fn answered(&mut self, now: Duration, tell: Tell<'_>) {
        let Some(order) = self.accepted.take() else { return };
        // A later order takes an earlier one's place; the same again does not put it off.
        let due = match self.pending {
            Some((due, before)) if before.kind == order.kind => due,
            _ => now.saturating_add(self.settings.grace),
        };
        self.pending = Some((due, order));
        self.elapsed(now, tell);
    }

    fn deadline(&self) -> Option<Duration> {
        self.pending.map(|(due, _)| due)
    }

    fn elapsed(&mut self, now: Duration, tell: Tell<'_>) {
        if let Some((_, order)) = self.pending.take_if(|(due, _)| *due <= now) {
            self.carry_out(order, tell);
        }
    }

    /// An order that was answered stands, also if the device goes; not if this side stops.
    fn ended(&mut self, ending: Ending, tell: Tell<'_>) {
        match (self.pending.take(), ending) {
            (Some((_, order)), Ending::Stopped) => tell(Event::Shutdown(Notice::Abandoned(order))),
            (Some((_, order)), Ending::Lost) => self.carry_out(order, tell),
            (None, _) => {}
        }
    }
}

#[cfg(test)]
mod tests;
