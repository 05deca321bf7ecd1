//! The fuzz targets, built and run without nightly or cargo-fuzz: the coverage instrumentation is LLVM's own
//! pass, and libFuzzer comes with its crate. Two targets run at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context, Result, bail};

use super::step::{Outcome, run, say};

/// What makes rustc instrument the code under test for libFuzzer.
const INSTRUMENTATION: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions -Coverflow-checks";
/// The target is named so that build scripts and proc macros stay uninstrumented.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The folders that hold fuzz targets, each a workspace of its own. One that a checkout lacks is left out.
const FOLDERS: [&str; 3] = ["ringbuf/fuzz", "vmbus/fuzz", "channels/fuzz"];
/// How many targets run at a time: one per core of the machine the project is built for.
const AT_A_TIME: usize = 2;

/// A fuzz target: a file of some folder's `fuzz_targets`.
struct Target {
    folder: PathBuf,
    name: String,
}

/// Builds every target and runs each for `seconds`; a crash leaves its input under its folder's `artifacts`.
pub(super) fn run_all(root: &Path, seconds: u32) -> Result<Outcome> {
    if !cfg!(target_arch = "x86_64") {
        return Ok(Outcome::Skipped("the fuzz targets are built for x86_64 only".to_owned()));
    }
    // One folder for all: what they have in common is built once.
    let built = root.join("target/fuzz");
    ensure_compiler()?;
    let mut targets = Vec::new();
    for folder in FOLDERS.map(|folder| root.join(folder)).into_iter().filter(|folder| folder.is_dir()) {
        if let Outcome::Failed(why) = build(&folder, &built)? {
            return Ok(Outcome::Failed(why));
        }
        targets.extend(targets_of(&folder)?);
    }
    let programs = built.join(TARGET).join("release");
    for group in targets.chunks(AT_A_TIME) {
        let running = group.iter().map(|target| start(target, &programs, seconds)).collect::<Result<Vec<_>>>()?;
        // Each is waited for, so that none is left behind when another has found something.
        let ended: Vec<_> = running.into_iter().map(|(name, child, log)| finish(&name, child, &log)).collect();
        ended.into_iter().collect::<Result<()>>()?;
    }
    Ok(Outcome::Passed)
}

fn build(folder: &Path, built: &Path) -> Result<Outcome> {
    say!("    building the targets of {}", folder.display());
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(folder).env("RUSTFLAGS", INSTRUMENTATION).env("CARGO_TARGET_DIR", built).args([
        "build",
        "--release",
        "--bins",
        "--target",
        TARGET,
    ]);
    run(&mut build, "cargo build of the fuzz targets")
}

/// The targets are the files of `fuzz_targets`. Their names are those of programs in one folder, so no two are alike.
fn targets_of(folder: &Path) -> Result<Vec<Target>> {
    let files = folder.join("fuzz_targets");
    let mut names: Vec<String> = fs::read_dir(&files)
        .with_context(|| format!("{} can't be listed", files.display()))?
        .filter_map(|entry| entry.ok()?.path().file_stem()?.to_str().map(str::to_owned))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} holds no fuzz target", files.display());
    }
    Ok(names.into_iter().map(|name| Target { folder: folder.to_path_buf(), name }).collect())
}

fn start(target: &Target, programs: &Path, seconds: u32) -> Result<(String, Child, PathBuf)> {
    let Target { folder, name } = target;
    let program = programs.join(name);
    let corpus = folder.join("corpus").join(name);
    let artifacts = folder.join("artifacts").join(name);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let log_path = artifacts.with_extension("log");
    let log = fs::File::create(&log_path)?;
    say!("    {name}: {seconds} s");
    let mut command = Command::new(&program);
    command.arg(&corpus);
    let seeds = folder.join("seeds").join(name);
    if seeds.is_dir() {
        command.arg(&seeds);
    }
    command
        .arg(format!("-max_total_time={seconds}"))
        .args(["-timeout=10", "-rss_limit_mb=1024", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .stdout(log.try_clone()?)
        .stderr(log);
    let child = command.spawn().with_context(|| format!("{} could not be started", program.display()))?;
    Ok((name.clone(), child, log_path))
}

/// libFuzzer stops by itself; its last lines tell the number of runs, or the crash.
fn finish(name: &str, mut child: Child, log: &Path) -> Result<()> {
    let status = child.wait()?;
    let text = String::from_utf8_lossy(&fs::read(log)?).into_owned();
    if !status.success() {
        let tail: Vec<&str> = text.lines().rev().take(40).collect();
        for line in tail.iter().rev() {
            say!("    {line}");
        }
        bail!("fuzz target {name} ended with {status}; the input is beside {}", log.display());
    }
    let runs = text.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    say!("    {name}: {} runs, no finding", runs.unwrap_or("?").trim());
    Ok(())
}

/// libFuzzer is C++; Debian machines with Rust may lack the compiler for it.
fn ensure_compiler() -> Result<()> {
    let there = || Command::new("c++").arg("--version").output().is_ok_and(|out| out.status.success());
    if there() {
        return Ok(());
    }
    say!("    libFuzzer needs a C++ compiler and this machine has none: installing g++ with apt-get");
    for arguments in [&["update"][..], &["install", "--yes", "--no-install-recommends", "g++"][..]] {
        let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
        if !status.is_ok_and(|status| status.success()) {
            bail!("no C++ compiler, and apt-get could not install one: run `apt-get install g++` as root");
        }
    }
    if there() { Ok(()) } else { bail!("g++ was installed but `c++` does not run") }
}
