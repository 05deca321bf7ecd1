//! What can happen to the control plane: everything comes through one queue, in order.

use vmbus::message::{GpadlId, HostMessage, MessageError, UserDefined};

use crate::ChannelId;

/// Names a command that waits for its answer. Chosen by the shell; unique while the answer is outstanding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The host spoke.
    Message(HostMessage),
    /// The host said something that is no message.
    Malformed(MessageError),
    /// The connection is gone, for good.
    Lost,
    /// Somebody here wants something.
    Command(Ticket, Command),
    /// The last reference to an open channel was dropped (see `Action::Opened`).
    Unreferenced(ChannelId),
    /// A dispatcher answered `Action::Retire`: it will not touch the channel again.
    Retired(ChannelId),
    /// The shell could not do what `Action::Share` or `Action::Announce` asked for.
    ShareFailed(GpadlId),
    /// Nothing but time passed.
    Elapsed,
}

/// What applications ask for. Each gets exactly one [`Answer`](super::Answer).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Negotiate a version and request the offers; answered when all are delivered.
    Connect,
    /// Open a channel.
    Open(ChannelId, OpenSettings),
    /// Close an open channel; answered when the host has let go of its memory (or the channel is released).
    Close(ChannelId),
    /// Share a buffer of this many bytes with the host over an open channel.
    CreateGpadl(ChannelId, u32),
    /// Take such a buffer back.
    TearDownGpadl(ChannelId, GpadlId),
    /// Move the channel's interrupts to another processor.
    Move(ChannelId, u32),
    /// Say goodbye to the host, keep the table for `Resume`: every channel departs.
    Suspend,
    /// Contact the host again. Devices come back under their instance ids.
    Resume,
    /// Say goodbye to the host. Nothing but references given back is awaited after it.
    Unload,
}

/// How a channel is to be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSettings {
    /// From guest to host: control page and data, whole pages.
    pub outgoing_bytes: u32,
    /// From host to guest: control page and data, whole pages.
    pub incoming_bytes: u32,
    /// Where interrupts go.
    pub processor: u32,
    /// Of the device's class.
    pub user_defined: UserDefined,
}
