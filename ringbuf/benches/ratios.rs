//! Ratios against the bars: contestants take turns, round by round, so that a noisy machine disturbs all of them alike.
//!
//! `cargo bench -p vmbus-ringbuf --bench ratios [-- [--json] [--rounds N] [FILTER]]`. Prints the median of each
//! contestant in ns per message, the ratio of the medians (of the lower quartiles), and whether the bar holds.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write;
use std::time::Instant;

use common::pairs::{self, Race};
use common::{RINGS, Run, SIZES, cliff, contiguous, mirrored, single, unfenced};

/// Prints a line; a reader that went away is no reason to stop.
macro_rules! say {
    ($($what:tt)*) => {{ let _ = writeln!(std::io::stdout(), $($what)*); }};
}

/// Payload sizes to sweep: around the lengths at which copies change their method. Bytes.
const CLIFF_SIZES: [usize; 7] = [64, 256, 1024, 2112, 4096, 8192, 16384];
/// Copies per measurement of a sweep.
const COPIES: u32 = 60;

/// What a ratio is compared with.
#[derive(Clone, Copy)]
enum Bar {
    AtMost(f64),
    /// Printed only.
    None,
}

/// A row: ours against the yardstick, and others to look at.
struct Row {
    name: String,
    bar: Bar,
    /// Messages per turn.
    messages: u64,
    /// Ours, the yardstick, others.
    contestants: Vec<(&'static str, Race)>,
}

fn timed(mut run: Run) -> Race {
    Box::new(move |messages| {
        let start = Instant::now();
        run(messages);
        start.elapsed()
    })
}

/// The bar of one thread and of batches, by payload size.
fn single_bar(bytes: usize) -> Bar {
    Bar::AtMost(match bytes {
        16 => 0.6,
        16384 => 1.03,
        _ => 1.0,
    })
}

fn single_rows(ring: &str, pages: u32, bytes: usize) -> [Row; 5] {
    let messages = (1_000_000 / (20 + bytes as u64 / 16)).max(400);
    let name = |what: &str| format!("{what} {ring} {bytes}");
    let row = |what: &str, bar, contestants| Row { name: name(what), bar, messages, contestants };
    let in_place = || if bytes == 4096 { Bar::AtMost(0.8) } else { Bar::None };
    [
        row(
            "one",
            single_bar(bytes),
            vec![
                ("ours", timed(single::ours_one(contiguous(pages), bytes))),
                ("rtrb", timed(single::rtrb_one(pages, bytes))),
                ("mirrored", timed(single::ours_one(mirrored(pages), bytes))),
                ("unfenced", timed(single::ours_one(unfenced(pages), bytes))),
                ("rtrb-bare", timed(single::rtrb_bare(pages, bytes))),
                ("memcpy", timed(single::memcpy_one(pages, bytes))),
            ],
        ),
        row(
            "batch",
            single_bar(bytes),
            vec![
                ("ours", timed(single::ours_batch(contiguous(pages), bytes))),
                ("rtrb", timed(single::rtrb_batch_of_single(pages, bytes))),
                ("mirrored", timed(single::ours_batch(mirrored(pages), bytes))),
                ("rtrb-chunk", timed(single::rtrb_batch(pages, bytes))),
                ("memcpy", timed(single::memcpy_one(pages, bytes))),
            ],
        ),
        row(
            "peek",
            in_place(),
            vec![
                ("in-place", timed(single::ours_peek(contiguous(pages), bytes))),
                ("copied", timed(single::ours_peek_copy(contiguous(pages), bytes))),
            ],
        ),
        row(
            "peek-batch",
            in_place(),
            vec![
                ("in-place", timed(single::ours_peek_batch(contiguous(pages), bytes))),
                ("copied", timed(single::ours_peek_copy_batch(contiguous(pages), bytes))),
            ],
        ),
        row(
            "sum",
            Bar::None,
            vec![
                ("in-place", timed(single::ours_sum_in_place(contiguous(pages), bytes))),
                ("copied", timed(single::ours_sum_copy(contiguous(pages), bytes))),
            ],
        ),
    ]
}

fn pair_rows(ring: &str, pages: u32, bytes: usize) -> [Row; 3] {
    let messages = (6_000_000 / (40 + bytes as u64 / 8)).max(2_000);
    let name = |what: &str| format!("{what} {ring} {bytes}");
    let row = |what: &str, bar, messages, contestants| Row { name: name(what), bar, messages, contestants };
    let batched = Bar::AtMost(if bytes == 16 { 1.0 } else { 1.05 });
    [
        row(
            "stream-batch",
            batched,
            messages,
            vec![
                ("ours", pairs::ours_stream(contiguous(pages), bytes, true)),
                ("rtrb", pairs::rtrb_stream(pages, bytes, false)),
                ("mirrored", pairs::ours_stream(mirrored(pages), bytes, true)),
                ("rtrb-chunk", pairs::rtrb_stream(pages, bytes, true)),
            ],
        ),
        row(
            "stream-each",
            Bar::None,
            messages,
            vec![
                ("ours", pairs::ours_stream(contiguous(pages), bytes, false)),
                ("rtrb", pairs::rtrb_stream(pages, bytes, false)),
            ],
        ),
        row(
            "ping-pong",
            if bytes == 16 { Bar::AtMost(1.2) } else { Bar::None },
            10_000,
            vec![
                ("ours", pairs::ours_ping_pong(contiguous(pages), contiguous(pages), bytes)),
                ("rtrb", pairs::rtrb_ping_pong(pages, bytes)),
            ],
        ),
    ]
}

/// Lower quartile and median.
fn middle(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 4], values[values.len() / 2]]
}

/// Runs all rounds of a row; prints it. Returns whether its bar holds.
fn run(row: Row, rounds: usize, json: bool) -> bool {
    let Row { name, bar, messages, mut contestants } = row;
    let mut times = vec![Vec::with_capacity(rounds); contestants.len()];
    for _ in 0..=rounds {
        for (times, (_, contestant)) in times.iter_mut().zip(&mut contestants) {
            times.push(contestant(messages).as_secs_f64() * 1e9 / messages as f64);
        }
    }
    // The first round warms up.
    let middles: Vec<[f64; 2]> = times.iter_mut().map(|times| middle(&mut times[1..])).collect();
    let [quiet, ratio] = [0, 1].map(|which| middles[0][which] / middles[1][which]);
    let (limit, holds) = match bar {
        Bar::AtMost(limit) => (Some(limit), ratio <= limit),
        Bar::None => (None, true),
    };
    let names = contestants.iter().map(|(name, _)| *name);
    if json {
        let all: Vec<String> = names.zip(&middles).map(|(name, [_, ns])| format!("\"{name}\":{ns:.2}")).collect();
        let limit = limit.map_or("null".to_owned(), |limit| limit.to_string());
        let all = all.join(",");
        say!(
            "{{\"case\":\"{name}\",\"ns\":{{{all}}},\"ratio\":{ratio:.3},\"quartile_ratio\":{quiet:.3},\"bar\":{limit},\"pass\":{holds}}}"
        );
    } else {
        let verdict = match (limit, holds) {
            (None, _) => String::new(),
            (Some(limit), true) => format!("PASS (bar {limit})"),
            (Some(limit), false) => format!("FAIL (bar {limit})"),
        };
        let all: Vec<String> = names.zip(&middles).map(|(name, [_, ns])| format!("{name} {ns:.1}")).collect();
        say!("{name:<22} ratio {ratio:>5.2} ({quiet:.2})  {verdict:<16} {}", all.join("  "));
    }
    holds
}

/// The slowest and the median distance of a sweep in ns per copy, and which distance was slowest; for each of
/// [`cliff::copies`].
fn sweep_distances(bytes: usize) -> [(f64, f64, usize); 3] {
    let mut times = [const { Vec::new() }; 3];
    let near = (0..=32).chain((32..cliff::PAGE / 8).step_by(16)).chain(cliff::PAGE / 8 - 32..cliff::PAGE / 8);
    let best = |copy: &mut dyn FnMut()| {
        let rounds = (0..5).map(|_| {
            let start = Instant::now();
            (0..COPIES).for_each(|_| copy());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(COPIES)
        });
        rounds.fold(f64::INFINITY, f64::min)
    };
    for distance in near.map(|words| words * 8) {
        for (times, (_, mut copy)) in times.iter_mut().zip(cliff::copies(bytes, distance)) {
            let usual = times.first().map_or(f64::INFINITY, |(first, _)| *first);
            let mut time = best(&mut copy);
            // A slow distance stays slow; a disturbance does not.
            for _ in 0..20 {
                time = if time > 2.0 * usual { time.min(best(&mut copy)) } else { break };
            }
            times.push((time, distance));
        }
    }
    times.map(|mut times| {
        times.sort_by(|one, two| one.0.total_cmp(&two.0));
        let (slowest, distance) = times[times.len() - 1];
        (slowest, times[times.len() / 2].0, distance)
    })
}

/// Sweeps the distances between source and destination. The cliff is a factor of 27; a short copy
/// that crosses pages or cache lines takes up to five times as long, with every method.
fn sweep(bytes: usize, json: bool) -> bool {
    let results = sweep_distances(bytes);
    let factors = results.map(|(slowest, median, _)| slowest / median);
    let holds = factors.iter().take(2).all(|factor| *factor < 8.0);
    if json {
        let [into, out, memcpy] = factors;
        say!(
            "{{\"case\":\"cliff {bytes}\",\"in\":{into:.2},\"out\":{out:.2},\"memcpy\":{memcpy:.2},\"pass\":{holds}}}"
        );
    } else {
        let part = |name: &str, (slowest, median, distance): (f64, f64, usize)| {
            format!("{name} {median:.0} ns, at worst {slowest:.0} ({:.1} x, distance {distance})", slowest / median)
        };
        let [into, out, memcpy] = results;
        let verdict = if holds { "PASS" } else { "FAIL" };
        say!("cliff {bytes:<6} {verdict}  {}; {}; {}", part("in", into), part("out", out), part("memcpy", memcpy));
    }
    holds
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let after = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).cloned();
    let rounds = after("--rounds").map_or(31, |rounds| rounds.parse().unwrap());
    let rounds_text = rounds.to_string();
    let filter = arguments.iter().find(|argument| !argument.starts_with("--") && **argument != rounds_text);
    let (mut rows, mut failed) = (0, 0);
    if filter.is_none_or(|filter| filter == "cliff") {
        for bytes in CLIFF_SIZES {
            rows += 1;
            failed += usize::from(!sweep(bytes, json));
        }
    }
    for (ring, pages) in RINGS {
        for bytes in SIZES {
            for row in single_rows(ring, pages, bytes).into_iter().chain(pair_rows(ring, pages, bytes)) {
                if filter.is_none_or(|filter| row.name.contains(filter.as_str())) {
                    rows += 1;
                    failed += usize::from(!run(row, rounds, json));
                }
            }
        }
    }
    if !json {
        say!("{rows} rows, {failed} outside of their bars, medians of {rounds} rounds");
    }
}
