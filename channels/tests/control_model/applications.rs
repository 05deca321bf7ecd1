//! What the model's applications and dispatchers do: drawn from the channels that the ghost sees, and from names of the past.

use uuid::Uuid;
use vmbus::message::GpadlId;
use vmbus_channels::ChannelId;
use vmbus_channels::control::{Command, Input, OpenSettings};

use super::ghost::{Ghost, Memory};
use super::random::Random;

/// Processors there are.
pub(crate) const PROCESSORS: u32 = 4;
/// A service of the host that hvsock connections can be made to.
pub(crate) const SERVICE: Uuid = Uuid::from_u128(7);

/// What they know.
#[derive(Debug, Default)]
pub(crate) struct Applications {
    /// Every name that ever was, for stale commands.
    pub(crate) names: Vec<ChannelId>,
    /// Channels that a dispatcher is still to answer for.
    pub(crate) retiring: Vec<ChannelId>,
}

impl Applications {
    /// A channel that there is, or was.
    fn name(&self, ghost: &Ghost, random: &mut Random) -> Option<ChannelId> {
        if !random.once_in(6) {
            let here: Vec<_> = ghost.channels.keys().copied().collect();
            return random.pick(&here).copied();
        }
        let recent = self.names.len().saturating_sub(8);
        let recent = self.names.get(recent..).unwrap_or_default();
        random.pick(recent).copied()
    }

    fn processor(random: &mut Random) -> u32 {
        u32::try_from(random.below(PROCESSORS as usize)).unwrap_or(0)
    }

    /// Somebody opens a channel, or closes one.
    pub(crate) fn open_or_close(&self, ghost: &Ghost, random: &mut Random) -> Option<Command> {
        let id = self.name(ghost, random)?;
        let settings = OpenSettings {
            outgoing_bytes: 8192,
            incoming_bytes: if random.once_in(2) { 8192 } else { 16_384 },
            processor: Self::processor(random),
            user_defined: [0; 120],
        };
        Some(match random.below(12) {
            0 => Command::OpenReserved(id, settings, 5),
            1..8 => Command::Open(id, settings),
            _ => Command::Close(id),
        })
    }

    /// Somebody shares memory, or takes it back; moves a channel; connects to a service.
    pub(crate) fn use_one(&self, ghost: &Ghost, random: &mut Random) -> Option<Command> {
        let mut id = self.name(ghost, random)?;
        if !random.once_in(4) {
            let open = ghost.channels.values().filter(|seen| seen.mapped);
            let open: Vec<_> = open.map(|seen| seen.offer.id).collect();
            id = random.pick(&open).copied().unwrap_or(id);
        }
        let held = |memory: &Memory| memory.user && !memory.is_ring;
        let mine = ghost.memory.iter().filter(|(_, memory)| held(memory));
        let mine: Vec<_> = mine.map(|(gpadl, memory)| (*gpadl, memory.channel)).collect();
        Some(match random.below(10) {
            // Some of them need more than one message.
            0..4 => Command::CreateGpadl(id, if random.once_in(6) { 30 * 4096 } else { 4096 }),
            4..6 => match random.pick(&mine).copied() {
                Some((gpadl, channel)) => Command::TearDownGpadl(channel, gpadl),
                None => Command::TearDownGpadl(id, GpadlId(1)),
            },
            6..8 => Command::Move(id, Self::processor(random)),
            _ => {
                let endpoint = Uuid::from_u128(100 + random.below(3) as u128);
                let service = if random.once_in(4) { Uuid::from_u128(8) } else { SERVICE };
                Command::TlConnect { endpoint, service, silo: None }
            }
        })
    }

    /// Somebody gives back the last reference; most often because of a close, or of a rescind.
    pub(crate) fn drop_one(ghost: &Ghost, random: &mut Random) -> Option<Input> {
        let eager = random.once_in(4);
        let seen = ghost.channels.values();
        let ready = seen.filter(|seen| seen.referenced && (eager || seen.revoked || seen.retiring || !seen.mapped));
        let ready: Vec<_> = ready.map(|seen| seen.offer.id).collect();
        random.pick(&ready).copied().map(Input::Unreferenced)
    }

    /// A dispatcher that is still to answer does.
    pub(crate) fn retire(&mut self, random: &mut Random) -> Option<ChannelId> {
        let place = random.below(self.retiring.len());
        (place < self.retiring.len()).then(|| self.retiring.swap_remove(place))
    }

    /// A second answer about a channel, once in so many times, if it is released.
    pub(crate) fn again(id: ChannelId, once_in: usize, ghost: &Ghost, random: &mut Random) -> Option<Input> {
        if !random.once_in(once_in) || ghost.channels.contains_key(&id) {
            return None;
        }
        Some(if random.once_in(2) { Input::Retired(id) } else { Input::Unreferenced(id) })
    }
}
