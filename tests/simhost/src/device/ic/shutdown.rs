//! The host that orders a guest down.

use std::collections::VecDeque;
use std::time::Duration;

use uuid::{Uuid, uuid};
use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version};

/// Orders. Commands: `order FLAGS [TIMEOUT]` (0 off, 2 restart, 4 hibernate, and 1 by force).
#[derive(Debug, Default)]
pub struct ShutdownHost {
    orders: VecDeque<Vec<u8>>,
    accepted: u64,
}

impl Part for ShutdownHost {
    const KIND: u16 = 3;
    const CLASS: Class = Class::SHUTDOWN;
    const INSTANCE: Option<Uuid> = Some(uuid!("b6650ff7-33bc-4840-8048-e0676786f393"));
    const VERSIONS: &'static [Version] = &[(1, 0), (3, 0), (3, 1), (3, 2)];

    fn agreed(&mut self, _: Version, _: Duration) {}

    fn next(&mut self, _: Duration) -> Option<(u8, Vec<u8>)> {
        Some((ASKS, self.orders.pop_front()?))
    }

    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String> {
        self.accepted += u64::from(status == 0);
        if answer.starts_with(request) { Ok(()) } else { Err("an order came back changed".to_owned()) }
    }

    fn closed(&mut self) {
        self.orders.clear();
    }

    fn command(&mut self, words: &str) -> bool {
        let mut words = words.split_ascii_whitespace();
        let (Some("order"), Some(flags)) = (words.next(), words.next().and_then(|flags| flags.parse::<u32>().ok()))
        else {
            return false;
        };
        let timeout = words.next().and_then(|timeout| timeout.parse::<u32>().ok()).unwrap_or(0);
        let mut order = [0x8000_0000_u32, timeout, flags].map(u32::to_le_bytes).concat();
        order.resize(12 + 2048, 0);
        if self.orders.len() < 64 {
            self.orders.push_back(order);
        }
        true
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![("accepted", self.accepted)]
    }
}
