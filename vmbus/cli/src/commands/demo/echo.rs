//! Traffic with an echo device: as many packets as go through, and one at a time.

use std::time::{Duration, Instant};

use anyhow::ensure;
use vmbus_channels::{Channel, Error, OutgoingPacket, Wake};

use super::report::{Latency, Traffic};
use crate::simulated::PATIENCE;

/// Packets on their way at a time.
const WINDOW: u64 = 256;
/// Packets in a batch.
const BATCH: u64 = 32;

/// Keeps the ring busy for a while. Each packet comes back with its number, in order.
pub(super) fn stream(channel: &mut Channel, lasts: Duration, payload: &[u8]) -> anyhow::Result<Traffic> {
    let start = Instant::now();
    let (mut sent, mut echoed) = (0_u64, 0_u64);
    let mut out_of_order = 0_u64;
    loop {
        let over = start.elapsed() >= lasts;
        if over && sent == echoed {
            break;
        }
        if !over {
            let room = WINDOW.saturating_sub(sent - echoed).min(BATCH);
            let filled = channel.send_batch(|batch| {
                let mut pushed = 0;
                // A full ring ends the batch, and what is in it goes out.
                while pushed < room && batch.push(&OutgoingPacket::in_band(sent + pushed + 1), &[payload]).is_ok() {
                    pushed += 1;
                }
                Ok(pushed)
            })?;
            sent += filled;
        }
        let mut expected = echoed;
        let received = channel.receive(64, |packet| {
            expected += 1;
            out_of_order += u64::from(packet.transaction_id() != expected);
            Ok::<_, Error>(())
        })?;
        echoed += received as u64;
        if received == 0 && (over || sent - echoed >= WINDOW) {
            ensure!(channel.wait(Some(PATIENCE))? == Wake::Packets, "no echo in {} s", PATIENCE.as_secs());
        }
    }
    ensure!(out_of_order == 0, "{out_of_order} packets came back in another order");
    Ok(Traffic::new(echoed, echoed * payload.len() as u64, start.elapsed()))
}

/// One packet at a time, each awaited asleep.
pub(super) fn ping(channel: &mut Channel, rounds: u64, payload: &[u8]) -> anyhow::Result<Latency> {
    let mut times = Vec::new();
    for number in 1..=rounds {
        let start = Instant::now();
        channel.send(OutgoingPacket::in_band(number), &[payload], Some(PATIENCE))?;
        let mut back = None;
        while back.is_none() {
            ensure!(channel.wait(Some(PATIENCE))? == Wake::Packets, "no echo in {} s", PATIENCE.as_secs());
            channel.receive(1, |packet| {
                back = Some(packet.transaction_id());
                Ok::<_, Error>(())
            })?;
        }
        ensure!(back == Some(number), "{back:?} came back for {number}");
        times.push(start.elapsed());
    }
    Ok(Latency::of(times))
}
