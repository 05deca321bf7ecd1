//! Messages of one size over a stream and back: how many in a second, and how long each took.

use std::collections::VecDeque;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::stream::Stream;
use crate::traffic::{percentiles, word};

/// Messages and their number.
#[derive(Debug, Clone, Args)]
pub(crate) struct Messages {
    /// For so long.
    #[arg(long, default_value_t = 3.0)]
    pub(crate) seconds: f64,
    /// Messages, instead.
    #[arg(long)]
    pub(crate) count: Option<u64>,
    /// Bytes of each, rounded up to words of 8.
    #[arg(long, default_value_t = 64)]
    pub(crate) bytes: usize,
    /// Messages under way at a time. Together no more than the sockets hold.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: usize,
}

/// Sends and takes messages; the last line for the lab.
///
/// # Errors
/// The stream fails, or brings something else.
pub(crate) fn run(stream: &impl Stream, messages: &Messages) -> anyhow::Result<Value> {
    let words = messages.bytes.div_ceil(8).clamp(1, 4096);
    let mut text = vec![0; words * 8];
    let (mut sent, mut received, start) = (0_u64, 0_u64, Instant::now());
    let (mut waiting, mut times) = (VecDeque::new(), Vec::new());
    let more = |sent: u64| {
        messages.count.map_or_else(|| start.elapsed().as_secs_f64() < messages.seconds, |count| sent < count)
    };
    loop {
        while waiting.len() < messages.batch.max(1) && more(sent) {
            fill(&mut text, sent);
            stream.write_all(&text).with_context(|| format!("send message {sent}"))?;
            waiting.push_back(Instant::now());
            sent += 1;
        }
        let Some(since) = waiting.pop_front() else { break };
        let mut reply = vec![0; text.len()];
        read_all(stream, &mut reply).with_context(|| format!("reply {received}"))?;
        times.push(u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX));
        fill(&mut text, received);
        ensure!(reply == text, "reply {received} is not what was sent");
        received += 1;
    }
    let took = start.elapsed().as_secs_f64();
    let per_second = f64::from(u32::try_from(received).unwrap_or(u32::MAX)) / took.max(1e-9);
    Ok(json!({
        "event": "end", "sent": sent, "received": received, "bytes": text.len(), "seconds": took,
        "per_second": per_second, "round_trip_ns": percentiles(&mut times),
    }))
}

/// Message `number`, as the packets of the echo program are.
fn fill(text: &mut [u8], number: u64) {
    let (words, _) = text.as_chunks_mut::<8>();
    words.iter_mut().enumerate().for_each(|(place, bytes)| *bytes = word(number, place).to_le_bytes());
}

fn read_all(stream: &impl Stream, mut bytes: &mut [u8]) -> anyhow::Result<()> {
    while !bytes.is_empty() {
        let read = stream.read(bytes)?;
        ensure!(read != 0, "the other side has closed the connection");
        bytes = bytes.get_mut(read..).unwrap_or_default();
    }
    Ok(())
}
