//! Ratios against the bars: contestants take turns, round by round, so that a noisy machine disturbs all of them alike.
//!
//! `cargo bench -p vmbus-channels --bench ratios [-- [--json] [--rounds N] [FILTER]]`. Prints the median of each
//! contestant in ns, the ratio of the medians of the first two (of the lower quartiles), whether the bar holds, and for
//! the control plane how many per second that is. The exit status is that of the bars.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench may panic")]

mod common;

use std::io::Write;
use std::process::ExitCode;

use common::events::{self, MOST};
use common::{Race, arc_clone, atomic_add, control, mutex};

/// Prints a line; a reader that went away is no reason to stop.
macro_rules! say {
    ($($what:tt)*) => {{ let _ = writeln!(std::io::stdout(), $($what)*); }};
}

/// How many channels are in the map. The last is the most that it takes.
const CHANNELS: [usize; 3] = [1, 64, MOST];

/// An event may take so many times what an uncontended mutex takes.
const OF_A_MUTEX: f64 = 5.0;
/// With all channels in the map it may take so many times what it takes with one.
const FLAT: f64 = 1.3;

/// A row: ours against the yardstick, and others to look at.
struct Row {
    name: String,
    /// Of the first contestant's median to the second's.
    at_most: Option<f64>,
    /// Per turn.
    times: u64,
    contestants: Vec<(&'static str, Race)>,
}

/// A row's name, and what makes it when its turn comes.
type Named = (&'static str, fn() -> Row);

fn rows() -> Vec<Named> {
    fn row(name: &str, at_most: Option<f64>, times: u64, contestants: Vec<(&'static str, Race)>) -> Row {
        Row { name: name.to_owned(), at_most, times, contestants }
    }
    fn event(channels: usize) -> Row {
        let contestants = vec![
            ("event", events::one_active(channels)),
            ("mutex", mutex()),
            ("add", atomic_add()),
            ("arc", arc_clone()),
            ("turn", events::one_active_turn(channels)),
            ("flag-alone", events::flag_alone()),
            ("idle-scan", events::idle_scan()),
        ];
        row(&format!("event 1 of {channels}"), Some(OF_A_MUTEX), 50_000, contestants)
    }
    fn flat(channels: usize) -> Row {
        let contestants = vec![("all", events::one_active(channels)), ("one", events::one_active(1))];
        row(&format!("flat {channels} to 1"), Some(FLAT), 50_000, contestants)
    }
    fn all(channels: usize) -> Row {
        let contestants = vec![("event", events::all_active(channels)), ("mutex", mutex())];
        row(&format!("event all of {channels}"), None, 100_000, contestants)
    }
    fn beside(name: &str, times: u64, ours: (&'static str, Race)) -> Row {
        row(name, None, times, vec![ours, ("mutex", mutex()), ("add", atomic_add()), ("arc", arc_clone())])
    }
    vec![
        ("event 1 of 1", || event(CHANNELS[0])),
        ("event 1 of 64", || event(CHANNELS[1])),
        ("event 1 of 2048", || event(CHANNELS[2])),
        ("flat 64 to 1", || flat(CHANNELS[1])),
        ("flat 2048 to 1", || flat(CHANNELS[2])),
        ("event all of 1", || all(CHANNELS[0])),
        ("event all of 64", || all(CHANNELS[1])),
        ("event all of 2048", || all(CHANNELS[2])),
        ("packet to handler", || {
            row("packet to handler", None, 20_000, vec![("packet", events::packet_to_handler()), ("mutex", mutex())])
        }),
        ("open+close, core", || beside("open+close, core", 2_000, ("cycle", control::core_open_close()))),
        ("message, core", || beside("message, core", 5_000, ("message", control::core_messages()))),
    ]
}

/// Lower quartile and median.
fn middle(values: &mut [f64]) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    [values[values.len() / 4], values[values.len() / 2]]
}

/// Runs all rounds of a row; prints it. Returns whether its bar holds.
fn run(row: Row, rounds: usize, json: bool) -> bool {
    let Row { name, at_most, times: turns, mut contestants } = row;
    let mut times = vec![Vec::with_capacity(rounds); contestants.len()];
    for _ in 0..=rounds {
        for (times, (_, contestant)) in times.iter_mut().zip(&mut contestants) {
            times.push(contestant(turns).as_secs_f64() * 1e9 / turns as f64);
        }
    }
    // The first round warms up.
    let middles: Vec<[f64; 2]> = times.iter_mut().map(|times| middle(&mut times[1..])).collect();
    let per_second = 1e9 / middles[0][1];
    let [quiet, ratio] = [0, 1].map(|which| middles[0][which] / middles.get(1).unwrap_or(&middles[0])[which]);
    let holds = at_most.is_none_or(|limit| ratio <= limit);
    let names = contestants.iter().map(|(name, _)| *name);
    if json {
        let all: Vec<String> = names.zip(&middles).map(|(name, [_, ns])| format!("\"{name}\":{ns:.2}")).collect();
        let (all, limit) = (all.join(","), at_most.map_or("null".to_owned(), |limit| limit.to_string()));
        say!(
            "{{\"case\":\"{name}\",\"ns\":{{{all}}},\"per_second\":{per_second:.0},\"ratio\":{ratio:.3},\"quartile_ratio\":{quiet:.3},\"bar\":{limit},\"pass\":{holds}}}"
        );
    } else {
        let verdict = match (at_most, holds) {
            (None, _) => String::new(),
            (Some(limit), true) => format!("PASS (bar {limit})"),
            (Some(limit), false) => format!("FAIL (bar {limit})"),
        };
        let ratio = if middles.len() > 1 { format!("ratio {ratio:>5.2} ({quiet:.2})") } else { " ".repeat(18) };
        let all: Vec<String> = names.zip(&middles).map(|(name, [_, ns])| format!("{name} {ns:.1}")).collect();
        say!("{name:<18} {ratio}  {verdict:<14} {per_second:>10.0}/s  {}", all.join("  "));
    }
    holds
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let json = arguments.iter().any(|argument| argument == "--json");
    let after = |name: &str| arguments.iter().skip_while(|argument| *argument != name).nth(1).cloned();
    let rounds = after("--rounds").map_or(31, |rounds| rounds.parse().unwrap());
    let rounds_text = rounds.to_string();
    let filter = arguments.iter().find(|argument| !argument.starts_with("--") && **argument != rounds_text);
    let (mut count, mut failed) = (0, 0);
    for (name, make) in rows() {
        if filter.is_none_or(|filter| name.contains(filter.as_str())) {
            count += 1;
            failed += usize::from(!run(make(), rounds, json));
        }
    }
    if !json {
        say!("{count} rows, {failed} outside of their bars, medians of {rounds} rounds, ns each");
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
