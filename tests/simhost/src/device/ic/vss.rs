//! The host that takes snapshots.

use std::collections::VecDeque;
use std::time::Duration;

use vmbus::class::Class;

use super::Part;
use super::format::{ASKS, Version, word};

/// Takes snapshots. Commands: `hot-backup`, `device-info`, `freeze`, `thaw`, `operation N`.
#[derive(Debug, Default)]
pub struct VssHost {
    requests: VecDeque<u8>,
    frozen: bool,
    freezes: u64,
    thaws: u64,
    late: u64,
    done: u64,
}

impl Part for VssHost {
    const KIND: u16 = 5;
    const CLASS: Class = Class::VSS;
    const VERSIONS: &'static [Version] = &[(4, 0), (5, 0), (6, 0), (7, 0)];

    fn agreed(&mut self, _: Version, _: Duration) {}

    fn next(&mut self, _: Duration) -> Option<(u8, Vec<u8>)> {
        let mut body = vec![0; 12];
        body.splice(..1, [self.requests.pop_front()?]);
        Some((ASKS, body))
    }

    fn answered(&mut self, request: &[u8], status: u32, answer: &[u8]) -> Result<(), String> {
        self.done += 1;
        match (request.first(), status, word(answer, 8)) {
            (Some(2), 0, flags) if flags != Some(5) => return Err(format!("hot backup with flags {flags:?}")),
            (Some(5), 0, _) => (self.frozen, self.freezes) = (true, self.freezes + 1),
            (Some(6), 0, _) => (self.frozen, self.thaws) = (false, self.thaws + 1),
            (Some(6), _, _) => (self.frozen, self.late) = (false, self.late + 1),
            _ => {}
        }
        Ok(())
    }

    fn closed(&mut self) {
        self.requests.clear();
        self.frozen = false;
    }

    fn command(&mut self, words: &str) -> bool {
        let operation = match words.split_once(' ') {
            Some(("operation", number)) => number.parse().ok(),
            _ => [("hot-backup", 2), ("device-info", 3), ("freeze", 5), ("thaw", 6)]
                .into_iter()
                .find_map(|(name, operation)| (name == words).then_some(operation)),
        };
        if self.requests.len() < 256 {
            self.requests.extend(operation);
        }
        operation.is_some()
    }

    fn report(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("done", self.done),
            ("frozen", self.frozen.into()),
            ("freezes", self.freezes),
            ("thaws", self.thaws),
            ("late", self.late),
        ]
    }
}
