//! The hypercalls that KVM leaves to us: HvPostMessage, and HvSignalEvent for connections that have no eventfd.
//!
//! They come on the processors' threads; what they bring is left for the bus's thread, which is woken.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};
use vmbus::message::Message;
use vmbus_simhost::{Memory, PAGE_BYTES, Wake};

use crate::bus_memory::BusMemory;
use crate::exits::{Hypercall, Hyperv, Synic};
use crate::shared::Shared;

/// Status codes, by the TLFS's names without HV_STATUS.
mod status {
    pub(super) const SUCCESS: u64 = 0;
    pub(super) const INVALID_HYPERCALL_INPUT: u64 = 3;
    pub(super) const INVALID_ALIGNMENT: u64 = 4;
    pub(super) const INVALID_PARAMETER: u64 = 5;
    pub(super) const INVALID_CONNECTION_ID: u64 = 0x12;
    pub(super) const INSUFFICIENT_BUFFERS: u64 = 0x13;
}

/// HvExtCallQueryCapabilities.
const QUERY_EXTENDED: u16 = 0x8001;
/// What a call's input value may have beside the code and the fast bit: neither HvPostMessage nor HvSignalEvent repeats,
/// has a variable header, or is for a nested hypervisor.
const INPUT_UNUSED: u64 = !0x1_ffff;
/// Bits of a connection id.
const CONNECTION_BITS: u64 = 0x00ff_ffff;
/// Bytes of HvPostMessage's input: connection, reserved, type, size, payload.
const POST_BYTES: usize = 16 + PAYLOAD_AT_MOST;
/// Bytes of a message.
const PAYLOAD_AT_MOST: usize = 240;
/// The type of a message for the bus.
const CHANNEL_MESSAGE: u32 = 1;
/// Types from here on are the hypervisor's own.
const HYPERVISOR_TYPES: u32 = 1 << 31;
/// Posted messages that wait for the bus; a guest that is faster is told to try again.
const POSTED_AT_MOST: usize = 1024;

/// The processors' side of the bus.
#[derive(Debug)]
pub struct Front {
    memory: BusMemory,
    shared: Arc<Shared>,
    posts: Sender<Message>,
    wake: Arc<Wake>,
}

impl Front {
    /// The processors' side, and where posted messages come out. `wake` wakes the bus's thread.
    #[must_use]
    pub fn new(memory: BusMemory, shared: Arc<Shared>, wake: Arc<Wake>) -> (Self, Receiver<Message>) {
        let (posts, posted) = bounded(POSTED_AT_MOST);
        (Self { memory, shared, posts, wake }, posted)
    }

    fn post_message(&self, call: Hypercall) -> u64 {
        if call.is_fast() || call.input & INPUT_UNUSED != 0 {
            return status::INVALID_HYPERCALL_INPUT;
        }
        let crosses = call.first % PAGE_BYTES + POST_BYTES as u64 > PAGE_BYTES;
        if !call.first.is_multiple_of(8) || crosses {
            return status::INVALID_ALIGNMENT;
        }
        let mut input = [0; POST_BYTES];
        if !self.memory.read(call.first, &mut input) {
            return status::INVALID_HYPERCALL_INPUT;
        }
        let (header, payload) = input.split_at(16);
        let mut fields =
            header.chunks_exact(4).map(|field| field.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes)));
        let (Some(connection), Some(reserved), Some(kind), Some(size)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            return status::INVALID_HYPERCALL_INPUT;
        };
        let payload = usize::try_from(size).ok().and_then(|size| payload.get(..size));
        let Some(message) = payload.and_then(|payload| Message::try_from(payload).ok()) else {
            return status::INVALID_PARAMETER;
        };
        if reserved != 0 || kind == 0 || kind >= HYPERVISOR_TYPES {
            return status::INVALID_PARAMETER;
        }
        let there = |id: &std::sync::atomic::AtomicU32| connection != 0 && id.load(Ordering::SeqCst) == connection;
        if !self.shared.message_connections.iter().any(there) {
            return status::INVALID_CONNECTION_ID;
        }
        if kind != CHANNEL_MESSAGE {
            log::debug!(target: "vmbus::vmm", "a message of type {kind:#x} has no reader");
            return status::SUCCESS;
        }
        self.shared.stats.posted.fetch_add(1, Ordering::SeqCst);
        if self.posts.try_send(message).is_err() {
            self.shared.stats.posted.fetch_sub(1, Ordering::SeqCst);
            return status::INSUFFICIENT_BUFFERS;
        }
        self.wake.wake();
        status::SUCCESS
    }

    /// There are extended calls, and none of the capabilities that they are for.
    fn query_extended(&self, call: Hypercall) -> u64 {
        if call.is_fast() || call.input & INPUT_UNUSED != 0 {
            return status::INVALID_HYPERCALL_INPUT;
        }
        if !call.second.is_multiple_of(8) {
            return status::INVALID_ALIGNMENT;
        }
        let written = self.memory.write(call.second, &0_u64.to_le_bytes());
        if written { status::SUCCESS } else { status::INVALID_HYPERCALL_INPUT }
    }

    fn signal_event(&self, call: Hypercall) -> u64 {
        if call.input & INPUT_UNUSED != 0 {
            return status::INVALID_HYPERCALL_INPUT;
        }
        // KVM has read the input of a call that is not fast before it found no eventfd, and hands over what it read (from
        // 5.14 on; earlier ones hand over the address, and lose such calls here).
        let parameter = call.first;
        let (connection, flag, rest) = (parameter & 0xffff_ffff, parameter >> 32 & 0xffff, parameter >> 48);
        if rest != 0 || connection & !CONNECTION_BITS != 0 {
            return status::INVALID_HYPERCALL_INPUT;
        }
        let connection = u32::try_from(connection).ok().filter(|id| flag == 0 && self.shared.connections.contains(*id));
        let Some(connection) = connection else { return status::INVALID_CONNECTION_ID };
        self.shared.stats.signals_by_hypercall.fetch_add(1, Ordering::Relaxed);
        self.shared.signalled.insert(connection);
        self.wake.wake();
        status::SUCCESS
    }
}

impl Hyperv for Front {
    fn hypercall(&self, vcpu: u32, call: Hypercall) -> u64 {
        let (result, refused) = match call.code() {
            Hypercall::POST_MESSAGE => (self.post_message(call), &self.shared.stats.posts_refused),
            Hypercall::SIGNAL_EVENT => (self.signal_event(call), &self.shared.stats.signals_refused),
            QUERY_EXTENDED => (self.query_extended(call), &self.shared.stats.calls_refused),
            _ => (Hypercall::INVALID_CODE, &self.shared.stats.calls_refused),
        };
        if result != status::SUCCESS {
            refused.fetch_add(1, Ordering::Relaxed);
            log::debug!(target: "vmbus::vmm", "processor {vcpu}: {call:x?} is refused with status {result:#x}");
        }
        result
    }

    fn synic(&self, vcpu: u32, synic: Synic) {
        log::debug!(target: "vmbus::vmm", "processor {vcpu}: {synic:x?}");
        self.shared.registers.write(vcpu, synic, &self.memory);
        self.wake.wake();
    }
}

#[cfg(test)]
mod tests;
