//! What can happen to the control plane: everything comes through one queue, in order.

use uuid::Uuid;
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
    /// The last reference to an open channel was dropped (see `Action::Opened`): handles, senders, buffers and the
    /// dispatcher's entry all share it.
    Unreferenced(ChannelId),
    /// A dispatcher answered `Action::Retire`: it will not touch the channel again. Said once for each `Retire`,
    /// also when the dispatcher never had the channel.
    Retired(ChannelId),
    /// The shell could not do what `Action::Share` asked for; there is nothing to unshare.
    ShareFailed(GpadlId),
    /// The shell could not make visible what `Action::Announce(Arrived)` told of; nobody has heard of the channel. It is
    /// given back to the host.
    AnnounceFailed(ChannelId),
    /// Nothing but time passed.
    Elapsed,
}

/// What applications ask for. Each gets exactly one [`Answer`](super::Answer); an `Open` that works gets its answer
/// from the shell, after `Action::Opened`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// Move the channel's interrupts to another processor (from 4.1 on).
    Move(ChannelId, u32),
    /// Say goodbye to the host, keep what `Resume` needs: every channel departs.
    Suspend,
    /// Contact the host again. Devices come back under their instance ids.
    Resume,
    /// Say goodbye to the host. Nothing but references given back is awaited after it.
    Unload,
    /// Open a channel whose interrupts go to a source of its own; closed with `Close` like any other.
    OpenReserved(ChannelId, OpenSettings, u32),
    /// Connect to a hvsock service of the host. Answered with the channel, or with what the host says.
    TlConnect {
        /// Chosen by the guest; the instance of the channel that the host offers then.
        endpoint: Uuid,
        /// Whom to connect to; the class of that channel.
        service: Uuid,
        /// Container, if any (from 5.2 on).
        silo: Option<Uuid>,
    },
    /// Use other monitor pages (6.0, if agreed on).
    ModifyConnection {
        /// Guest physical address.
        parent_to_child_monitor: u64,
        /// Guest physical address.
        child_to_parent_monitor: u64,
    },
    /// Let the host send no more messages (6.0, if agreed on). Nothing times out meanwhile.
    PauseMessages,
    /// Let it send them again. Answered at once: the host does not.
    ResumeMessages,
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
