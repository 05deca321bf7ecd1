//! Monitor pages: signals as bits that the host looks for at its own pace.
//!
//! Format: `hv_monitor_page` in Linux' include/linux/hyperv.h: at 0 which groups are on, at 8 four trigger groups of
//! {pending, armed}, 32 bits each, at 0x240 the latencies that the host promises.

use super::Host;
use super::channel::OfferId;
use crate::Memory;

/// Where the trigger groups begin.
const TRIGGERS: u64 = 8;
/// Where the latencies begin: 16 bits for each of 4 groups of 32.
const LATENCIES: u64 = 0x240;
/// What is promised, in units of 100 ns.
const LATENCY_100_NS: u16 = 1000;

impl<M: Memory> Host<M> {
    /// Looks for signals in the monitor page; the number of those found. A host with threads does this at its latency.
    pub fn poll_monitor(&mut self) -> usize {
        let found = self.take_monitors();
        found.iter().for_each(|monitor| self.monitored(*monitor));
        found.len()
    }

    /// Takes the signals in the monitor page: the monitor ids that the guest has set since.
    pub(crate) fn take_monitors(&self) -> Vec<u8> {
        let Some([_, to_parent]) = self.connection.monitors else { return Vec::new() };
        let mut found = Vec::new();
        for group in 0_u8..4 {
            let address = to_parent + TRIGGERS + u64::from(group) * 8;
            let pending = self.memory.take_bits(address, u32::MAX).unwrap_or(0);
            found.extend((0_u8..32).filter(|bit| pending >> bit & 1 != 0).map(|bit| group * 32 + bit));
        }
        found
    }

    /// Whether any channel has a monitor id: whether polling is of use.
    #[must_use]
    pub fn has_monitored(&self) -> bool {
        self.connection.monitors.is_some() && self.free_monitors.len() < 128
    }

    /// The guest set the bit of this monitor id.
    pub fn monitored(&mut self, monitor: u8) {
        let owner = self.channels.iter().find(|(_, channel)| channel.monitor == Some(monitor)).map(|(id, _)| *id);
        self.counters.monitor_signals += 1;
        match owner {
            Some(id) => self.signalled(id),
            None => self.counters.stray_signals += 1,
        }
    }

    /// The guest signalled this connection, or set this flag: the number that the offer gave, or the guest itself.
    pub fn signal(&mut self, number: u32) {
        self.counters.signals += 1;
        match self.by_connection(number) {
            Some(id) => self.signalled(id),
            None => self.counters.stray_signals += 1,
        }
    }

    /// Whose signals have this number.
    fn by_connection(&self, number: u32) -> Option<OfferId> {
        let slot = self.slots.get(super::offers::index(number));
        slot.and_then(|slot| slot.channel).or_else(|| {
            let chosen = |channel: &super::Channel<M::Ring>| channel.guest_connection() == Some(number);
            self.channels.iter().find(|(_, channel)| chosen(channel)).map(|(id, _)| *id)
        })
    }

    /// Writes the latencies that the host promises into the guest's page.
    pub(super) fn promise_latencies(&self) {
        let Some([_, to_parent]) = self.connection.monitors else { return };
        for index in 0_u64..128 {
            self.memory.write(to_parent + LATENCIES + index * 2, &LATENCY_100_NS.to_le_bytes());
        }
    }
}
