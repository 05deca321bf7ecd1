//! What one seed is to be about: versions, features, how the host is, what goes wrong.

use std::time::Duration;

use uuid::Uuid;
use vmbus::message::{Features, Version};
use vmbus_channels::control::{Contact, FEATURES, Limits};
use vmbus_simhost::device::Echo;
use vmbus_simhost::fault::{Effect, Kind, Rule, Target};
use vmbus_simhost::{Config, DeviceSpec, Latency, Refusals, ViolationKind};

use super::applications::{PROCESSORS, SERVICE};
use super::random::Random;

/// Guest physical addresses of the pages that the connection itself has.
pub(crate) const MONITORS: [u64; 2] = [0x1000, 0x2000];
const INTERRUPTS: u64 = 0x3000;

/// What a message may go through on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Faults {
    /// Nothing: whatever the host complains about, the guest did.
    None,
    /// Messages are lost. What the guest hears is true, so that memory which the host reaches is never given up.
    Loss,
    /// Anything.
    Any,
}

/// The draw.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) rules: Vec<Rule>,
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    /// Once in so many times something on this side fails: an announcement, an allocation, a handle.
    pub(crate) shell: usize,
}

impl Plan {
    /// Seeds are without faults and with them in turns.
    pub(crate) fn draw(seed: u64, random: &mut Random) -> Self {
        let faults = match (seed.is_multiple_of(2), random.once_in(3)) {
            (true, _) => Faults::None,
            (false, true) => Faults::Loss,
            (false, false) => Faults::Any,
        };
        Self {
            faults,
            rules: rules(faults, random),
            config: config(seed, random),
            limits: limits(random),
            shell: if random.once_in(2) { 10_000 } else { 10 + random.below(40) },
        }
    }
}

fn limits(random: &mut Random) -> Limits {
    let newest = if random.once_in(2) { Version::V6_0 } else { version(random) };
    let features = subset(FEATURES, random);
    let monitors = if random.once_in(2) { MONITORS } else { [0, 0] };
    let echoes_only = newest >= Version::V5_2 && random.once_in(8);
    Limits {
        newest,
        features,
        allowed: echoes_only.then(|| vec![Echo::CLASS]),
        channels: 4 + random.below(8),
        gpadls_per_channel: 4,
        closers_per_channel: 3,
        connects: 2,
        processors: PROCESSORS,
        contact: Contact {
            target_vp: 0,
            sint: 2,
            vtl: 0,
            interrupt_page: if random.once_in(2) { INTERRUPTS } else { 0 },
            parent_to_child_monitor: monitors[0],
            child_to_parent_monitor: monitors[1],
            client: features.contains(Features::CLIENT_ID).then(|| Uuid::from_u128(99)),
        },
        ..Limits::default()
    }
}

fn config(seed: u64, random: &mut Random) -> Config {
    let mut config = Config::seeded(seed);
    if random.once_in(2) {
        let newest = version(random);
        config.versions.retain(|version| *version <= newest);
    }
    config.features = subset(config.features, random);
    config.processors = PROCESSORS;
    let mut latency = || {
        let choices = [0, 0, 0, 3, 800, 15_000];
        Duration::from_millis(random.pick(&choices).copied().unwrap_or(0))
    };
    config.latency = Latency { open: latency(), gpadl: latency(), teardown: latency(), modify: latency() };
    let mut often = || if random.once_in(2) { 0 } else { u16::try_from(random.below(200)).unwrap_or(0) };
    config.refusals = Refusals { open_permille: often(), gpadl_permille: often() };
    config.limits.relids = 14;
    config.services = vec![SERVICE];
    config.careless = true;
    // Offers that come to nothing on this side are given back without a rescind. They are counted.
    config.tolerated = vec![ViolationKind::ReleasedUnasked];
    for number in 0..1 + random.below(3) as u64 {
        config.devices.push(DeviceSpec::echo(number));
    }
    config
}

fn rules(faults: Faults, random: &mut Random) -> Vec<Rule> {
    if faults == Faults::None {
        return Vec::new();
    }
    if faults == Faults::Any && random.once_in(6) {
        return Rule::chaos(10 + u16::try_from(random.below(60)).unwrap_or(0));
    }
    (0..1 + random.below(4)).map(|_| rule(faults, random)).collect()
}

fn rule(faults: Faults, random: &mut Random) -> Rule {
    let kind = Kind(1 + u32::try_from(random.below(29)).unwrap_or(0));
    let target = match random.below(4) {
        0 => Target::AnyHost,
        1 => Target::AnyGuest,
        2 => Target::Host(kind),
        _ => Target::Guest(kind),
    };
    // What is about one type of message happens often.
    let often = if matches!(target, Target::AnyHost | Target::AnyGuest) { 60 } else { 700 };
    let permille = u16::try_from(5 + random.below(often)).unwrap_or(0);
    let delay = Effect::Delay(Duration::from_millis(1 + random.below(12_000) as u64));
    let reorder = Effect::Reorder(1 + u8::try_from(random.below(4)).unwrap_or(0));
    let any = [Effect::Drop, delay, Effect::Duplicate, reorder, Effect::Truncate, Effect::Corrupt, Effect::Mutate];
    let effect = match faults {
        Faults::Any => random.pick(&any).copied().unwrap_or(Effect::Drop),
        _ => Effect::Drop,
    };
    match random.below(6) {
        0 => Rule::silent(kind),
        1 => Rule::deaf(kind),
        2 => Rule::once(target, effect),
        _ => Rule::sometimes(target, effect, permille),
    }
}

fn version(random: &mut Random) -> Version {
    random.pick(&Version::ALL).copied().unwrap_or(Version::V6_0)
}

/// All of them, or each with a chance.
fn subset(all: Features, random: &mut Random) -> Features {
    if random.once_in(2) {
        return all;
    }
    all.iter().filter(|_| random.once_in(2)).fold(Features::empty(), |some, feature| some | feature)
}
