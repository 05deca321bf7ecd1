//! `vmbusctl storm`: channels come, are used, and go at random points, on many threads; and then nothing may be left.

mod news;
mod oracles;
mod plan;
mod report;
mod resident;
mod worker;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vmbus_simhost::{Config, DeviceSpec, Random};

use self::report::Report;
use self::worker::{Done, Worker};
use crate::args::Storm;
use crate::context::Context;
use crate::exit::Exit;
use crate::output;
use crate::simulated::{self, PATIENCE, Simulated};

/// Cycles after which everything that is allocated once is there: resident memory is compared with then.
const WARM_UP_CYCLES: u64 = 20_000;

pub(crate) fn run(context: &Context, args: &Storm) -> anyhow::Result<Exit> {
    let seed = args.seed.unwrap_or_else(fresh_seed);
    if !context.json && !context.quiet {
        output::line(format!("{} cycles on {} threads, seed {seed}", args.cycles, args.threads))?;
    }
    let report = storm(args, seed, progress(context, args.cycles))?;
    if context.json {
        output::json(&report)?;
    } else if !context.quiet || !report.passed {
        report.print()?;
    }
    Ok(if report.passed { Exit::Ok } else { Exit::Failed })
}

fn storm(args: &Storm, seed: u64, progress: ProgressBar) -> anyhow::Result<Report> {
    let processors = simulated::processors();
    let mut both = Simulated::start(Config::seeded(seed), processors)?;
    let version = both.bus.version()?.to_string();
    let specs: Vec<_> = (0..args.threads).map(|number| DeviceSpec::echo(number as u64)).collect();
    let instances: Vec<_> = specs.iter().map(|spec| spec.instance).collect();
    let (sorter, inboxes) = news::sort(both.bus.subscribe()?, &instances, PATIENCE)?;
    let done = Arc::new(Done::default());
    let trunk = Random::new(seed);
    let mut workers: Vec<_> = (0_u64..)
        .zip(specs.into_iter().zip(inboxes))
        .map(|(number, (spec, inbox))| Worker {
            bus: both.bus.clone(),
            host: both.host.clone(),
            spec,
            inbox,
            random: trunk.fork(number),
            processors: u32::try_from(processors).unwrap_or(1),
            done: Arc::clone(&done),
        })
        .collect();

    let start = Instant::now();
    let warm_up = (args.cycles / 5).min(WARM_UP_CYCLES);
    let mut failures = Vec::new();
    workers = play(workers, warm_up, &done, &progress, &mut failures)?;
    oracles::settle(&both)?;
    let before = resident::bytes()?;
    if failures.is_empty() {
        workers = play(workers, args.cycles - warm_up, &done, &progress, &mut failures)?;
    }
    let took = start.elapsed();
    progress.finish_and_clear();
    oracles::settle(&both)?;
    let after = resident::bytes()?;
    drop(workers);

    let found = oracles::ask(&mut both, after - before)?;
    let violations = both.finish()?;
    match sorter.join() {
        Ok(ended) => ended?,
        Err(_) => failures.push("the thread that reads announcements panicked".to_owned()),
    }
    Ok(found.report(&violations, failures, &done, Storming { args, seed, version, took }))
}

/// What the report repeats.
struct Storming<'a> {
    args: &'a Storm,
    seed: u64,
    version: String,
    took: Duration,
}

/// Lets all workers run until `cycles` more cycles have begun. Those that failed do not come back.
fn play(
    workers: Vec<Worker>,
    cycles: u64,
    done: &Arc<Done>,
    progress: &ProgressBar,
    failures: &mut Vec<String>,
) -> anyhow::Result<Vec<Worker>> {
    let left = Arc::new(AtomicU64::new(cycles));
    let together = Arc::new(Barrier::new(workers.len()));
    let threads: Vec<JoinHandle<(Worker, anyhow::Result<()>)>> = workers
        .into_iter()
        .map(|mut worker| {
            let (left, together) = (Arc::clone(&left), Arc::clone(&together));
            Builder::new().name("storm".to_owned()).spawn(move || {
                together.wait();
                let take = |left: u64| left.checked_sub(1);
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                    if let Err(error) = worker.cycle() {
                        // The others stop as well: what comes after the first failure only hides it.
                        left.store(0, Ordering::Relaxed);
                        return (worker, Err(error));
                    }
                }
                (worker, Ok(()))
            })
        })
        .collect::<Result<_, _>>()
        .context("cannot start a thread")?;
    while threads.iter().any(|thread| !thread.is_finished()) {
        progress.set_position(done.cycles.load(Ordering::Relaxed));
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let mut back = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok((worker, outcome)) => {
                failures.extend(outcome.err().map(|error| format!("{error:#}")));
                back.push(worker);
            }
            Err(_) => failures.push("a worker panicked".to_owned()),
        }
    }
    Ok(back)
}

fn progress(context: &Context, cycles: u64) -> ProgressBar {
    if context.json || context.quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(cycles), ProgressDrawTarget::stderr());
    // The template is constant; where it did not parse, indicatif's own style would do.
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {per_sec} {eta}") {
        bar.set_style(style);
    }
    bar
}

/// A seed that no other run had.
fn fresh_seed() -> u64 {
    RandomState::new().build_hasher().finish()
}
