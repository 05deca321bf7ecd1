//! Channels that are taken back while packets are under way.

use std::thread::Builder;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use uuid::Uuid;
use vmbus_channels::{Error, OpenOptions};

use super::echo;
use super::report::{Row, Traffic};
use crate::simulated::{PATIENCE, Simulated};

/// Packets each channel has echoed before the host takes it back.
const PACKETS_BEFORE: u64 = 1000;

/// What became of them.
pub(super) struct Rescinded {
    pub(super) channels: u64,
    pub(super) row: Row,
}

/// Keeps all of these devices busy, takes them back one after the other, and sees that each user is told.
pub(super) fn under_load(both: &Simulated, devices: &[Uuid]) -> anyhow::Result<Rescinded> {
    let mut threads = Vec::new();
    let mut relid = 0;
    for instance in devices {
        let offer = both.bus.find(*instance)?;
        relid = offer.relid;
        let mut channel = both.bus.open(offer.id, OpenOptions::default())?;
        let work = move || match echo::stream(&mut channel, PATIENCE, &[0xa5; 256]) {
            Ok(_) => bail!("relid {} was not taken back", channel.relid()),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(known) if known.is_rescinded() => Ok(channel.close()?),
                _ => Err(error),
            },
        };
        threads.push(Builder::new().name("demo-load".to_owned()).spawn(work).context("cannot start a thread")?);
    }
    let count = devices.len() as u64;
    let (wanted, all) = (PACKETS_BEFORE * count, devices.to_vec());
    let start = std::time::Instant::now();
    let before = both.host.counters()?.packets_in;
    let busy = both.host.wait_for(PATIENCE, move |sim| sim.host().counters().packets_in - before >= wanted)?;
    ensure!(busy, "the channels are not busy after {} s", PATIENCE.as_secs());
    for instance in all {
        both.host.with(move |sim| {
            let host = sim.host();
            let id = host.offered().iter().find(|offered| offered.instance == instance).map(|offered| offered.id);
            id.map(|id| host.rescind(id))
        })?;
    }
    let echoed = both.host.counters()?.packets_in - before;
    let took: Duration = start.elapsed();
    for thread in threads {
        match thread.join() {
            Ok(ended) => ended?,
            Err(_) => bail!("a thread panicked"),
        }
    }
    let row = Row {
        device: "echo",
        class: vmbus_simhost::device::Echo::CLASS.0.to_string(),
        instance: String::new(),
        relid,
        work: format!("{count} channels taken back while busy"),
        traffic: Some(Traffic::new(echoed, echoed * 256, took)),
        latency: None,
    };
    Ok(Rescinded { channels: count, row })
}
