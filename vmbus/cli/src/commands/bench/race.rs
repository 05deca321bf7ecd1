//! What is timed: streams of writes, round trips, and connections that come and go.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::party::{Party, Service, Stream};
use super::report::{CONNECTIONS, PINGPONG_BLOCKING, PINGPONG_POLLING, THROUGHPUT_1K, THROUGHPUT_64K};
use crate::args::BenchSocket;

/// One party's part of a race: nanoseconds for each write, round trip or connection.
type Run<'a> = Box<dyn FnMut() -> anyhow::Result<f64> + 'a>;

/// The same work for both.
pub(super) struct Race<'a> {
    pub(super) name: &'static str,
    pub(super) ours: Run<'a>,
    pub(super) theirs: Run<'a>,
}

/// Bytes of a message that goes there and back.
const MESSAGE_BYTES: usize = 64;
/// Written in each round, in large pieces and in small ones.
const LARGE_WRITES: usize = 512;
const SMALL_WRITES: usize = 8192;
/// Round trips in each round.
const TURNS: usize = 1000;
const POLLED_TURNS: usize = 2000;
/// Connections in each round.
const CONNECTIONS_EACH: usize = 100;

/// All races, in the order of the report.
pub(super) fn all<'a>(
    args: &BenchSocket,
    vm: &'a dyn Party,
    polling: &'a dyn Party,
    unix: &'a dyn Party,
) -> anyhow::Result<Vec<Race<'a>>> {
    let stream =
        |party: &'a dyn Party, bytes, writes| -> Run<'a> { Box::new(move || throughput(party, bytes, writes)) };
    let trips = |party: &'a dyn Party, turns| -> anyhow::Result<Run<'a>> {
        let mut stream = connect(party, Service::Echo)?;
        Ok(Box::new(move || round_trips(&mut *stream, turns)))
    };
    let short = |party: &'a dyn Party| -> Run<'a> { Box::new(move || connections(party, CONNECTIONS_EACH)) };
    let mut races = vec![
        Race {
            name: THROUGHPUT_64K,
            ours: stream(vm, 64 * 1024, LARGE_WRITES),
            theirs: stream(unix, 64 * 1024, LARGE_WRITES),
        },
        Race { name: THROUGHPUT_1K, ours: stream(vm, 1024, SMALL_WRITES), theirs: stream(unix, 1024, SMALL_WRITES) },
        Race { name: PINGPONG_BLOCKING, ours: trips(vm, TURNS)?, theirs: trips(unix, TURNS)? },
        Race { name: PINGPONG_POLLING, ours: trips(polling, POLLED_TURNS)?, theirs: trips(unix, TURNS)? },
        Race { name: CONNECTIONS, ours: short(vm), theirs: short(unix) },
    ];
    races.retain(|race| args.race.as_ref().is_none_or(|wanted| race.name.contains(wanted.as_str())));
    ensure!(!races.is_empty(), "no race is called so");
    Ok(races)
}

fn connect(party: &dyn Party, service: Service) -> anyhow::Result<Box<dyn Stream>> {
    party.connect(service).with_context(|| format!("cannot connect a {} to {service:?}", party.name()))
}

/// Time of each of so many, in nanoseconds.
fn each(took: Duration, count: usize) -> f64 {
    took.as_secs_f64() * 1e9 / count as f64
}

/// Reads until the end; how many bytes came.
fn drain(stream: &mut dyn Stream) -> anyhow::Result<usize> {
    let (mut buffer, mut total) = ([0; 4096], 0);
    loop {
        match stream.read(&mut buffer).context("cannot read")? {
            0 => return Ok(total),
            bytes => total += bytes,
        }
    }
}

/// Writes so often, and waits until the other side has taken all of it.
fn throughput(party: &dyn Party, bytes: usize, writes: usize) -> anyhow::Result<f64> {
    let data = vec![0x5a; bytes];
    let mut stream = connect(party, Service::Sink)?;
    let start = Instant::now();
    for _ in 0..writes {
        stream.write_all(&data).with_context(|| format!("cannot write to a {}", party.name()))?;
    }
    stream.end().context("cannot end")?;
    ensure!(drain(&mut *stream)? == 0, "a sink has sent something");
    Ok(each(start.elapsed(), writes))
}

/// Messages there and back, each when the one before is back.
fn round_trips(stream: &mut dyn Stream, turns: usize) -> anyhow::Result<f64> {
    let mut buffer = [0; MESSAGE_BYTES];
    let start = Instant::now();
    for turn in 0..turns {
        let byte = turn.to_le_bytes()[0];
        buffer.fill(byte);
        stream.write_all(&buffer).context("cannot write")?;
        buffer.fill(!byte);
        stream.read_exact(&mut buffer).context("cannot read")?;
        ensure!(buffer.first() == Some(&byte) && buffer.last() == Some(&byte), "another message came back");
    }
    Ok(each(start.elapsed(), turns))
}

/// Connections that say their end, hear the other's, and go: both sides have seen all of each.
fn connections(party: &dyn Party, count: usize) -> anyhow::Result<f64> {
    let start = Instant::now();
    for _ in 0..count {
        let mut stream = connect(party, Service::Echo)?;
        stream.end().context("cannot end")?;
        ensure!(drain(&mut *stream)? == 0, "an echo of nothing has come");
    }
    Ok(each(start.elapsed(), count))
}

/// Before anything is timed: what is sent comes back as it was, more of it than there is room for on the way.
pub(super) fn check(party: &dyn Party) -> anyhow::Result<()> {
    const PIECE: usize = 32 * 1024;
    const PIECES: usize = 32;
    let mut stream = connect(party, Service::Echo)?;
    let pattern: Vec<u8> = (0..=250).cycle().take(PIECE * PIECES).collect();
    let mut back = vec![0; PIECE];
    for piece in pattern.chunks(PIECE) {
        stream.write_all(piece).context("cannot write")?;
        stream.read_exact(&mut back).context("cannot read")?;
        ensure!(back == piece, "a {} gave back other bytes than were written", party.name());
    }
    stream.end().context("cannot end")?;
    ensure!(drain(&mut *stream)? == 0, "a {} gave back more than was written", party.name());
    Ok(())
}
