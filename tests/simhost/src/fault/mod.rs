//! The fault layer: rules that delay, drop, double, shuffle, cut, corrupt or falsify what crosses between guest and
//! host. One seed decides all of it.

mod mutate;
mod ring;
mod rule;

pub use mutate::mutate;
pub use ring::{RingFault, corrupt_ring};
pub use rule::{Effect, Kind, Rule, Target};

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use vmbus::message::{HostMessage, MAX_MESSAGE_BYTES, Message, Protocol};

use crate::Random;

/// What a shuffled message waits for at most, if nothing overtakes it.
const SHUFFLED_AT_MOST: Duration = Duration::from_millis(20);
/// Messages that may be delayed at a time; beyond it they pass undelayed.
const DELAYED_AT_MOST: usize = 16_384;

/// What the rules make of one thing: nothing, itself, or more.
pub(crate) struct Faults<T> {
    rules: Vec<Rule>,
    random: Random,
    /// By when they are due.
    delayed: BTreeMap<(Duration, u64), T>,
    /// To be overtaken by so many others.
    shuffled: VecDeque<(u8, Duration, T)>,
    number: u64,
    applied: u64,
}

/// What faults need to know of a thing.
pub(crate) trait Faulty: Clone {
    /// Whether a rule is about it.
    fn is(&self, target: Target) -> bool;
    /// The bytes of it, if it is a message.
    fn message(&mut self) -> Option<(&mut Message, Protocol)>;
}

impl<T: Faulty> Faults<T> {
    pub(crate) fn new(random: Random) -> Self {
        Self { rules: Vec::new(), random, delayed: BTreeMap::new(), shuffled: VecDeque::new(), number: 0, applied: 0 }
    }

    pub(crate) fn set(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
    }

    pub(crate) const fn rules_mut(&mut self) -> &mut Vec<Rule> {
        &mut self.rules
    }

    /// Faults so far.
    pub(crate) const fn applied(&self) -> u64 {
        self.applied
    }

    /// Things kept back.
    pub(crate) fn kept(&self) -> usize {
        self.delayed.len() + self.shuffled.len()
    }

    /// Forgets what is kept back.
    pub(crate) fn forget(&mut self) {
        self.delayed.clear();
        self.shuffled.clear();
    }

    /// When something kept back is due.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let delayed = self.delayed.keys().next().map(|(due, _)| *due);
        let shuffled = self.shuffled.iter().map(|(_, due, _)| *due).min();
        [delayed, shuffled].into_iter().flatten().min()
    }

    /// Everything kept back that is due.
    pub(crate) fn due(&mut self, now: Duration) -> Vec<T> {
        let mut due = Vec::new();
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                break;
            }
            due.push(entry.remove());
        }
        let (late, rest) = std::mem::take(&mut self.shuffled).into_iter().partition(|(_, at, _)| *at <= now);
        self.shuffled = rest;
        let late: VecDeque<(u8, Duration, T)> = late;
        due.extend(late.into_iter().map(|(_, _, thing)| thing));
        due
    }

    /// Whether things pass as they are, one at a time: no rule, and nothing that waits to be overtaken.
    pub(crate) fn are_none(&self) -> bool {
        self.rules.is_empty() && self.shuffled.is_empty()
    }

    /// What comes of a thing now, in order. `note` hears what was done.
    pub(crate) fn apply(&mut self, now: Duration, thing: T, note: &mut dyn FnMut(String)) -> Vec<T> {
        let mut thing = thing;
        let mut copies = 1_usize;
        let mut kept: Option<Effect> = None;
        for index in 0..self.rules.len() {
            let Some(effect) = self.fires(index, &thing) else { continue };
            match effect {
                Effect::Inline => break,
                Effect::Drop => {
                    note(format!("dropped: {}", name(&mut thing)));
                    return self.overtaken(Vec::new());
                }
                Effect::Duplicate => copies = copies.saturating_add(1).min(8),
                Effect::Delay(_) | Effect::Reorder(_) => kept = Some(effect),
                Effect::Truncate | Effect::Corrupt | Effect::Mutate => self.spoil(effect, &mut thing),
            }
            note(format!("{effect:?}: {}", name(&mut thing)));
        }
        let all = vec![thing; copies];
        match kept {
            Some(Effect::Delay(most)) if self.delayed.len() < DELAYED_AT_MOST => {
                for thing in all {
                    let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
                    let due = now + Duration::from_nanos(self.random.below(nanos.saturating_add(1)));
                    self.number += 1;
                    self.delayed.insert((due, self.number), thing);
                }
                self.overtaken(Vec::new())
            }
            Some(Effect::Reorder(by)) if self.shuffled.len() < DELAYED_AT_MOST => {
                self.shuffled.extend(all.into_iter().map(|thing| (by, now + SHUFFLED_AT_MOST, thing)));
                Vec::new()
            }
            _ => self.overtaken(all),
        }
    }

    /// The effect of a rule, if it is about the thing and chance wills it.
    fn fires(&mut self, index: usize, thing: &T) -> Option<Effect> {
        let rule = self.rules.get_mut(index)?;
        if rule.left == Some(0) || !thing.is(rule.target) || !self.random.chance(u32::from(rule.permille), 1000) {
            return None;
        }
        rule.left = rule.left.map(|left| left.saturating_sub(1));
        self.applied += 1;
        Some(rule.effect)
    }

    /// Things that pass, and behind them those that were waiting to be overtaken.
    fn overtaken(&mut self, passing: Vec<T>) -> Vec<T> {
        let mut out = passing;
        for _ in 0..self.shuffled.len().min(if out.is_empty() { 0 } else { usize::MAX }) {
            let Some((by, due, thing)) = self.shuffled.pop_front() else { break };
            match by.checked_sub(1) {
                None | Some(0) => out.push(thing),
                Some(left) => self.shuffled.push_back((left, due, thing)),
            }
        }
        out
    }

    fn spoil(&mut self, effect: Effect, thing: &mut T) {
        let random = &mut self.random;
        let Some((message, protocol)) = thing.message() else { return };
        let mut bytes = message.as_ref().to_vec();
        match effect {
            Effect::Truncate => bytes.truncate(random.index(bytes.len())),
            Effect::Mutate => {
                if let Ok(mut decoded) = HostMessage::parse(&bytes, protocol) {
                    mutate(&mut decoded, random);
                    if let Ok(encoded) = decoded.encode(protocol) {
                        *message = encoded;
                    }
                    return;
                }
                flip(&mut bytes, random);
            }
            _ => flip(&mut bytes, random),
        }
        if let Ok(spoiled) = Message::try_from(bytes.as_slice()) {
            *message = spoiled;
        }
    }
}

impl<T> std::fmt::Debug for Faults<T> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Faults").field("rules", &self.rules).field("applied", &self.applied).finish()
    }
}

/// One to eight bytes become something else; sometimes the message grows.
fn flip(bytes: &mut Vec<u8>, random: &mut Random) {
    if random.chance(1, 16) {
        let more = random.index(64);
        bytes.resize(bytes.len().saturating_add(more).min(MAX_MESSAGE_BYTES), 0xa5);
    }
    for _ in 0..=random.below(8) {
        let index = random.index(bytes.len());
        if let Some(byte) = bytes.get_mut(index) {
            let [flipped, ..] = random.next_u64().to_le_bytes();
            *byte ^= flipped;
        }
    }
}

fn name<T: Faulty>(thing: &mut T) -> String {
    thing.message().map_or_else(|| "an interrupt or signal".into(), |(message, _)| format!("{message:?}"))
}
