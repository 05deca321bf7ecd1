//! The control plane without its thread: a pure step from what happened to what is to be done.
//!
//! The shell feeds [`Core::step`] everything in one order and carries out the [`Action`]s in theirs. What a channel is
//! at the host (`channel::State`) and who here still holds it are kept apart: the first follows the host's
//! messages, the second only what dispatchers and the last reference say. Memory goes when both are done.

mod action;
mod channel;
mod close;
mod connection;
mod counters;
mod expiry;
mod goodbye;
mod gpadl;
mod input;
mod invariants;
mod limits;
mod logging;
mod moves;
mod offers;
mod open;
mod refusal;
mod rescind;
mod sockets;
mod table;

#[cfg(test)]
pub(crate) mod tests;

pub use action::{Action, Agreed, Answer};
pub use counters::Counters;
pub use input::{Command, Input, OpenSettings, Ticket};
pub use limits::{Contact, FEATURES, ISOLATED_CLASSES, Limits, MAX_RELIDS};
pub use refusal::Refusal;

use std::time::Duration;

use slab::Slab;
use vmbus::message::{GuestMessage, HostMessage};

use self::channel::Channel;
use self::connection::Connection;
use self::expiry::Due;
use self::gpadl::Gpadls;
use self::logging::{Throttle, complain};
use self::table::Table;
use crate::mutation::{self, Mutation};
use crate::timers::{TimerKey, Wheel};
use crate::{ChannelId, Offer};

/// The state of the bus, and nothing else: no thread, no clock, no system call.
#[derive(Debug, Clone)]
pub struct Core {
    limits: Limits,
    counters: Counters,
    connection: Connection,
    table: Table,
    gpadls: Gpadls,
    sockets: Slab<sockets::Request>,
    timers: Wheel<Due>,
    /// What the wheel gave out last; kept for its allocation.
    expired: Vec<(TimerKey, Due)>,
    throttle: Throttle,
    now: Duration,
    next_open: u32,
}

impl Core {
    /// No connection, no channels.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            table: Table::new(limits.channels),
            limits,
            counters: Counters::default(),
            connection: Connection::new(),
            gpadls: Gpadls::new(),
            sockets: Slab::new(),
            timers: Wheel::new(),
            expired: Vec::new(),
            throttle: Throttle::new(),
            now: Duration::ZERO,
            next_open: 1,
        }
    }

    /// Takes note of one thing that happened, and appends what is to be done about it, in order. `now` is of any clock
    /// that does not go backwards. Waits that are over at `now` end after the input was taken.
    pub fn step(&mut self, now: Duration, input: Input, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        match input {
            Input::Message(message) => self.on_message(message, out),
            Input::Malformed(error) => {
                self.counters.malformed += 1;
                complain!(self, "{error}");
            }
            Input::Lost => self.on_lost(out),
            Input::Command(ticket, command) => {
                if let Err(refusal) = self.command(ticket, command, out) {
                    self.counters.stale_commands += u64::from(matches!(refusal, Refusal::Gone(_)));
                    out.push(Action::Answer(ticket, Answer::Failed(refusal)));
                }
            }
            Input::Unreferenced(id) => self.on_unreferenced(id, out),
            Input::Retired(id) => self.on_retired(id, out),
            Input::ShareFailed(gpadl) => self.on_share_failed(gpadl, out),
            Input::AnnounceFailed(id) => self.on_announce_failed(id, out),
            Input::Elapsed => {}
        }
        self.expire(out);
    }

    fn on_message(&mut self, message: HostMessage, out: &mut Vec<Action>) {
        self.counters.messages += 1;
        match message {
            HostMessage::Offer(offer) => self.on_offer(&offer, out),
            HostMessage::Rescind { relid } => self.on_rescind(relid, out),
            HostMessage::AllOffersDelivered => self.on_all_offers(out),
            HostMessage::OpenResult { relid, open_id, status } => self.on_open_result(relid, open_id, status, out),
            HostMessage::GpadlCreated { relid, gpadl, status } => self.on_gpadl_created(relid, gpadl, status, out),
            HostMessage::GpadlTorndown { gpadl } => self.on_gpadl_torn_down(gpadl, out),
            HostMessage::VersionResponse(response) => self.on_version(&response, out),
            HostMessage::UnloadResponse => self.on_unloaded(out),
            HostMessage::CloseReservedResponse { relid } => self.on_close_reserved(relid, out),
            HostMessage::TlConnectResult { endpoint, service, status } => {
                self.on_socket_result(endpoint, service, status, out);
            }
            HostMessage::ModifyChannelResponse { relid, status } => self.on_moved(relid, status, out),
            HostMessage::ModifyConnectionResponse { state } => self.on_modified(state, out),
            HostMessage::PauseResponse => self.on_paused(out),
            _ => self.counters.unexpected += 1,
        }
    }

    /// Carries a command out, or at least begins to. An error is its answer.
    fn command(&mut self, ticket: Ticket, command: Command, out: &mut Vec<Action>) -> Result<(), Refusal> {
        match command {
            Command::Connect => self.connect(ticket, false, out),
            Command::Resume => self.connect(ticket, true, out),
            Command::Suspend => self.unload(ticket, true, out),
            Command::Unload => self.unload(ticket, false, out),
            Command::Open(id, settings) => self.open(ticket, id, settings, None, out),
            Command::OpenReserved(id, settings, sint) => self.open(ticket, id, settings, Some(sint), out),
            Command::Close(id) => self.close(ticket, id, out),
            Command::CreateGpadl(id, bytes) => self.create_buffer(ticket, id, bytes, out),
            Command::TearDownGpadl(id, gpadl) => self.tear_down_buffer(ticket, id, gpadl, out),
            Command::Move(id, processor) => self.move_to(ticket, id, processor, out),
            Command::TlConnect { endpoint, service, silo } => {
                self.connect_socket(ticket, (endpoint, service, silo), out)
            }
            Command::ModifyConnection { parent_to_child_monitor, child_to_parent_monitor } => {
                self.modify_connection(ticket, (parent_to_child_monitor, child_to_parent_monitor), out)
            }
            Command::PauseMessages => self.pause(ticket, out),
            Command::ResumeMessages => self.unpause(ticket, out),
        }
    }

    /// A channel that can still be used.
    fn usable(&self, id: ChannelId) -> Result<&Channel, Refusal> {
        let channel = self.table.get(id).ok_or(Refusal::Gone(id))?;
        if channel.is_departed() { Err(Refusal::Rescinded(id)) } else { Ok(channel) }
    }

    /// Posts a message, where there is somebody to hear it.
    fn post(&mut self, message: GuestMessage, out: &mut Vec<Action>) {
        if self.connection.may_post() || mutation::is(Mutation::PostAfterLost) {
            out.push(Action::Post(message));
        }
    }

    /// When [`Input::Elapsed`] is due if nothing happens before, on the clock of `step`. It may be early: cheap to ask.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        self.timers.deadline()
    }

    /// How often each thing happened.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Every channel that was announced and has not departed.
    #[must_use]
    pub fn offers(&self) -> Vec<Offer> {
        self.table.iter().filter(|channel| channel.announced).map(|channel| channel.offer.clone()).collect()
    }

    /// Whether the channel is announced and has not departed.
    #[must_use]
    pub fn is_offered(&self, channel: ChannelId) -> bool {
        self.table.get(channel).is_some_and(|channel| channel.announced)
    }

    /// What both sides agreed on, while there is a connection.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.connection.agreed()
    }

    /// Whether nothing is left: no channel, no GPADL, no ticket, no timer. True of a new core, and again after everything
    /// was given back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.live_channels() + self.live_gpadls() + self.pending_tickets() + self.running_timers() == 0
    }

    /// Channels in the table, the departed that somebody still holds included.
    #[must_use]
    pub fn live_channels(&self) -> usize {
        self.table.len()
    }

    /// GPADLs whose memory is not freed.
    #[must_use]
    pub fn live_gpadls(&self) -> usize {
        self.gpadls.len()
    }

    /// Commands that wait for their answer. Looks at everything.
    #[must_use]
    pub fn pending_tickets(&self) -> usize {
        let channels: usize = self.table.iter().map(Channel::tickets).sum();
        let buffers = self.gpadls.iter().filter(|(_, gpadl)| gpadl.ticket.is_some()).count();
        let connection = self.connection.waits().filter(|asked| asked.ticket.is_some()).count();
        channels + buffers + connection + self.sockets.len()
    }

    /// Timers that run.
    #[must_use]
    pub fn running_timers(&self) -> usize {
        self.timers.len()
    }
}
