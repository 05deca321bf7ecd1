//! `cargo xtask test`: every check of the repository, one after the other, with a table at the end.
//!
//! A step that can't run here is *skipped with its reason*, never passed. `--ci` turns a skip of an
//! essential step into a failure.

mod architecture;
mod deny;
mod fuzz;
mod model;
mod shows;
mod step;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use step::{Outcome, Step};

/// What `cargo xtask test` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only the steps with these names (see --list).
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Print the names of the steps and exit.
    #[arg(long)]
    list: bool,
    /// Seconds that each fuzz target runs.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    fuzz_seconds: u32,
    /// Cycles of each of the two storms.
    #[arg(long, value_name = "CYCLES", default_value_t = 1_000_000)]
    storm_cycles: u64,
    /// Leave out what takes minutes: the model checks and the fuzz targets.
    #[arg(long)]
    quick: bool,
}

/// Runs the steps; the exit code is non-zero if one of them failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let root = repository_root()?;
    let (fuzz_seconds, storm_cycles) = (args.fuzz_seconds, args.storm_cycles);
    let all: Vec<Step> = vec![
        Step::quick("architecture", "dependencies point one way, unsafe stays in its rooms", architecture::check),
        Step::quick("format", "cargo fmt --check", |root| {
            step::cargo_tool(root, "fmt", &["fmt", "--all", "--check"], &[])
        }),
        Step::quick("lint", "cargo clippy, warnings are errors", |root| {
            step::cargo_tool(root, "clippy", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"], &[])
        }),
        Step::quick("unit", "cargo test --workspace", |root| step::cargo(root, &["test", "--workspace"], &[])),
        Step::quick("docs", "cargo doc, warnings are errors", |root| {
            step::cargo(
                root,
                &["doc", "--workspace", "--features", "vmbus-devices/tokio", "--no-deps", "--keep-going"],
                &[("RUSTDOCFLAGS", "-D warnings")],
            )
        }),
        Step::quick("licences", "cargo deny: licences, sources, duplicate versions", deny::licences),
        Step::quick("advisories", "cargo deny: known vulnerabilities of dependencies", deny::advisories),
        Step::quick("receive-path", "no locked instruction from event flag to callback", |root| {
            step::script(root, "ci/receive-path.sh")
        }),
        Step::slow("demo", "the README's first command", shows::demo),
        Step::slow("storm", "channels that come and go at random, twice", move |root| {
            shows::storms(root, storm_cycles)
        }),
        Step::slow("schedules", "the control core under a seeded scheduler", shows::schedules),
        Step::slow("model", "loom and shuttle: rings, dispatchers, the driver registry", model::check),
        Step::slow("fuzz", "libFuzzer on every fuzz target", move |root| fuzz::run_all(root, fuzz_seconds)),
    ];
    if args.list {
        step::print_list(&all);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.only.iter().find(|name| !all.iter().any(|step| step.name == name.as_str())) {
        bail!("there is no step `{unknown}`; `cargo xtask test --list` names them");
    }
    let chosen = |step: &Step| {
        if args.only.is_empty() { !(args.quick && step.slow) } else { args.only.iter().any(|name| name == step.name) }
    };
    let report = step::run_all(&root, all.iter().map(|step| (step, chosen(step))));
    let left_out: Vec<_> = all.iter().filter(|step| !chosen(step)).map(|step| step.name).collect();
    step::print_report(&report, &left_out);
    let failed = report.iter().any(|line| matches!(line.outcome, Outcome::Failed(_)));
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn repository_root() -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["locate-project", "--workspace", "--message-format", "plain"])
        .output()
        .context("cargo locate-project could not be started")?;
    let manifest = PathBuf::from(String::from_utf8(output.stdout)?.trim());
    let root = manifest.parent().context("no Cargo.toml found: run this inside the repository")?;
    Ok(root.to_path_buf())
}
