//! What the control plane wants done. The shell does it in order; nothing of it waits.

use vmbus::link::Share;
use vmbus::message::{Features, GpadlId, GuestMessage, Version};

use super::input::Ticket;
use crate::{Announcement, ChannelId};

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Post a message.
    Post(GuestMessage),
    /// Allocate pages and post the GPADL messages for them. If that fails, say `ShareFailed`, before anything else.
    Share {
        /// For which channel.
        relid: u32,
        /// Under which number.
        gpadl: GpadlId,
        /// What for.
        what: Share,
    },
    /// Free the pages of a GPADL: neither the host nor anybody here reaches them.
    Unshare(GpadlId),
    /// The host has opened the channel: get the port, make the handle with the one reference to it, put the channel
    /// into the processor's relid map, and answer the ticket. If that fails, say `Unreferenced`.
    Opened {
        /// Who asked.
        ticket: Ticket,
        /// Which channel.
        channel: ChannelId,
        /// Its number.
        relid: u32,
        /// Its rings.
        ring: GpadlId,
        /// Which processor's map.
        processor: u32,
    },
    /// Take the channel out of the processor's relid map; the dispatcher answers `Retired`.
    Retire {
        /// Which channel.
        channel: ChannelId,
        /// Its number.
        relid: u32,
        /// Which processor's map.
        processor: u32,
    },
    /// Put a channel that moves from its old processor's map into the new one.
    Move {
        /// Which channel.
        channel: ChannelId,
        /// Its number.
        relid: u32,
        /// From which map.
        from: u32,
        /// To which.
        to: u32,
    },
    /// The host interrupts this processor no more for a channel that moved away (or that is retired): its map may forget
    /// where the channel went. No answer.
    Forget {
        /// Which channel.
        channel: ChannelId,
        /// Its number.
        relid: u32,
        /// Whose map.
        processor: u32,
    },
    /// Mark an open channel as rescinded and wake all its users.
    Revoke(ChannelId),
    /// Answer a command.
    Answer(Ticket, Answer),
    /// Tell everybody who subscribed.
    Announce(Announcement),
    /// The connection's version is agreed on.
    Connected(Agreed),
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// The version of the protocol.
    pub version: Version,
    /// Its features: none before 6.0.
    pub features: Features,
    /// Where messages to the host go from now on: chosen by the host from 5.0 on, 1 before.
    pub message_connection: u32,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Answer {
    /// Done.
    Done,
    /// A buffer is shared under this number.
    Shared(GpadlId),
    /// The channel that the host offered on request.
    Channel(ChannelId),
    /// It did not work.
    Failed(super::Refusal),
}
