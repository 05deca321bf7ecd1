//! What a host can make us write: little, and what is left out is counted.

use std::sync::Mutex;
use std::time::Duration;

use log::{Level, LevelFilter, Log, Metadata, Record};
use vmbus::message::{HostMessage, MessageError};
use vmbus_channels::control::{Command, Core, Input, Limits, Ticket};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Keep;

impl Log for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        assert_eq!(record.target(), "vmbus::control");
        if let Ok(mut lines) = LINES.lock() {
            lines.push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Red, for instance, when `may_log` asks no bucket.
#[test]
fn a_raving_host_fills_no_log() {
    log::set_logger(&Keep).unwrap();
    log::set_max_level(LevelFilter::Trace);
    let (mut core, mut out) = (Core::new(Limits::default()), Vec::new());
    core.step(Duration::ZERO, Input::Command(Ticket(1), Command::Connect), &mut out);
    for turn in 0..100_000_u64 {
        let now = Duration::from_micros(turn * 10);
        core.step(now, Input::Malformed(MessageError::Unknown { kind: 99 }), &mut out);
        core.step(now, Input::Message(HostMessage::Rescind { relid: 7 }), &mut out);
    }
    let lines = LINES.lock().unwrap();
    // A second of raving: ten lines at once, five more in the course of it.
    assert!((10..=16).contains(&lines.len()), "{} lines: {:?}", lines.len(), lines.first());
    assert_eq!(core.counters().suppressed_lines + lines.len() as u64, 200_000);
    assert!(lines.iter().all(|(level, _)| *level == Level::Warn));
    assert!(out.len() == 1 && core.counters().malformed == 100_000 && core.counters().unknown_relid == 100_000);
}
