//! Ratios against the bars: contestants take turns, round by round, so that a noisy machine disturbs all of them alike.
//!
//! `cargo bench -p vmbus-ringbuf --bench ratios [-- [--json] [--rounds N] [FILTER]]`. Prints the median of each
//! contestant in ns per message, the ratio of the medians, and whether the bar holds.
#![expect(clippy::print_stdout, reason = "a report is what this is for")]

mod common;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use common::{RINGS, Run, SIZES, contiguous, mirrored, pairs, single};

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
    contestants: Vec<(&'static str, Box<dyn FnMut(u64) -> Duration>)>,
}

fn timed(mut run: Run) -> Box<dyn FnMut(u64) -> Duration> {
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

fn single_rows(ring: &str, pages: u32, bytes: usize) -> [Row; 4] {
    let messages = (1_000_000 / (20 + bytes as u64 / 16)).max(400);
    let name = |what: &str| format!("{what} {ring} {bytes}");
    let row = |what: &str, bar, contestants| Row { name: name(what), bar, messages, contestants };
    let in_place = if bytes == 4096 { Bar::AtMost(0.8) } else { Bar::None };
    [
        row(
            "one",
            single_bar(bytes),
            vec![
                ("ours", timed(single::ours_one(contiguous(pages), bytes))),
                ("rtrb", timed(single::rtrb_one(pages, bytes))),
                ("mirrored", timed(single::ours_one(mirrored(pages), bytes))),
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
            in_place,
            vec![
                ("in-place", timed(single::ours_peek(contiguous(pages), bytes))),
                ("copied", timed(single::ours_peek_copy(contiguous(pages), bytes))),
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
                ("ours", Box::new(move |n| pairs::ours_stream(contiguous(pages), bytes, true, n))),
                ("rtrb", Box::new(move |n| pairs::rtrb_stream(pages, bytes, true, n))),
                ("mirrored", Box::new(move |n| pairs::ours_stream(mirrored(pages), bytes, true, n))),
            ],
        ),
        row(
            "stream-each",
            Bar::None,
            messages,
            vec![
                ("ours", Box::new(move |n| pairs::ours_stream(contiguous(pages), bytes, false, n))),
                ("rtrb", Box::new(move |n| pairs::rtrb_stream(pages, bytes, false, n))),
            ],
        ),
        row(
            "ping-pong",
            if bytes == 16 { Bar::AtMost(1.2) } else { Bar::None },
            10_000,
            vec![
                ("ours", Box::new(move |n| pairs::ours_ping_pong(contiguous(pages), contiguous(pages), bytes, n))),
                ("rtrb", Box::new(move |n| pairs::rtrb_ping_pong(pages, bytes, n))),
            ],
        ),
    ]
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
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
    let medians: Vec<f64> = times.iter_mut().map(|times| median(&mut times[1..])).collect();
    let ratio = medians[0] / medians[1];
    let (limit, holds) = match bar {
        Bar::AtMost(limit) => (Some(limit), ratio <= limit),
        Bar::None => (None, true),
    };
    let names = contestants.iter().map(|(name, _)| *name);
    if json {
        let all: Vec<String> = names.zip(&medians).map(|(name, ns)| format!("\"{name}\":{ns:.2}")).collect();
        let limit = limit.map_or("null".to_owned(), |limit| limit.to_string());
        let all = all.join(",");
        println!("{{\"case\":\"{name}\",\"ns\":{{{all}}},\"ratio\":{ratio:.3},\"bar\":{limit},\"pass\":{holds}}}");
    } else {
        let verdict = match (limit, holds) {
            (None, _) => String::new(),
            (Some(limit), true) => format!("PASS (bar {limit})"),
            (Some(limit), false) => format!("FAIL (bar {limit})"),
        };
        let all: Vec<String> = names.zip(&medians).map(|(name, ns)| format!("{name} {ns:.1}")).collect();
        println!("{name:<22} ratio {ratio:>5.2}  {verdict:<16} {}", all.join("  "));
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
        println!("{rows} rows, {failed} outside of their bars, medians of {rounds} rounds");
    }
}
