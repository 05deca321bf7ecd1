//! Heartbeat: the host asks every few seconds, and the guest counts on.
//!
//! Source of the format: `heartbeat_msg_data` in `include/linux/hyperv.h` of Linux 6.12; that the word behind the number
//! is the state of the guest's applications: `hyperv_ic_protocol` of OpenVMM.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use vmbus::class::Class;
use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

use super::component::{Component, Profile, Tell};
use super::event::Event;
use super::negotiate::Known;
use super::wire::{MessageType, Status, Version, wire};
use super::{FRAMEWORKS, VERSION_1_0, VERSION_3_0};
use zerocopy::{Immutable, IntoBytes, KnownLayout, Unaligned};

wire!(/// What every host sends; more may follow, which stays as it is.
Sequence, 8 {
    /// The guest answers with one more.
    number: U64,
});
wire!(/// What may follow the number.
State, 4 {
    /// [`ApplicationState`], the guest's to fill.
    applications: U32,
});

/// What the host is to think of the applications in this guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ApplicationState(pub u32);

impl ApplicationState {
    /// Nothing is known of them.
    pub const UNKNOWN: Self = Self(0);
    /// All is well.
    pub const HEALTHY: Self = Self(1);
    /// One of them is in trouble.
    pub const CRITICAL: Self = Self(2);
    /// They have ended.
    pub const STOPPED: Self = Self(3);
}

/// The state of the applications, to be changed from any thread while the heartbeat runs. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Applications(Arc<AtomicU32>);

impl Applications {
    /// From the next beat on.
    pub fn set(&self, state: ApplicationState) {
        self.0.store(state.0, Ordering::Relaxed);
    }

    /// What the next beat says.
    #[must_use]
    pub fn state(&self) -> ApplicationState {
        ApplicationState(self.0.load(Ordering::Relaxed))
    }
}

/// One beat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beat {
    /// The number that the host sent.
    pub number: u64,
    /// What it was told of the applications, if it left room for that.
    pub applications: Option<ApplicationState>,
}

/// The heartbeat of this guest.
#[derive(Debug, Clone, Default)]
pub struct Heartbeat {
    applications: Applications,
}

impl Heartbeat {
    /// What it is.
    pub const PROFILE: Profile = Profile {
        name: "heartbeat",
        class: Class::HEARTBEAT,
        kind: MessageType::HEARTBEAT,
        known: Known { frameworks: FRAMEWORKS, messages: &[VERSION_3_0, VERSION_1_0] },
    };

    /// One that tells what `applications` says at the time of each beat.
    #[must_use]
    pub fn new(applications: Applications) -> Self {
        Self { applications }
    }
}

impl Component for Heartbeat {
    fn profile(&self) -> Profile {
        Self::PROFILE
    }

    fn request(&mut self, _: Duration, version: Version, body: &mut [u8], tell: Tell<'_>) -> Status {
        let Ok((sequence, rest)) = Sequence::mut_from_prefix(body) else { return Status::INVALID_ARGUMENT };
        let number = sequence.number.get();
        sequence.number = number.wrapping_add(1).into();
        let state = State::mut_from_prefix(rest).ok().filter(|_| version >= VERSION_3_0);
        let applications = state.map(|(state, _)| {
            let now = self.applications.state();
            state.applications = now.0.into();
            now
        });
        tell(Event::Heartbeat(Beat { number, applications }));
        Status::OK
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn beat(version: Version, applications: &Applications, body: &mut [u8]) -> (Status, Vec<Event>) {
        let mut events = Vec::new();
        let mut tell = |event| events.push(event);
        let status = Heartbeat::new(applications.clone()).request(Duration::ZERO, version, body, &mut tell);
        (status, events)
    }

    /// Version, the number that comes, bytes that follow it: what goes.
    #[test]
    fn the_number_is_counted_on_and_the_state_told_where_there_is_room() {
        let applications = Applications::default();
        applications.set(ApplicationState::CRITICAL);
        for (version, number, extra, told) in [
            (VERSION_3_0, 0_u64, 32, true),
            (VERSION_3_0, 7, 4, true),
            (VERSION_3_0, 7, 3, false),
            (VERSION_3_0, u64::MAX, 0, false),
            (VERSION_1_0, 41, 32, false),
        ] {
            let mut body = [number.to_le_bytes().to_vec(), vec![0xee; extra]].concat();
            let (status, events) = beat(version, &applications, &mut body);
            let state = told.then_some(ApplicationState::CRITICAL);
            assert_eq!((status, events), (Status::OK, vec![Event::Heartbeat(Beat { number, applications: state })]));
            let rest = if told { [vec![2, 0, 0, 0], vec![0xee; extra - 4]].concat() } else { vec![0xee; extra] };
            assert_eq!(body, [number.wrapping_add(1).to_le_bytes().to_vec(), rest].concat());
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_answered(mut body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let (status, events) = beat(VERSION_3_0, &Applications::default(), &mut body);
            prop_assert_eq!(status.is_ok(), body.len() >= 8);
            prop_assert_eq!(events.len(), usize::from(body.len() >= 8));
        }
    }
}
