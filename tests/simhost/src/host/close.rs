//! Closing a channel.

use vmbus::message::HostMessage;

use super::Host;
use super::channel::{OpenKind, State};
use crate::{Memory, ViolationKind};

impl<M: Memory> Host<M> {
    pub(super) fn close(&mut self, relid: u32, reserved: bool) {
        let Some(id) = self.named(relid, "CLOSE") else { return };
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let kind = if reserved { OpenKind::Reserved } else { OpenKind::Usual };
        match &channel.state {
            State::Open(opened) if opened.kind == kind => {}
            // Rescinded means closed; a guest that closes in spite of it is told nothing.
            State::Rescinded => return,
            other => {
                let text = format!("it is {}", other.name());
                return self.violation(ViolationKind::CloseNotOpen, Some(relid), text);
            }
        }
        let before = std::mem::replace(&mut channel.state, State::Offered);
        channel.device_closed();
        self.counters.closes += 1;
        // A move that the close has overtaken is answered all the same: Linux waits for that without a limit.
        if matches!(&before, State::Open(opened) if opened.moving.is_some()) {
            self.modify_failed(relid);
        }
        if reserved {
            self.send(HostMessage::CloseReservedResponse { relid });
        }
        // A hvsock connection is over when its channel is closed: nobody can open it again.
        self.end_subchannels(id);
        let connection = self.channels.get(&id).is_some_and(super::Channel::is_connection);
        if connection && let Err(error) = self.rescind(id) {
            log::debug!(target: "vmbus::simhost", "a closed connection stays: {error}");
        }
    }
}
